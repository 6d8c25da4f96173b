//! A dump in two threads, one for the entries that were answered and one for the rest: 0.61 of the time of one (DOMAIN.md, 2).

use crate::flow::Flow;
use crate::link::Error;
use crate::netlink::Malformed;
use crate::pace::Pace;
use crate::reader::{Classes, Half, Reader};
use crate::table::{DUMP, Dump, Table, buckets};
use std::thread;
use std::time::Instant;

/// One half of a dump, as its thread leaves it.
#[derive(Debug)]
enum Read<S> {
    /// All of it.
    Whole(S, Dump, Classes),
    /// The kernel does not know the question: before 5.15, or one that refuses it.
    Unknown,
}

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
            *self = Table { pace, never_in_two: true, ..Table::open()? };
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
        let other = move || {
            let mut table = Table::open()?;
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
        let (ours, a, ours_classes, theirs, b, theirs_classes) = match (ours, theirs) {
            (Read::Whole(ours, a, of_ours), Read::Whole(theirs, b, of_theirs)) => {
                (ours, a, of_ours, theirs, b, of_theirs)
            }
            // What it showed is counted: a plain dump now would count it twice.
            (Read::Whole(_, dump, _), _) | (_, Read::Whole(_, dump, _)) if dump.entries > 0 => {
                let source = Malformed("one half of the dump was answered and the other was not");
                return Err(Error::Malformed { asked: DUMP, source });
            }
            _ => return Ok(None),
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
        };
        Ok(Some((vec![ours, theirs], dump)))
    }

    fn half<S>(&mut self, half: Half, mut state: S, see: &impl Fn(&mut S, &Flow)) -> Result<Read<S>, Error> {
        let started = Instant::now();
        let mut reader = Reader::half(half, |flow: &Flow| see(&mut state, flow));
        let result = self.read(&mut reader);
        let (unfiltered, classes) = (reader.unfiltered(), reader.classes());
        match result {
            _ if unfiltered => Ok(Read::Unknown),
            Ok(interrupted) => {
                let dump = reader.dump(interrupted, started.elapsed());
                Ok(Read::Whole(state, dump, classes))
            }
            // EINVAL and the like: asked for all, it may answer.
            Err(Error::Refused { .. }) if classes == Classes::default() => Ok(Read::Unknown),
            Err(error) => Err(error),
        }
    }
}
