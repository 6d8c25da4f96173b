//! The parts of a policy beside its rules.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::rule::{TableThresholds, Thresholds};
use crate::matcher::Matcher;

/// How an alert shows that it is about this host's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThisHost {
    /// Its `table_id` is ours, or without one its `instance` (less port) is an address or name of this host.
    Auto,
    /// All of these hold for its labels; at least one.
    Matchers(Vec<Matcher>),
}

/// The policy's own list of those that are never banned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NeverBan {
    /// `private` stood in the list: RFC 1918, 100.64.0.0/10 (RFC 6598), fc00::/7 (RFC 4193).
    pub private: bool,
    /// Networks from `never_ban` and `never_ban_files`, host bits zero, v4-mapped addresses folded.
    pub networks: Vec<IpNet>,
}

impl NeverBan {
    /// What the word `private` stands for.
    pub const PRIVATE: [IpNet; 5] = [
        IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 8)),
        IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(172, 16, 0, 0), 12)),
        IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(192, 168, 0, 0), 16)),
        IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 64, 0, 0), 10)),
        IpNet::V6(Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7)),
    ];

    /// The first listed network that shares an address with `candidate`: the ban of a prefix that holds, or lies
    /// within, a network of the list is refused.
    pub fn overlap(&self, candidate: &IpNet) -> Option<IpNet> {
        let private = if self.private { &Self::PRIVATE[..] } else { &[] };
        private
            .iter()
            .chain(&self.networks)
            .find(|net| net.contains(candidate) || candidate.contains(*net))
            .copied()
    }
}

/// How much may be done. Exhausted means refused for now, never off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// New bans a minute, at least 1.
    pub bans_per_minute: u32,
    /// New bans an hour, at least 1.
    pub bans_per_hour: u32,
    /// Bans in force at once, at least 1.
    pub active_bans: u32,
    /// The widest prefix that may be banned.
    pub widest_prefix: WidestPrefix,
    /// Entries one action may delete, at least 1; more are clipped, and said so.
    pub deletes_per_action: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bans_per_minute: 10,
            bans_per_hour: 50,
            active_bans: 1000,
            widest_prefix: WidestPrefix { ipv4: 32, ipv6: 64 },
            deletes_per_action: 50_000,
        }
    }
}

/// The widest prefix that may be banned, as a prefix length: a longer prefix is narrower and allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WidestPrefix {
    /// 8 to 32.
    pub ipv4: u8,
    /// 16 to 128.
    pub ipv6: u8,
}

/// How bans reach the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FirewallPolicy {
    /// What speaks to the kernel.
    pub backend: Backend,
    /// The sets' common name: `-4` and `-6` are appended.
    pub set: String,
    /// Whether the drop rule in raw PREROUTING is ours to put in.
    pub manage_rule: bool,
}

impl Default for FirewallPolicy {
    fn default() -> Self {
        Self { backend: Backend::Ipset, set: "conntrack-guard".to_owned(), manage_rule: true }
    }
}

/// What speaks to the kernel's sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Our own netlink client.
    Ipset,
    /// The `ipset` crate over libipset; only in a build with the feature `libipset`.
    Libipset,
}

impl Backend {
    /// The policy's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipset => "ipset",
            Self::Libipset => "libipset",
        }
    }
}

/// Alerts raised on this host, with no Prometheus.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Watch {
    /// How often the cheap look is taken.
    pub interval: Duration,
    /// A dump at least this often, not more often than `interval`.
    pub every: Duration,
    /// What to look for; at least one.
    pub alerts: Vec<WatchAlert>,
}

/// One alert that the watch may raise: once for each source where `source` holds a threshold, else once for the host.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WatchAlert {
    /// Its `alertname`.
    pub alert: String,
    /// What one source must show.
    pub source: Thresholds,
    /// What all sources together must show.
    pub host: Thresholds,
    /// What the table must show.
    pub table: TableThresholds,
    /// Labels to add; never `alertname`, `source`, `instance` or `table_id`, which the watch sets itself.
    pub labels: BTreeMap<String, String>,
}

/// What must stay reachable while the table is full.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepReachable {
    /// TCP ports of this host; at least one.
    pub ports: Vec<u16>,
    /// From where; `private` written out.
    pub from: Vec<IpNet>,
}
