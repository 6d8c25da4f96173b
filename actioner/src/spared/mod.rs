//! Whom this host needs or knows, and so never bans: each its own file, each with the reason that `explain` shows.
//!
//! What an attacker could arrange by himself is none of these: a connection alone, a scrape, a webhook without a password.

mod called;
mod flood;
mod remembered;
mod resolvers;
mod sessions;

pub(crate) use called::Collector;
pub use called::{Called, called_by};
pub use flood::Flood;
pub use remembered::{Memory, Remembered, Why};
pub use resolvers::nameservers;
pub use sessions::{Logins, remote_host, remote_logins};

use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Addresses that are spared beside this host's own and its gateways.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spared {
    /// Name servers that this host asks.
    pub resolvers: BTreeSet<IpAddr>,
    /// Peers of authenticated remote sessions, now or in the last day.
    pub sessions: BTreeSet<IpAddr>,
    /// Peers whose webhook passed authentication in the last day.
    pub webhook_peers: BTreeSet<IpAddr>,
    /// Peers that this host itself called, as the last survey saw it.
    pub called: Arc<Called>,
}

/// Where the system keeps what is read here.
#[derive(Debug, Clone)]
pub struct Files {
    /// `resolv.conf`s; those that do not exist name nobody.
    pub resolvers: Vec<PathBuf>,
    /// logind's directory, a file a session.
    pub sessions: PathBuf,
    /// Who is logged in, for hosts without logind.
    pub utmp: PathBuf,
}

impl Default for Files {
    fn default() -> Files {
        // systemd-resolved's stub in /etc/resolv.conf is loopback; whom it asks stands in its own file.
        let resolvers = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
        Files {
            resolvers: resolvers.map(PathBuf::from).to_vec(),
            sessions: "/run/systemd/sessions".into(),
            utmp: "/run/utmp".into(),
        }
    }
}

impl Files {
    /// The name servers that this host asks now. Files that cannot be read go into `troubles`, a sentence each.
    pub fn resolvers(&self, troubles: &mut Vec<String>) -> BTreeSet<IpAddr> {
        let texts = self.resolvers.iter().filter_map(|path| present(path, std::fs::read(path), troubles));
        texts.flat_map(|text| nameservers(&String::from_utf8_lossy(&text))).collect()
    }

    /// The peers of remote sessions that are open now. What cannot be read goes into `troubles`, a sentence each.
    pub fn sessions(&self, troubles: &mut Vec<String>) -> BTreeSet<IpAddr> {
        let mut peers = sessions::of_logind(&self.sessions, troubles);
        if let Some(records) = present(&self.utmp, std::fs::read(&self.utmp), troubles) {
            let logins = remote_logins(&records, sessions::lives);
            // Without the number, so that it is said once and not whenever a session comes or goes.
            if logins.without_address > 0 {
                let file = self.utmp.display();
                troubles.push(format!("{file}: a remote session has no address but what any user can write there (ut_host): it is not spared"));
            }
            peers.extend(logins.peers);
        }
        peers
    }
}

/// The first of `addresses` in `net`.
pub(crate) fn first_in(addresses: &BTreeSet<IpAddr>, net: &IpNet) -> Option<IpAddr> {
    addresses.range(net.network()..=net.broadcast()).next().copied()
}

/// A file that does not exist says nothing; any other trouble is said.
fn present<T>(path: &Path, read: std::io::Result<T>, troubles: &mut Vec<String>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            troubles.push(format!("{}: {error}: whom it names cannot be spared", path.display()));
            None
        }
    }
}

/// An address as people and programs write it: with or without the scope id of a link-local one. Names are not looked up:
/// whoever owns a reverse zone says what he likes in it.
fn address(text: &str) -> Option<IpAddr> {
    let plain = match text.split_once('%') {
        Some((address, _scope)) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    plain.map(|address: IpAddr| address.to_canonical())
}
