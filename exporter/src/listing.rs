//! Who holds the entries: the sources that are shown, their prefixes, and all the others as one number. Pure.

use std::net::IpAddr;
use std::time::Instant;

use conntrack::Summary;
use conntrack::summary::SourceCounts;

use crate::hold::Held;
use crate::prefixes::{Lengths, PrefixCounts, prefixes};
use crate::rank::rank;

/// The steps of `nf_conntrack_sources_over`.
pub(crate) const STEPS: [u32; 4] = [10, 100, 1_000, 10_000];

/// What of the sources is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// How many by each count.
    pub(crate) top: usize,
    /// Below it a source is not shown, unless it is held.
    pub(crate) min_entries: u32,
    /// Of the prefixes.
    pub(crate) lengths: Lengths,
}

/// What the collector `sources` shows. The entries of `sources`, `local` and `other` add up to those of the dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Distinct sources that are not this host.
    pub(crate) distinct: u64,
    /// Those that hold at least so many entries, in the order of [`STEPS`]. Sources that found no room are not among them.
    pub(crate) over: [u64; STEPS.len()],
    /// In the order of their addresses.
    pub(crate) sources: Vec<(IpAddr, SourceCounts)>,
    /// In the order of their addresses.
    pub(crate) prefixes: Vec<PrefixCounts>,
    /// Entries whose source is this host.
    pub(crate) local: u64,
    /// Entries of the sources that are not shown.
    pub(crate) other: u64,
}

impl Listing {
    /// Reads a summary whose local addresses are set apart.
    ///
    /// A held source is shown with its true values, zero included. One whose values cannot be known, because it found no room
    /// in the summary, is left out until they can.
    pub(crate) fn of(summary: &Summary, held: &mut Held, now: Instant, choice: &Choice) -> Listing {
        let all = &summary.sources;
        let ranked = all.iter().map(|(source, counts)| (source, known(counts, summary)));
        let shown = held.with(rank(ranked, choice.top, choice.min_entries), now);
        let sources: Vec<_> = shown
            .into_iter()
            .filter_map(|source| all.get(source).map(|counts| (source, known(counts, summary))))
            .collect();
        let mut over = [0; STEPS.len()];
        for (_, counts) in all.iter() {
            let reached = STEPS.iter().take_while(|step| counts.entries >= **step).count();
            over[..reached].iter_mut().for_each(|over| *over += 1);
        }
        let listed: u64 = sources.iter().map(|(_, counts)| u64::from(counts.entries)).sum();
        Listing {
            distinct: all.distinct(),
            over,
            prefixes: prefixes(all.iter(), choice.lengths, choice.top),
            local: summary.local,
            other: summary.entries - summary.local - listed,
            sources,
        }
    }
}

