//! The policy: what may be done to whom, on which evidence. A [`Policy`] in hand is valid: it is made only by
//! reading one, and reading reports everything that is wrong at once.

mod fields;
mod files;
mod network;
mod not_yet;
mod problem;
mod read;
mod rule;
mod settings;
mod tree;
mod value;

use crate::firewall::Config;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use problem::{PolicyErrors, Problem};
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
    /// Where the files are that it names, found or not: what a confined program must be able to read.
    pub directories: Vec<PathBuf>,
}

impl Policy {
    /// Reads the policy in this file; relative patterns in it start at its directory. Touches no socket and writes
    /// nothing.
    ///
    /// # Errors
    /// [`PolicyErrors`]: everything that is wrong, in the file and in those it names.
    pub fn load(path: &Path) -> Result<Self, PolicyErrors> {
        let file = path.display().to_string();
        let text = files::read(path, files::MAX_POLICY)
            .map_err(|error| PolicyErrors::whole(&file, &format!("the policy {error}")))?;
        read::policy(&file, &text, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a policy from its text; relative patterns in it start at `base`. In messages it is called `policy.yaml`.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn parse(text: &str, base: &Path) -> Result<Self, PolicyErrors> {
        read::policy("policy.yaml", text, base)
    }

    /// The first rule whose matchers all hold for these labels.
    pub fn rule_for(&self, labels: &BTreeMap<String, String>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.matchers.iter().all(|matcher| matcher.matches(labels)))
    }

    /// Whether what this rule decides is done (`true`) or only written down (`false`).
    pub fn enforces(&self, rule: &Rule) -> bool {
        rule.enforce.unwrap_or(self.enforce)
    }

    /// Whether anything in it needs to know which entries have no socket: reading the sockets has its price.
    pub fn asks_for_sockets(&self) -> bool {
        let rules = self.rules.iter();
        let alerts = self.watch.iter().flat_map(|watch| &watch.alerts);
        rules.clone().any(|rule| {
            rule.require.source.socketless.is_some() || rule.delete == Some(DeleteAction::Socketless)
        }) || alerts.clone().any(|alert| alert.source.socketless.or(alert.host.socketless).is_some())
    }

    /// Whether any rule deletes all entries of those it bans: then a dump's keys are worth keeping.
    pub fn deletes_all_of_a_source(&self) -> bool {
        self.rules.iter().any(|rule| self.enforces(rule) && rule.delete == Some(DeleteAction::All))
    }

    /// What the firewall is told: whoever makes a set first decides how much it holds, so all ask here.
    pub fn firewall_config(&self) -> Config {
        Config {
            set: self.firewall.set.clone(),
            max_elements: self.limits.active_bans.max(Config::default().max_elements),
            manage_rule: self.firewall.manage_rule,
        }
    }

    /// Whether any rule's decisions are done.
    pub fn enforces_anything(&self) -> bool {
        self.rules.iter().any(|rule| self.enforces(rule))
    }
}
