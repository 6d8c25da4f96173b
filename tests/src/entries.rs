//! A table filled by the hundred thousand, over ctnetlink: `conntrack --load-file` takes a second for what takes this 10 ms.

use std::net::{Ipv4Addr, SocketAddrV4};

use conntrack::{
    Channel, Link,
    netlink::{Messages, Requests},
};

const CT_NEW: u16 = 1 << 8;
const CT_DELETE: u16 = CT_NEW | 2;
const NLM_F_CREATE: u16 = 0x400;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const TCP: u8 = 6;
const ESTABLISHED: u8 = 3;
const SYN_SENT: u8 = 1;
const BATCH: usize = 200;
const ASKED: &str = "entries of a test";

/// One TCP entry to be made.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Who opened it.
    pub source: SocketAddrV4,
    /// Its port at 192.0.2.1.
    pub to: u16,
    /// ESTABLISHED, answered and assured; else SYN_SENT and unreplied.
    pub replied: bool,
}

impl Wanted {
    /// The numberth entry of a table in which each source, from 198.18.0.0 on, holds so many.
    pub fn nth(number: u32, by_source: u32, replied: bool) -> Self {
        let address = Ipv4Addr::from_bits(0xc612_0000 + number / by_source);
        Self { source: SocketAddrV4::new(address, 1024 + (number % by_source) as u16), to: 80, replied }
    }

    fn server(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), self.to)
    }
}

/// Puts entries into the table of the calling thread's namespace, for an hour.
///
/// # Panics
/// Where the kernel refuses one: its table is full, or there is one like it.
pub fn insert(entries: impl IntoIterator<Item = Wanted>) {
    batches(entries, CT_NEW, NLM_F_CREATE, write);
}

/// Takes entries out again by their tuples alone: what the kernel charges for a deletion, and nothing else.
///
/// # Panics
/// Where the kernel refuses one: it is not there.
pub fn delete(entries: impl IntoIterator<Item = Wanted>) {
    batches(entries, CT_DELETE, 0, |entry, r| {
        r.raw(&[2, 0, 0, 0]);
        tuple(CTA_TUPLE_ORIG, entry.source, entry.server(), r);
    });
}

fn batches(
    entries: impl IntoIterator<Item = Wanted>,
    kind: u16,
    flags: u16,
    write: impl Fn(Wanted, &mut Requests),
) {
    let mut link = Link::open(Channel::Netfilter, ASKED).expect("a netlink socket");
    let mut entries = entries.into_iter().peekable();
    let mut requests = Requests::new();
    while entries.peek().is_some() {
        requests.clear();
        for entry in entries.by_ref().take(BATCH) {
            let sequence = link.next_sequence();
            requests.message(kind, flags, sequence, |r| write(entry, r));
        }
        link.send(&requests, ASKED).expect("a batch of entries is sent");
        if let Some(answer) = link.receive_waiting(ASKED).expect("the kernel's errors are read") {
            let errno = Messages(answer).next().map(|message| message.and_then(|message| message.errno()));
            panic!("the kernel refuses an entry: {errno:?}");
        }
    }
}

fn tuple(kind: u16, from: SocketAddrV4, to: SocketAddrV4, r: &mut Requests) {
    r.nest(kind, |r| {
        r.nest(1, |r| {
            r.attribute(1, &from.ip().octets());
            r.attribute(2, &to.ip().octets());
        });
        r.nest(2, |r| {
            r.attribute(1, &[TCP]);
            r.attribute(2, &from.port().to_be_bytes());
            r.attribute(3, &to.port().to_be_bytes());
        });
    });
}

fn write(entry: Wanted, r: &mut Requests) {
    let server = entry.server();
    r.raw(&[2, 0, 0, 0]);
    tuple(CTA_TUPLE_ORIG, entry.source, server, r);
    tuple(CTA_TUPLE_REPLY, server, entry.source, r);
    r.attribute(CTA_STATUS, &(if entry.replied { 0b1110_u32 } else { 0b1000 }).to_be_bytes());
    r.attribute(CTA_TIMEOUT, &3600_u32.to_be_bytes());
    r.nest(CTA_PROTOINFO, |r| {
        r.nest(1, |r| r.attribute(1, &[if entry.replied { ESTABLISHED } else { SYN_SENT }]));
    });
}
