//! The policy: what may be done to whom, on which evidence. A [`Policy`] in hand is valid: it is made only by
//! reading one, and reading reports everything that is wrong at once.

mod rule;
mod settings;

use std::time::Duration;

pub use rule::{BanAction, DeleteAction, Require, Rule, Sources, TableThresholds, Thresholds};
pub use settings::{
    Backend, FirewallPolicy, KeepReachable, Limits, NeverBan, ThisHost, Watch, WatchAlert, WidestPrefix,
};

/// A policy that was read whole and found valid.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// `false`: the same decisions, nothing changed. A rule's own `enforce` goes before it.
    pub enforce: bool,
    /// Which alerts are about this host's table.
    pub this_host: ThisHost,
    /// Who is never banned, beside those that the guard spares whatever the policy says; `never_ban_files` included.
    pub never_ban: NeverBan,
    /// How much may be done.
    pub limits: Limits,
    /// How bans reach the kernel.
    pub firewall: FirewallPolicy,
    /// Alerts raised on this host itself, if any.
    pub watch: Option<Watch>,
    /// What must stay reachable while the table is full, if anything.
    pub keep_reachable: Option<KeepReachable>,
    /// Idle this long without a socket makes an entry socketless.
    pub socketless_grace: Duration,
    /// The rules; the first whose matchers hold decides, even if its `require` then fails.
    pub rules: Vec<Rule>,
    /// The first 16 hexadecimal digits of the SHA-256 of all that was read, included files too.
    pub hash: String,
    /// What is valid but will surprise: a sentence each, with file, line and column.
    pub warnings: Vec<String>,
}

impl Policy {
    /// The first rule whose matchers all hold for these labels.
    pub fn rule_for(&self, labels: &std::collections::BTreeMap<String, String>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.matchers.iter().all(|matcher| matcher.matches(labels)))
    }

    /// Whether what this rule decides is done (`true`) or only written down (`false`).
    pub fn enforces(&self, rule: &Rule) -> bool {
        rule.enforce.unwrap_or(self.enforce)
    }
}
