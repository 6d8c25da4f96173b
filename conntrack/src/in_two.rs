//! A dump in two threads, one for the entries that were answered and one for the rest: 0.61 of the time of one (DOMAIN.md, 2).

use crate::flow::Flow;
use crate::link::{Answer, Error};
use crate::netlink::Malformed;
use crate::pace::Pace;
use crate::reader::{Classes, Half, Reader};
use crate::table::{DUMP, Dump, Table, buckets};
use std::thread;
use std::time::{Duration, Instant};

/// One half of a dump, as its thread leaves it.
#[derive(Debug)]
enum Read<S> {
    /// All of it.
    Whole(S, Dump, Classes),
    /// The kernel does not know the question: before 5.15, or one that refuses it.
    Unknown,
}

/// A half that was shown.
type Shown<S> = (S, Dump, Classes);

impl Table {
    /// Shows every entry once, as [`Table::visit`], to `see`, with what `begin` makes: once, or twice where two threads read a half
    /// each. Two do where the last dump of this table had at least 20,000 entries and a twentieth of them in the smaller class, and
    /// the kernel knows the question (5.15). An entry that is answered meanwhile may be seen in both halves, or in none.
    ///
    /// Errors: see [`Error`].
    pub fn visit_in_two<S: Send>(
        &mut self,
        begin: impl Fn() -> S,
        see: impl Fn(&mut S, &Flow) + Sync,
    ) -> Result<(Vec<S>, Dump), Error> {
        if !self.never_in_two && self.classes.worth_two() {
            if let Some(read) = self.halves([begin(), begin()], &see)? {
                return Ok(read);
            }
            self.never_in_two = true;
            // An answer may be under way on the old one.
            let pace = self.pace.take();
            *self = Table { pace, never_in_two: true, ..another(self.link.times_calls())? };
        }
        let mut state = begin();
        let dump = self.visit(|flow| see(&mut state, flow))?;
        Ok((vec![state], dump))
    }

    fn halves<S: Send>(
        &mut self,
        [ours, theirs]: [S; 2],
        see: &(impl Fn(&mut S, &Flow) + Sync),
    ) -> Result<Option<(Vec<S>, Dump)>, Error> {
        let started = Instant::now();
        let shape = buckets();
        let pace = self.pace.as_ref().map(Pace::before);
        let times_calls = self.link.times_calls();
        let other = move || {
            let mut table = another(times_calls)?;
            table.pace = pace.map(Pace::lower_this_thread_from);
            table.half(Half::Unreplied, theirs, see)
        };
        let (ours, theirs) = thread::scope(|scope| {
            let other = thread::Builder::new().name("dump 2".to_owned()).spawn_scoped(scope, other);
            let other =
                other.map_err(|source| Error::Open { asked: "a second thread for the dump", source })?;
            let ours = self.half(Half::Replied, ours, see)?;
            let theirs = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((ours, theirs))
        })?;
        let Some([(ours, a, ours_classes), (theirs, b, theirs_classes)]) = both([ours, theirs])? else {
            return Ok(None);
        };
        self.classes = Classes { replied: ours_classes.replied, unreplied: theirs_classes.unreplied };
        let malformed = match (a.malformed, b.malformed) {
            (Some((count, first)), Some((more, _))) => Some((count + more, first)),
            (one, other) => one.or(other),
        };
        let dump = Dump {
            entries: a.entries + b.entries,
            malformed,
            interrupted: a.interrupted || b.interrupted || shape != buckets(),
            elapsed: started.elapsed(),
            longest_call: a.longest_call.max(b.longest_call),
        };
        Ok(Some((vec![ours, theirs], dump)))
    }

    fn half<S>(&mut self, half: Half, mut state: S, see: &impl Fn(&mut S, &Flow)) -> Result<Read<S>, Error> {
        let started = Instant::now();
        let mut reader = Reader::half(half, |flow: &Flow| see(&mut state, flow));
        let result = self.read(&mut reader, false);
        outcome(result, &reader, started.elapsed()).map(|read| match read {
            Read::Whole((), dump, classes) => Read::Whole(state, dump, classes),
            Read::Unknown => Read::Unknown,
        })
    }
}

/// Another link to the table, which measures what the first one does.
fn another(times_calls: bool) -> Result<Table, Error> {
    let table = Table::open()?;
    Ok(if times_calls { table.timing_calls() } else { table })
}

/// What the kernel's answer to the question for one half amounts to. Pure.
fn outcome<E: FnMut(&Flow)>(
    answer: Result<Answer, Error>,
    reader: &Reader<E>,
    elapsed: Duration,
) -> Result<Read<()>, Error> {
    let classes = reader.classes();
    match answer {
        _ if reader.unfiltered() => Ok(Read::Unknown),
        Ok(answer) => Ok(Read::Whole((), reader.dump(answer, elapsed), classes)),
        // EINVAL and the like: asked for all, it may answer.
        Err(Error::Refused { .. }) if classes == Classes::default() => Ok(Read::Unknown),
        Err(error) => Err(error),
    }
}

/// Both halves, or None where the kernel must be asked for all instead. Pure.
fn both<S>(halves: [Read<S>; 2]) -> Result<Option<[Shown<S>; 2]>, Error> {
    match halves {
        [Read::Whole(ours, a, of_ours), Read::Whole(theirs, b, of_theirs)] => {
            Ok(Some([(ours, a, of_ours), (theirs, b, of_theirs)]))
        }
        // What it showed is counted: a plain dump now would count it twice.
        [Read::Whole(_, dump, _), _] | [_, Read::Whole(_, dump, _)] if dump.entries > 0 => {
            let source = Malformed("one half of the dump was answered and the other was not");
            Err(Error::Malformed { asked: DUMP, source })
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
#[path = "in_two_tests.rs"]
mod tests;
