//! Entries for tests.

use std::net::IpAddr;

use conntrack::{Family, Flow, L4, Protocol, State, Status, Tuple, Zone};

/// Status bits: a reply was seen, not to be evicted early, confirmed.
pub(crate) const ASSURED: u32 = 0b1110;

/// An entry of `source`.
pub(crate) fn flow(source: impl Into<IpAddr>, protocol: Protocol, state: State, status: u32) -> Flow {
    let src = source.into();
    let dst: IpAddr =
        if src.is_ipv4() { [192, 0, 2, 1].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() };
    let original = Tuple { src, dst, protocol, l4: L4::Ports { src: 1000, dst: 80 } };
    let reply = Tuple { src: dst, dst: src, protocol, l4: L4::Ports { src: 80, dst: 1000 } };
    Flow {
        family: Family::of(src),
        original,
        reply,
        zone: Zone::Both(0),
        status: Status(status),
        state,
        timeout: Some(60),
        id: 1,
        mark: 0,
        counters: None,
        synproxy: false,
        picked_up: false,
    }
}
