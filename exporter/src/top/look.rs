//! One look at the host: table, sockets, counters, bans.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use conntrack::own::OwnAddresses;
use conntrack::socketless::{Before, Judging, Unjudged};
use conntrack::summary::{Mark, Shared};
use conntrack::{Error, Pace, STATS, Summary, Table};
use tokio::sync::mpsc;

use super::bans::{self, Ban};
use crate::stat::Stat;
use crate::sysctl::{Size, Sysctls};

/// What was seen.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) clock: SystemTime,
    /// Read after the dump, which reaps what has expired.
    pub(super) size: Size,
    /// From one dump: all other numbers.
    pub(super) summary: Summary,
    /// Why nothing is said of sockets.
    pub(super) sockets: Result<(), String>,
    /// Why this host's own addresses stand among the sources.
    pub(super) own: Result<(), String>,
    /// Packets dropped and entries evicted since boot.
    pub(super) dropped: Option<(u64, u64)>,
    /// The bans in force, or why they are not known.
    pub(super) bans: Result<Vec<Ban>, String>,
}

impl Look {
    pub(super) fn marked(&self, mark: Mark) -> u64 {
        self.summary.marked_in_all(mark)
    }
}

/// Makes looks. Belongs to the thread that dumps.
#[derive(Debug)]
pub(super) struct Reader {
    sysctls: Sysctls,
    stat: Stat,
    judging: Judging,
    socket: PathBuf,
}

impl Reader {
    pub(super) fn new(procfs: &Path, grace: Duration, socket: &Path) -> Reader {
        Reader {
            sysctls: Sysctls::below(procfs),
            stat: Stat::below(procfs),
            judging: Judging { grace, setting: "--collector.sockets.grace", procfs: procfs.to_owned() },
            socket: socket.to_owned(),
        }
    }

    /// Looks, in the calling thread's namespace. The error is for people.
    fn look(&mut self, pace: &mut Option<Pace>) -> Seen {
        let own = OwnAddresses::read().map_err(|error| error.to_string());
        let (mut summary, sockets) = self.visit(&own, pace).map_err(|error| error.to_string())?;
        if let Ok(own) = &own {
            summary.set_local_apart(own);
        }
        let size = self.sysctls.size().map_err(|error| error.to_string())?;
        Ok(Look {
            at: Instant::now(),
            clock: SystemTime::now(),
            size,
            summary,
            sockets,
            own: own.map(drop),
            dropped: self.dropped(),
            bans: bans::in_force(&self.socket),
        })
    }

    /// Sockets before the table, or every connection that closes meanwhile looks dead.
    fn visit(
        &self,
        own: &Result<OwnAddresses, String>,
        pace: &mut Option<Pace>,
    ) -> Result<(Summary, Result<(), String>), Error> {
        let before = match own {
            Ok(own) => self.judging.before_the_table(own),
            Err(error) => Err(Unjudged::Addresses(error.clone())),
        };
        let mut judgement = before.as_ref().map_err(Unjudged::clone).and_then(Before::judgement);
        let mut table = Table::open()?;
        if let Some(pace) = pace.take() {
            table = table.at_pace(pace);
        }
        let shared = Shared::new();
        let mut counts = shared.part();
        let dump = match &mut judgement {
            Ok(judgement) => table.visit(|flow| counts.add_judged(flow, judgement.of(flow))),
            Err(_) => table.visit(|flow| counts.add(flow)),
        };
        *pace = table.into_pace();
        let dump = dump?;
        let counts = counts.finish();
        let mut summary = shared.whole([counts]);
        let judged =
            before.as_ref().map_err(Unjudged::clone).and_then(|before| before.holds([&judgement?], &dump));
        match &judged {
            Ok(()) => drop(summary.judged.get_or_insert_default()),
            Err(_) => summary.judged = None,
        }
        Ok((summary, judged.map_err(|unjudged| unjudged.to_string())))
    }

    fn dropped(&mut self) -> Option<(u64, u64)> {
        let totals = self.stat.read().ok()?;
        let total = |name: &str| totals[STATS.iter().position(|stat| stat.name == name)?];
        Some((total("drop")?, total("early_drop")?))
    }
}

/// A look, or for people why there is none.
pub(super) type Seen = Result<Look, String>;

/// A reader on a thread of its own, at nice 10: a dump at nice 0 costs its neighbours milliseconds. It looks at the start, and
/// whenever it is asked.
#[derive(Debug)]
pub(super) struct Looking {
    asks: std::sync::mpsc::Sender<()>,
    looks: mpsc::Receiver<Seen>,
}

impl Looking {
    pub(super) fn start(mut reader: Reader) -> io::Result<Looking> {
        let (asks, asked) = std::sync::mpsc::channel();
        let (show, looks) = mpsc::channel(1);
        thread::Builder::new().name("look".into()).spawn(move || {
            let mut pace = Some(Pace::lower_this_thread());
            while show.blocking_send(reader.look(&mut pace)).is_ok() && asked.recv().is_ok() {}
        })?;
        Ok(Looking { asks, looks })
    }

    /// For another look; [`Looking::next`] gives it.
    pub(super) fn ask(&self) {
        // A thread that has ended is told by `next`.
        let _ = self.asks.send(());
    }

    /// The next look, once it is made. May be dropped before it is: nothing is lost.
    pub(super) async fn next(&mut self) -> Seen {
        self.looks.recv().await.unwrap_or_else(|| Err("the thread that looks has ended".into()))
    }
}
