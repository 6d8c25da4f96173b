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

/// What every entry has, and this one was not seen to have yet.
#[derive(Debug, Clone, Copy)]
struct Missing {
    original: bool,
    reply: bool,
    id: bool,
}

impl Missing {
    const ALL: Missing = Missing { original: true, reply: true, id: true };
    const NOTHING: Missing = Missing { original: false, reply: false, id: false };
}

/// Decodes the payload of one `IPCTNL_MSG_CT_NEW`. Ok(None) is a family that is neither IPv4 nor IPv6.
pub(crate) fn flow(payload: &[u8]) -> Result<Option<Flow>, Malformed> {
    let mut flow = Flow::BLANK;
    Ok(flow_into(payload, &mut flow)?.then_some(flow))
}

/// The same, written where it will be read: copying an entry costs as much as reading it, for a processor waits where it loads at once what
/// was stored in parts. False: neither IPv4 nor IPv6.
#[inline]
pub(crate) fn flow_into(payload: &[u8], flow: &mut Flow) -> Result<bool, Malformed> {
    read(payload, flow, plain::entry)
}

#[inline]
fn read(
    payload: &[u8],
    flow: &mut Flow,
    recognise: impl for<'a> Fn(&'a [u8], &mut Flow) -> Option<&'a [u8]>,
) -> Result<bool, Malformed> {
    let (header, attributes) =
        payload.split_first_chunk::<NFGENMSG>().ok_or(Malformed("an entry shorter than its nfgenmsg"))?;
    let family = match header[0] {
        AF_INET => Family::Ipv4,
        AF_INET6 => Family::Ipv6,
        _ => return Ok(false),
    };
    match recognise(attributes, flow) {
        Some(rest) => {
            let (_, protoinfo) = walk(rest, flow, Missing::NOTHING)?;
            whole(family, flow, protoinfo)
        }
        None => walked(family, attributes, flow),
    }
    .map(|()| true)
}

/// Nothing is recognised: attribute by attribute.
#[inline(never)]
fn walked(family: Family, attributes: &[u8], flow: &mut Flow) -> Result<(), Malformed> {
    *flow = Flow::BLANK;
    let (missing, protoinfo) = walk(attributes, flow, Missing::ALL)?;
    if missing.original {
        return Err(Malformed("an entry without an original tuple"));
    }
    if missing.reply {
        return Err(Malformed("an entry without a reply tuple"));
    }
    if missing.id {
        return Err(Malformed("an entry without an id"));
    }
    whole(family, flow, protoinfo)
}

/// What the attributes say together.
#[inline]
fn whole(family: Family, flow: &mut Flow, protoinfo: Option<&[u8]>) -> Result<(), Malformed> {
    if Family::of(flow.original.src) != family {
        return Err(Malformed("an entry whose addresses are not of its family"));
    }
    flow.family = family;
    set_state(flow, protoinfo)
}

/// Reads attributes one by one; what is missing afterwards, and the value of CTA_PROTOINFO.
#[inline]
fn walk<'a>(
    attributes: &'a [u8],
    flow: &mut Flow,
    mut missing: Missing,
) -> Result<(Missing, Option<&'a [u8]>), Malformed> {
    let mut protoinfo = None;
    let mut counters: [Option<Counters>; 2] = [None; 2];
    for attribute in Attributes(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_ORIG => {
                let (read, zone) = tuple(attribute)?;
                (flow.original, missing.original) = (read, false);
                flow.zone = zone.map_or(flow.zone, Zone::Original);
            }
            CTA_TUPLE_REPLY => {
                let (read, zone) = tuple(attribute)?;
                (flow.reply, missing.reply) = (read, false);
                flow.zone = zone.map_or(flow.zone, Zone::Reply);
            }
            CTA_ZONE => flow.zone = Zone::Both(attribute.be16()?),
            CTA_STATUS => flow.status = Status(attribute.be32()?),
            CTA_PROTOINFO => protoinfo = Some(attribute.value),
            CTA_TIMEOUT => flow.timeout = Some(attribute.be32()?),
            CTA_MARK => flow.mark = attribute.be32()?,
            CTA_ID => (flow.id, missing.id) = (attribute.be32()?, false),
            CTA_COUNTERS_ORIG => counters[0] = Some(count(attribute)?),
            CTA_COUNTERS_REPLY => counters[1] = Some(count(attribute)?),
            CTA_SYNPROXY => flow.synproxy = proxied(attribute)?,
            _ => {}
        }
    }
    if let [Some(original), Some(reply)] = counters {
        flow.counters = Some([original, reply]);
    }
    Ok((missing, protoinfo))
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
fn set_state(flow: &mut Flow, protoinfo: Option<&[u8]>) -> Result<(), Malformed> {
    let (protocol, offload) = (flow.original.protocol, flow.status.offload());
    let kind = match protocol {
        Protocol::TCP => CTA_PROTOINFO_TCP,
        Protocol::SCTP => CTA_PROTOINFO_SCTP,
        _ => {
            flow.state = if offload { State::Offload } else { State::of_status(flow.status) };
            return Ok(());
        }
    };
    let plain = protoinfo.filter(|_| protocol == Protocol::TCP).and_then(plain::tcp);
    let (number, flags) = match plain {
        Some(read) => read,
        None => walked_protoinfo(protoinfo, kind)?,
    };
    flow.picked_up = protocol == Protocol::TCP && flags & BE_LIBERAL != 0;
    flow.state = match protocol {
        _ if offload => State::Offload,
        Protocol::TCP => State::Tcp(TcpState::ALL.get(number).copied().unwrap_or(TcpState::Unknown)),
        _ => State::Sctp(SctpState::ALL.get(number).copied().unwrap_or(SctpState::Unknown)),
    };
    Ok(())
}

fn walked_protoinfo(protoinfo: Option<&[u8]>, kind: u16) -> Result<(usize, u8), Malformed> {
    let (mut number, mut flags) = (0, 0);
    for nest in protoinfo.into_iter().flat_map(Attributes) {
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
