//! What nearly every entry looks like, byte for byte: recognised by one comparison instead of walked attribute by attribute. Whatever
//! is laid out otherwise is not recognised, and walked: nothing is assumed of a kernel.

use crate::flow::{Flow, L4, Protocol, Status, Tuple};
use crate::key::{
    CTA_ID, CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_PROTO_DST_PORT, CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NESTED: u16 = 0x8000;
const CTA_USE: u16 = 11;
/// A tuple of ports, its header included.
const FOUR: usize = 52;
const SIX: usize = 76;
/// Status, mark, id, use and timeout: a header and four bytes each, in the order of `ctnetlink_dump_info`.
const FIXED: usize = 5 * 8;

/// The attribute headers at their places, and which bytes these are; in words, aligned for vector instructions.
#[repr(align(16))]
struct Layout<const WORDS: usize> {
    known: [u64; WORDS],
    mask: [u64; WORDS],
}

impl<const WORDS: usize> Layout<WORDS> {
    const fn new() -> Layout<WORDS> {
        Layout { known: [0; WORDS], mask: [0; WORDS] }
    }

    const fn with_byte(mut self, at: usize, byte: u8) -> Layout<WORDS> {
        let mut bytes = self.known[at / 8].to_ne_bytes();
        bytes[at % 8] = byte;
        self.known[at / 8] = u64::from_ne_bytes(bytes);
        bytes = self.mask[at / 8].to_ne_bytes();
        bytes[at % 8] = 0xff;
        self.mask[at / 8] = u64::from_ne_bytes(bytes);
        self
    }

    /// A header at `at`: length without padding, type.
    const fn with(self, at: usize, len: u16, kind: u16) -> Layout<WORDS> {
        let ([a, b], [c, d]) = (len.to_ne_bytes(), kind.to_ne_bytes());
        self.with_byte(at, a).with_byte(at + 1, b).with_byte(at + 2, c).with_byte(at + 3, d)
    }

    /// What is in a tuple with ports and without a zone (`ctnetlink_dump_tuples`); `address` is the length of an address.
    const fn with_tuple(self, at: usize, address: u16, [src, dst]: [u16; 2]) -> Layout<WORDS> {
        let (one, ports) = (4 + address, at + 4 + 2 * (4 + address as usize));
        self.with(at, 4 + 2 * one, NESTED | CTA_TUPLE_IP)
            .with(at + 4, one, src)
            .with(at + 4 + one as usize, one, dst)
            .with(ports, 28, NESTED | CTA_TUPLE_PROTO)
            .with(ports + 4, 5, CTA_PROTO_NUM)
            .with(ports + 12, 6, CTA_PROTO_SRC_PORT)
            .with(ports + 20, 6, CTA_PROTO_DST_PORT)
    }

    /// What an entry begins with: two tuples, of so many bytes each, that are written already, and the fixed attributes.
    const fn with_entry(self, tuple: usize) -> Layout<WORDS> {
        let fixed = 2 * tuple;
        self.with(0, tuple as u16, NESTED | CTA_TUPLE_ORIG)
            .with(tuple, tuple as u16, NESTED | super::CTA_TUPLE_REPLY)
            .with(fixed, 8, super::CTA_STATUS)
            .with(fixed + 8, 8, super::CTA_MARK)
            .with(fixed + 16, 8, CTA_ID)
            .with(fixed + 24, 8, CTA_USE)
            .with(fixed + 32, 8, super::CTA_TIMEOUT)
    }

    /// Without a branch for each header, so that it becomes a few vector instructions.
    #[inline]
    fn fits(&self, bytes: &[u8]) -> bool {
        let Some(words) = bytes.as_chunks::<8>().0.first_chunk::<WORDS>() else { return false };
        let places = words.iter().zip(&self.known).zip(&self.mask);
        let differ = places
            .fold(0, |differ, ((word, known), mask)| differ | (u64::from_ne_bytes(*word) ^ known) & mask);
        differ == 0
    }
}

const IPV4: [u16; 2] = [CTA_IP_V4_SRC, CTA_IP_V4_DST];
const IPV6: [u16; 2] = [CTA_IP_V6_SRC, CTA_IP_V6_DST];
static TUPLE_FOUR: Layout<{ (FOUR - 4) / 8 }> = Layout::new().with_tuple(0, 4, IPV4);
static TUPLE_SIX: Layout<{ (SIX - 4) / 8 }> = Layout::new().with_tuple(0, 16, IPV6);
static ENTRY_FOUR: Layout<{ (2 * FOUR + FIXED) / 8 }> =
    Layout::new().with_tuple(4, 4, IPV4).with_tuple(FOUR + 4, 4, IPV4).with_entry(FOUR);
static ENTRY_SIX: Layout<{ (2 * SIX + FIXED) / 8 }> =
    Layout::new().with_tuple(4, 16, IPV6).with_tuple(SIX + 4, 16, IPV6).with_entry(SIX);
/// What `tcp_to_nlattr` writes into CTA_PROTOINFO: state, two window scales, the flags of both sides. The last of them are behind what is
/// compared.
static TCP: Layout<5> = Layout::new()
    .with(0, 44, NESTED | super::CTA_PROTOINFO_TCP)
    .with(4, 5, super::STATE)
    .with(12, 5, 2)
    .with(20, 5, 3)
    .with(28, 6, super::TCP_FLAGS)
    .with(36, 6, 5);

/// Reads the attributes that an entry begins with, if they are recognised; those that are still to be walked.
#[inline]
pub(super) fn entry<'a>(attributes: &'a [u8], flow: &mut Flow) -> Option<&'a [u8]> {
    if let Some((bytes, rest)) = attributes.split_first_chunk::<{ 2 * FOUR + FIXED }>()
        && ENTRY_FOUR.fits(bytes)
    {
        *flow = begun([four(bytes, 4), four(bytes, FOUR + 4)], fixed(bytes, 2 * FOUR));
        return Some(rest);
    }
    if let Some((bytes, rest)) = attributes.split_first_chunk::<{ 2 * SIX + FIXED }>()
        && ENTRY_SIX.fits(bytes)
    {
        *flow = begun([six(bytes, 4), six(bytes, SIX + 4)], fixed(bytes, 2 * SIX));
        return Some(rest);
    }
    None
}

