//! Why something was not done. One word and one sentence each: the word is the label of the counter, the word in the
//! audit line and the answer of `explain`.

use crate::evidence::Shortfall;
use crate::source::SourceError;
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

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
    /// No entry of the whole table is without a socket.
    #[error("no dead slots left: every entry that could be judged has a socket")]
    NothingDead,
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
    /// A name server that this host asks.
    #[error("{net} holds {resolver}, a name server of this host (resolv.conf)")]
    Resolver {
        /// What would have been banned.
        net: IpNet,
        /// The name server in it.
        resolver: IpAddr,
    },
    /// The peer of a remote session that passed authentication.
    #[error("{net} holds {peer}, from where somebody is, or was within a day, logged in (logind, utmp)")]
    SshSession {
        /// What would have been banned.
        net: IpNet,
        /// The peer in it.
        peer: IpAddr,
    },
    /// A peer whose webhook passed authentication.
    #[error("{net} holds {peer}, whose webhook passed authentication within a day")]
    WebhookPeer {
        /// What would have been banned.
        net: IpNet,
        /// The peer in it.
        peer: IpAddr,
    },
    /// This host called it: an assured entry, or a socket, leads there.
    #[error("{net} holds {peer}, which this host itself called ({how}): a ban would cut its answers off")]
    Outbound {
        /// What would have been banned.
        net: IpNet,
        /// The peer in it.
        peer: IpAddr,
        /// How that is known.
        how: &'static str,
    },
    /// Whether this host called anybody in it cannot be told.
    #[error(
        "this host calls more addresses than are kept, so whether {0} holds one cannot be told: ban single addresses"
    )]
    OutboundUnknown(IpNet),
    /// Somebody forges sources, and what the rule requires could be his work.
    #[error(
        "{sources} sources hold entries of which {unreplied_percent} % never got a reply: addresses are being forged, and what the rule requires could be \
         forged as well (a rule that requires source.socketless goes on, unless nf_conntrack_tcp_be_liberal is 1)"
    )]
    SpoofedFlood {
        /// Distinct remote sources.
        sources: u64,
        /// Of a hundred entries.
        unreplied_percent: u64,
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
    /// A person unbanned it, and knows more than we do.
    #[error("{by} unbanned {net} by hand: no rule bans it for another {}", humantime::format_duration(*left))]
    UnbannedByHand {
        /// What was unbanned.
        net: IpNet,
        /// Who did it.
        by: String,
        /// How long that holds.
        left: Duration,
    },
    /// Bans that do not help are stopped.
    #[error(
        "the breaker is open: {bans} bans did not lower the pressure (the banned held {before} entries before, and {after} a minute later); \
         it closes after an hour, or by `conntrack-actioner resume`"
    )]
    BreakerOpen {
        /// So many bans.
        bans: u64,
        /// Entries that the banned held before.
        before: u64,
        /// And when they had had their time.
        after: u64,
    },
    /// `conntrack-actioner pause`.
    #[error("{by} paused all actions; `conntrack-actioner resume` ends that")]
    Paused {
        /// Who did it.
        by: String,
    },
    /// `conntrack-actioner panic`.
    #[error("{by} panicked: all bans were lifted and nothing is done until `conntrack-actioner resume`")]
    Panicked {
        /// Who did it.
        by: String,
    },
}

impl Refusal {
    /// Every word, so that the counter can show its zeros.
    pub const REASONS: [&'static str; 24] = [
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
        "resolver",
        "ssh_session",
        "webhook_peer",
        "outbound",
        "never_ban",
        "spoofed_flood",
        "prefix_too_wide",
        "budget_exhausted",
        "unbanned_by_hand",
        "breaker_open",
        "paused",
        "panicked",
    ];

    /// The word.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::OtherHost(_) => "other_host",
            Refusal::NoRule => "no_rule",
            Refusal::NotASource { .. } => "not_a_source",
            Refusal::EvidenceUnavailable(_) => "evidence_unavailable",
            Refusal::RequireNotMet { .. } | Refusal::NothingDead => "require_not_met",
            Refusal::Loopback(_) => "loopback",
            Refusal::LinkLocal(_) => "link_local",
            Refusal::Multicast(_) => "multicast",
            Refusal::Unspecified(_) => "unspecified",
            Refusal::Broadcast(_) => "broadcast",
            Refusal::OwnAddress { .. } => "own_address",
            Refusal::Gateway { .. } => "gateway",
            Refusal::Resolver { .. } => "resolver",
            Refusal::SshSession { .. } => "ssh_session",
            Refusal::WebhookPeer { .. } => "webhook_peer",
            Refusal::Outbound { .. } | Refusal::OutboundUnknown(_) => "outbound",
            Refusal::SpoofedFlood { .. } => "spoofed_flood",
            Refusal::NeverBan { .. } => "never_ban",
            Refusal::PrefixTooWide { .. } => "prefix_too_wide",
            Refusal::BudgetExhausted { .. } | Refusal::TooManyActiveBans { .. } => "budget_exhausted",
            Refusal::UnbannedByHand { .. } => "unbanned_by_hand",
            Refusal::BreakerOpen { .. } => "breaker_open",
            Refusal::Paused { .. } => "paused",
            Refusal::Panicked { .. } => "panicked",
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
