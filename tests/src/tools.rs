//! The programs outside the workspace that a test may need.

use std::env;

use crate::{Failure, Result};

/// A program of Debian that the laboratory calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The table as its own authors print it.
    Conntrack,
    /// The sets that hold bans.
    Ipset,
    /// The drop rule, IPv4 and IPv6.
    Iptables,
    /// The attacker's own firewall, and the rule that turns connection tracking on.
    Nft,
    /// Links, addresses and routes.
    Ip,
    /// Sockets.
    Ss,
    /// Ties a child's life to its parent's, and takes capabilities away.
    Setpriv,
    /// Sets `TCP_DEFER_ACCEPT`, for which no crate has a safe call (perl-base is essential in Debian).
    Perl,
    /// Loads a file of sysctls, as a boot does.
    Sysctl,
    /// Gives one program a wall clock of its own.
    Faketime,
    /// Lets system calls of a running program fail.
    Strace,
}

impl Tool {
    /// Every tool.
    pub const ALL: [Self; 11] = [
        Self::Conntrack,
        Self::Ipset,
        Self::Iptables,
        Self::Nft,
        Self::Ip,
        Self::Ss,
        Self::Setpriv,
        Self::Perl,
        Self::Sysctl,
        Self::Faketime,
        Self::Strace,
    ];

    /// The program's name and Debian's package that has it.
    pub fn program_and_package(self) -> (&'static str, &'static str) {
        match self {
            Self::Conntrack => ("conntrack", "conntrack"),
            Self::Ipset => ("ipset", "ipset"),
            Self::Iptables => ("iptables", "iptables"),
            Self::Nft => ("nft", "nftables"),
            Self::Ip => ("ip", "iproute2"),
            Self::Ss => ("ss", "iproute2"),
            Self::Setpriv => ("setpriv", "util-linux"),
            Self::Perl => ("perl", "perl-base"),
            Self::Sysctl => ("sysctl", "procps"),
            Self::Faketime => ("faketime", "faketime"),
            Self::Strace => ("strace", "strace"),
        }
    }

    fn installed(self) -> bool {
        let (program, _) = self.program_and_package();
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|directory| directory.join(program).is_file())
    }
}

/// Fails unless all of `tools` are installed.
///
/// # Errors
/// [`Failure::ToolMissing`], naming the package.
pub fn require(tools: &[Tool]) -> Result<()> {
    match tools.iter().find(|tool| !tool.installed()) {
        None => Ok(()),
        Some(tool) => {
            let (program, package) = tool.program_and_package();
            Err(Failure::ToolMissing { program, package })
        }
    }
}
