//! The thread that dumps the table. It owns the table and what is remembered from dump to dump.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use conntrack::own::OwnAddresses;
use conntrack::socketless::{Before, Judging, Unjudged};
use conntrack::summary::{Judged, Shared};
use conntrack::{Dump, Error, Pace, REASONS, Summary, Table};

use crate::flows::{Flows, Seen};
use crate::hold::Held;
use crate::listing::{Choice, Listing};
use crate::snapshot::Snapshot;

/// What went wrong with dumps since the program began; written by the thread, read by scrapes.
#[derive(Debug, Default)]
pub(crate) struct Mishaps {
    errors: [AtomicU64; REASONS.len()],
    raise_refused: AtomicBool,
}

impl Mishaps {
    /// Dumps that failed or were not whole, in the order of [`REASONS`].
    pub(crate) fn errors(&self) -> [u64; REASONS.len()] {
        std::array::from_fn(|place| self.errors[place].load(Ordering::Relaxed))
    }

    /// Whether a starved dump was refused its old priority.
    pub(crate) fn raise_refused(&self) -> bool {
        self.raise_refused.load(Ordering::Relaxed)
    }

    fn count(&self, reason: &str) {
        let place = REASONS.iter().position(|known| *known == reason);
        debug_assert!(place.is_some(), "{reason} is not in REASONS");
        if let Some(place) = place {
            self.errors[place].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Makes dumps. Belongs to one thread, whose priority it lowers.
pub(crate) struct Dumper {
    table: Option<Table>,
    pace: Option<Pace>,
    seen: Seen,
    held: Held,
    choice: Choice,
    judging: Option<Judging>,
    mishaps: Arc<Mishaps>,
    malformed_told: bool,
}

/// What one visit of the table saw.
struct Visit {
    summary: Summary,
    sockets: Result<Judged, Unjudged>,
    /// What it took to read the sockets.
    sockets_took: Duration,
}

impl Dumper {
    /// For the calling thread, which must be one of its own. Without `judging` no socket is read.
    pub(crate) fn on_this_thread(
        choice: Choice,
        held: Held,
        judging: Option<Judging>,
        mishaps: Arc<Mishaps>,
    ) -> Dumper {
        let pace = Some(Pace::lower_this_thread());
        Dumper {
            table: None,
            pace,
            seen: Seen::default(),
            held,
            choice,
            judging,
            mishaps,
            malformed_told: false,
        }
    }

    /// Dumps the table, a second time if the first was interrupted.
    pub(crate) fn dump(&mut self) -> Result<Snapshot, Error> {
        let own = OwnAddresses::read().map_err(|error| error.to_string());
        let result = uninterrupted(|| self.visit(&own)).inspect_err(|error| self.failed(error));
        let (Visit { mut summary, sockets, sockets_took }, dump) = result?;
        let (ended, ended_at) = (Instant::now(), SystemTime::now());
        let flows = Flows::of(&summary, &mut self.seen);
        let sources = own.map(|own| {
            summary.set_local_apart(&own);
            Listing::of(&summary, &mut self.held, ended, &self.choice)
        });
        Ok(Snapshot {
            flows,
            sources,
            sockets,
            ended,
            ended_at,
            dump_took: dump.elapsed,
            sockets_took: sockets_took + dump.elapsed,
            took: dump.elapsed + ended.elapsed(),
        })
    }

    /// The sockets first: the other way round, every connection that closes meanwhile looks dead.
    fn visit(&mut self, own: &Result<OwnAddresses, String>) -> Result<(Visit, Dump), Error> {
        let began = Instant::now();
        let before = self.judging.as_ref().ok_or(Unjudged::NotAsked).and_then(|judging| {
            let own = own.as_ref().map_err(|error| Unjudged::Addresses(error.clone()))?;
            judging.before_the_table(own)
        });
        let sockets_took = began.elapsed();
        let table = opened(&mut self.table, &mut self.pace)?;
        let shared = Shared::new();
        let begin = || (shared.part(), before.as_ref().map_err(Unjudged::clone).and_then(Before::judgement));
        let (parts, dump) = table.visit_in_two(begin, |(part, judgement), flow| match judgement {
            Ok(judgement) => part.add_judged(flow, judgement.of(flow)),
            Err(_) => part.add(flow),
        })?;
        let (counts, judgements): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|(part, judgement)| (part.finish(), judgement)).unzip();
        let mut summary = shared.whole(counts);
        let sockets = before.as_ref().map_err(Unjudged::clone).and_then(|before| {
            let judgements = judgements.into_iter().collect::<Result<Vec<_>, _>>()?;
            before.holds(&judgements, &dump)?;
            // An empty table was judged too.
            Ok(summary.judged.unwrap_or_default())
        });
        summary.judged = sockets.as_ref().ok().copied();
        self.note(&dump);
        Ok((Visit { summary, sockets, sockets_took }, dump))
    }

    fn failed(&mut self, error: &Error) {
        self.mishaps.count(error.reason());
        // Its answer may still be under way, and the next question would be refused with EBUSY.
        self.pace = self.table.take().and_then(Table::into_pace).or_else(|| self.pace.take());
    }

    fn note_pace(&self) {
        let refused = self.table.as_ref().and_then(Table::pace).is_some_and(Pace::raise_refused);
        if refused && !self.mishaps.raise_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "dumps get too little CPU at nice 10, and the kernel refuses to raise them again: set LimitNICE=+0 in the unit"
            );
        }
    }

