//! This host's TCP sockets, over inet_diag: found by their peer, and destroyed as `ss -K` does.
//!
//! `linux/inet_diag.h`, `linux/sock_diag.h`. Destroying needs CONFIG_INET_DIAG_DESTROY.

use crate::link::{Channel, Error, Link};
use crate::netlink::{Malformed, Messages, NLM_F_ACK, NLM_F_DUMP, NLMSG_ERROR, Requests};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// Every TCP state but LISTEN (10) and CLOSE (7); request sockets (SYN_RECV, 3) included.
const CONNECTED: u32 = 0xfff & !(1 << 10) & !(1 << 7) & !1;
/// `struct inet_diag_sockid`.
const SOCKID: usize = 48;
const ENOENT: i32 = 2;
const EOPNOTSUPP: i32 = 95;
const ASKED_DUMP: &str = "the TCP sockets of this host";
const ASKED_DESTROY: &str = "the destruction of a socket";
const ASKED_ONE: &str = "one TCP socket of this host";
const BATCH: usize = 200;
/// `INET_DIAG_NOCOOKIE`, twice: any socket of that tuple.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// One connected TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// The local end. A v4-mapped one is given as IPv4.
    pub local: SocketAddr,
    /// The peer. A v4-mapped one is given as IPv4.
    pub peer: SocketAddr,
    /// The TCP state (`include/net/tcp_states.h`); 3 is SYN_RECV, request sockets included.
    pub state: u8,
    family: u8,
    id: [u8; SOCKID],
}

/// What became of the sockets that were to be destroyed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Destroyed {
    /// Destroyed.
    pub destroyed: u64,
    /// Gone by then.
    pub absent: u64,
    /// The kernel cannot (no CONFIG_INET_DIAG_DESTROY).
    pub unsupported: bool,
    /// Refused for another reason: how many, and the first errno.
    pub failed: Option<(u64, i32)>,
}

/// An open link to inet_diag.
#[derive(Debug)]
pub struct Sockets {
    link: Link,
    requests: Requests,
}

impl Sockets {
    /// Opens inet_diag in the calling thread's namespace. Errors: [`Error::Open`].
    pub fn open() -> Result<Sockets, Error> {
        Ok(Sockets { link: Link::open(Channel::SockDiag, ASKED_DUMP)?, requests: Requests::new() })
    }

    /// Shows every connected TCP socket, both families. Returns whether the dump was interrupted.
    pub fn visit(&mut self, mut each: impl FnMut(&Socket)) -> Result<bool, Error> {
        let mut interrupted = false;
        for family in [AF_INET, AF_INET6] {
            let sequence = self.link.next_sequence();
            let mut request = Requests::new();
            request.message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, sequence, |r| {
                r.raw(&[family, IPPROTO_TCP, 0, 0]);
                r.raw(&CONNECTED.to_ne_bytes());
                r.raw(&[0; SOCKID]);
            });
            let visit = |message: crate::netlink::Message<'_>| {
                each(&socket(message.payload)?);
                Ok(())
            };
            interrupted |= self.link.ask(&request, ASKED_DUMP, visit, || ())?.interrupted;
        }
        Ok(interrupted)
    }

    /// The connected socket between these ends, now: the kernel's own look-up for a packet from `peer`
    /// (`inet_diag_find_one_icsk`), request sockets and TIME_WAIT included. Costs about 2 µs.
    ///
    /// A dump is not enough to say that there is none. It resumes by counting within a hash bucket, so it passes over a living
    /// socket when another of that bucket closes at the moment between two messages, and no flag tells (under churn, of 2,000
    /// sockets at least one was missing in 16 of 1,000 dumps with 4,096 buckets). This misses none but those bound to a device.
    /// Errors: see [`Error`].
    pub fn find(&mut self, local: SocketAddr, peer: SocketAddr) -> Result<Option<Socket>, Error> {
        let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
        let sequence = self.link.next_sequence();
        self.requests.clear();
        self.requests.message(SOCK_DIAG_BY_FAMILY, 0, sequence, |r| {
            r.raw(&[family, IPPROTO_TCP, 0, 0]);
            r.raw(&CONNECTED.to_ne_bytes());
            r.raw(&sockid(local, peer));
        });
        self.link.send(&self.requests, ASKED_ONE)?;
        loop {
            let received = self.link.receive(ASKED_ONE)?;
            let answer =
                found(received, sequence).map_err(|source| Error::Malformed { asked: ASKED_ONE, source })?;
            match answer {
                None => {}
                Some(Ok(socket)) => return Ok(Some(socket).filter(Socket::is_connected)),
                Some(Err(ENOENT)) => return Ok(None),
                Some(Err(errno)) => {
                    let source = std::io::Error::from_raw_os_error(errno);
                    return Err(Error::Refused { asked: ASKED_ONE, source });
                }
            }
        }
    }

    /// Destroys the sockets: their owners see ECONNABORTED. No packet is sent to a peer that cannot hear it any more.
    pub fn destroy(&mut self, sockets: &[Socket]) -> Result<Destroyed, Error> {
        let mut outcome = Destroyed::default();
        for batch in sockets.chunks(BATCH) {
            let mut requests = Requests::new();
            for socket in batch {
                let sequence = self.link.next_sequence();
                requests.message(SOCK_DESTROY, NLM_F_ACK, sequence, |r| {
                    r.raw(&[socket.family, IPPROTO_TCP, 0, 0]);
                    r.raw(&u32::MAX.to_ne_bytes());
                    r.raw(&socket.id);
                });
            }
            self.link.send(&requests, ASKED_DESTROY)?;
            let mut answers = 0;
            while answers < batch.len() {
                let received = self.link.receive(ASKED_DESTROY)?;
                answers += count(received, &mut outcome)
                    .map_err(|source| Error::Malformed { asked: ASKED_DESTROY, source })?;
            }
        }
        Ok(outcome)
    }
}

