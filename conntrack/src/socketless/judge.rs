//! What stands behind one entry.

use super::connected::{Connected, Kind, Pair};
use crate::flow::{Flow, L4, Tuple};
use crate::link::Error;
use crate::own::OwnAddresses;
use crate::sockets::Sockets;
use crate::state::{State, TcpState};
use crate::timeouts::TcpTimeouts;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Look-ups of single sockets for one dump, about 2.5 µs each, take at most half as long as a second reading of the sockets, and are
/// no more than this. A table with more dead slots has the sockets read a second time instead: with 20,000 connections a second and
/// 4,096 buckets a given socket was passed over once in 100,000 dumps.
const LOOK_UPS: usize = 1_000;
/// Half a reading takes as long as so many look-ups, were there no socket,
const LOOK_UPS_OF_HALF_A_READING: usize = 50;
/// and one more for so many sockets.
const SOCKETS_OF_A_LOOK_UP: usize = 10;

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
    /// Most entries end at the same address of this host.
    last_own: Option<IpAddr>,
    missed: Missed,
}

/// What the dump of sockets passed over ([`Sockets::find`]).
#[derive(Debug)]
struct Missed {
    look_up: Sockets,
    look_ups_left: usize,
    again: Option<Connected>,
    failed: Option<CannotJudge>,
}

/// This host's end of an entry.
struct End<'t> {
    /// What its socket goes by in what was read.
    pair: Pair,
    /// That of the packets it sends.
    tuple: &'t Tuple,
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
        let look_up = Sockets::open().map_err(|error| CannotJudge::look_up(&error))?;
        let look_ups_left = (LOOK_UPS_OF_HALF_A_READING + sockets.len() / SOCKETS_OF_A_LOOK_UP).min(LOOK_UPS);
        let missed = Missed { look_up, look_ups_left, again: None, failed: None };
        Ok(Judge { sockets, own, timeouts, grace, last_own: None, missed })
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
        let answering = self.own_end(&flow.reply);
        let calling = self.own_end(&flow.original);
        if answering.is_none() && calling.is_none() {
            return Behind::NotJudged;
        }
        let ends = || [answering.as_ref(), calling.as_ref()].into_iter().flatten();
        let either = |a, b| if a == Kind::Socket { a } else { b };
        let known = ends().filter_map(|end| self.sockets.kind(end.pair)).reduce(either);
        let (missed, sockets) = (&mut self.missed, self.sockets);
        match known.or_else(|| ends().filter_map(|end| missed.kind(end, sockets)).reduce(either)) {
            Some(Kind::Socket) => Behind::Socket,
            Some(Kind::Request) => Behind::Request,
            None if self.missed.failed.is_some() => Behind::NotJudged,
            None => Behind::Nothing,
        }
    }

    fn own_end<'t>(&mut self, tuple: &'t Tuple) -> Option<End<'t>> {
        let L4::Ports { src, dst } = tuple.l4 else { return None };
        if self.last_own != Some(tuple.src) {
            if !self.own.contains(tuple.src) {
                return None;
            }
            self.last_own = Some(tuple.src);
        }
        Some(End { pair: self.sockets.pair((tuple.src, src), (tuple.dst, dst)), tuple })
    }

    /// Whether what was judged holds: to be asked when the dump has ended.
    ///
    /// # Errors
    /// [`CannotJudge::TooSlow`], [`CannotJudge::LookUp`].
    pub fn in_time(&self) -> Result<(), CannotJudge> {
        if let Some(failed) = &self.missed.failed {
            return Err(failed.clone());
        }
        let (took, grace) = (self.sockets.since.elapsed(), Duration::from_secs(u64::from(self.grace)));
        if took < grace { Ok(()) } else { Err(CannotJudge::TooSlow { took, grace }) }
    }
}

impl Missed {
    fn kind(&mut self, end: &End<'_>, read: &Connected) -> Option<Kind> {
        if self.failed.is_some() {
            return None;
        }
        self.try_kind(end, read).unwrap_or_else(|error| {
            self.failed = Some(CannotJudge::look_up(&error));
            None
        })
    }

    fn try_kind(&mut self, End { pair, tuple }: &End<'_>, read: &Connected) -> Result<Option<Kind>, Error> {
        if let Some(left) = self.look_ups_left.checked_sub(1) {
            self.look_ups_left = left;
            let Some((local, peer)) = ends(tuple) else { return Ok(None) };
            return Ok(self.look_up.find(local, peer)?.map(|socket| Kind::of(&socket)));
        }
        let again = match &mut self.again {
            Some(again) => again,
            none => none.insert(read.read_again()?),
        };
        Ok(again.kind(*pair))
    }
}

impl CannotJudge {
    fn look_up(error: &Error) -> CannotJudge {
        CannotJudge::LookUp { why: error.to_string() }
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
#[path = "judge_tests.rs"]
mod tests;
