//! The bounded count of sources against an exact one: what DESIGN.md promises of a flood that forges its addresses.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

proptest! {
    #[test]
    fn counts_equal_a_naive_count(entries in proptest::collection::vec((0u8..20, any::<bool>(), any::<bool>(), any::<bool>()), 0..300)) {
        let mut sources = Sources::new();
        let mut naive: HashMap<IpAddr, SourceCounts> = HashMap::new();
        for (host, six, assured, half_open) in entries {
            let source: IpAddr = if six { Ipv6Addr::from(u128::from(host)).into() } else { Ipv4Addr::from(u32::from(host)).into() };
            sources.add(source, assured, half_open, false);
            let counts = naive.entry(source).or_default();
            counts.entries += 1;
            counts.assured += u32::from(assured);
            counts.half_open += u32::from(half_open);
        }
        prop_assert_eq!(sources.distinct(), naive.len() as u64);
        prop_assert_eq!(sources.iter().collect::<HashMap<_, _>>(), naive);
    }
}

#[test]
fn a_flood_of_sources_is_bounded_and_counted() {
    let mut sources = Sources::new();
    let flood = 600_000u32;
    for host in 0..flood {
        sources.add(Ipv4Addr::from(host).into(), false, true, false);
    }
    sources.add(Ipv4Addr::from(0).into(), false, true, false);
    assert_eq!(sources.iter().count(), MOST);
    assert_eq!(sources.get(Ipv4Addr::from(0).into()).unwrap().entries, 2, "listed counts stay exact");
    assert_eq!(sources.get(Ipv4Addr::from(flood - 1).into()), None, "unknown is not zero");
    assert_eq!(sources.overflowed_entries(), u64::from(flood) - MOST as u64);
    let error = (sources.distinct() as f64 - f64::from(flood)).abs() / f64::from(flood);
    assert!(error < 0.01, "{} for {flood}", sources.distinct());
}

