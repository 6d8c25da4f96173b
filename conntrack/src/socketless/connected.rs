//! This host's connected TCP sockets, as a judgement needs them.

use crate::link::Error;
use crate::own::bits;
use crate::sockets::{Socket, Sockets};
use foldhash::quality::RandomState;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// `TCP_SYN_RECV` of `include/net/tcp_states.h`: in inet_diag also the request sockets of a deferring listener.
const SYN_RECV: u8 = 3;

/// This host's connected TCP sockets at one moment, kept as hashes: a collision, one in 2⁶⁴ for each pair, hides a dead
/// slot and never makes one.
#[derive(Debug)]
pub struct Connected {
    pairs: HashMap<Pair, Kind, BuildHasherDefault<AsItIs>>,
    hash: RandomState,
    pub(super) since: Instant,
}

/// Both ends of a connection, as a seeded hash. Of one [`Connected`] and of what was [read again](Connected::read_again) for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pair(u64);

/// For keys that are hashes already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
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
        Connected::none().filled()
    }

    /// Reads them once more: the pairs of both readings are the same.
    pub(super) fn read_again(&self) -> Result<Connected, Error> {
        Connected { hash: self.hash.clone(), ..Connected::none() }.filled()
    }

    fn filled(mut self) -> Result<Connected, Error> {
        let interrupted = Sockets::open()?.visit(|socket| {
            self.add(socket.local, socket.peer, Kind::of(socket));
        })?;
        if interrupted {
            return Err(Error::Interrupted { asked: "the TCP sockets of this host" });
        }
        Ok(self)
    }

    pub(super) fn none() -> Connected {
        Connected { pairs: HashMap::default(), hash: RandomState::default(), since: Instant::now() }
    }

    pub(super) fn add(&mut self, local: SocketAddr, peer: SocketAddr, kind: Kind) {
        let ends = |address: SocketAddr| (address.ip(), address.port());
        self.pairs.insert(self.pair(ends(local), ends(peer)), kind);
    }

    #[inline]
    pub(super) fn pair(&self, local: (IpAddr, u16), peer: (IpAddr, u16)) -> Pair {
        let ports = u32::from(local.1) << 16 | u32::from(peer.1);
        Pair(self.hash.hash_one((bits(local.0), bits(peer.0), ports)))
    }

    pub(super) fn kind(&self, pair: Pair) -> Option<Kind> {
        self.pairs.get(&pair).copied()
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
