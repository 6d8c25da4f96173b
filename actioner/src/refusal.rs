//! Why something was not done. One word and one sentence each: the word is the label of the counter, the word in the
//! audit line and the answer of `explain`.

use crate::evidence::Shortfall;
use crate::source::SourceError;
use ipnet::IpNet;
use std::net::IpAddr;

/// Why an alert, or a source that an alert nominated, was not acted upon.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The alert is about another table.
    #[error("the alert is about another host's table: {0}")]
    OtherHost(String),
    /// No rule's matchers hold.
    #[error("no rule of the policy matches the alert's labels")]
    NoRule,
    /// The label that should name the source does not.
    #[error("label {label:?}: {source}")]
    NotASource {
        /// The rule's `sources: {{label: …}}`.
        label: String,
        /// What is wrong with its value.
        source: SourceError,
    },
    /// Nothing is known of the source, or of what the rule requires.
    #[error("{0}")]
    EvidenceUnavailable(String),
    /// The live table does not show what the rule requires.
    #[error("the live table shows {what} = {found}, and the rule requires at least {required}")]
    RequireNotMet {
        /// As the policy writes it.
        what: &'static str,
        /// At least this.
        required: f64,
        /// This was found.
        found: f64,
    },
    /// 127.0.0.0/8, ::1.
    #[error("{0} is a loopback address")]
    Loopback(IpNet),
    /// 169.254.0.0/16, fe80::/10.
    #[error("{0} is link-local")]
    LinkLocal(IpNet),
    /// 224.0.0.0/4, ff00::/8.
    #[error("{0} is multicast")]
    Multicast(IpNet),
    /// 0.0.0.0/8, ::.
    #[error("{0} is unspecified")]
    Unspecified(IpNet),
    /// 255.255.255.255, and the broadcast address of a network of this host.
    #[error("{0} is a broadcast address")]
    Broadcast(IpNet),
    /// Delivered to this host.
    #[error("{net} holds {own}, an address of this host")]
    OwnAddress {
        /// What would have been banned.
        net: IpNet,
        /// The own address in it.
        own: IpAddr,
    },
    /// A next hop of this host's routes.
    #[error("{net} holds {gateway}, a gateway of this host")]
    Gateway {
        /// What would have been banned.
        net: IpNet,
        /// The gateway in it.
        gateway: IpAddr,
    },
    /// The policy's `never_ban`.
    #[error("{net} is spared by never_ban: {listed}")]
    NeverBan {
        /// What would have been banned.
        net: IpNet,
        /// What the list says.
        listed: IpNet,
    },
    /// `limits.widest_prefix`.
    #[error("{net} is wider than limits.widest_prefix allows (/{widest})")]
    PrefixTooWide {
        /// What would have been banned.
        net: IpNet,
        /// The shortest prefix allowed.
        widest: u8,
    },
    /// `limits.bans_per_minute` or `bans_per_hour`.
    #[error("the budget of {limit} is used up; it refills by itself")]
    BudgetExhausted {
        /// The limit's name and value.
        limit: String,
    },
    /// `limits.active_bans`.
    #[error("{limit} bans are in force, as many as limits.active_bans allows")]
    TooManyActiveBans {
        /// The limit.
        limit: u32,
    },
}

impl Refusal {
    /// Every word, so that the counter can show its zeros.
    pub const REASONS: [&'static str; 15] = [
        "other_host",
        "no_rule",
        "not_a_source",
        "evidence_unavailable",
        "require_not_met",
        "loopback",
        "link_local",
        "multicast",
        "unspecified",
        "broadcast",
        "own_address",
        "gateway",
        "never_ban",
        "prefix_too_wide",
        "budget_exhausted",
    ];

    /// The word.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::OtherHost(_) => "other_host",
            Refusal::NoRule => "no_rule",
            Refusal::NotASource { .. } => "not_a_source",
            Refusal::EvidenceUnavailable(_) => "evidence_unavailable",
            Refusal::RequireNotMet { .. } => "require_not_met",
            Refusal::Loopback(_) => "loopback",
            Refusal::LinkLocal(_) => "link_local",
            Refusal::Multicast(_) => "multicast",
            Refusal::Unspecified(_) => "unspecified",
            Refusal::Broadcast(_) => "broadcast",
            Refusal::OwnAddress { .. } => "own_address",
            Refusal::Gateway { .. } => "gateway",
            Refusal::NeverBan { .. } => "never_ban",
            Refusal::PrefixTooWide { .. } => "prefix_too_wide",
            Refusal::BudgetExhausted { .. } | Refusal::TooManyActiveBans { .. } => "budget_exhausted",
        }
    }
}

impl From<Shortfall> for Refusal {
    fn from(shortfall: Shortfall) -> Refusal {
        match shortfall {
            Shortfall::Below { what, required, found } => Refusal::RequireNotMet { what, required, found },
            Shortfall::NotMeasured { what } => Refusal::EvidenceUnavailable(format!(
                "the rule requires {what}, which could not be measured (the log says why): nothing is done without evidence"
            )),
        }
    }
}
