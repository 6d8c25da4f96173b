//! The small internet of a test: a server, and peers around it.
//!
//! ```text
//! direct                       routed
//! server ─┬─ attacker          server ── router ─┬─ attacker
//!         └─ honest                              └─ honest
//! ```
//!
//! All addresses are for documentation (RFC 5737, RFC 3849) or for benchmarks (RFC 2544).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    Failure, Result,
    netns::Namespace,
    tools::{Tool, require},
    wait::wait_until,
};

/// The server's IPv4 address.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The server's IPv6 address.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

/// IPv4 networks of the peers, in the order they are named: the first three numbers, and the last of the centre's
/// and of the peer's address.
const PEERS_V4: [([u8; 3], u8, u8); 4] =
    [([198, 51, 100], 1, 66), ([203, 0, 113], 1, 7), ([192, 0, 2], 65, 70), ([192, 0, 2], 129, 130)];

const READY: Duration = Duration::from_secs(30);

/// Which protocol family a scene plays in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A namespace around the server, with one address of each family on its link `eth0`.
#[derive(Debug)]
pub struct Peer {
    /// Where its programs run.
    pub namespace: Namespace,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Peer {
    /// Its address of that family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

/// A server and its peers, every one reachable.
#[derive(Debug)]
pub struct Topology {
    /// The server; connection tracking is on in it.
    pub server: Namespace,
    router: Option<Namespace>,
    peers: Vec<Peer>,
}

impl Topology {
    /// The server joined to each peer by a link of its own; the server's address is on its loopback.
    ///
    /// # Errors
    /// When a tool is missing or a link does not come up.
    pub fn direct(peers: &[&str]) -> Result<Self> {
        require(&[Tool::Ip, Tool::Nft, Tool::Setpriv])?;
        let server = Namespace::new("server")?;
        server.ip(&format!("addr add {SERVER_V4}/32 dev lo\naddr add {SERVER_V6}/128 dev lo nodad\n"))?;
        let peers = star(&server, peers)?;
        Self { server, router: None, peers }.ready()
    }

    /// The server behind a router, which every peer has a link to. The router tracks nothing.
    ///
    /// # Errors
    /// As [`Self::direct`].
    pub fn routed(peers: &[&str]) -> Result<Self> {
        require(&[Tool::Ip, Tool::Nft, Tool::Setpriv])?;
        let server = Namespace::new("server")?;
        let router = Namespace::new("router")?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 2), Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2));
        link(&router, "server", (v4, 26, v6), &server, (SERVER_V4, SERVER_V6))?;
        let peers = star(&router, peers)?;
        Self { server, router: Some(router), peers }.ready()
    }

    /// The peer of that name.
    ///
    /// # Panics
    /// When the scene has none of that name.
    pub fn peer(&self, name: &str) -> &Peer {
        let named = self.peers.iter().find(|peer| peer.namespace.name() == name);
        named.unwrap_or_else(|| panic!("the scene has no peer named {name}"))
    }

    /// The router between the server and its peers.
    ///
    /// # Panics
    /// When the scene has none.
    pub fn router(&self) -> &Namespace {
        self.router.as_ref().expect("a routed scene")
    }

    /// The server's address of that family, the same for every peer.
    pub fn server_address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => SERVER_V4.into(),
            Family::V6 => SERVER_V6.into(),
        }
    }

    /// The server's socket address of that family.
    pub fn server_socket(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.server_address(family), port)
    }

    /// Gives a peer every address of `prefix` (AnyIP: a local route), and routes the prefix to it. Its programs can
    /// then bind to any of them, so no packet need be forged to come from many sources.
    ///
    /// # Errors
    /// When `ip` refuses the prefix.
    pub fn give_prefix(&self, peer: &str, prefix: IpNet) -> Result<()> {
        let peer = self.peer(peer);
        let (family, via) = match prefix {
            IpNet::V4(_) => ("-4", peer.address(Family::V4)),
            IpNet::V6(_) => ("-6", peer.address(Family::V6)),
        };
        let prefix = &prefix.to_string();
        // IPv6 does not count a local route as an address to bind to.
        peer.namespace.sysctl("net/ipv6/ip_nonlocal_bind", "1")?;
        peer.namespace.command(&["ip", family, "route", "add", "local", prefix, "dev", "lo"])?;
        let centre = self.router.as_ref().unwrap_or(&self.server);
        centre.command(&["ip", family, "route", "add", prefix, "via", &via.to_string()])?;
        Ok(())
    }

    /// Waits until each peer reaches the server over both families, then turns tracking on, so that the probes
    /// leave no entries.
    fn ready(self) -> Result<Self> {
        for peer in &self.peers {
            for family in [Family::V4, Family::V6] {
                let server = self.server_socket(family, 9);
                let own = SocketAddr::new(peer.address(family), 0);
                let what = format!("{} to reach the server at {}", peer.namespace.name(), server.ip());
                peer.namespace.run(|| wait_until(&what, READY, || reachable(own, server)))?;
            }
        }
        self.server.track_connections()?;
        Ok(self)
    }
}

/// A refused connection has been there and back.
fn reachable(own: SocketAddr, peer: SocketAddr) -> Result<(), io::Error> {
    UdpSocket::bind(own)?;
    match TcpStream::connect_timeout(&peer, Duration::from_millis(200)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

fn star(centre: &Namespace, names: &[&str]) -> Result<Vec<Peer>> {
    if names.len() > PEERS_V4.len() {
        let detail = format!("{} asked for, there are addresses for {}", names.len(), PEERS_V4.len());
        return Err(Failure::answer("the peers of a scene", detail));
    }
    let join = |(index, name): (usize, &&str)| {
        let ([a, b, c], ours, theirs) = PEERS_V4[index];
        let bits = if [a, b, c] == [192, 0, 2] { 26 } else { 24 };
        let subnet = [0x51, 0x113, 0x65, 0x129][index];
        let v6 = |host| Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, host);
        let peer = Peer {
            namespace: Namespace::new(name)?,
            v4: Ipv4Addr::new(a, b, c, theirs),
            v6: v6(u16::from(theirs)),
        };
        let centre_end = (Ipv4Addr::new(a, b, c, ours), bits, v6(1));
        link(centre, name, centre_end, &peer.namespace, (peer.v4, peer.v6))?;
        Ok(peer)
    };
    names.iter().enumerate().map(join).collect()
}

/// Joins two namespaces: in the centre the link is named `name`, at the other end `eth0`, whose default route it is.
fn link(
    centre: &Namespace,
    name: &str,
    (centre_v4, bits, centre_v6): (Ipv4Addr, u8, Ipv6Addr),
    other: &Namespace,
    (v4, v6): (Ipv4Addr, Ipv6Addr),
) -> Result<()> {
    let name: String = name.chars().take(15).collect(); // IFNAMSIZ
    centre.ip(&format!(
        "link add {name} type veth peer name eth0 netns {}\n\
         addr add {centre_v4}/{bits} dev {name}\n\
         addr add {centre_v6}/64 dev {name} nodad\n\
         link set {name} up\n",
        other.path()
    ))?;
    other.ip(&format!(
        "addr add {v4}/{bits} dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via {centre_v4}\n\
         route add ::/0 via {centre_v6}\n"
    ))
}
