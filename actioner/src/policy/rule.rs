//! What a rule is: whom it matches, what the live table must show, what is then done.

use std::time::Duration;

use crate::matcher::Matcher;

/// One rule. Its parts fit each other: `ban` stands only beside a threshold in `require.source` that can justify
/// one, `delete: all` only beside a ban, `Sources::All` only beside `delete: socketless` and no ban.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// Unique in its policy; letters, digits, `_` and `-`: it is the value of a metric's label.
    pub name: String,
    /// The rule's own `enforce`, if it has one: see [`super::Policy::enforces`].
    pub enforce: Option<bool>,
    /// At least one; all must hold.
    pub matchers: Vec<Matcher>,
    /// Whom a matching alert nominates.
    pub sources: Sources,
    /// What the live table must show.
    pub require: Require,
    /// Ban the source, if present.
    pub ban: Option<BanAction>,
    /// Delete entries, if present.
    pub delete: Option<DeleteAction>,
}

/// Whom an alert nominates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sources {
    /// The address in this label of the alert.
    Label(String),
    /// So many of the live table's largest sources, by what the rule requires of a source; at least 1.
    Top(u32),
    /// Every source: only for `delete: socketless`.
    All,
}

/// What must hold on the live table: each threshold that is present, "at least".
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Require {
    /// Of the source itself.
    pub source: Thresholds,
    /// Of the table as a whole.
    pub table: TableThresholds,
}

/// Entries counted one way or another, each "at least" and at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Thresholds {
    /// All entries.
    pub entries: Option<u64>,
    /// Entries with IPS_ASSURED.
    pub assured: Option<u64>,
    /// TCP entries in syn_sent, syn_sent2, syn_recv. They prove nothing about a source (it may be forged) and
    /// never justify a ban alone.
    pub half_open: Option<u64>,
    /// Entries of an established connection that no socket of this host stands behind.
    pub socketless: Option<u64>,
}

impl Thresholds {
    /// Whether no threshold is present.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a threshold is present that can justify a ban: any but `half_open`.
    pub fn justify_a_ban(&self) -> bool {
        self.entries.is_some() || self.assured.is_some() || self.socketless.is_some()
    }
}

/// What the table as a whole must show, each "at least".
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TableThresholds {
    /// Entries as per cent of the limit, above 0 and at most 100.
    pub fill_percent: Option<f64>,
    /// Entries.
    pub entries: Option<u64>,
}

impl TableThresholds {
    /// Whether no threshold is present.
    pub fn is_empty(&self) -> bool {
        self.fill_percent.is_none() && self.entries.is_none()
    }
}

/// A ban: `for`, then `for × factor` for the next offence, and so on up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BanAction {
    /// How long the first ban lasts: 1 s at least, `max` at most.
    pub for_: Duration,
    /// By how much each further offence multiplies it, at least 1.
    pub factor: u32,
    /// The longest ban, at most [`BanAction::LONGEST`].
    pub max: Duration,
    /// How many leading bits of an IPv4 source are banned, not wider than `limits.widest_prefix`.
    pub ipv4_prefix: u8,
    /// The same for IPv6.
    pub ipv6_prefix: u8,
}

impl BanAction {
    /// Above this many seconds ipset clamps a timeout without a word (DOMAIN.md, 4).
    pub const LONGEST: Duration = Duration::from_secs(2_147_482);
}

/// Which entries are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteAction {
    /// Every entry with the source at either end: only beside a ban, or living connections break for nothing.
    All,
    /// Only entries that no socket stands behind.
    Socketless,
}
