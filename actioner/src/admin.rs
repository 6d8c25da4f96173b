//! What a person orders over the unix socket, and what he is told.

use crate::evidence::{Evidence, TableFill};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// An order by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByHand {
    /// Ban a network.
    Ban {
        /// What.
        net: IpNet,
        /// For how long.
        lasts: Duration,
        /// Why: for the one who reads it later.
        reason: String,
    },
    /// Unban a network; None: everything.
    Unban(Option<IpNet>),
    /// What would be done about a source now, and why.
    Explain(IpAddr),
    /// Do nothing more; None: until somebody resumes.
    Pause(Option<Duration>),
    /// Go on, after a pause, a panic, or an open breaker.
    Resume,
    /// Lift every ban and stay off.
    Panic,
}

impl ByHand {
    /// Whether it must stop effects that are under way, before its turn comes.
    pub fn stops(&self) -> bool {
        matches!(self, ByHand::Pause(_) | ByHand::Panic)
    }
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// It may not be: a sentence.
    Refused(String),
    /// There is no such thing.
    NotFound(String),
    /// The kernel did not do it, or could not be asked.
    Failed(String),
}

/// What became of an order: an object for `--json`, which the program turns into sentences for people.
pub type Answer = Result<Value, Denied>;

/// The body of `POST /api/v1/bans`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanBody {
    /// Address or network.
    pub source: String,
    /// For how long.
    pub for_seconds: u64,
    /// Why.
    pub reason: String,
}

/// The body of `POST /api/v1/pause`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseBody {
    /// None: until somebody resumes.
    pub for_seconds: Option<u64>,
}

/// One ban, as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BanRow {
    /// What is banned.
    pub net: IpNet,
    /// The rule; None for a ban by hand or one found in the kernel.
    pub rule: Option<String>,
    /// `policy`, `hand: NAME`, `adopted`.
    pub by: String,
    /// What the person said.
    pub reason: Option<String>,
    /// The how-manieth offence under the rule.
    pub offence: Option<u32>,
    /// Since when, RFC 3339.
    pub since: String,
    /// Until when; None: for ever.
    pub until: Option<String>,
    /// The same in seconds from now.
    pub remaining_seconds: Option<u64>,
    /// Whether the kernel had it when it was last asked.
    pub in_kernel: bool,
    /// Decided in dry run: nothing is banned.
    pub dry_run: bool,
}

/// What would be done about a source now.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// The address that was asked about.
    pub source: IpAddr,
    /// Bans that hold it.
    pub bans: Vec<BanRow>,
    /// Who unbanned it by hand, while that holds.
    pub grace: Option<String>,
    /// What the live table shows of it; None: it could not be counted.
    pub evidence: Option<Evidence>,
    /// The table as a whole.
    pub table: TableFill,
    /// What each rule that names sources would do if an alert named this one.
    pub rules: Vec<ExplainedRule>,
}

/// What one rule would do.
#[derive(Debug, Serialize)]
pub struct ExplainedRule {
    /// Its name.
    pub rule: String,
    /// Whether it is carried out.
    pub enforce: bool,
    /// The audit log's word.
    pub verdict: &'static str,
    /// The counter's word, of a refusal.
    pub reason: Option<&'static str>,
    /// The refusal as a sentence.
    pub why: Option<String>,
    /// All of it as a sentence.
    pub would: String,
}
