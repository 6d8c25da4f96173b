//! Entries that claim an established connection to this host while the host has no socket for it: dead slots.
//!
//! A listener with TCP_DEFER_ACCEPT drops a silent client's request without FIN or RST, and conntrack keeps the entry for
//! five days. Each clause of [`Judge::judge`] was broken by a test before it stood here (DOMAIN.md, 1): read the sockets first
//! and the table second, never judge what may merely be busy, and say "unknown" rather than guess.

use crate::flow::{Flow, L4, Tuple};
use crate::link::Error;
use crate::own::OwnAddresses;
use crate::sockets::{Socket, Sockets};
use crate::state::{State, TcpState};
use foldhash::quality::RandomState;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub use crate::timeouts::{TcpTimeouts, Timeouts};

/// `TCP_SYN_RECV` of `include/net/tcp_states.h`: in inet_diag also the request sockets of a deferring listener.
const SYN_RECV: u8 = 3;

/// What stands behind an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// A socket.
    Socket,
    /// A request socket: the connection is established for the peer, and its listener waits for data (TCP_DEFER_ACCEPT).
    Request,
    /// Nothing: a dead slot.
    Nothing,
    /// It is not for us to say: not TCP, not established, busy, young, forwarded, offloaded.
    NotJudged,
}

/// This host's connected TCP sockets at one moment, kept as hashes: a collision, one in 2⁶⁴ for each pair, hides a dead
/// slot and never makes one.
#[derive(Debug)]
pub struct Connected {
    pairs: HashMap<u64, Kind, RandomState>,
    hash: RandomState,
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socket,
    Request,
}

impl Kind {
    fn of(socket: &Socket) -> Kind {
        if socket.state == SYN_RECV { Kind::Request } else { Kind::Socket }
    }
}

impl Connected {
    /// Reads the sockets of the calling thread's namespace. To be read *before* the table: the other way round 300 of 300
    /// closing connections were misjudged.
    ///
    /// # Errors
    /// inet_diag could not be read, or changed while it was: an interrupted dump may lack a living socket.
    pub fn read() -> Result<Connected, Error> {
        let mut connected =
            Connected { pairs: HashMap::default(), hash: RandomState::default(), since: Instant::now() };
        let interrupted = Sockets::open()?.visit(|socket| {
            connected.add(socket.local, socket.peer, Kind::of(socket));
        })?;
        if interrupted {
            return Err(Error::Interrupted { asked: "the TCP sockets of this host" });
        }
        Ok(connected)
    }

    fn add(&mut self, local: SocketAddr, peer: SocketAddr, kind: Kind) {
        self.pairs.insert(self.key(local, peer), kind);
    }

    fn key(&self, local: SocketAddr, peer: SocketAddr) -> u64 {
        let end = |address: SocketAddr| (address.ip().to_canonical(), address.port());
        self.hash.hash_one((end(local), end(peer)))
    }

    fn kind(&self, local: SocketAddr, peer: SocketAddr) -> Option<Kind> {
        self.pairs.get(&self.key(local, peer)).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

/// Why nothing can be judged at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotJudge {
    /// The sysctls leave no room between idle and busy.
    #[error(
        "nf_conntrack_tcp_timeout_established is {established} s and not above {busy} s (the largest of _unacknowledged and _max_retrans, here and \
         in timeout policies): an idle entry looks like a busy one, so dead slots cannot be told"
    )]
    Timeouts {
        /// Seconds.
        established: u32,
        /// Seconds.
        busy: u32,
    },
    /// The kernel did not answer whether one socket exists.
    #[error("{why}: whether a slot is dead cannot be told")]
    LookUp {
        /// The error in words.
        why: String,
    },
    /// The dumps took longer than the grace.
    #[error(
        "sockets and table took {took:?} to read, longer than the grace of {grace:?}: a closing connection would look dead"
    )]
    TooSlow {
        /// From the first socket to the last entry.
        took: Duration,
        /// As configured.
        grace: Duration,
    },
}

/// What is needed to say what stands behind an entry.
#[derive(Debug)]
pub struct Judge<'a> {
    sockets: &'a Connected,
    own: &'a OwnAddresses,
    timeouts: TcpTimeouts,
    grace: u32,
    look_up: Sockets,
    failed: Option<CannotJudge>,
}

