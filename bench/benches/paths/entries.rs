//! What is done with each entry of a dump: decode it, count it, keep its key.

use conntrack::{Flow, Kept, Room, Summary, recorded};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::{
    collections::HashSet,
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Thirteen entries of a 6.18 kernel: TCP, UDP, ICMP, SCTP and others, IPv4 and IPv6, with and without translation.
const RECORDED: &[u8] = include_bytes!("../../../conntrack/src/testdata/dump-6.18.bin");
/// Where the first attribute's value stands, which is the source: behind nlmsghdr, nfgenmsg and the headers of CTA_TUPLE_ORIG,
/// CTA_TUPLE_IP and CTA_IP_V4_SRC.
const SOURCE: usize = 16 + 4 + 3 * 4;
/// Prime to the numbers of sources here: the next entry is of another source, as in a dump, and each source has equally many.
const STRIDE: u64 = 387_409;

pub(crate) fn paths(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("walk");
    group.throughput(Throughput::Elements(1_000));
    for (kind, name) in Kind::ALL.into_iter().zip(["1,000 plain entries", "1,000 entries"]) {
        let bytes = dump(kind, 1_000, 1_000);
        group.bench_function(name, |bencher| {
            bencher.iter(|| recorded::visit(black_box(&bytes), |flow| _ = black_box(flow)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("count");
    group.throughput(Throughput::Elements(1_000_000)).sample_size(10);
    for sources in [10, 95_000, 1_000_000] {
        let name = BenchmarkId::from_parameter(format!("1,000,000 entries of {sources} sources"));
        group.bench_function(name, |bencher| bencher.iter(|| summary(1_000_000, sources)));
    }
    group.finish();

    let mut group = criterion.benchmark_group("keep");
    group.throughput(Throughput::Elements(1_000_000)).sample_size(10);
    group.bench_function("1,000,000 keys", |bencher| bencher.iter(kept));
    let kept = kept();
    for wanted in [1, 1_000] {
        let wanted: HashSet<IpAddr> = (0..wanted).map(|number| nth(number, false)).collect();
        group.bench_function(format!("find those of {} sources", wanted.len()), |bencher| {
            bencher.iter(|| kept.with_end(|end| wanted.contains(&end).then_some(())).count());
        });
    }
    group.finish();
}

fn nth(number: u32, six: bool) -> IpAddr {
    match six {
        false => Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
        true => Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(number)).into(),
    }
}

/// The number of the source of the `number`th entry.
fn source(number: u32, sources: u32) -> u32 {
    let source = u64::from(number) * STRIDE % u64::from(sources);
    u32::try_from(source).expect("less than `sources`")
}

/// What entries a dump is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IPv4 and TCP, as packets make them where nothing is counted: as nearly all are.
    Plain,
    /// The recorded ones, one after the other.
    Mixed,
}

impl Kind {
    pub(crate) const ALL: [Kind; 2] = [Kind::Plain, Kind::Mixed];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Mixed => "mixed",
        }
    }

    fn messages(self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut rest = RECORDED;
        while let Some(length) = rest.first_chunk() {
            let (message, others) = rest.split_at(u32::from_ne_bytes(*length).next_multiple_of(4) as usize);
            messages.push(message.to_vec());
            rest = others;
        }
        match self {
            Kind::Mixed => messages,
            Kind::Plain => vec![plain(messages.swap_remove(MARKED))],
        }
    }
}

/// The number of the recorded entry that is IPv4, TCP, established and assured.
const MARKED: usize = 10;

/// Without counters and what else only entries made over ctnetlink have, which comes last.
fn plain(mut message: Vec<u8>) -> Vec<u8> {
    const HEADERS: usize = 16 + 4;
    const LAST: u16 = 4; // CTA_PROTOINFO
    let half = |at: usize, message: &[u8]| u16::from_ne_bytes([message[at], message[at + 1]]);
    let (mut at, mut last) = (HEADERS, 0);
    while last != LAST {
        last = half(at + 2, &message) & 0x3fff;
        at += usize::from(half(at, &message).next_multiple_of(4));
    }
    message.truncate(at);
    message[..4].copy_from_slice(&(at as u32).to_ne_bytes());
    message
}

/// The bytes of a dump of so many entries from so many sources.
pub(crate) fn dump(kind: Kind, entries: u32, sources: u32) -> Vec<u8> {
    let messages = kind.messages();
    let mut bytes = Vec::new();
    for number in 0..entries {
        let source = source(number, sources);
        let message = &messages[source as usize % messages.len()];
        let at = bytes.len() + SOURCE;
        bytes.extend_from_slice(message);
        // AF_INET6 in nfgenmsg.
        match nth(source, message[16] == 10) {
            IpAddr::V4(address) => bytes[at..at + 4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes[at..at + 16].copy_from_slice(&address.octets()),
        }
    }
    bytes
}

/// Shows so many entries of so many sources, decoded before.
fn each(entries: u32, sources: u32, mut see: impl FnMut(&Flow)) {
    let mut flows = Vec::new();
    recorded::visit(RECORDED, |flow| flows.push(*flow));
    let kinds = flows.len();
    for number in 0..entries {
        let source = source(number, sources);
        let flow = &mut flows[source as usize % kinds];
        let six = flow.original.src.is_ipv6();
        flow.original.src = nth(source, six);
        see(flow);
    }
}

/// The summary of so many entries of so many sources.
pub(crate) fn summary(entries: u32, sources: u32) -> Summary {
    let mut summary = Summary::new();
    each(entries, sources, |flow| summary.add(flow));
    summary
}

fn kept() -> Kept {
    let mut kept = Kept::within(&Room::of(1 << 30));
    each(1_000_000, 95_000, |flow| kept.keep(flow));
    assert!(kept.is_whole());
    kept
}
