//! Bytes of one dump message → [`Flow`]. Pure; no allocation.
//!
//! Attribute layout: `ctnetlink_fill_info` in `net/netfilter/nf_conntrack_netlink.c`.

use crate::flow::{Counters, Family, Flow, L4, Protocol, Status, Tuple, Zone};
use crate::key::{
    CTA_ID, CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_PROTO_DST_PORT,
    CTA_PROTO_ICMP_CODE, CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMPV6_CODE, CTA_PROTO_ICMPV6_ID,
    CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO,
    CTA_TUPLE_ZONE, CTA_ZONE,
};
use crate::netlink::{Attribute, Attributes, Malformed};
use crate::state::{SctpState, State, TcpState};
use plain::Plain;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod plain;

const NFGENMSG: usize = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_SYNPROXY: u16 = 24;
const CTA_SYNPROXY_ISN: u16 = 1;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_SCTP: u16 = 3;
/// `CTA_PROTOINFO_TCP_STATE` and `CTA_PROTOINFO_SCTP_STATE`.
const STATE: u16 = 1;
/// `CTA_PROTOINFO_TCP_FLAGS_ORIGINAL`: what is known of that sender.
const TCP_FLAGS: u16 = 4;
const BE_LIBERAL: u8 = 8;
const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;

/// Decodes the payload of one `IPCTNL_MSG_CT_NEW`. Ok(None) is a family that is neither IPv4 nor IPv6.
#[inline]
pub(crate) fn flow(payload: &[u8]) -> Result<Option<Flow>, Malformed> {
    read(payload, plain::entry)
}

#[inline]
fn read(payload: &[u8], recognise: impl Fn(&[u8]) -> Plain<'_>) -> Result<Option<Flow>, Malformed> {
    let (header, attributes) =
        payload.split_first_chunk::<NFGENMSG>().ok_or(Malformed("an entry shorter than its nfgenmsg"))?;
    let family = match header[0] {
        AF_INET => Family::Ipv4,
        AF_INET6 => Family::Ipv6,
        _ => return Ok(None),
    };
    let plain = recognise(attributes);
    let [mut original, mut reply] = plain.tuples;
    let mut zone = Zone::Both(0);
    let mut status = plain.status;
    let mut protoinfo = None;
    let mut timeout = plain.timeout;
    let (mut id, mut mark) = (plain.id, plain.mark);
    let mut counters: [Option<Counters>; 2] = [None; 2];
    let mut synproxy = false;
    for attribute in Attributes(plain.rest) {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_ORIG => {
                let (read, tuple_zone) = tuple(attribute)?;
                original = Some(read);
                zone = tuple_zone.map_or(zone, Zone::Original);
            }
            CTA_TUPLE_REPLY => {
                let (read, tuple_zone) = tuple(attribute)?;
                reply = Some(read);
                zone = tuple_zone.map_or(zone, Zone::Reply);
            }
            CTA_ZONE => zone = Zone::Both(attribute.be16()?),
            CTA_STATUS => status = Status(attribute.be32()?),
            CTA_PROTOINFO => protoinfo = Some(attribute),
            CTA_TIMEOUT => timeout = Some(attribute.be32()?),
            CTA_MARK => mark = attribute.be32()?,
            CTA_ID => id = Some(attribute.be32()?),
            CTA_COUNTERS_ORIG => counters[0] = Some(count(attribute)?),
            CTA_COUNTERS_REPLY => counters[1] = Some(count(attribute)?),
            CTA_SYNPROXY => synproxy = proxied(attribute)?,
            _ => {}
        }
    }
    let original = original.ok_or(Malformed("an entry without an original tuple"))?;
    let reply = reply.ok_or(Malformed("an entry without a reply tuple"))?;
    let id = id.ok_or(Malformed("an entry without an id"))?;
    if Family::of(original.src) != family {
        return Err(Malformed("an entry whose addresses are not of its family"));
    }
    let (state, picked_up) = state(original.protocol, status, protoinfo)?;
    let counters = match counters {
        [Some(original), Some(reply)] => Some([original, reply]),
        _ => None,
    };
    Ok(Some(Flow {
        family,
        original,
        reply,
        zone,
        status,
        state,
        timeout,
        id,
        mark,
        counters,
        synproxy,
        picked_up,
    }))
}

#[inline]
fn tuple(nest: Attribute<'_>) -> Result<(Tuple, Option<u16>), Malformed> {
    match plain::tuple(nest.value) {
        Some(tuple) => Ok((tuple, None)),
        None => walked_tuple(nest),
    }
}

fn walked_tuple(nest: Attribute<'_>) -> Result<(Tuple, Option<u16>), Malformed> {
    let (mut addresses, mut l4, mut zone) = (None, None, None);
    for attribute in nest.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_IP => addresses = Some(ip(attribute)?),
            CTA_TUPLE_PROTO => l4 = Some(proto(attribute)?),
            CTA_TUPLE_ZONE => zone = Some(attribute.be16()?),
            _ => {}
        }
    }
    let (src, dst) = addresses.ok_or(Malformed("a tuple without addresses"))?;
    let (protocol, l4) = l4.ok_or(Malformed("a tuple without a protocol"))?;
    Ok((Tuple { src, dst, protocol, l4 }, zone))
}