impl<'a> Judge<'a> {
    /// `grace`: idle for longer without a socket is dead. In the namespace that everything was read in.
    ///
    /// # Errors
    /// [`CannotJudge::Timeouts`], [`CannotJudge::LookUp`].
    pub fn new(
        sockets: &'a Connected,
        own: &'a OwnAddresses,
        timeouts: TcpTimeouts,
        grace: Duration,
    ) -> Result<Judge<'a>, CannotJudge> {
        let (established, busy) = (timeouts.default().established, timeouts.busy());
        if established <= busy {
            return Err(CannotJudge::Timeouts { established, busy });
        }
        let grace = u32::try_from(grace.as_secs()).unwrap_or(u32::MAX);
        let look_up = Sockets::open().map_err(|error| CannotJudge::LookUp { why: error.to_string() })?;
        Ok(Judge { sockets, own, timeouts, grace, look_up, failed: None })
    }

    /// What stands behind an entry of a dump that began after the sockets were read. Only valid if [`Judge::in_time`] says so once
    /// the dump has ended.
    #[inline]
    pub fn judge(&mut self, flow: &Flow) -> Behind {
        let (State::Tcp(TcpState::Established), Some(left)) = (flow.state, flow.timeout) else {
            return Behind::NotJudged;
        };
        let settled = flow.status.seen_reply() && flow.status.assured() && !flow.status.offload();
        if !settled || flow.synproxy {
            return Behind::NotJudged;
        }
        let Some(idle) = self.timeouts.idle(left) else { return Behind::NotJudged };
        if idle <= self.grace {
            return Behind::NotJudged;
        }
        self.of_ends(flow)
    }

    fn of_ends(&mut self, flow: &Flow) -> Behind {
        // Where we answer, the socket is what answers come from: after REDIRECT and INPUT-SNAT that is not the original tuple.
        let answering = ends(&flow.reply).filter(|(local, _)| self.own.contains(local.ip()));
        let calling = ends(&flow.original).filter(|(local, _)| self.own.contains(local.ip()));
        if answering.is_none() && calling.is_none() {
            return Behind::NotJudged;
        }
        let ends = || [answering, calling].into_iter().flatten();
        let either = |a, b| if a == Kind::Socket { a } else { b };
        let known = ends().filter_map(|(local, peer)| self.sockets.kind(local, peer)).reduce(either);
        match known.or_else(|| ends().filter_map(|(local, peer)| self.missed(local, peer)).reduce(either)) {
            Some(Kind::Socket) => Behind::Socket,
            Some(Kind::Request) => Behind::Request,
            None if self.failed.is_some() => Behind::NotJudged,
            None => Behind::Nothing,
        }
    }

    /// A socket that the dump of sockets passed over ([`Sockets::find`]).
    #[cold]
    fn missed(&mut self, local: SocketAddr, peer: SocketAddr) -> Option<Kind> {
        if self.failed.is_some() {
            return None;
        }
        match self.look_up.find(local, peer) {
            Ok(found) => found.map(|socket| Kind::of(&socket)),
            Err(error) => {
                self.failed = Some(CannotJudge::LookUp { why: error.to_string() });
                None
            }
        }
    }

    /// Whether what was judged holds: to be asked when the dump has ended.
    ///
    /// # Errors
    /// [`CannotJudge::TooSlow`], [`CannotJudge::LookUp`].
    pub fn in_time(&self) -> Result<(), CannotJudge> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let (took, grace) = (self.sockets.since.elapsed(), Duration::from_secs(u64::from(self.grace)));
        if took < grace { Ok(()) } else { Err(CannotJudge::TooSlow { took, grace }) }
    }
}

