//! Where bans live in the kernel: two `hash:net` sets (IPv4, IPv6) and one drop rule for each in raw
//! PREROUTING, before conntrack sees the packet (+256 ns a packet and no entry made; in filter INPUT it is
//! +1703 ns and conntrack has already worked for the attacker).
//!
//! A ban's end is the kernel's own element timeout, so a dead daemon never leaves an eternal ban.

mod attribute;
mod batch;
mod client;
mod error;
#[cfg(feature = "libipset")]
mod libipset;
mod plan;
mod reply;
mod rule;
#[cfg(feature = "libipset")]
mod saved;
mod sets;
mod standing;
pub(crate) mod tool;
mod wire;

use std::time::Duration;

pub use client::Client;
pub use error::{BanError, FirewallError, KernelError};
use ipnet::IpNet;
#[cfg(feature = "libipset")]
pub use libipset::{LibIpset, Library};
pub use sets::{Ipset, SetFirewall};
pub(crate) use standing::Generation;

/// Reads what nobody should have sent as an answer of the kernel: for [`crate::hostile`].
pub(crate) fn read_hostile(bytes: &[u8]) {
    let Ok((header, held, end)) = reply::everything(bytes) else { return };
    // A listed name stands in messages.
    assert!(header.is_none_or(|header| header.type_name.len() < bytes.len().max(1) * 3));
    for held in held {
        assert!(held.net.prefix_len() <= held.net.max_prefix_len());
        assert!(held.remaining().is_none_or(|left| !left.is_zero()));
    }
    if let Some(reply::End::Refused { error, line }) = end {
        assert!(line != Some(0) && !error.to_string().is_empty());
    }
}

/// The longest timeout a set element can have, in seconds: 24.8 days. The kernel clamps what is longer
/// without a word (`IPSET_MAX_TIMEOUT`, linux/netfilter/ipset/ip_set_timeout.h, counts milliseconds in 31 bits).
pub const LONGEST_BAN: Duration = Duration::from_secs(2_147_482);

/// Where bans live in the kernel. Two implementations: `Ipset` (our own netlink client) and `LibIpset`
/// (cargo feature `libipset`). Works in the network namespace of the thread that opened it, and must be
/// called from there: the drop rule is made by a child process, which inherits the caller's.
pub trait Firewall: Send {
    /// Sets and drop rules exist and are ours, in place before conntrack. Idempotent. Says what it had to
    /// make or mend, so that the caller can call drift drift.
    ///
    /// # Errors
    /// IPv4 cannot be put in place. What fails for IPv6 stands in [`Ensured::ipv6`]: IPv4 works without it.
    fn ensure(&mut self) -> Result<Ensured, FirewallError>;

    /// Bans, in batches; one outcome a ban, in the same order. Never shortens: the longer of what the
    /// kernel has left and what is asked is what stands. An element reported `Ok` was read back from the set.
    ///
    /// # Errors
    /// The kernel could not be asked at all; then nothing is known about any of them. Safe to repeat.
    fn ban(&mut self, bans: &[Ban]) -> Result<Vec<Result<Enforced, BanError>>, FirewallError>;

    /// Takes exactly these prefixes out of the sets and says how many of them were in. An address inside
    /// a banned prefix is not an element of its own: its prefix stays.
    ///
    /// # Errors
    /// The kernel refused; some may have been taken out. Safe to repeat.
    fn unban(&mut self, nets: &[IpNet]) -> Result<usize, FirewallError>;

    /// What the sets of both families hold now, in no order. A set that is absent holds nothing. Exceptions that somebody
    /// added by hand (`nomatch`) are no bans and are left out.
    ///
    /// # Errors
    /// The kernel could not be asked, or answered something that cannot be read.
    fn list(&mut self) -> Result<Vec<Element>, FirewallError>;

    /// Removes our drop rules and then our sets, with the bans in them, and nothing else. Absent is fine.
    ///
    /// # Errors
    /// A rule that is not ours still refers to a set, or a tool failed. What could be removed was.
    fn teardown(&mut self) -> Result<TornDown, FirewallError>;
}

