//! Which sources are shown: the largest by entries, by assured, by half-open and by socketless entries, united. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::IpAddr;

use conntrack::summary::SourceCounts;

/// The largest of a kind; of equals the lower ones. Holds no more than it returns.
#[derive(Debug)]
pub(crate) struct Top<K> {
    size: usize,
    heap: BinaryHeap<Reverse<(u64, Reverse<K>)>>,
}

impl<K: Ord> Top<K> {
    /// For at most `size` keys.
    pub(crate) fn new(size: usize) -> Top<K> {
        Top { size, heap: BinaryHeap::with_capacity(size + 1) }
    }

    /// Offers a key; one that counts nothing is never among the largest.
    pub(crate) fn offer(&mut self, count: u64, key: K) {
        if count == 0 || self.size == 0 {
            return;
        }
        let candidate = Reverse((count, Reverse(key)));
        if self.heap.len() < self.size {
            self.heap.push(candidate);
        } else if self.heap.peek().is_some_and(|least| candidate < *least) {
            self.heap.pop();
            self.heap.push(candidate);
        }
    }

    /// The keys, in no order.
    pub(crate) fn into_keys(self) -> impl Iterator<Item = K> {
        self.heap.into_iter().map(|Reverse((_, Reverse(key)))| key)
    }
}

/// What sources are ranked by.
const KINDS: [fn(&SourceCounts) -> u32; 4] =
    [|counts| counts.entries, |counts| counts.assured, |counts| counts.half_open, |counts| counts.socketless];

/// The sources that belong to the `top` by any count, in the order of their addresses. A source with fewer than
/// `min_entries` entries is not considered.
pub(crate) fn rank(
    sources: impl Iterator<Item = (IpAddr, SourceCounts)>,
    top: usize,
    min_entries: u32,
) -> BTreeSet<IpAddr> {
    let mut tops = KINDS.map(|_| Top::new(top));
    for (source, counts) in sources.filter(|(_, counts)| counts.entries >= min_entries) {
        for (top, count) in tops.iter_mut().zip(KINDS) {
            top.offer(count(&counts).into(), source);
        }
    }
    tops.into_iter().flat_map(Top::into_keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(last: u8) -> IpAddr {
        [198, 51, 100, last].into()
    }

    fn counts(entries: u32, assured: u32, half_open: u32, socketless: u32) -> SourceCounts {
        SourceCounts { entries, assured, half_open, socketless }
    }

    fn ranked(sources: &[(u8, SourceCounts)], top: usize, min_entries: u32) -> Vec<IpAddr> {
        rank(sources.iter().map(|(last, counts)| (host(*last), *counts)), top, min_entries)
            .into_iter()
            .collect()
    }

    #[test]
    fn the_first_by_each_count_are_united() {
        let sources = [
            (1, counts(100, 0, 0, 0)),
            (2, counts(90, 80, 0, 0)),
            (3, counts(60, 1, 59, 0)),
            (4, counts(95, 2, 3, 1)),
            (5, counts(55, 55, 0, 55)),
        ];
        assert_eq!(ranked(&sources, 1, 50), [host(1), host(2), host(3), host(5)]);
    }

    #[test]
    fn nobody_is_shown_for_what_he_does_not_have() {
        let sources = [(1, counts(100, 0, 0, 0)), (2, counts(90, 0, 0, 0))];
        assert_eq!(ranked(&sources, 1, 50), [host(1)]);
        assert!(ranked(&sources, 0, 50).is_empty());
        assert_eq!(ranked(&sources, 5, 91), [host(1)]);
    }

    proptest! {
        #[test]
        fn it_is_what_sorting_would_give(
            sources in proptest::collection::btree_map(any::<u8>(), (0u32..6, 0u32..6, 0u32..6, 0u32..6), 0..60),
            top in 0usize..8,
            min_entries in 0u32..4,
        ) {
            let sources: Vec<_> = sources.into_iter().map(|(last, (e, a, h, s))| (last, counts(e, a, h, s))).collect();
            let mut expected = BTreeSet::new();
            for count in
                [|c: &SourceCounts| c.entries, |c: &SourceCounts| c.assured, |c: &SourceCounts| c.half_open, |c: &SourceCounts| c.socketless]
            {
                let mut sorted: Vec<_> =
                    sources.iter().filter(|(_, c)| c.entries >= min_entries && count(c) > 0).collect();
                sorted.sort_by_key(|(last, c)| (Reverse(count(c)), *last));
                expected.extend(sorted.into_iter().take(top).map(|(last, _)| host(*last)));
            }
            prop_assert_eq!(ranked(&sources, top, min_entries), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