/// The two ends of a tuple with ports.
pub(crate) fn ends(tuple: &Tuple) -> Option<(SocketAddr, SocketAddr)> {
    let end = |address: IpAddr, port: u16| SocketAddr::new(address, port);
    match tuple.l4 {
        L4::Ports { src, dst } => Some((end(tuple.src, src), end(tuple.dst, dst))),
        L4::Icmp { .. } | L4::None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Family, Protocol, Status, Zone};

    const TIMEOUTS: Timeouts = Timeouts { established: 432_000, unacknowledged: 300, max_retrans: 300 };
    const ASSURED: Status = Status(0b1110);

    fn tuple(src: &str, dst: &str) -> Tuple {
        let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let l4 = L4::Ports { src: src.port(), dst: dst.port() };
        Tuple { src: src.ip(), dst: dst.ip(), protocol: Protocol::TCP, l4 }
    }

    fn flow(original: (&str, &str), reply: (&str, &str)) -> Flow {
        Flow {
            family: Family::Ipv4,
            original: tuple(original.0, original.1),
            reply: tuple(reply.0, reply.1),
            zone: Zone::Both(0),
            status: ASSURED,
            state: State::Tcp(TcpState::Established),
            timeout: Some(431_000),
            id: 1,
            mark: 0,
            counters: None,
            synproxy: false,
        }
    }

    fn inbound() -> Flow {
        flow(("198.51.100.7:4000", "192.0.2.1:80"), ("192.0.2.1:80", "198.51.100.7:4000"))
    }

    fn behind(sockets: &[(&str, &str, Kind)], flow: &Flow) -> Behind {
        let mut connected =
            Connected { pairs: HashMap::default(), hash: RandomState::default(), since: Instant::now() };
        for (local, peer, kind) in sockets {
            connected.add(local.parse().unwrap(), peer.parse().unwrap(), *kind);
        }
        let own = OwnAddresses::of(["192.0.2.1/32", "127.0.0.0/8"].map(|net| net.parse().unwrap()), []);
        Judge::new(&connected, &own, TcpTimeouts::of(TIMEOUTS, []), Duration::from_secs(30))
            .unwrap()
            .judge(flow)
    }

    #[test]
    fn a_slot_is_dead_only_where_no_socket_of_any_kind_stands_behind_it() {
        assert_eq!(behind(&[], &inbound()), Behind::Nothing);
        let alive = [("192.0.2.1:80", "198.51.100.7:4000", Kind::Socket)];
        assert_eq!(behind(&alive, &inbound()), Behind::Socket);
        let deferred = [("192.0.2.1:80", "198.51.100.7:4000", Kind::Request)];
        assert_eq!(behind(&deferred, &inbound()), Behind::Request);
        let mapped = [("[::ffff:192.0.2.1]:80", "[::ffff:198.51.100.7]:4000", Kind::Socket)];
        assert_eq!(behind(&mapped, &inbound()), Behind::Socket, "a dual-stack socket");
        let another = [("192.0.2.1:80", "198.51.100.7:4001", Kind::Socket)];
        assert_eq!(behind(&another, &inbound()), Behind::Nothing);
    }

    #[test]
    fn what_may_be_busy_young_or_not_ours_is_not_judged() {
        type Change = fn(&mut Flow);
        let unjudged: [(&str, Change); 8] = [
            ("busy", |f| f.timeout = Some(300)),
            ("within the grace", |f| f.timeout = Some(431_970)),
            ("a timeout by hand", |f| f.timeout = Some(432_001)),
            ("offloaded", |f| f.timeout = None),
            ("not assured", |f| f.status = Status(0b1010)),
            ("no reply seen", |f| f.status = Status(0b1100)),
            ("closing", |f| f.state = State::Tcp(TcpState::FinWait)),
            ("behind SYNPROXY", |f| f.synproxy = true),
        ];
        for (what, change) in unjudged {
            let mut flow = inbound();
            change(&mut flow);
            assert_eq!(behind(&[], &flow), Behind::NotJudged, "{what}");
        }
        let dnat = flow(("198.51.100.7:4000", "192.0.2.1:80"), ("10.0.0.2:8080", "198.51.100.7:4000"));
        assert_eq!(behind(&[], &dnat), Behind::NotJudged, "to a container");
        let masqueraded = flow(("10.0.0.2:4000", "203.0.113.1:443"), ("203.0.113.1:443", "192.0.2.1:4000"));
        assert_eq!(behind(&[], &masqueraded), Behind::NotJudged, "from a container");
    }

    #[test]
    fn redirect_own_calls_and_loopback_are_found_by_either_end() {
        let redirected = flow(("198.51.100.7:4000", "192.0.2.1:80"), ("192.0.2.1:8080", "198.51.100.7:4000"));
        assert_eq!(
            behind(&[("192.0.2.1:8080", "198.51.100.7:4000", Kind::Socket)], &redirected),
            Behind::Socket
        );
        let own_call = flow(("192.0.2.1:4000", "203.0.113.1:443"), ("203.0.113.1:443", "192.0.2.1:4000"));
        assert_eq!(behind(&[("192.0.2.1:4000", "203.0.113.1:443", Kind::Socket)], &own_call), Behind::Socket);
        assert_eq!(behind(&[], &own_call), Behind::Nothing);
        let loopback = flow(("127.0.0.1:4000", "127.0.0.1:80"), ("127.0.0.1:80", "127.0.0.1:4000"));
        assert_eq!(behind(&[("127.0.0.1:4000", "127.0.0.1:80", Kind::Socket)], &loopback), Behind::Socket);
    }

    #[test]
    fn timeouts_without_room_and_slow_dumps_are_said_not_guessed() {
        let connected =
            Connected { pairs: HashMap::default(), hash: RandomState::default(), since: Instant::now() };
        let own = OwnAddresses::default();
        let short = TcpTimeouts::of(Timeouts { established: 300, ..TIMEOUTS }, []);
        assert!(matches!(
            Judge::new(&connected, &own, short, Duration::from_secs(30)),
            Err(CannotJudge::Timeouts { established: 300, busy: 300 })
        ));
        let judge = Judge::new(&connected, &own, TcpTimeouts::of(TIMEOUTS, []), Duration::ZERO).unwrap();
        assert!(matches!(judge.in_time(), Err(CannotJudge::TooSlow { .. })));
    }
}
