//! What names one entry for deletion.

use crate::flow::{Family, Flow, L4, Protocol, Tuple, Zone};
use crate::netlink::Requests;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const CTA_TUPLE_ORIG: u16 = 1;
pub(crate) const CTA_TUPLE_IP: u16 = 1;
pub(crate) const CTA_TUPLE_PROTO: u16 = 2;
pub(crate) const CTA_TUPLE_ZONE: u16 = 3;
pub(crate) const CTA_IP_V4_SRC: u16 = 1;
pub(crate) const CTA_IP_V4_DST: u16 = 2;
pub(crate) const CTA_IP_V6_SRC: u16 = 3;
pub(crate) const CTA_IP_V6_DST: u16 = 4;
pub(crate) const CTA_PROTO_NUM: u16 = 1;
pub(crate) const CTA_PROTO_SRC_PORT: u16 = 2;
pub(crate) const CTA_PROTO_DST_PORT: u16 = 3;
pub(crate) const CTA_PROTO_ICMP_ID: u16 = 4;
pub(crate) const CTA_PROTO_ICMP_TYPE: u16 = 5;
pub(crate) const CTA_PROTO_ICMP_CODE: u16 = 6;
pub(crate) const CTA_PROTO_ICMPV6_ID: u16 = 7;
pub(crate) const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
pub(crate) const CTA_PROTO_ICMPV6_CODE: u16 = 9;
pub(crate) const CTA_ID: u16 = 12;
pub(crate) const CTA_ZONE: u16 = 18;

/// The full original tuple of an entry with its zone and id: names one entry, for its deletion.
/// It can be had from [`Flow::key`] only, so each one was in a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    original: Tuple,
    zone: Zone,
    id: u32,
}

impl FlowKey {
    pub(crate) fn of(flow: &Flow) -> FlowKey {
        FlowKey { original: flow.original, zone: flow.zone, id: flow.id }
    }

    /// The source of the original direction.
    pub fn source(&self) -> IpAddr {
        self.original.src
    }

    /// The addresses of the original direction.
    pub(crate) fn ends(&self) -> [IpAddr; 2] {
        [self.original.src, self.original.dst]
    }

    /// Bytes that it takes among kept ones.
    pub(crate) fn size(&self) -> usize {
        match self.original.src {
            IpAddr::V4(_) => size_of::<Packed<4>>(),
            IpAddr::V6(_) => size_of::<Packed<16>>(),
        }
    }

    /// The family, as a message's `nfgen_family` wants it.
    pub(crate) fn nfgen_family(&self) -> u8 {
        match self.original.src {
            IpAddr::V4(_) => 2,
            IpAddr::V6(_) => 10,
        }
    }

    /// Whether an entry is the one that this key was made of: tuple, zone and id.
    pub(crate) fn names(&self, flow: &Flow) -> bool {
        *self == FlowKey::of(flow)
    }

    /// Writes tuple, zone and id as the kernel does (`ctnetlink_dump_tuples`), so that it finds the same entry.
    pub(crate) fn write(&self, request: &mut Requests) {
        request.nest(CTA_TUPLE_ORIG, |r| {
            r.nest(CTA_TUPLE_IP, |r| match (self.original.src, self.original.dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    r.attribute(CTA_IP_V4_SRC, &src.octets());
                    r.attribute(CTA_IP_V4_DST, &dst.octets());
                }
                (src, dst) => {
                    r.attribute(CTA_IP_V6_SRC, &six(src).octets());
                    r.attribute(CTA_IP_V6_DST, &six(dst).octets());
                }
            });
            r.nest(CTA_TUPLE_PROTO, |r| self.write_l4(r));
            if let Zone::Original(zone) = self.zone {
                r.attribute(CTA_TUPLE_ZONE, &zone.to_be_bytes());
            }
        });
        if let Zone::Both(zone @ 1..) = self.zone {
            request.attribute(CTA_ZONE, &zone.to_be_bytes());
        }
        request.attribute(CTA_ID, &self.id.to_be_bytes());
    }

    fn write_l4(&self, r: &mut Requests) {
        r.attribute(CTA_PROTO_NUM, &[self.original.protocol.0]);
        match self.original.l4 {
            L4::Ports { src, dst } => {
                r.attribute(CTA_PROTO_SRC_PORT, &src.to_be_bytes());
                r.attribute(CTA_PROTO_DST_PORT, &dst.to_be_bytes());
            }
            L4::Icmp { id, kind, code } => {
                let [id_attribute, kind_attribute, code_attribute] = match Family::of(self.original.src) {
                    Family::Ipv4 => [CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE],
                    Family::Ipv6 => [CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_ICMPV6_CODE],
                };
                r.attribute(id_attribute, &id.to_be_bytes());
                r.attribute(kind_attribute, &[kind]);
                r.attribute(code_attribute, &[code]);
            }
            L4::None => {}
        }
    }
}

fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    }
}

/// Many keys, kept small: 20 bytes for IPv4, 44 for IPv6, up to a bound given at the start.
#[derive(Debug)]
pub struct FlowKeys {
    four: Pieces<Packed<4>>,
    six: Pieces<Packed<16>>,
    room: usize,
    left_out: u64,
}

/// So many bytes stand together. Below what glibc maps by itself (128 KiB), and whole pages but for its own header: what one dump gives
/// back, the next one takes.
const PIECE: usize = 64 * 1024 - 64;

/// A list that is never copied to grow: a vector of a million keys is there twice for a moment each time it doubles, and an allocator
/// that serves several threads keeps the holes (measured: 43 MiB for 20 MiB of keys).
#[derive(Debug)]
struct Pieces<T> {
    full: Vec<Vec<T>>,
    last: Vec<T>,
}

impl<T> Pieces<T> {
    const LENGTH: usize = PIECE / size_of::<T>();

    fn push(&mut self, item: T) {
        if self.last.len() == Self::LENGTH {
            let full = std::mem::replace(&mut self.last, Vec::with_capacity(Self::LENGTH));
            self.full.push(full);
        }
        self.last.push(item);
    }

    fn len(&self) -> usize {
        self.full.len() * Self::LENGTH + self.last.len()
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.full.iter().flatten().chain(&self.last)
    }
}