#[inline]
fn begun([original, reply]: [Tuple; 2], [status, mark, id, _, timeout]: [u32; 5]) -> Flow {
    Flow { original, reply, status: Status(status), mark, id, timeout: Some(timeout), ..Flow::BLANK }
}

/// The value of a tuple, if it is recognised.
#[inline]
pub(super) fn tuple(value: &[u8]) -> Option<Tuple> {
    if let Ok(bytes) = <&[u8; FOUR - 4]>::try_from(value) {
        return TUPLE_FOUR.fits(bytes).then(|| four(bytes, 0));
    }
    let bytes = <&[u8; SIX - 4]>::try_from(value).ok()?;
    TUPLE_SIX.fits(bytes).then(|| six(bytes, 0))
}

/// The state's number and the flags of the original sender from the value of CTA_PROTOINFO, if it is recognised.
#[inline]
pub(super) fn tcp(value: &[u8]) -> Option<(usize, u8)> {
    let bytes: &[u8; 44] = value.try_into().ok()?;
    TCP.fits(bytes).then(|| (usize::from(bytes[8]), bytes[32]))
}

#[inline]
fn fixed<const N: usize>(bytes: &[u8; N], at: usize) -> [u32; 5] {
    std::array::from_fn(|number| u32::from_be_bytes(cut(bytes, at + 8 * number + 4)))
}

#[inline]
fn four<const N: usize>(bytes: &[u8; N], at: usize) -> Tuple {
    let address = |at| IpAddr::V4(Ipv4Addr::from(cut::<4, N>(bytes, at)));
    ports(bytes, [address(at + 8), address(at + 16)], at + 20)
}

#[inline]
fn six<const N: usize>(bytes: &[u8; N], at: usize) -> Tuple {
    let address = |at| IpAddr::V6(Ipv6Addr::from(cut::<16, N>(bytes, at)));
    ports(bytes, [address(at + 8), address(at + 28)], at + 44)
}

/// With the protocol's nest at `at`.
#[inline]
fn ports<const N: usize>(bytes: &[u8; N], [src, dst]: [IpAddr; 2], at: usize) -> Tuple {
    let port = |at| u16::from_be_bytes(cut(bytes, at));
    let l4 = L4::Ports { src: port(at + 16), dst: port(at + 24) };
    Tuple { src, dst, protocol: Protocol(bytes[at + 8]), l4 }
}

#[inline]
fn cut<const M: usize, const N: usize>(bytes: &[u8; N], at: usize) -> [u8; M] {
    *bytes[at..].first_chunk().expect("within the layout")
}
