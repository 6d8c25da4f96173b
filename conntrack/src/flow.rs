//! One entry of the table, as a dump shows it.

use crate::key::FlowKey;
use crate::state::{ProtocolName, State};
use std::net::{IpAddr, Ipv4Addr};

/// The layer 3 family of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`.
    Ipv6,
}

impl Family {
    /// Both, in the order of [`Family::index`].
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The word used in labels.
    pub fn name(self) -> &'static str {
        match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        }
    }

    /// 0 or 1: a place in an array.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }
}

/// A layer 4 protocol number (IANA).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// TCP.
    pub const TCP: Protocol = Protocol(6);
    /// UDP.
    pub const UDP: Protocol = Protocol(17);
    /// SCTP.
    pub const SCTP: Protocol = Protocol(132);

    /// Its name, where conntrack knows the protocol.
    pub fn name(self) -> ProtocolName {
        ProtocolName::of(self)
    }
}

/// What a tuple holds above the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum L4 {
    /// TCP, UDP, UDP-Lite, SCTP, DCCP; GRE's two keys.
    Ports {
        /// The source port.
        src: u16,
        /// The destination port.
        dst: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// The identifier of an echo.
        id: u16,
        /// The message's type.
        kind: u8,
        /// The message's code.
        code: u8,
    },
    /// A protocol that conntrack knows nothing of.
    None,
}

/// One direction of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address. `::ffff:a.b.c.d` stays as it is: the kernel keys on it.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Layer 4 protocol.
    pub protocol: Protocol,
    /// Ports, or what the protocol has instead.
    pub l4: L4,
}

impl Tuple {
    const BLANK: Tuple = {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Tuple { src: nobody, dst: nobody, protocol: Protocol(0), l4: L4::None }
    };
}

/// The zone of an entry, and for which of its directions it holds (`nf_conntrack_zones.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Zone {
    /// `CTA_ZONE`: both directions. 0 is the default zone.
    Both(u16),
    /// `CTA_TUPLE_ZONE` in the original tuple: `ct original zone`.
    Original(u16),
    /// `CTA_TUPLE_ZONE` in the reply tuple: `ct reply zone`.
    Reply(u16),
}

/// The status bits (`enum ip_conntrack_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

impl Status {
    const EXPECTED: u32 = 1;
    pub(crate) const SEEN_REPLY: u32 = 1 << 1;
    const ASSURED: u32 = 1 << 2;
    const SRC_NAT: u32 = 1 << 4;
    const DST_NAT: u32 = 1 << 5;
    pub(crate) const OFFLOAD: u32 = 1 << 14;
    const HW_OFFLOAD: u32 = 1 << 15;

    /// The entry was expected by a helper.
    #[inline]
    pub fn expected(self) -> bool {
        self.0 & Status::EXPECTED != 0
    }
    /// A packet came back.
    #[inline]
    pub fn seen_reply(self) -> bool {
        self.0 & Status::SEEN_REPLY != 0
    }
    /// Not to be evicted early.
    #[inline]
    pub fn assured(self) -> bool {
        self.0 & Status::ASSURED != 0
    }
    /// The source is rewritten.
    #[inline]
    pub fn snat(self) -> bool {
        self.0 & Status::SRC_NAT != 0
    }
    /// The destination is rewritten.
    #[inline]
    pub fn dnat(self) -> bool {
        self.0 & Status::DST_NAT != 0
    }
    /// In a flow table, in software or hardware: no timeout, no TCP state.
    #[inline]
    pub fn offload(self) -> bool {
        self.0 & (Status::OFFLOAD | Status::HW_OFFLOAD) != 0
    }
}

/// Packets and bytes of one direction, where `nf_conntrack_acct` is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One entry of the table. Made by a dump and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The layer 3 family.
    pub family: Family,
    /// The tuple of the direction that opened the flow: its `src` is the *source*.
    pub original: Tuple,
    /// The tuple that answers are matched on.
    pub reply: Tuple,
    /// The zone.
    pub zone: Zone,
    /// The status bits.
    pub status: Status,
    /// The state its protocol is in.
    pub state: State,
    /// Seconds until the kernel forgets it. None for OFFLOAD.
    pub timeout: Option<u32>,
    /// `CTA_ID`. The reuse of a tuple can keep it: it names an entry only together with the tuple.
    pub id: u32,
    /// The connmark; 0 when unset.
    pub mark: u32,
    /// Original and reply counters.
    pub counters: Option<[Counters; 2]>,
    /// A SYNPROXY answered the handshake in the server's stead.
    pub synproxy: bool,
    /// TCP, and the first packet seen was not its SYN (`nf_conntrack_tcp_loose`): who is the source says who spoke first after that,
    /// not who called whom. The kernel's IP_CT_TCP_FLAG_BE_LIBERAL on the original sender.
    pub picked_up: bool,
}

impl Flow {
    /// No entry yet: what a decoder writes on.
    pub(crate) const BLANK: Flow = Flow {
        family: Family::Ipv4,
        original: Tuple::BLANK,
        reply: Tuple::BLANK,
        zone: Zone::Both(0),
        status: Status(0),
        state: State::Unreplied,
        timeout: None,
        id: 0,
        mark: 0,
        counters: None,
        synproxy: false,
        picked_up: false,
    };

    /// What [`Table::delete`](crate::Table::delete) needs to delete this entry and no other.
    #[inline]
    pub fn key(&self) -> FlowKey {
        FlowKey::of(self)
    }

    /// Whether `address` is at either end, in either direction, NAT included.
    pub fn touches(&self, address: IpAddr) -> bool {
        [self.original.src, self.original.dst, self.reply.src, self.reply.dst].contains(&address)
    }
}