    fn note(&mut self, dump: &Dump) {
        self.note_pace();
        if dump.interrupted {
            self.mishaps.count("interrupted");
            tracing::warn!("the table changed its size during a dump, so entries may be missing or double");
        }
        if let Some((count, first)) = dump.malformed {
            self.mishaps.count("malformed");
            if !self.malformed_told {
                tracing::error!(count, %first, "entries that cannot be read are left out of every metric; told once");
            }
            self.malformed_told = true;
        }
    }
}

/// The table, opened if it is closed.
fn opened<'a>(table: &'a mut Option<Table>, pace: &mut Option<Pace>) -> Result<&'a mut Table, Error> {
    match table {
        Some(table) => Ok(table),
        closed => {
            let table = Table::open()?;
            Ok(closed.insert(match pace.take() {
                Some(pace) => table.at_pace(pace),
                None => table,
            }))
        }
    }
}

/// A dump that the table's resizing interrupted is made again. If the second is interrupted too it is used: off by the few
/// entries that moved, it says more than nothing, and `conntrack_exporter_dump_errors_total` tells.
fn uninterrupted<T>(mut visit: impl FnMut() -> Result<(T, Dump), Error>) -> Result<(T, Dump), Error> {
    let first = visit()?;
    if first.1.interrupted { visit() } else { Ok(first) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefixes::Lengths;

    fn visited(interruptions: &[bool]) -> usize {
        let mut visits = 0;
        let result = uninterrupted(|| {
            let interrupted = interruptions[visits];
            visits += 1;
            Ok((visits, Dump { interrupted, ..Dump::default() }))
        });
        assert_eq!(result.unwrap().0, visits, "the last one is used");
        visits
    }

    #[test]
    fn an_interrupted_dump_is_made_again_once() {
        assert_eq!(visited(&[false]), 1);
        assert_eq!(visited(&[true, false]), 2);
        assert_eq!(visited(&[true, true]), 2);
    }

    fn dumper(mishaps: &Arc<Mishaps>) -> Dumper {
        Dumper {
            table: None,
            pace: None,
            seen: Seen::default(),
            held: Held::new(Duration::ZERO, 1),
            choice: Choice { top: 1, min_entries: 1, lengths: Lengths { ipv4: 24, ipv6: 64 } },
            judging: None,
            mishaps: Arc::clone(mishaps),
            malformed_told: false,
        }
    }

    fn counted(mishaps: &Mishaps) -> Vec<&'static str> {
        let errors = REASONS.iter().zip(mishaps.errors());
        errors.filter(|(_, count)| *count > 0).map(|(reason, _)| *reason).collect()
    }

    #[test]
    fn a_dump_that_was_not_whole_is_counted_by_its_reason_and_used() {
        let mishaps = Arc::default();
        let odd = Some((3, conntrack::netlink::Malformed("a tuple cut short")));
        dumper(&mishaps).note(&Dump { entries: 9, malformed: odd, interrupted: true, ..Dump::default() });
        assert_eq!(counted(&mishaps), ["malformed", "interrupted"], "a dump each, however many entries");
    }

    #[test]
    fn a_dump_that_failed_is_counted_by_its_reason() {
        let (mishaps, asked) = (Arc::default(), "the connection tracking table");
        let mut dumper = dumper(&mishaps);
        for error in [Error::NoMemory { asked }, Error::Overrun { asked }, Error::NotPermitted { asked }] {
            dumper.failed(&error);
        }
        assert_eq!(counted(&mishaps), ["not_permitted", "overrun", "no_memory"]);
    }
}
