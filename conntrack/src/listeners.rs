//! Ports of this host on which somebody waits to be called, over inet_diag.
//!
//! A connection whose local port nobody listens on is one that this host made, whatever the table says: after a deletion
//! the next packet makes a new entry, and who sends it first becomes its source (DOMAIN.md, 3).

use crate::flow::Protocol;
use crate::link::{Channel, Error, Link};
use crate::netlink::{Malformed, NLM_F_DUMP, Requests};
use std::collections::HashSet;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `TCP_LISTEN`.
const LISTEN: u32 = 1 << 10;
/// `TCP_CLOSE`: what a bound UDP socket without a peer is in.
const UNCONNECTED: u32 = 1 << 7;
/// `struct inet_diag_req_v2` after its first eight bytes.
const SOCKID: usize = 48;
const ASKED: &str = "the listening sockets of this host";

/// The ports, of any local address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners {
    tcp: HashSet<u16>,
    udp: HashSet<u16>,
}

impl Listeners {
    /// Reads those of the calling thread's namespace: TCP in LISTEN, UDP bound without a peer.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Refused`] where the kernel lacks tcp_diag or udp_diag.
    pub fn read() -> Result<Listeners, Error> {
        let mut link = Link::open(Channel::SockDiag, ASKED)?;
        let tcp = ports(&mut link, Protocol::TCP, LISTEN)?;
        let udp = ports(&mut link, Protocol::UDP, UNCONNECTED)?;
        Ok(Listeners { tcp, udp })
    }

    /// A list made by hand, for tests.
    pub fn of(tcp: impl IntoIterator<Item = u16>, udp: impl IntoIterator<Item = u16>) -> Listeners {
        Listeners { tcp: tcp.into_iter().collect(), udp: udp.into_iter().collect() }
    }

    /// Whether somebody waits on that port, at any address. The kernel lends no outgoing connection a port that is listened
    /// on (`__inet_hash_connect`). Always no for protocols other than TCP and UDP: their entries do not turn round.
    pub fn has(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::TCP => self.tcp.contains(&port),
            Protocol::UDP => self.udp.contains(&port),
            _ => false,
        }
    }
}

fn ports(link: &mut Link, protocol: Protocol, states: u32) -> Result<HashSet<u16>, Error> {
    let mut ports = HashSet::new();
    for family in [AF_INET, AF_INET6] {
        let sequence = link.next_sequence();
        let mut request = Requests::new();
        request.message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, sequence, |r| {
            r.raw(&[family, protocol.0, 0, 0]);
            r.raw(&states.to_ne_bytes());
            r.raw(&[0; SOCKID]);
        });
        let read = |message: crate::netlink::Message<'_>| {
            ports.insert(local_port(message.payload)?);
            Ok(())
        };
        link.ask(&request, ASKED, read, || ())?;
    }
    Ok(ports)
}

/// `struct inet_diag_msg`: family, state, timer, retrans, then `idiag_sport` in network order.
pub(crate) fn local_port(payload: &[u8]) -> Result<u16, Malformed> {
    match payload {
        [_, _, _, _, high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(Malformed("a socket shorter than its inet_diag_msg")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn ports_that_are_waited_on_and_no_others() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(at).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let service = UdpSocket::bind(at).unwrap();
            let caller = UdpSocket::bind(at).unwrap();
            caller.connect(service.local_addr().unwrap()).unwrap();
            let listeners = Listeners::read().unwrap();
            let tcp = |port| listeners.has(Protocol::TCP, port);
            let udp = |port| listeners.has(Protocol::UDP, port);
            assert!(tcp(listener.local_addr().unwrap().port()));
            assert!(!tcp(client.local_addr().unwrap().port()));
            assert!(udp(service.local_addr().unwrap().port()));
            assert!(!udp(caller.local_addr().unwrap().port()));
        }
    }

    #[test]
    fn every_cut_of_a_socket_is_an_error() {
        let whole = [AF_INET, 10, 0, 0, 0x1f, 0x90];
        assert_eq!(local_port(&whole), Ok(8080));
        for cut in 0..whole.len() {
            assert!(local_port(&whole[..cut]).is_err());
        }
    }
}