/// The counts, less what was judged where the judgement does not hold.
fn known(counts: SourceCounts, summary: &Summary) -> SourceCounts {
    let socketless = if summary.judged.is_some() { counts.socketless } else { 0 };
    SourceCounts { socketless, ..counts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::{Flows, Seen};
    use crate::sample::{self, flow};
    use conntrack::own::OwnAddresses;
    use conntrack::socketless::Behind;
    use conntrack::{Protocol, State, TcpState};
    use proptest::prelude::*;
    use std::net::Ipv6Addr;
    use std::time::Duration;

    const HOLD: Duration = Duration::from_secs(300);
    const CHOICE: Choice = Choice { top: 2, min_entries: 3, lengths: Lengths { ipv4: 24, ipv6: 64 } };

    fn own() -> OwnAddresses {
        OwnAddresses::of(["198.51.100.0/32".parse().unwrap(), "2001:db8::/128".parse().unwrap()], [])
    }

    /// A table of TCP entries: host, whether IPv6, state.
    fn summary(entries: impl IntoIterator<Item = (u8, bool, TcpState)>) -> Summary {
        judged(entries.into_iter().map(|(host, six, state)| (host, six, state, Behind::NotJudged)))
    }

    /// The same with what stands behind each.
    fn judged(entries: impl IntoIterator<Item = (u8, bool, TcpState, Behind)>) -> Summary {
        let mut summary = Summary::new();
        for (host, six, state, behind) in entries {
            let source: IpAddr = match six {
                true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into(),
                false => [198, 51, 100, host].into(),
            };
            let status = if state == TcpState::Established { sample::ASSURED } else { 0 };
            summary.add_judged(&flow(source, Protocol::TCP, State::Tcp(state), status), behind);
        }
        summary.set_local_apart(&own());
        summary
    }

    fn entries(host: u8, count: usize) -> impl Iterator<Item = (u8, bool, TcpState)> {
        std::iter::repeat_n((host, false, TcpState::Established), count)
    }

    fn adds_up(summary: &Summary, listing: &Listing) -> Result<(), TestCaseError> {
        let states: u64 = Flows::of(summary, &mut Seen::default()).states.iter().map(|row| row.entries).sum();
        let listed: u64 = listing.sources.iter().map(|(_, counts)| u64::from(counts.entries)).sum();
        prop_assert_eq!(listed + listing.other + listing.local, states);
        Ok(())
    }

    proptest! {
        /// Σ listed + other + local = Σ states, dump after dump, with ties (few hosts, few entries), held sources, local ones,
        /// and dead slots in dumps whose judgement holds or does not.
        #[test]
        fn every_entry_is_somewhere(dumps in proptest::collection::vec(
            (proptest::collection::vec((0u8..9, any::<bool>(), 0usize..10, any::<bool>()), 0..80), any::<bool>()), 1..6
        )) {
            let start = Instant::now();
            let mut held = Held::new(HOLD, CHOICE.top);
            for (number, (dump, holds)) in dumps.into_iter().enumerate() {
                let behind = |dead| if dead { Behind::Nothing } else { Behind::Socket };
                let mut summary = judged(
                    dump.into_iter().map(|(host, six, state, dead)| (host, six, TcpState::ALL[state], behind(dead))),
                );
                summary.judged = summary.judged.filter(|_| holds);
                let now = start + HOLD / 3 * number as u32;
                let listing = Listing::of(&summary, &mut held, now, &CHOICE);
                adds_up(&summary, &listing)?;
                prop_assert!(listing.sources.is_sorted_by(|a, b| a.0 < b.0), "each once");
                let own = own();
                prop_assert!(!listing.sources.iter().any(|(source, counts)| own.contains(*source) && counts.entries > 0));
                let dead: u64 = listing.sources.iter().map(|(_, counts)| u64::from(counts.socketless)).sum();
                prop_assert!(dead <= summary.judged.map_or(0, |judged| judged.socketless), "nothing of what does not hold");
            }
        }
    }

    #[test]
    fn dead_slots_bring_a_source_into_the_list_if_the_judgement_holds() {
        let alive =
            |host, count| entries(host, count).map(|(host, six, state)| (host, six, state, Behind::Socket));
        let dead =
            |host, count| entries(host, count).map(|(host, six, state)| (host, six, state, Behind::Nothing));
        let mut summary = judged(alive(1, 9).chain(alive(2, 8)).chain(dead(3, 4)).chain(dead(4, 2)));
        let listed = |summary: &Summary| {
            let listing = Listing::of(summary, &mut Held::new(HOLD, CHOICE.top), Instant::now(), &CHOICE);
            adds_up(summary, &listing).unwrap();
            let host = |source| (1..5).find(|last| source == IpAddr::from([198, 51, 100, *last])).unwrap();
            listing
                .sources
                .iter()
                .map(|(source, counts)| (host(*source), counts.socketless))
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(&summary), [(1, 0), (2, 0), (3, 4)], "4 is below min-entries");
        summary.judged = None;
        assert_eq!(listed(&summary), [(1, 0), (2, 0)]);
    }

    #[test]
    fn a_held_source_keeps_its_true_values_down_to_zero() {
        let mut held = Held::new(HOLD, CHOICE.top);
        let start = Instant::now();
        let source = IpAddr::from([198, 51, 100, 1]);
        let mut shown = |summary: &Summary, at: Duration| {
            let listing = Listing::of(summary, &mut held, start + at, &CHOICE);
            adds_up(summary, &listing).unwrap();
            listing.sources.iter().find(|(shown, _)| *shown == source).map(|(_, counts)| counts.entries)
        };
        assert_eq!(shown(&summary(entries(1, 9)), Duration::ZERO), Some(9));
        assert_eq!(shown(&summary(entries(1, 1)), HOLD / 3), Some(1), "below min-entries");
        assert_eq!(shown(&summary([]), HOLD / 2), Some(0), "gone");
        assert_eq!(shown(&summary([]), HOLD), None);
    }

    #[test]
    fn with_more_sources_than_room_the_sum_still_holds() {
        let mut summary = Summary::new();
        let syn =
            |bits: u32| flow(std::net::Ipv4Addr::from(bits), Protocol::TCP, State::Tcp(TcpState::SynSent), 0);
        let mut held = Held::new(HOLD, CHOICE.top);
        let late = 0x0b00_0000 + 1_000_000;
        (0..60).for_each(|_| summary.add(&syn(late)));
        let now = Instant::now();
        assert_eq!(Listing::of(&summary, &mut held, now, &CHOICE).sources.len(), 1);

        let mut summary = Summary::new();
        (0..300_000).for_each(|host| summary.add(&syn(0x0a00_0000 + host)));
        (0..60).for_each(|_| summary.add(&syn(0x0a00_0005)));
        (0..60).for_each(|_| summary.add(&syn(late)));
        let listing = Listing::of(&summary, &mut held, now, &CHOICE);
        adds_up(&summary, &listing).unwrap();
        assert_eq!(listing.sources.len(), 1, "the late one found no room, so nothing is said of it");
        assert_eq!((listing.sources[0].1.entries, listing.over), (61, [1, 0, 0, 0]));
        let off = listing.distinct.abs_diff(300_001);
        assert!(off < 3_000, "{} distinct", listing.distinct);
    }

    #[test]
    fn the_steps_count_sources_that_hold_at_least_so_many() {
        let summary = summary(entries(1, 10).chain(entries(2, 9)).chain(entries(3, 100)));
        let listing = Listing::of(&summary, &mut Held::new(HOLD, CHOICE.top), Instant::now(), &CHOICE);
        assert_eq!((listing.over, listing.distinct, listing.other), ([2, 1, 0, 0], 3, 9));
    }
}
