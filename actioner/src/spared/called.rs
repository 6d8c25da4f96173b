//! Peers that this host itself called: a ban would drop their answers before connection tracking sees them.
//!
//! An entry's direction is not enough. After a deletion the next packet makes a new entry, and whoever sends it first
//! becomes its source: the server, by its own keep-alives to an attacker; a database, by speaking to us. What tells is who
//! waits: a local port with a listener was called, one without did the calling (DOMAIN.md, 3). A listener can be gone (passive FTP: it
//! takes one call), so where the table saw the peer's SYN, he called, whoever listens now.

use super::first_in;
use conntrack::listeners::Listeners;
use conntrack::own::OwnAddresses;
use conntrack::sockets::Socket;
use conntrack::summary::Sources;
use conntrack::{Flow, L4};
use foldhash::fast::RandomState;
use ipnet::IpNet;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

/// So many addresses and sockets are kept, some 10 MiB; of more, those of sources, for nobody else can be banned.
const MOST: usize = 50_000;
/// `TCP_SYN_RECV` and `TCP_TIME_WAIT` (`include/net/tcp_states.h`): the one is somebody's call to us, the other is over.
const NOT_OURS: [u8; 2] = [3, 6];

/// Addresses that this host called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Called {
    /// Assured entries lead there.
    pub(crate) outbound: BTreeSet<IpAddr>,
    /// Sockets whose local port has no listener lead there.
    pub(crate) peers: BTreeSet<IpAddr>,
    /// There are more, and of those only sources of entries are kept: of a network nothing is known.
    pub(crate) clipped: bool,
}

impl Called {
    /// A list made by hand, for tests.
    pub fn of(
        outbound: impl IntoIterator<Item = IpAddr>,
        peers: impl IntoIterator<Item = IpAddr>,
        clipped: bool,
    ) -> Called {
        Called { outbound: outbound.into_iter().collect(), peers: peers.into_iter().collect(), clipped }
    }

    /// One of `net` to which an assured entry leads.
    pub fn outbound_in(&self, net: &IpNet) -> Option<IpAddr> {
        first_in(&self.outbound, net)
    }

    /// One of `net` to which a socket leads whose local port has no listener.
    pub fn peer_in(&self, net: &IpNet) -> Option<IpAddr> {
        first_in(&self.peers, net)
    }

    /// Whether nothing can be said of this network, because there were too many addresses to keep.
    pub fn cannot_tell(&self, net: &IpNet) -> bool {
        self.clipped && net.prefix_len() < net.max_prefix_len()
    }
}

/// Where this host calls to by an assured entry: before and after translation. None: it does not, or nobody can say.
pub fn called_by(flow: &Flow, own: &OwnAddresses, listeners: &Listeners) -> Option<[IpAddr; 2]> {
    if !flow.status.assured() || !own.contains(flow.original.src) {
        return None;
    }
    match flow.original.l4 {
        L4::Ports { src, .. } if listeners.has(flow.original.protocol, src) => None,
        _ => Some([flow.original.dst, flow.reply.src]),
    }
}

/// Collects while sockets and table are read.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    own: &'a OwnAddresses,
    listeners: &'a Listeners,
    /// Only these, if a first reading found too many.
    only: Option<&'a Sources>,
    called: Called,
    /// Our sockets on ports without a listener, by both ends, with their peer.
    sockets: HashMap<Ends, IpAddr, RandomState>,
}

/// The local end and the peer's.
type Ends = (SocketAddr, SocketAddr);

