//! What goes wrong with the firewall, said to the one who reads it at 2 a.m.

use std::{fmt, io, time::Duration};

use ipnet::IpNet;

use super::LONGEST_BAN;

/// The firewall as a whole could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The name makes no set.
    #[error(
        "firewall.set {set:?}: use 1 to 29 of the characters A-Z a-z 0-9 _ . - (the kernel's limit is 31 with our -4 and -6)"
    )]
    SetName {
        /// As configured.
        set: String,
    },
    /// No room for anything.
    #[error("firewall: max_elements is 0, so that every ban would fail; 65536 is usual")]
    NoRoom,
    /// The netlink socket failed, or what came out of it cannot be read.
    #[error("ipset {command} {set}: {source}")]
    Link {
        /// The `ipset` command of the same meaning.
        command: &'static str,
        /// The set it was about.
        set: String,
        /// What the socket says.
        source: conntrack::Error,
    },
    /// The kernel said no to a command.
    #[error("ipset {command} {set}: {error}")]
    Kernel {
        /// The `ipset` command of the same meaning.
        command: &'static str,
        /// The set it was about.
        set: String,
        /// The kernel's code.
        error: KernelError,
    },
    /// A set of our name is not like ours.
    #[error(
        "set {set} exists as {found}, and ours is {wanted}: look at `ipset list {set}`, then remove it with `ipset destroy {set}` or `conntrack-actioner teardown`, or choose another name in firewall.set"
    )]
    OtherKind {
        /// The set.
        set: String,
        /// What is there.
        found: String,
        /// What it would have to be.
        wanted: String,
    },
    /// The set cannot be destroyed.
    #[error(
        "set {set} is still in use by a rule or list that is not ours: find it with `iptables-save | grep {set}`, `ip6tables-save | grep {set}`, `nft list ruleset | grep {set}` or `ipset list`, remove it, and try again"
    )]
    InUse {
        /// The set.
        set: String,
    },
    /// A program we need is not installed.
    #[error("{program} is not installed: apt-get install iptables")]
    ToolMissing {
        /// Its name.
        program: &'static str,
    },
    /// A program we need could not be run, or said no.
    #[error("`{command}` failed: {reason}")]
    Tool {
        /// The command line.
        command: String,
        /// Its stderr, or why it did not start.
        reason: String,
    },
    /// The drop rule would not stay.
    #[error(
        "drop rule for set {set}: still not alone and first in raw PREROUTING after {tries} tries: is another program rewriting the raw table? See `iptables -t raw -S PREROUTING`"
    )]
    RuleContested {
        /// The set.
        set: String,
        /// How often it was written.
        tries: usize,
    },
    /// The `libipset` thread said no or is gone.
    #[error("libipset {command} {set}: {reason}")]
    Library {
        /// The command.
        command: &'static str,
        /// The set it was about.
        set: String,
        /// The library's message.
        reason: String,
    },
}

/// One ban is not in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BanError {
    /// Not a time the kernel can keep.
    #[error("a ban of {timeout:?}: the kernel keeps more than 0 s and at most {} s (0 would be for ever, and what is longer is cut silently)", LONGEST_BAN.as_secs())]
    Timeout {
        /// As asked.
        timeout: Duration,
    },
    /// The whole family.
    #[error("{net} is every address there is, which a hash:net set cannot hold")]
    Everything {
        /// As asked.
        net: IpNet,
    },
    /// An IPv4 address in IPv6 clothes: no packet on the wire has that source.
    #[error("{net} is an IPv4-mapped address, which no IPv6 packet carries: ban the IPv4 address instead")]
    Mapped {
        /// As asked.
        net: IpNet,
    },
    /// No room.
    #[error(
        "set {set} is full: {net} is not banned. Raise max_elements (then `conntrack-actioner teardown` and a restart, for the kernel cannot grow a set), or unban something"
    )]
    SetFull {
        /// The set.
        set: String,
        /// As asked.
        net: IpNet,
    },
    /// The set is gone.
    #[error("set {set} does not exist: {net} is not banned")]
    SetMissing {
        /// The set.
        set: String,
        /// As asked.
        net: IpNet,
    },
    /// Somebody lets it through on purpose.
    #[error(
        "{net} is in set {set} as an exception (nomatch), which somebody added by hand: `ipset del {set} {net}` removes it"
    )]
    Excepted {
        /// The set.
        set: String,
        /// As asked.
        net: IpNet,
    },
    /// The kernel accepted it, and it is not there.
    #[error(
        "{net} was accepted by the kernel but is not in set {set} when read back: does another program change the set?"
    )]
    NotThere {
        /// The set.
        set: String,
        /// As asked.
        net: IpNet,
    },
    /// The kernel took it, and it ends too early.
    #[error(
        "{net} in set {set} ends in {remaining:?}, earlier than what was written: does another program change the set?"
    )]
    Shortened {
        /// The set.
        set: String,
        /// As asked.
        net: IpNet,
        /// As read back.
        remaining: Duration,
    },
    /// The kernel said no.
    #[error("{net} is not banned: set {set}: {error}")]
    Kernel {
        /// The set.
        set: String,
        /// As asked.
        net: IpNet,
        /// The kernel's code.
        error: KernelError,
    },
    /// The library said no.
    #[error("{net} is not banned: set {set}: libipset: {reason}")]
    Library {
        /// The set.
        set: String,
        /// As asked.
        net: IpNet,
        /// The library's message.
        reason: String,
    },
}