impl Socket {
    /// Its ends, written as a look-up would, are those of the id that a destruction sends.
    pub(crate) fn names_itself(&self) {
        let (id, written) = (self.id, sockid(self.local, self.peer));
        assert_eq!(id[..4], written[..4], "the ports");
        if self.family == AF_INET {
            assert_eq!((&id[4..8], &id[20..24]), (&written[4..8], &written[20..24]), "the addresses");
        } else if self.local.is_ipv6() && self.peer.is_ipv6() {
            assert_eq!(id[4..36], written[4..36], "the addresses");
        }
    }

    /// Where no connected socket is, the kernel's look-up answers with a listener.
    fn is_connected(&self) -> bool {
        CONNECTED & 1u32.checked_shl(u32::from(self.state)).unwrap_or(0) != 0
    }
}

/// The answer to a look-up, if the datagram holds it: the socket, or the errno.
pub(crate) fn found(received: &[u8], sequence: u32) -> Result<Option<Result<Socket, i32>>, Malformed> {
    for message in Messages(received) {
        let message = message?;
        match message.kind {
            _ if message.sequence != sequence => {}
            NLMSG_ERROR => return message.errno().map(|errno| Some(Err(errno))),
            _ => return socket(message.payload).map(|socket| Some(Ok(socket))),
        }
    }
    Ok(None)
}

/// Counts the answers in one datagram.
pub(crate) fn count(received: &[u8], outcome: &mut Destroyed) -> Result<usize, Malformed> {
    let mut answers = 0;
    for message in Messages(received) {
        let message = message?;
        if message.kind != NLMSG_ERROR {
            continue;
        }
        answers += 1;
        match message.errno()? {
            0 => outcome.destroyed += 1,
            ENOENT => outcome.absent += 1,
            EOPNOTSUPP => outcome.unsupported = true,
            errno => {
                let (count, first) = outcome.failed.unwrap_or((0, errno));
                outcome.failed = Some((count + 1, first));
            }
        }
    }
    Ok(answers)
}

/// `struct inet_diag_sockid` with any cookie, on no device in particular.
fn sockid(local: SocketAddr, peer: SocketAddr) -> [u8; SOCKID] {
    let mut id = [0; SOCKID];
    id[0..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&peer.port().to_be_bytes());
    for (at, address) in [(4, local.ip()), (20, peer.ip())] {
        match address {
            IpAddr::V4(four) => id[at..at + 4].copy_from_slice(&four.octets()),
            IpAddr::V6(six) => id[at..at + 16].copy_from_slice(&six.octets()),
        }
    }
    id[40..].copy_from_slice(&ANY_COOKIE);
    id
}

/// `struct inet_diag_msg`: family, state, timer, retrans, then the sockid.
pub(crate) fn socket(payload: &[u8]) -> Result<Socket, Malformed> {
    let short = Malformed("a socket shorter than its inet_diag_msg");
    let (head, rest) = payload.split_first_chunk::<4>().ok_or(short)?;
    let id = rest.first_chunk::<SOCKID>().ok_or(short)?;
    let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
    let address = |at: usize| -> IpAddr {
        let octets: [u8; 16] = std::array::from_fn(|i| id[at + i]);
        match head[0] {
            AF_INET => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
            _ => IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(),
        }
    };
    Ok(Socket {
        local: SocketAddr::new(address(4), port(0)),
        peer: SocketAddr::new(address(20), port(2)),
        state: head[1],
        family: head[0],
        id: *id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_connection_is_found_and_destroyed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut sockets = Sockets::open().unwrap();
        let mut found = Vec::new();
        sockets
            .visit(|socket| {
                if socket.local == client.local_addr().unwrap()
                    && socket.peer == listener.local_addr().unwrap()
                {
                    found.push(*socket);
                }
            })
            .unwrap();
        assert_eq!(found.len(), 1);
        let outcome = sockets.destroy(&found).unwrap();
        assert_eq!(
            outcome,
            Destroyed { destroyed: 1, ..Destroyed::default() },
            "root and CONFIG_INET_DIAG_DESTROY"
        );
        assert_eq!(sockets.destroy(&found).unwrap().absent, 1);
        let error = std::io::Read::read(&mut server, &mut [0; 1]).map_err(|e| e.kind());
        assert!(matches!(error, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)), "{error:?}");
    }

    #[test]
    fn a_connected_pair_is_found_by_its_ends_and_a_listener_is_none() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(at).unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (here, there) = (client.local_addr().unwrap(), listener.local_addr().unwrap());
            let mut sockets = Sockets::open().unwrap();
            let found = sockets.find(here, there).unwrap().unwrap();
            assert_eq!((found.local, found.peer, found.state), (here, there, 1));
            assert!(sockets.find(there, here).unwrap().is_some(), "in the accept queue");
            let nobody = SocketAddr::new(here.ip(), 1);
            assert_eq!(sockets.find(there, nobody).unwrap(), None, "the listener is not connected");
            assert_eq!(sockets.find(nobody, nobody).unwrap(), None);
        }
    }

    #[test]
    fn every_cut_of_a_socket_is_an_error() {
        let whole = [&[AF_INET, 1, 0, 0][..], &[7; SOCKID]].concat();
        assert_eq!(socket(&whole).unwrap().state, 1);
        for cut in 0..whole.len() {
            assert!(socket(&whole[..cut]).is_err());
        }
    }
}
