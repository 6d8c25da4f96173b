//! This host's connected TCP sockets, as a judgement needs them.

use crate::link::Error;
use crate::sockets::{Socket, Sockets};
use foldhash::quality::RandomState;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// `TCP_SYN_RECV` of `include/net/tcp_states.h`: in inet_diag also the request sockets of a deferring listener.
const SYN_RECV: u8 = 3;

/// This host's connected TCP sockets at one moment, kept as hashes: a collision, one in 2⁶⁴ for each pair, hides a dead
/// slot and never makes one.
#[derive(Debug)]
pub struct Connected {
    pairs: HashMap<u64, Kind, RandomState>,
    hash: RandomState,
    pub(super) since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Socket,
    Request,
}

impl Kind {
    pub(super) fn of(socket: &Socket) -> Kind {
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
        let mut connected = Connected::none();
        let interrupted = Sockets::open()?.visit(|socket| {
            connected.add(socket.local, socket.peer, Kind::of(socket));
        })?;
        if interrupted {
            return Err(Error::Interrupted { asked: "the TCP sockets of this host" });
        }
        Ok(connected)
    }

    pub(super) fn none() -> Connected {
        Connected { pairs: HashMap::default(), hash: RandomState::default(), since: Instant::now() }
    }

    pub(super) fn add(&mut self, local: SocketAddr, peer: SocketAddr, kind: Kind) {
        self.pairs.insert(self.key(local, peer), kind);
    }

    fn key(&self, local: SocketAddr, peer: SocketAddr) -> u64 {
        // An IPv4 address and its v4-mapped form are the same bits.
        let bits = |address: IpAddr| match address {
            IpAddr::V4(four) => four.to_ipv6_mapped().to_bits(),
            IpAddr::V6(six) => six.to_bits(),
        };
        let ports = u32::from(local.port()) << 16 | u32::from(peer.port());
        self.hash.hash_one((bits(local.ip()), bits(peer.ip()), ports))
    }

    pub(super) fn kind(&self, local: SocketAddr, peer: SocketAddr) -> Option<Kind> {
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