impl<'a> Collector<'a> {
    pub(crate) fn new(own: &'a OwnAddresses, listeners: &'a Listeners) -> Collector<'a> {
        Collector { own, listeners, only: None, called: Called::default(), sockets: HashMap::default() }
    }

    /// Only sources of entries are kept, for nobody else can be banned.
    pub(crate) fn of_sources(self, sources: &'a Sources) -> Collector<'a> {
        Collector { only: Some(sources), called: Called { clipped: true, ..Called::default() }, ..self }
    }

    pub(crate) fn socket(&mut self, socket: &Socket) {
        let (local, peer) = (socket.local, socket.peer);
        let waited = self.listeners.has(conntrack::Protocol::TCP, local.port());
        if !waited && !NOT_OURS.contains(&socket.state) && self.keeps(peer.ip()) {
            if self.sockets.len() < self.limit() {
                self.sockets.insert((local, peer), peer.ip());
            } else {
                self.called.clipped = true;
            }
        }
    }

    #[inline]
    pub(crate) fn flow(&mut self, flow: &Flow) {
        for address in called_by(flow, self.own, self.listeners).into_iter().flatten() {
            if self.keeps(address) {
                let limit = self.limit();
                self.called.clipped |= !insert(&mut self.called.outbound, address, limit);
            }
        }
        if !self.sockets.is_empty()
            && let Some(ends) = called_us(flow)
        {
            self.sockets.remove(&ends);
        }
    }

    fn keeps(&self, address: IpAddr) -> bool {
        let is_source = |sources: &Sources| sources.get(address).is_some_and(|counts| counts.entries > 0);
        !self.own.contains(address) && self.only.is_none_or(is_source)
    }

    /// There are no more sources than a summary holds.
    fn limit(&self) -> usize {
        if self.only.is_some() { usize::MAX } else { MOST }
    }

    pub(crate) fn finish(mut self) -> Called {
        self.called.peers = self.sockets.into_values().map(|peer| peer.to_canonical()).collect();
        self.called
    }
}

/// The ends, ours first, of a connection of which the table saw the peer's SYN.
fn called_us(flow: &Flow) -> Option<Ends> {
    match flow.reply.l4 {
        L4::Ports { src, dst } if flow.original.protocol == conntrack::Protocol::TCP && !flow.picked_up => {
            Some((SocketAddr::new(flow.reply.src, src), SocketAddr::new(flow.reply.dst, dst)))
        }
        _ => None,
    }
}

/// Whether it is in the set now.
fn insert(addresses: &mut BTreeSet<IpAddr>, address: IpAddr, limit: usize) -> bool {
    let address = address.to_canonical();
    addresses.contains(&address) || (addresses.len() < limit && addresses.insert(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use conntrack::{Family, Protocol, State, Status, Summary, TcpState, Tuple, Zone};
    use std::net::Ipv4Addr;

    const US: &str = "192.0.2.1:40000";

    fn outbound(peer: SocketAddr) -> Flow {
        let us: SocketAddr = US.parse().unwrap();
        let tuple = |src: SocketAddr, dst: SocketAddr| {
            let l4 = L4::Ports { src: src.port(), dst: dst.port() };
            Tuple { src: src.ip(), dst: dst.ip(), protocol: Protocol::TCP, l4 }
        };
        Flow {
            family: Family::Ipv4,
            original: tuple(us, peer),
            reply: tuple(peer, us),
            zone: Zone::Both(0),
            status: Status(0b1110),
            state: State::Tcp(TcpState::Established),
            timeout: Some(1),
            id: 1,
            mark: 0,
            counters: None,
            synproxy: false,
            picked_up: false,
        }
    }

    fn peer(number: usize) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::from_bits(0x0b00_0000 + number as u32).into(), 443)
    }

    /// A crawler or a proxy: bounded, and a second reading knows those that could be banned.
    #[test]
    fn of_too_many_those_are_kept_that_could_be_banned() {
        let own = OwnAddresses::of(["192.0.2.1/32".parse().unwrap()], []);
        let listeners = Listeners::default();
        let mut first = Collector::new(&own, &listeners);
        (0..MOST).for_each(|number| first.flow(&outbound(peer(number))));
        (0..MOST).for_each(|number| first.flow(&outbound(peer(number))));
        assert!(!first.called.clipped, "as many as there is room for, seen twice");
        first.flow(&outbound(peer(MOST)));
        let first = first.finish();
        assert!(first.clipped && first.outbound.len() == MOST);

        let mut summary = Summary::new();
        summary.sources.add(peer(MOST).ip(), true, false, false);
        summary.sources.add("198.51.100.66".parse().unwrap(), true, false, false);
        let mut second = Collector::new(&own, &listeners).of_sources(&summary.sources);
        (0..=MOST).for_each(|number| second.flow(&outbound(peer(number))));
        let second = second.finish();
        assert_eq!(second.outbound, [peer(MOST).ip()].into());
        assert!(second.cannot_tell(&"198.51.100.0/24".parse().unwrap()));
        assert!(!second.cannot_tell(&"198.51.100.66/32".parse().unwrap()));
    }
}
