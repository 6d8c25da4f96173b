//! Entries by source, exact and bounded.

use foldhash::{fast::RandomState, quality};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What hashbrown holds in 2¹⁸ slots: one more would double the allocation.
const MOST: usize = 229_376;
/// Bits for linear counting: within 0.4 % at a million distinct sources.
const BITS: usize = 1 << 22;

/// What one source holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceCounts {
    /// Entries.
    pub entries: u32,
    /// Those that are not evicted early.
    pub assured: u32,
    /// TCP handshakes that are not complete.
    pub half_open: u32,
    /// Established entries without a socket; 0 where they were not judged ([`Summary::judged`](super::Summary)).
    pub socketless: u32,
}

/// Entries by source: IPv4 and IPv6 apart, 229,376 each. First come stays, so what is listed is exact; the dump follows
/// the kernel's seeded hash, so a source of n entries is missed with probability (1−f)ⁿ, f the part that was read when
/// the map filled. The hash is seeded: the keys are the attacker's to choose.
#[derive(Debug)]
pub struct Sources {
    four: HashMap<u32, SourceCounts, RandomState>,
    six: HashMap<[u8; 16], SourceCounts, RandomState>,
    /// Sources of each family that find room.
    most: usize,
    overflow: Option<Overflow>,
}

/// What is known of the sources that found no room.
#[derive(Debug)]
struct Overflow {
    entries: u64,
    seen: Vec<u64>,
    /// The fast variant does not spread its low bits: it was 1.5 % off.
    hash: quality::RandomState,
}

/// What is counted of one entry beside itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) assured: bool,
    pub(super) half_open: bool,
    pub(super) socketless: bool,
}

/// Entries held back until there are enough to be added at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    four: Vec<(u32, Held)>,
    six: Vec<([u8; 16], Held)>,
}

impl Batch {
    #[inline]
    pub(super) fn push(&mut self, source: IpAddr, held: Held) {
        match source {
            IpAddr::V4(address) => self.four.push((address.to_bits(), held)),
            IpAddr::V6(address) => self.six.push((address.octets(), held)),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.four.len() + self.six.len()
    }
}

impl Default for Sources {
    fn default() -> Sources {
        Sources::new()
    }
}

impl Sources {
    /// None yet.
    pub fn new() -> Sources {
        Sources::bounded(MOST)
    }

    fn bounded(most: usize) -> Sources {
        let hash = RandomState::default;
        Sources {
            four: HashMap::with_hasher(hash()),
            six: HashMap::with_hasher(hash()),
            most,
            overflow: None,
        }
    }

    /// Takes one entry of `source` in.
    #[inline]
    pub fn add(&mut self, source: IpAddr, assured: bool, half_open: bool, socketless: bool) {
        let held = Held { assured, half_open, socketless };
        let found_room = match source {
            IpAddr::V4(address) => add(&mut self.four, address.to_bits(), held, self.most),
            IpAddr::V6(address) => add(&mut self.six, address.octets(), held, self.most),
        };
        if !found_room {
            self.overflow(source);
        }
    }

    /// Takes all entries of a batch in, and leaves it empty.
    pub(super) fn add_all(&mut self, batch: &mut Batch) {
        for (address, held) in batch.four.drain(..) {
            if !add(&mut self.four, address, held, self.most) {
                self.overflow(Ipv4Addr::from_bits(address).into());
            }
        }
        for (address, held) in batch.six.drain(..) {
            if !add(&mut self.six, address, held, self.most) {
                self.overflow(Ipv6Addr::from(address).into());
            }
        }
    }

    #[cold]
    fn overflow(&mut self, source: IpAddr) {
        let overflow = self.overflow.get_or_insert_with(|| Overflow {
            entries: 0,
            seen: vec![0; BITS / 64],
            hash: quality::RandomState::default(),
        });
        overflow.entries += 1;
        overflow.see(source);
    }

    /// What `source` holds: zeros if it holds nothing, None if it cannot be known because it may not have found room.
    pub fn get(&self, source: IpAddr) -> Option<SourceCounts> {
        let found = match source {
            IpAddr::V4(address) => self.four.get(&address.to_bits()),
            IpAddr::V6(address) => self.six.get(&address.octets()),
        };
        found.copied().or_else(|| self.overflow.is_none().then(SourceCounts::default))
    }

    /// Each source with what it holds, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, SourceCounts)> + '_ {
        let four = self.four.iter().map(|(bits, counts)| (IpAddr::V4(Ipv4Addr::from_bits(*bits)), *counts));
        let six = self.six.iter().map(|(octets, counts)| (IpAddr::V6(Ipv6Addr::from(*octets)), *counts));
        four.chain(six)
    }

    /// Distinct sources: exact while there was room, by linear counting beyond (within 1 % up to four million). A source is either
    /// listed or found no room, never both: so one family's flood takes nothing from the other's exact number.
    pub fn distinct(&self) -> u64 {
        let listed = (self.four.len() + self.six.len()) as u64;
        listed + self.overflow.as_ref().map_or(0, Overflow::distinct)
    }

    /// Entries of sources that found no room.
    pub fn overflowed_entries(&self) -> u64 {
        self.overflow.as_ref().map_or(0, |overflow| overflow.entries)
    }

    /// Takes out every source that `which` names, and returns the entries they held.
    pub(crate) fn take_out(&mut self, which: impl Fn(IpAddr) -> bool) -> u64 {
        let mut taken = 0;
        let mut keep = |source: IpAddr, counts: &SourceCounts| {
            let out = which(source);
            taken += u64::from(if out { counts.entries } else { 0 });
            !out
        };
        self.four.retain(|bits, counts| keep(IpAddr::V4(Ipv4Addr::from_bits(*bits)), counts));
        self.six.retain(|octets, counts| keep(IpAddr::V6(Ipv6Addr::from(*octets)), counts));
        taken
    }
}

/// False, and nothing is done: the source has no entry yet, and there is no room for it.
#[inline]
fn add<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, SourceCounts, RandomState>,
    key: K,
    held: Held,
    most: usize,
) -> bool {
    let counts = if map.len() < most { Some(map.entry(key).or_default()) } else { map.get_mut(&key) };
    let Some(counts) = counts else { return false };
    counts.entries += 1;
    counts.assured += u32::from(held.assured);
    counts.half_open += u32::from(held.half_open);
    counts.socketless += u32::from(held.socketless);
    true
}

impl Overflow {
    fn see(&mut self, source: IpAddr) {
        let bit = self.hash.hash_one(source) as usize % BITS;
        self.seen[bit / 64] |= 1 << (bit % 64);
    }

    /// −m ln(zeros/m): Whang, Vander-Zanden, Taylor 1990.
    fn distinct(&self) -> u64 {
        let ones: u32 = self.seen.iter().map(|word| word.count_ones()).sum();
        let zeros = (BITS as f64 - f64::from(ones)).max(1.0);
        (BITS as f64 * (BITS as f64 / zeros).ln()).round() as u64
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
