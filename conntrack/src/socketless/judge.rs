//! What stands behind one entry.

use super::connected::{Connected, Kind};
use crate::flow::{Flow, L4, Tuple};
use crate::link::Error;
use crate::own::OwnAddresses;
use crate::sockets::Sockets;
use crate::state::{State, TcpState};
use crate::timeouts::TcpTimeouts;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Look-ups of single sockets for one dump, about 2.5 µs each. A table with more dead slots has the sockets read a second time
/// instead: with 20,000 connections a second and 4,096 buckets a given socket was passed over once in 100,000 dumps.
const LOOK_UPS: u32 = 1_000;

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
    missed: Missed,
}

/// What the dump of sockets passed over ([`Sockets::find`]).
#[derive(Debug)]
struct Missed {
    look_up: Sockets,
    looked_up: u32,
    again: Option<Connected>,
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
        let look_up = Sockets::open().map_err(|error| CannotJudge::look_up(&error))?;
        let missed = Missed { look_up, looked_up: 0, again: None, failed: None };
        Ok(Judge { sockets, own, timeouts, grace, missed })
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
        let missed = &mut self.missed;
        match known.or_else(|| ends().filter_map(|(local, peer)| missed.kind(local, peer)).reduce(either)) {
            Some(Kind::Socket) => Behind::Socket,
            Some(Kind::Request) => Behind::Request,
            None if self.missed.failed.is_some() => Behind::NotJudged,
            None => Behind::Nothing,
        }
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
    fn kind(&mut self, local: SocketAddr, peer: SocketAddr) -> Option<Kind> {
        if self.failed.is_some() {
            return None;
        }
        self.try_kind(local, peer).unwrap_or_else(|error| {
            self.failed = Some(CannotJudge::look_up(&error));
            None
        })
    }

    fn try_kind(&mut self, local: SocketAddr, peer: SocketAddr) -> Result<Option<Kind>, Error> {
        if self.looked_up < LOOK_UPS {
            self.looked_up += 1;
            return Ok(self.look_up.find(local, peer)?.map(|socket| Kind::of(&socket)));
        }
        let again = match &mut self.again {
            Some(again) => again,
            none => none.insert(Connected::read()?),
        };
        Ok(again.kind(local, peer))
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
