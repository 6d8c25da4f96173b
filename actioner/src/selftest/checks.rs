//! What is proven, one effect at a time.

use super::Check;
use super::scratch::{self, entries, entries_of, entry, open, peer};
use crate::firewall::{Ban, Config, Firewall, Ipset};
use crate::policy::KeepReachable;
use crate::reach::Reach;
use crate::removal;
use crate::survey::{self, Ask};
use conntrack::own::OwnAddresses;
use conntrack::socketless::Judging;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

const SET: &str = "guard-selftest";
/// Seconds left of nf_conntrack_tcp_timeout_established's 432,000: idle for hours.
const IDLE: u32 = 400_000;
const GRACE: Duration = Duration::from_secs(5);

const FIREWALL: &str = "apt-get install iptables; modprobe ip_set_hash_net xt_set (CONFIG_IP_SET_HASH_NET, CONFIG_NETFILTER_XT_SET)";
const TABLE: &str = "modprobe nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)";
const SOCKETS: &str =
    "modprobe tcp_diag (CONFIG_INET_TCP_DIAG); to destroy sockets, a kernel with CONFIG_INET_DIAG_DESTROY";
const NOTRACK: &str = "modprobe xt_CT xt_multiport xt_addrtype xt_conntrack (CONFIG_NETFILTER_XT_TARGET_CT and the matches); only keep_reachable needs it";

/// All of them, in the calling thread's namespace, which is empty.
pub(super) fn all() -> Vec<Check> {
    let scene = scratch::loopback_up().map_err(|error| error.to_string()).and_then(|()| Scene::new());
    match scene {
        Ok(scene) => vec![
            // The first that asks for the state of a connection, which turns tracking on.
            Check::of("notrack", scene.notrack(), NOTRACK),
            Check::of("delete", scene.delete(), TABLE),
            Check::of("sockets", scene.sockets(), SOCKETS),
            Check::of("dead-slots", scene.dead_slots(), SOCKETS),
            Check::of("ban", scene.ban(), FIREWALL),
        ],
        Err(error) => vec![Check::of("namespace", Err(error), "is IPv4 enabled on this host?")],
    }
}

/// Two listeners on the loopback.
struct Scene {
    tracked: TcpListener,
    covered: TcpListener,
    tracking: Result<(), String>,
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn v4(address: SocketAddr) -> Result<SocketAddrV4, String> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => Err(format!("{address} is no IPv4 address")),
    }
}

impl Scene {
    fn new() -> Result<Scene, String> {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(said);
        let (tracked, covered) = (listen()?, listen()?);
        let ports = vec![covered.local_addr().map_err(said)?.port()];
        let own = OwnAddresses::read().map_err(said)?;
        let from = vec!["127.0.0.0/8".parse().map_err(said)?, "::1/128".parse().map_err(said)?];
        let mut reach = Reach::default();
        reach.keep(&KeepReachable { ports, from }, SET, &own);
        let status = reach.status().cloned().unwrap_or_default();
        let refused = status.refused.into_iter().map(|refused| refused.why);
        let trouble: Vec<String> = status.trouble.into_iter().chain(refused).collect();
        let tracking = if trouble.is_empty() { Ok(()) } else { Err(trouble.join("; ")) };
        Ok(Scene { tracked, covered, tracking })
    }

    fn port(&self) -> Result<SocketAddrV4, String> {
        v4(self.tracked.local_addr().map_err(said)?)
    }

    fn notrack(&self) -> Result<String, String> {
        self.tracking.clone()?;
        let (tracked, untracked) = (peer(70), peer(71));
        let _tracked = open(tracked, &self.tracked).map_err(said)?;
        let _untracked = open(untracked, &self.covered).map_err(said)?;
        match (entries_of(tracked).map_err(said)?, entries_of(untracked).map_err(said)?) {
            (1, 0) => Ok("a covered port answers and takes no slot of the table".to_owned()),
            (0, _) => Err("the kernel tracks nothing in a new namespace".to_owned()),
            (_, found) => Err(format!("a covered connection left {found} entries")),
        }
    }

    fn delete(&self) -> Result<String, String> {
        let source = peer(72);
        let mut kept = open(peer(73), &self.tracked).map_err(said)?;
        let gone = open(source, &self.tracked).map_err(said)?;
        drop(gone);
        let before = entries_of(source).map_err(said)?;
        let removal = removal::remove([source.into()].map(ipnet_of).into_iter(), 100, None).map_err(said)?;
        if before == 0 || removal.deleted.deleted == 0 || entries_of(source).map_err(said)? > 0 {
            return Err(format!("of {before} entries of a source {} were deleted", removal.deleted.deleted));
        }
        kept.exchange().map_err(|error| format!("another source's connection was hurt: {error}"))?;
        Ok("a source's entries go, and nobody else's".to_owned())
    }

