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
        let shown = held.with(rank(all.iter(), choice.top, choice.min_entries), now);
        let sources: Vec<_> =
            shown.into_iter().filter_map(|source| all.get(source).map(|counts| (source, counts))).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::{Flows, Seen};
    use crate::sample::{self, flow};
    use conntrack::own::OwnAddresses;
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
        let mut summary = Summary::new();
        for (host, six, state) in entries {
            let source: IpAddr = match six {
                true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into(),
                false => [198, 51, 100, host].into(),
            };
            let status = if state == TcpState::Established { sample::ASSURED } else { 0 };
            summary.add(&flow(source, Protocol::TCP, State::Tcp(state), status));
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
        /// Σ listed + other + local = Σ states, dump after dump, with ties (few hosts, few entries), held sources and local ones.
        #[test]
        fn every_entry_is_somewhere(dumps in proptest::collection::vec(
            proptest::collection::vec((0u8..9, any::<bool>(), 0usize..10), 0..80), 1..6
        )) {
            let start = Instant::now();
            let mut held = Held::new(HOLD, CHOICE.top);
            for (number, dump) in dumps.into_iter().enumerate() {
                let summary = summary(dump.into_iter().map(|(host, six, state)| (host, six, TcpState::ALL[state])));
                let now = start + HOLD / 3 * number as u32;
                let listing = Listing::of(&summary, &mut held, now, &CHOICE);
                adds_up(&summary, &listing)?;
                prop_assert!(listing.sources.is_sorted_by(|a, b| a.0 < b.0), "each once");
                let own = own();
                prop_assert!(!listing.sources.iter().any(|(source, counts)| own.contains(*source) && counts.entries > 0));
            }
        }
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