/// splitmix64 (Steele, Lea, Flood 2014): the same floods in every run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fisher and Yates: the order of a seeded hash, as the dump has it.
    fn shuffle<T>(&mut self, entries: &mut [T]) {
        for last in (1..entries.len()).rev() {
            entries.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(number).into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Whatever the bound, the mixture of families and the order: the first so many of each family are listed, each with its exact
    /// count, and all the rest is one exact number.
    #[test]
    fn beyond_the_bound_who_is_listed_is_exact_and_the_rest_is_counted(
        most in 1usize..40,
        entries in proptest::collection::vec((0u32..120, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 0..600),
    ) {
        let mut sources = Sources::bounded(most);
        let mut exact: HashMap<IpAddr, SourceCounts> = HashMap::new();
        let (mut first, mut room) = (HashSet::new(), [most; 2]);
        for (host, six, assured, half_open, socketless) in entries.iter().copied() {
            let source = if six { Ipv6Addr::from(u128::from(host)).into() } else { v4(host) };
            sources.add(source, assured, half_open, socketless);
            if !exact.contains_key(&source) && room[usize::from(six)] > 0 {
                room[usize::from(six)] -= 1;
                first.insert(source);
            }
            let counts = exact.entry(source).or_default();
            counts.entries += 1;
            counts.assured += u32::from(assured);
            counts.half_open += u32::from(half_open);
            counts.socketless += u32::from(socketless);
        }
        let listed: HashMap<_, _> = sources.iter().collect();
        prop_assert_eq!(listed.keys().copied().collect::<HashSet<_>>(), first);
        prop_assert!(listed.iter().all(|(source, counts)| exact[source] == *counts));
        for (source, counts) in &exact {
            prop_assert_eq!(sources.get(*source), listed.contains_key(source).then_some(*counts));
        }
        let sum: u64 = listed.values().map(|counts| u64::from(counts.entries)).sum();
        prop_assert_eq!(sum + sources.overflowed_entries(), entries.len() as u64);
        prop_assert!(sources.distinct().abs_diff(exact.len() as u64) <= 3, "{} of {}", sources.distinct(), exact.len());
    }
}

/// 1.2 million forged sources of both families, an entry each, and 300 that hold 64: the real bound against an exact count.
#[test]
fn more_than_a_million_forged_sources_are_bounded_and_those_listed_are_exact() {
    const FORGED: u32 = 600_000;
    const HOARDERS: u32 = 300;
    const FIRST: u32 = 0xc612_0000;
    let forged = (0..FORGED).flat_map(|n| [v4(n), Ipv6Addr::from(u128::from(n) << 64).into()]);
    let hoarder = |n: u32| v4(FIRST + n);
    let hoarded = (0..HOARDERS * 64).map(|n| hoarder(n % HOARDERS));
    let mut entries: Vec<IpAddr> = forged.chain(hoarded).collect();
    Seeded(1).shuffle(&mut entries);
    let mut sources = Sources::new();
    let (mut four, mut six) = (0, 0);
    for source in &entries {
        sources.add(*source, false, true, false);
    }
    for (source, counts) in sources.iter() {
        let hoards =
            matches!(source, IpAddr::V4(address) if (FIRST..FIRST + HOARDERS).contains(&address.to_bits()));
        let held = if hoards { 64 } else { 1 };
        assert_eq!((counts.entries, counts.half_open), (held, held), "{source}");
        if source.is_ipv4() { four += 1 } else { six += 1 }
    }
    assert_eq!((four, six), (MOST, MOST), "the bound, however many come");
    assert!(sources.four.capacity() <= MOST && sources.six.capacity() <= MOST, "and no second allocation");
    // (1−f)^64 with f above a third: one in 10¹¹.
    assert!((0..HOARDERS).all(|n| sources.get(hoarder(n)).is_some()), "a hoarder is missed");
    let distinct = f64::from(2 * FORGED + HOARDERS);
    let error = (sources.distinct() as f64 - distinct).abs() / distinct;
    assert!(error < 0.01, "{} distinct sources for {distinct}", sources.distinct());
    let listed: u64 = sources.iter().map(|(_, counts)| u64::from(counts.entries)).sum();
    assert_eq!(listed + sources.overflowed_entries(), entries.len() as u64);
}

/// A source of n entries is missed with probability (1−f)ⁿ, f the part that was read when the map filled (DESIGN.md).
#[test]
fn a_source_of_n_entries_is_missed_as_often_as_the_design_says() {
    const MOST: usize = 500;
    const FORGED: u32 = 2_000;
    const SIZES: [u32; 5] = [1, 2, 3, 5, 8];
    const EACH: u32 = 20;
    const ROUNDS: u64 = 100;
    let mut random = Seeded(0x5eed);
    // By size: missed, and expected mean and variance of that.
    let mut missed = [(0.0, 0.0, 0.0); SIZES.len()];
    for _ in 0..ROUNDS {
        let target = |size: usize, n: u32| v4(0xc612_0000 + size as u32 * EACH + n);
        let mut entries: Vec<IpAddr> = (0..FORGED).map(v4).collect();
        for (size, held) in SIZES.into_iter().enumerate() {
            entries.extend((0..EACH * held).map(|n| target(size, n % EACH)));
        }
        random.shuffle(&mut entries);
        let mut sources = Sources::bounded(MOST);
        let mut filled = None;
        for (read, source) in entries.iter().enumerate() {
            sources.add(*source, true, false, false);
            if filled.is_none() && sources.four.len() == MOST {
                filled = Some((read + 1) as f64 / entries.len() as f64);
            }
        }
        let part = filled.expect("more sources than room");
        for (size, held) in SIZES.into_iter().enumerate() {
            let chance = (1.0 - part).powi(held as i32);
            let (seen, mean, variance) = &mut missed[size];
            *seen += (0..EACH).filter(|n| sources.get(target(size, *n)).is_none()).count() as f64;
            *mean += chance * f64::from(EACH);
            *variance += chance * (1.0 - chance) * f64::from(EACH);
        }
    }
    for (size, (seen, mean, variance)) in missed.into_iter().enumerate() {
        let (held, tolerance) = (SIZES[size], 4.0 * f64::sqrt(variance));
        assert!(
            (seen - mean).abs() < tolerance,
            "{held} entries: missed {seen}, expected {mean:.0} ± {tolerance:.0}"
        );
        // One entry more or less would be noticed.
        if let Some((_, next, _)) = missed.get(size + 1) {
            assert!(mean - next > 2.0 * tolerance, "{held} entries: the tolerance hides the exponent");
        }
    }
}

/// It lost those of the family that still had room: they were in no bitmap.
#[test]
fn a_flood_of_one_family_hides_nobody_of_the_other() {
    let mut sources = Sources::bounded(2);
    (0..5).for_each(|number| sources.add(v4(number), false, true, false));
    (0..2).for_each(|number| sources.add(Ipv6Addr::from(number).into(), false, true, false));
    assert_eq!(sources.distinct(), 7);
}