/// A negative answer of ipset's kernel side (`enum ipset_errno`, linux/netfilter/ipset/ip_set.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's names; the words stand in Display")]
pub enum KernelError {
    Protocol,
    FindType,
    MaxSets,
    Busy,
    TypeMismatch,
    Exist,
    InvalidCidr,
    InvalidFamily,
    NoTimeout,
    Referenced,
    HashFull,
    /// A code of ipset's own that we never provoke.
    Other(i32),
    /// An errno.
    System(i32),
}

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;

impl KernelError {
    /// Of a command about a set: there is no such set.
    pub(super) const NO_SUCH_SET: KernelError = KernelError::System(ENOENT);
    /// Of the creation of a set: there is one of that name.
    pub(super) const EXISTS: KernelError = KernelError::System(EEXIST);

    /// From the positive code of a netlink error.
    pub fn from_code(code: i32) -> Self {
        match code {
            4097 => Self::Protocol,
            4098 => Self::FindType,
            4099 => Self::MaxSets,
            4100 => Self::Busy,
            4102 => Self::TypeMismatch,
            4103 => Self::Exist,
            4104 => Self::InvalidCidr,
            4106 => Self::InvalidFamily,
            4107 => Self::NoTimeout,
            4108 => Self::Referenced,
            4352 => Self::HashFull,
            4096.. => Self::Other(code),
            _ => Self::System(code),
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protocol => "the kernel did not understand our message (IPSET_ERR_PROTOCOL)",
            Self::FindType => "this kernel has no hash:net sets: `modprobe ip_set_hash_net`, or a kernel with CONFIG_IP_SET_HASH_NET (in a container: on its host)",
            Self::MaxSets => "the kernel holds as many sets as it can (ip_set.max_sets)",
            Self::Busy => "the set is in use by a rule or a list",
            Self::TypeMismatch => "there is a set of that name, of another type",
            Self::Exist => "it exists already, or was not there to be deleted",
            Self::InvalidCidr => "a prefix length that the set cannot hold",
            Self::InvalidFamily => "this kernel has no sets for that address family",
            Self::NoTimeout => "the set was made without timeouts",
            Self::Referenced => "the set is in use by a rule or a list",
            Self::HashFull => "the set is full",
            Self::Other(code) => return write!(f, "ipset's error {code}"),
            Self::System(EPERM) => "not permitted: CAP_NET_ADMIN is needed (run as root, or AmbientCapabilities=CAP_NET_ADMIN in the unit)",
            Self::System(EINVAL) => "invalid argument, which is what a kernel without ipset answers: `modprobe -a ip_set ip_set_hash_net xt_set`, or a kernel with CONFIG_IP_SET, CONFIG_IP_SET_HASH_NET and CONFIG_NETFILTER_XT_SET (in a container: on its host)",
            Self::System(code) => return write!(f, "{}", io::Error::from_raw_os_error(*code)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ipset_is_told_what_it_lacks() {
        let said = |code| {
            let error = KernelError::from_code(code);
            FirewallError::Kernel { command: "list", set: "conntrack-guard-4".to_owned(), error }.to_string()
        };
        for (code, words) in [
            // ip_set is not there; ip_set is, and hash:net is not (IPSET_ERR_FIND_TYPE).
            (
                EINVAL,
                &["modprobe -a ip_set ip_set_hash_net xt_set", "CONFIG_IP_SET,", "CONFIG_IP_SET_HASH_NET"],
            ),
            (4098, &["no hash:net sets", "modprobe ip_set_hash_net", "CONFIG_IP_SET_HASH_NET"]),
        ] {
            let said = said(code);
            assert!(said.starts_with("ipset list conntrack-guard-4: "), "{said}");
            words.iter().for_each(|word| assert!(said.contains(word), "no {word:?} in: {said}"));
        }
    }
}
