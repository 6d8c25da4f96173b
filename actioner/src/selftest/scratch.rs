//! The scratch namespace: its loopback, connections in it from addresses of our choice, and entries made by hand.

use conntrack::netlink::{NLM_F_ACK, Requests};
use conntrack::{Channel, Error, Flow, Link, Table};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

const RTM_NEWLINK: u16 = 16;
const IFF_UP: u32 = 1;
const LOOPBACK: u32 = 1;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`.
const CT_NEW: u16 = 1 << 8;
const NLM_F_CREATE: u16 = 0x400;
/// How long a packet that is dropped is waited for.
const SILENCE: Duration = Duration::from_millis(400);
const NOBODY: Duration = Duration::from_secs(5);

/// Brings the namespace's loopback up; its addresses come by themselves.
pub(super) fn loopback_up() -> Result<(), Error> {
    let asked = "the loopback of a scratch namespace";
    let mut link = Link::open(Channel::Route, asked)?;
    let sequence = link.next_sequence();
    let mut request = Requests::new();
    request.message(RTM_NEWLINK, NLM_F_ACK, sequence, |r| {
        r.raw(&[0; 4]); // struct ifinfomsg: family, type
        for word in [LOOPBACK, IFF_UP, IFF_UP] {
            r.raw(&word.to_ne_bytes());
        }
    });
    link.ask(&request, asked, |_| Ok(()), || ()).map(drop)
}

/// The last number of an address of 127.0.0.0/8, all of which are ours here.
pub(super) fn peer(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// Both ends of an open connection.
pub(super) struct Pair {
    pub(super) client: TcpStream,
    server: TcpStream,
}

/// Connects from an address of ours, and says something there and back.
pub(super) fn open(from: Ipv4Addr, to: &TcpListener) -> std::io::Result<Pair> {
    let client = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&client, &SocketAddrV4::new(from, 0))?;
    set_socket_timeout(&client, Timeout::Send, Some(SILENCE))?;
    connect(&client, &to.local_addr()?)?;
    let (server, _) = to.accept()?;
    let mut pair = Pair { client: client.into(), server };
    pair.exchange()?;
    Ok(pair)
}

impl Pair {
    pub(super) fn exchange(&mut self) -> std::io::Result<()> {
        let mut byte = [0];
        for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            let (mut from, mut to) = (from, to);
            to.set_read_timeout(Some(NOBODY))?;
            from.write_all(b"x")?;
            to.read_exact(&mut byte)?;
        }
        Ok(())
    }

    pub(super) fn client_address(&self) -> std::io::Result<SocketAddr> {
        self.client.local_addr()
    }
}

/// Makes an entry of an established connection that is `left` seconds from its end, or sets that of the one that is there.
pub(super) fn entry(from: SocketAddrV4, to: SocketAddrV4, left: u32, new: bool) -> Result<(), Error> {
    let asked = "an entry of a scratch namespace";
    let mut link = Link::open(Channel::Netfilter, asked)?;
    let sequence = link.next_sequence();
    let mut request = Requests::new();
    let flags = if new { NLM_F_ACK | NLM_F_CREATE } else { NLM_F_ACK };
    request.message(CT_NEW, flags, sequence, |r| {
        r.raw(&[2, 0, 0, 0]); // struct nfgenmsg: AF_INET
        tuple(r, 1, from, to); // CTA_TUPLE_ORIG
        if new {
            tuple(r, 2, to, from); // CTA_TUPLE_REPLY
            r.attribute(3, &0b1110_u32.to_be_bytes()); // CTA_STATUS: SEEN_REPLY, ASSURED, CONFIRMED
            r.nest(4, |r| r.nest(1, |r| r.attribute(1, &[3]))); // CTA_PROTOINFO: TCP, ESTABLISHED
        }
        r.attribute(7, &left.to_be_bytes()); // CTA_TIMEOUT
    });
    link.ask(&request, asked, |_| Ok(()), || ()).map(drop)
}

fn tuple(r: &mut Requests, kind: u16, from: SocketAddrV4, to: SocketAddrV4) {
    r.nest(kind, |r| {
        r.nest(1, |r| {
            r.attribute(1, &from.ip().octets());
            r.attribute(2, &to.ip().octets());
        });
        r.nest(2, |r| {
            r.attribute(1, &[6]);
            r.attribute(2, &from.port().to_be_bytes());
            r.attribute(3, &to.port().to_be_bytes());
        });
    });
}

/// How many entries of the namespace's table are like that.
pub(super) fn entries(like: impl Fn(&Flow) -> bool) -> Result<usize, Error> {
    let mut count = 0;
    Table::open()?.visit(|flow| count += usize::from(like(flow)))?;
    Ok(count)
}

/// Entries whose source is that.
pub(super) fn entries_of(source: Ipv4Addr) -> Result<usize, Error> {
    entries(|flow| flow.original.src == IpAddr::from(source))
}