/// A source to be banned, and for how long from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Host (/32, /128) or prefix. Host bits are ignored.
    pub net: IpNet,
    /// More than zero, at most [`LONGEST_BAN`]; the kernel takes whole seconds and gets the next whole one.
    pub timeout: Duration,
}

impl Ban {
    /// What is written to the kernel: whole seconds, rounded up, for 0 would be *permanent*.
    ///
    /// # Errors
    /// Zero, and what the kernel would clamp.
    pub fn seconds(&self) -> Result<u32, BanError> {
        if self.timeout.is_zero() || self.timeout > LONGEST_BAN {
            return Err(BanError::Timeout { timeout: self.timeout });
        }
        let whole = self.timeout.as_secs() + u64::from(self.timeout.subsec_nanos() > 0);
        u32::try_from(whole).map_err(|_| BanError::Timeout { timeout: self.timeout })
    }
}

/// A ban that stands: the element was read back from the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// What the kernel has left, in whole seconds. `None`: permanent, which is somebody else's doing.
    pub remaining: Option<Duration>,
    /// What had to be written for it.
    pub change: Change,
}

/// What a ban changed in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The element was not there.
    Added,
    /// It was there with less time.
    Extended,
    /// It was there for at least as long, or for ever.
    Kept,
}

/// An element of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// The banned prefix; hosts are /32 and /128.
    pub net: IpNet,
    /// What the kernel has left, in whole seconds. `None`: permanent (someone else's doing).
    pub remaining: Option<Duration>,
}

/// How the firewall is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `conntrack-guard` makes the sets `conntrack-guard-4` and `conntrack-guard-6`. At most 29 of `A-Za-z0-9_.-`.
    pub set: String,
    /// Room in each set, in elements. More bans than that fail.
    pub max_elements: u32,
    /// Whether the drop rules are ours to keep. `false`: rules are never touched.
    pub manage_rule: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config { set: "conntrack-guard".to_owned(), max_elements: 65_536, manage_rule: true }
    }
}

/// The address family of a set and of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4, `inet`.
    Ipv4,
    /// IPv6, `inet6`.
    Ipv6,
}

impl Family {
    /// The family of a prefix.
    pub fn of(net: &IpNet) -> Family {
        match net {
            IpNet::V4(_) => Family::Ipv4,
            IpNet::V6(_) => Family::Ipv6,
        }
    }
}

/// What [`Firewall::ensure`] found and did.
#[derive(Debug)]
pub struct Ensured {
    /// IPv4.
    pub ipv4: EnsuredFamily,
    /// IPv6; an error here leaves IPv4 in force.
    pub ipv6: Result<EnsuredFamily, FirewallError>,
}

impl Ensured {
    /// Whether everything stood as it should, and nothing had to be made or mended.
    pub fn unchanged(&self) -> bool {
        [Some(&self.ipv4), self.ipv6.as_ref().ok()]
            .into_iter()
            .flatten()
            .all(|family| !family.set_created && !matches!(family.rule, Rule::Inserted | Rule::Mended { .. }))
    }
}

/// What [`Firewall::ensure`] found and did for one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnsuredFamily {
    /// The set was not there. At a start that is normal, later it is drift: all its bans are gone.
    pub set_created: bool,
    /// The room the kernel says the set has: not the configured one when the set was there before.
    pub max_elements: u32,
    /// The drop rule.
    pub rule: Rule,
}

/// What [`Firewall::ensure`] found and did about a drop rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// There, once, first in raw PREROUTING.
    InPlace,
    /// Was missing.
    Inserted,
    /// Was there, but not first, or more than once.
    Mended {
        /// Where the first of them stood, from 1.
        position: usize,
        /// How many of them there were.
        copies: usize,
    },
    /// `manage_rule` is off, and some rule or list refers to the set.
    Foreign,
    /// `manage_rule` is off, and no rule refers to the set: **nothing drops**.
    Missing,
}

/// What [`Firewall::teardown`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TornDown {
    /// Drop rules, both families together.
    pub rules: usize,
    /// Names of the sets.
    pub sets: Vec<String>,
}
