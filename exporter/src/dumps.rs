//! Dumps as scrapes see them: asked for, shared, waited for until a deadline.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::dumper::{Dumper, Mishaps};
use crate::hold::Held;
use crate::listing::Choice;
use crate::snapshot::Snapshot;
use conntrack::socketless::Judging;

/// A dump that came too late for its scrape may serve a later one so long: more than most scrape intervals.
const LEFTOVER: Duration = Duration::from_secs(120);

/// A dump of millions of entries on a busy machine takes seconds; one that takes so long hangs.
const STUCK: Duration = Duration::from_secs(120);

/// Why there is no dump for a scrape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    /// It goes on; its result serves the next scrape.
    #[error(
        "the dump of the table was not ready half a second before the scrape's timeout; its result serves the next scrape"
    )]
    Late,
    /// The kernel did not give it.
    #[error("{0}")]
    Failed(String),
}

/// What the thread and the scrapes know of each other.
#[derive(Debug, Default)]
struct Board {
    /// Since when a dump is under way or asked for.
    busy: Option<Instant>,
    /// Dumps that ended, well or not.
    ended: u64,
    /// How the last one ended.
    last: Option<Result<Arc<Snapshot>, Missing>>,
    /// The last good one.
    good: Option<Arc<Snapshot>>,
    /// Whether any scrape got that.
    served: bool,
}

/// The way to the collector thread.
#[derive(Debug)]
pub(crate) struct Dumps {
    board: Arc<watch::Sender<Board>>,
    wake: mpsc::Sender<()>,
    max_age: Duration,
}

impl Dumps {
    /// Starts the thread. It dumps when it is asked to, and sleeps otherwise.
    pub(crate) fn start(
        choice: Choice,
        held: Held,
        max_age: Duration,
        judging: Option<Judging>,
        mishaps: Arc<Mishaps>,
    ) -> std::io::Result<Dumps> {
        Dumps::with(max_age, move || {
            let mut dumper = Dumper::on_this_thread(choice, held, judging, mishaps);
            move || dumper.dump().map_err(|error| Missing::Failed(error.to_string()))
        })
    }

    /// `prepare` runs on the thread and makes what dumps.
    fn with<D>(max_age: Duration, prepare: impl FnOnce() -> D + Send + 'static) -> std::io::Result<Dumps>
    where
        D: FnMut() -> Result<Snapshot, Missing>,
    {
        let board = Arc::new(watch::Sender::new(Board::default()));
        let (wake, woken) = mpsc::channel();
        let shown = Arc::clone(&board);
        let run = move || {
            let mut dump = prepare();
            for () in woken {
                let result = dump().map(Arc::new);
                shown.send_modify(|board| {
                    board.busy = None;
                    board.ended += 1;
                    if let Ok(snapshot) = &result {
                        (board.good, board.served) = (Some(Arc::clone(snapshot)), false);
                    }
                    board.last = Some(result);
                });
            }
        };
        thread::Builder::new().name("collector".into()).spawn(run)?;
        Ok(Dumps { board, wake, max_age })
    }

    /// The result of a dump that ended after this call, or of one younger than the flag allows. All who wait share one.
    ///
    /// After `patience`, a dump that no scrape got is better than none: so a table that takes longer to dump than a scrape
    /// may take is still shown, one scrape late, as `nf_conntrack_dump_timestamp_seconds` tells.
    pub(crate) async fn get(&self, patience: Option<Duration>) -> Result<Arc<Snapshot>, Missing> {
        if let Some(young) = self.take(|snapshot, _| snapshot.ended.elapsed() < self.max_age) {
            return Ok(young);
        }
        let mut board = self.board.subscribe();
        let awaited = self.ask();
        let ended = board.wait_for(|board| board.ended >= awaited);
        let in_time = match patience {
            Some(patience) => timeout(patience, ended).await.is_ok(),
            None => ended.await.is_ok(),
        };
        if !in_time {
            let unserved = self.take(|snapshot, served| !served && snapshot.ended.elapsed() < LEFTOVER);
            return unserved.ok_or(Missing::Late);
        }
        let last = self.board.borrow().last.clone().unwrap_or(Err(Missing::Late));
        last.inspect(|_| drop(self.take(|_, _| true)))
    }

    /// Whether no dump has been under way for longer than any table takes, the thread's patience with the kernel included.
    pub(crate) fn works(&self) -> bool {
        self.board.borrow().busy.is_none_or(|since| since.elapsed() < STUCK)
    }

    /// Asks for a dump unless one is under way; returns the number that it will end with.
    fn ask(&self) -> u64 {
        let (mut idle, mut awaited) = (false, 0);
        self.board.send_if_modified(|board| {
            idle = board.busy.is_none();
            board.busy.get_or_insert_with(Instant::now);
            awaited = board.ended + 1;
            false
        });
        if idle {
            // The thread ends only with the process.
            let _ = self.wake.send(());
        }
        awaited
    }

    /// The last good dump if it is fit, which it then has served.
    fn take(&self, fit: impl FnOnce(&Snapshot, bool) -> bool) -> Option<Arc<Snapshot>> {
        let mut taken = None;
        self.board.send_if_modified(|board| {
            taken = board.good.clone().filter(|snapshot| fit(snapshot, board.served));
            board.served |= taken.is_some();
            false
        });
        taken
    }
}

#[cfg(test)]
#[path = "dumps_tests.rs"]
mod tests;
