//! One summary that two threads fill, each with its part of a dump.

use super::sources::{Batch, Held};
use super::{Sources, Summary};
use crate::flow::Flow;
use crate::socketless::Behind;
use std::sync::{Mutex, PoisonError};

/// Entries that a part holds back before it takes the lock: about as many as one receive call brings, so that threads meet rarely. Added one
/// after the other, the waits for memory overlap; counted each by itself, a dump of 95,000 sources took a tenth more CPU.
const BATCH: usize = 128;

/// The sources of a summary while threads fill it. They share one bounded map, so first come stays in all of them together
/// and what is listed is exact; two maps merged afterwards would have to forget whom only one of them had room for.
#[derive(Debug, Default)]
pub struct Shared(Mutex<Sources>);

/// One thread's part.
#[derive(Debug)]
pub struct Part<'s> {
    /// All but the sources.
    counts: Summary,
    shared: &'s Mutex<Sources>,
    waiting: Batch,
}

impl Shared {
    /// Nothing yet.
    pub fn new() -> Shared {
        Shared::default()
    }

    /// For one thread.
    pub fn part(&self) -> Part<'_> {
        Part { counts: Summary::new(), shared: &self.0, waiting: Batch::default() }
    }

    /// All parts, put together.
    pub fn whole(self, counts: impl IntoIterator<Item = Counts>) -> Summary {
        let mut whole = Summary::new();
        for Counts(part) in counts {
            whole.plus(&part);
        }
        whole.sources = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        whole
    }
}

/// What a part counted, its sources excepted.
#[derive(Debug)]
pub struct Counts(Summary);

impl Part<'_> {
    /// Takes one entry in, with what stands behind it, as [`Summary::add_judged`].
    #[inline]
    pub fn add_judged(&mut self, flow: &Flow, behind: Behind) {
        self.counts.judge(behind);
        self.count(flow, behind == Behind::Nothing);
    }

    /// Takes one entry in.
    #[inline]
    pub fn add(&mut self, flow: &Flow) {
        self.count(flow, false);
    }

    #[inline]
    fn count(&mut self, flow: &Flow, socketless: bool) {
        self.counts.tally(flow);
        let (assured, half_open) = (flow.status.assured(), flow.state.half_open());
        self.waiting.push(flow.original.src, Held { assured, half_open, socketless });
        if self.waiting.len() == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let mut sources = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        sources.add_all(&mut self.waiting);
    }

    /// No entry follows.
    pub fn finish(mut self) -> Counts {
        self.flush();
        Counts(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;
    use crate::netlink::Messages;
    use crate::summary::SourceCounts;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::{IpAddr, Ipv4Addr};

    fn recorded() -> Vec<Flow> {
        let dump = include_bytes!("../testdata/dump-6.18.bin");
        Messages(dump).map(|message| decode::flow(message.unwrap().payload).unwrap().unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn two_threads_count_what_one_counts(entries in proptest::collection::vec((0usize..13, 0u32..40, any::<bool>(), any::<bool>()), 0..900)) {
            let recorded = recorded();
            let flow = |(which, source, ..): (usize, u32, bool, bool)| {
                let mut flow = recorded[which];
                flow.original.src = Ipv4Addr::from_bits(source).into();
                flow
            };
            let behind = |dead| if dead { Behind::Nothing } else { Behind::Request };
            let mut one = Summary::new();
            let mut exact: HashMap<IpAddr, SourceCounts> = HashMap::new();
            for entry in &entries {
                let flow = flow(*entry);
                one.add_judged(&flow, behind(entry.3));
                let counts = exact.entry(flow.original.src).or_default();
                counts.entries += 1;
                counts.assured += u32::from(flow.status.assured());
                counts.half_open += u32::from(flow.state.half_open());
                counts.socketless += u32::from(entry.3);
            }
            let shared = Shared::new();
            let counts = std::thread::scope(|scope| {
                [false, true].map(|half| {
                    let mut part = shared.part();
                    let own: Vec<_> = entries.iter().copied().filter(|entry| entry.2 == half).collect();
                    scope.spawn(move || {
                        own.into_iter().for_each(|entry| part.add_judged(&flow(entry), behind(entry.3)));
                        part.finish()
                    })
                })
                .map(|thread| thread.join().unwrap())
            });
            let two = shared.whole(counts);
            prop_assert_eq!(two.sources.iter().collect::<HashMap<_, _>>(), exact);
            prop_assert_eq!((two.entries, two.judged, two.states, two.kinds), (one.entries, one.judged, one.states, one.kinds));
        }
    }

    #[test]
    fn the_bound_holds_for_both_together_and_what_is_listed_is_exact() {
        let flows = recorded();
        let flow = *flows.iter().find(|flow| flow.original.src.is_ipv4()).unwrap();
        let shared = Shared::new();
        // Each source once in each thread, in opposite orders, more than there is room for.
        const SOURCES: u32 = 400_000;
        let counts = std::thread::scope(|scope| {
            [false, true]
                .map(|backwards| {
                    let mut part = shared.part();
                    scope.spawn(move || {
                        for number in 0..SOURCES {
                            let mut flow = flow;
                            let bits = if backwards { SOURCES - 1 - number } else { number };
                            flow.original.src = Ipv4Addr::from_bits(bits).into();
                            part.add(&flow);
                        }
                        part.finish()
                    })
                })
                .map(|thread| thread.join().unwrap())
        });
        let summary = shared.whole(counts);
        assert_eq!(summary.entries, 2 * u64::from(SOURCES));
        assert_eq!(summary.sources.iter().count(), 229_376, "one bound, not one a thread");
        assert!(summary.sources.iter().all(|(_, counts)| counts.entries == 2), "whoever is listed has both");
        let listed: u64 = summary.sources.iter().map(|(_, counts)| u64::from(counts.entries)).sum();
        assert_eq!(listed + summary.sources.overflowed_entries(), summary.entries);
    }
}