#[inline]
fn ip(nest: Attribute<'_>) -> Result<(IpAddr, IpAddr), Malformed> {
    let (mut src, mut dst) = (None, None);
    for attribute in nest.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_IP_V4_SRC => src = Some(IpAddr::V4(Ipv4Addr::from(attribute.array::<4>()?))),
            CTA_IP_V4_DST => dst = Some(IpAddr::V4(Ipv4Addr::from(attribute.array::<4>()?))),
            CTA_IP_V6_SRC => src = Some(IpAddr::V6(Ipv6Addr::from(attribute.array::<16>()?))),
            CTA_IP_V6_DST => dst = Some(IpAddr::V6(Ipv6Addr::from(attribute.array::<16>()?))),
            _ => {}
        }
    }
    match (src, dst) {
        (Some(src), Some(dst)) if src.is_ipv4() == dst.is_ipv4() => Ok((src, dst)),
        _ => Err(Malformed("a tuple without both addresses of one family")),
    }
}

#[inline]
fn proto(nest: Attribute<'_>) -> Result<(Protocol, L4), Malformed> {
    let mut protocol = None;
    let mut l4 = L4::None;
    let mut ports = (0, 0);
    let mut icmp = (0, 0, 0);
    for attribute in nest.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_PROTO_NUM => protocol = Some(Protocol(attribute.byte()?)),
            CTA_PROTO_SRC_PORT => {
                ports.0 = attribute.be16()?;
                l4 = L4::Ports { src: ports.0, dst: ports.1 };
            }
            CTA_PROTO_DST_PORT => {
                ports.1 = attribute.be16()?;
                l4 = L4::Ports { src: ports.0, dst: ports.1 };
            }
            CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => icmp.0 = attribute.be16()?,
            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => icmp.1 = attribute.byte()?,
            CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => {
                icmp.2 = attribute.byte()?;
                l4 = L4::Icmp { id: icmp.0, kind: icmp.1, code: icmp.2 };
            }
            _ => {}
        }
    }
    // The kernel writes id, type, code in some order: read them all before they are put together.
    if let L4::Icmp { .. } = l4 {
        l4 = L4::Icmp { id: icmp.0, kind: icmp.1, code: icmp.2 };
    }
    Ok((protocol.ok_or(Malformed("a tuple without a protocol number"))?, l4))
}

/// The state, and whether a TCP entry was picked up: `tcp_new` does not know the windows of a connection that it did not see begin, and
/// marks it so.
#[inline]
fn state(
    protocol: Protocol,
    status: Status,
    protoinfo: Option<Attribute<'_>>,
) -> Result<(State, bool), Malformed> {
    let kind = match protocol.0 {
        6 => CTA_PROTOINFO_TCP,
        132 => CTA_PROTOINFO_SCTP,
        _ if status.offload() => return Ok((State::Offload, false)),
        _ => return Ok((State::of_status(status), false)),
    };
    let plain = protoinfo.filter(|_| protocol == Protocol::TCP).and_then(|info| plain::tcp(info.value));
    let (number, flags) = match plain {
        Some(read) => read,
        None => walked_protoinfo(protoinfo, kind)?,
    };
    let picked_up = protocol == Protocol::TCP && flags & BE_LIBERAL != 0;
    let state = match protocol {
        _ if status.offload() => State::Offload,
        Protocol::TCP => State::Tcp(TcpState::ALL.get(number).copied().unwrap_or(TcpState::Unknown)),
        _ => State::Sctp(SctpState::ALL.get(number).copied().unwrap_or(SctpState::Unknown)),
    };
    Ok((state, picked_up))
}

fn walked_protoinfo(protoinfo: Option<Attribute<'_>>, kind: u16) -> Result<(usize, u8), Malformed> {
    let (mut number, mut flags) = (0, 0);
    for nest in protoinfo.into_iter().flat_map(|info| info.nested()) {
        let nest = nest?;
        if nest.kind != kind {
            continue;
        }
        for field in nest.nested() {
            let field = field?;
            match field.kind {
                STATE => number = usize::from(field.byte()?),
                TCP_FLAGS => flags = field.byte()?,
                _ => {}
            }
        }
    }
    Ok((number, flags))
}

/// Entries made over ctnetlink (`conntrack -I`, conntrackd) carry an empty one: `ctnetlink_create_conntrack` adds it to each. A
/// SYNPROXY's has the initial sequence number that it chose.
fn proxied(nest: Attribute<'_>) -> Result<bool, Malformed> {
    for attribute in nest.nested() {
        let attribute = attribute?;
        if attribute.kind == CTA_SYNPROXY_ISN {
            return attribute.be32().map(|isn| isn != 0);
        }
    }
    Ok(true)
}

fn count(nest: Attribute<'_>) -> Result<Counters, Malformed> {
    let mut counters = Counters::default();
    for attribute in nest.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_COUNTERS_PACKETS => counters.packets = u64::from_be_bytes(attribute.array()?),
            CTA_COUNTERS_BYTES => counters.bytes = u64::from_be_bytes(attribute.array()?),
            _ => {}
        }
    }
    Ok(counters)
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