impl<T> Default for Pieces<T> {
    fn default() -> Pieces<T> {
        Pieces { full: Vec::new(), last: Vec::new() }
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Packed<const N: usize> {
    src: [u8; N],
    dst: [u8; N],
    l4: [u8; 4],
    id: u32,
    zone: u16,
    protocol: u8,
    shape: u8,
}

const SHAPE_PORTS: u8 = 1;
const SHAPE_ICMP: u8 = 2;
const SHAPE_ZONE_ORIGINAL: u8 = 4;
const SHAPE_ZONE_REPLY: u8 = 8;

impl FlowKeys {
    /// Keeps keys up to `bytes` in all; the rest are counted and left out.
    pub fn bounded(bytes: usize) -> FlowKeys {
        FlowKeys { four: Pieces::default(), six: Pieces::default(), room: bytes, left_out: 0 }
    }

    /// Keeps a key if there is room.
    pub fn push(&mut self, key: FlowKey) {
        let Some(room) = self.room.checked_sub(key.size()) else {
            self.left_out += 1;
            return;
        };
        self.room = room;
        match (key.original.src, key.original.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.four.push(pack(&key, src.octets(), dst.octets())),
            (src, dst) => self.six.push(pack(&key, six(src).octets(), six(dst).octets())),
        }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.four.len() + self.six.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many found no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The kept keys.
    pub fn iter(&self) -> impl Iterator<Item = FlowKey> + '_ {
        self.of_ends(|_| Some(())).map(|((), key)| key)
    }

    /// The kept keys for whose addresses, source and destination, `wanted` gives something. Only these are unpacked.
    pub(crate) fn of_ends<T>(
        &self,
        wanted: impl Fn([IpAddr; 2]) -> Option<T> + Copy,
    ) -> impl Iterator<Item = (T, FlowKey)> {
        let four = self.four.iter().filter_map(move |packed| {
            let (src, dst) = (Ipv4Addr::from(packed.src).into(), Ipv4Addr::from(packed.dst).into());
            Some((wanted([src, dst])?, unpack(packed, src, dst)))
        });
        let six = self.six.iter().filter_map(move |packed| {
            let (src, dst) = (Ipv6Addr::from(packed.src).into(), Ipv6Addr::from(packed.dst).into());
            Some((wanted([src, dst])?, unpack(packed, src, dst)))
        });
        four.chain(six)
    }
}

fn pack<const N: usize>(key: &FlowKey, src: [u8; N], dst: [u8; N]) -> Packed<N> {
    let (l4, l4_shape) = match key.original.l4 {
        L4::Ports { src, dst } => {
            let ([a, b], [c, d]) = (src.to_be_bytes(), dst.to_be_bytes());
            ([a, b, c, d], SHAPE_PORTS)
        }
        L4::Icmp { id, kind, code } => {
            let [a, b] = id.to_be_bytes();
            ([a, b, kind, code], SHAPE_ICMP)
        }
        L4::None => ([0; 4], 0),
    };
    let (zone, zone_shape) = match key.zone {
        Zone::Both(zone) => (zone, 0),
        Zone::Original(zone) => (zone, SHAPE_ZONE_ORIGINAL),
        Zone::Reply(zone) => (zone, SHAPE_ZONE_REPLY),
    };
    Packed { src, dst, l4, id: key.id, zone, protocol: key.original.protocol.0, shape: l4_shape | zone_shape }
}

fn unpack<const N: usize>(packed: &Packed<N>, src: IpAddr, dst: IpAddr) -> FlowKey {
    let [a, b, c, d] = packed.l4;
    let l4 = if packed.shape & SHAPE_PORTS != 0 {
        L4::Ports { src: u16::from_be_bytes([a, b]), dst: u16::from_be_bytes([c, d]) }
    } else if packed.shape & SHAPE_ICMP != 0 {
        L4::Icmp { id: u16::from_be_bytes([a, b]), kind: c, code: d }
    } else {
        L4::None
    };
    let zone = if packed.shape & SHAPE_ZONE_ORIGINAL != 0 {
        Zone::Original(packed.zone)
    } else if packed.shape & SHAPE_ZONE_REPLY != 0 {
        Zone::Reply(packed.zone)
    } else {
        Zone::Both(packed.zone)
    };
    FlowKey { original: Tuple { src, dst, protocol: Protocol(packed.protocol), l4 }, zone, id: packed.id }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kept_keys_have_the_promised_size() {
        assert_eq!((size_of::<Packed<4>>(), size_of::<Packed<16>>()), (20, 44));
    }

    fn any_key() -> impl Strategy<Value = FlowKey> {
        let addresses = prop_oneof![
            any::<(u32, u32)>().prop_map(|(a, b)| (IpAddr::V4(a.into()), IpAddr::V4(b.into()))),
            any::<(u128, u128)>().prop_map(|(a, b)| (IpAddr::V6(a.into()), IpAddr::V6(b.into()))),
        ];
        let l4 = prop_oneof![
            any::<(u16, u16)>().prop_map(|(src, dst)| L4::Ports { src, dst }),
            any::<(u16, u8, u8)>().prop_map(|(id, kind, code)| L4::Icmp { id, kind, code }),
            Just(L4::None),
        ];
        let zone = prop_oneof![
            any::<u16>().prop_map(Zone::Both),
            any::<u16>().prop_map(Zone::Original),
            any::<u16>().prop_map(Zone::Reply)
        ];
        (addresses, l4, zone, any::<u8>(), any::<u32>()).prop_map(|((src, dst), l4, zone, protocol, id)| {
            FlowKey { original: Tuple { src, dst, protocol: Protocol(protocol), l4 }, zone, id }
        })
    }

    proptest! {
        #[test]
        fn a_kept_key_comes_back_as_it_was(keys in proptest::collection::vec(any_key(), 0..20)) {
            let mut kept = FlowKeys::bounded(1 << 20);
            for key in &keys {
                kept.push(*key);
            }
            let mut back: Vec<FlowKey> = kept.iter().collect();
            let mut keys = keys;
            back.sort_by_key(|k| format!("{k:?}"));
            keys.sort_by_key(|k| format!("{k:?}"));
            prop_assert_eq!(back, keys);
        }

        #[test]
        fn the_bound_holds(keys in proptest::collection::vec(any_key(), 0..40), bytes in 0usize..400) {
            let mut kept = FlowKeys::bounded(bytes);
            for key in &keys {
                kept.push(*key);
            }
            prop_assert!(kept.four.len() * 20 + kept.six.len() * 44 <= bytes);
            prop_assert_eq!(kept.len() as u64 + kept.left_out(), keys.len() as u64);
        }
    }
}