    fn sockets(&self) -> Result<String, String> {
        let source = peer(74);
        let mut held = open(source, &self.tracked).map_err(said)?;
        let removal = removal::remove([source.into()].map(ipnet_of).into_iter(), 100, None).map_err(said)?;
        let troubles = removal.troubles();
        if !troubles.is_empty() {
            return Err(troubles.join("; "));
        }
        match (removal.sockets.destroyed, held.exchange()) {
            (1.., Err(_)) => Ok("a banned peer's sockets are destroyed".to_owned()),
            (destroyed, _) => Err(format!("{destroyed} sockets were destroyed, and the connection lives")),
        }
    }

    /// Two entries that are idle for hours: only the one without a socket is dead.
    fn dead_slots(&self) -> Result<String, String> {
        let to = self.port()?;
        let alive = open(peer(75), &self.tracked).map_err(said)?;
        let dead = SocketAddrV4::new(peer(76), 4000);
        entry(v4(alive.client_address().map_err(said)?)?, to, IDLE, false).map_err(said)?;
        entry(dead, to, IDLE, true).map_err(said)?;
        let own = OwnAddresses::read().map_err(said)?;
        let judging = Judging { grace: GRACE, setting: "the selftest's grace", procfs: "/proc".into() };
        let ask = Ask { judging: Some(judging), dead_slots: 100, key_room: 0 };
        let found = survey::take(&own, &ask).map_err(said)?.dead.map_err(said)?;
        let sources: Vec<_> = found.iter().map(|slot| slot.key().source()).collect();
        if sources != [std::net::IpAddr::from(*dead.ip())] {
            return Err(format!("taken for dead: {sources:?}; {} alone is", dead.ip()));
        }
        let buried = survey::bury(&found).map_err(said)?;
        let left = entries(|flow| flow.original.src == std::net::IpAddr::from(*dead.ip())).map_err(said)?;
        if left > 0 || entries_of(peer(75)).map_err(said)? != 1 {
            return Err(format!("the dead slot was not deleted alone: {buried:?}"));
        }
        Ok("an idle entry without a socket is told from one with a socket, and deleted".to_owned())
    }

    fn ban(&self) -> Result<String, String> {
        let (banned, free) = (peer(77), peer(78));
        let mut firewall = Ipset::open(Config { set: SET.to_owned(), ..Config::default() }).map_err(said)?;
        let ensured = firewall.ensure().map_err(said)?;
        let ipv6 = ensured.ipv6.map_err(|error| format!("IPv6: {error}"))?;
        open(banned, &self.tracked).map_err(|error| format!("a connection before the ban: {error}"))?;
        let v6 = std::net::Ipv6Addr::LOCALHOST.into();
        let bans = [banned.into(), v6]
            .map(|address| Ban { net: ipnet_of(address), timeout: Duration::from_secs(60) });
        for outcome in firewall.ban(&bans).map_err(said)? {
            outcome.map_err(said)?;
        }
        for listener in [&self.tracked, &self.covered] {
            if open(banned, listener).is_ok() {
                return Err("packets of a banned source still arrive".to_owned());
            }
        }
        open(free, &self.tracked).map_err(|error| format!("another source is hit by the ban: {error}"))?;
        if let Ok(listener) = TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)) {
            let to = listener.local_addr().map_err(said)?;
            if std::net::TcpStream::connect_timeout(&to, Duration::from_millis(400)).is_ok() {
                return Err("packets of a banned IPv6 source still arrive".to_owned());
            }
        }
        Ok(format!(
            "a banned source's packets stop, IPv4 and IPv6, tracked or not (room for {} bans)",
            ipv6.max_elements
        ))
    }
}

fn ipnet_of(address: std::net::IpAddr) -> ipnet::IpNet {
    address.into()
}

/// The webhook's unix socket can be made where it shall be, and answers.
pub(super) fn unix_socket(directory: Option<&Path>) -> Result<String, String> {
    let directory =
        directory.filter(|directory| directory.is_dir()).map_or_else(std::env::temp_dir, Path::to_owned);
    let path = directory.join(format!("selftest-{}.sock", std::process::id()));
    let answer = || -> std::io::Result<()> {
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let mut client = UnixStream::connect(&path)?;
        let (mut server, _) = listener.accept()?;
        let mut byte = [0];
        client.write_all(b"x")?;
        server.read_exact(&mut byte)
    };
    let answered = answer();
    let _ = fs::remove_file(&path);
    answered.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(format!("a socket in {} answers, whatever the table holds", directory.display()))
}
