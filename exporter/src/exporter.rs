//! A scrape from wish to answer: what was asked for is read, what failed is told once.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conntrack::socketless::Judging;

use crate::cheap::Outcome;
use crate::collector::{Collector, Collectors};
use crate::dumper::Mishaps;
use crate::dumps::{Dumps, Missing};
use crate::exposition::Exposition;
use crate::flags::Flags;
use crate::hold::Held;
use crate::listing::Choice;
use crate::prefixes::Lengths;
use crate::reader::{Reader, Reading};
use crate::scrape::Scrape;
use crate::snapshot::Snapshot;
use crate::told::Told;

/// Everything that lives from scrape to scrape.
#[derive(Debug)]
pub(crate) struct Exporter {
    /// Those that no flag switched off.
    pub(crate) enabled: Collectors,
    reader: Reader,
    dumps: Dumps,
    mishaps: Arc<Mishaps>,
    told: RefCell<Told>,
    identity_told: Cell<bool>,
}

impl Exporter {
    /// Starts the collector thread and the reader. Errors: the system has no thread to give.
    pub(crate) fn start(flags: &Flags) -> std::io::Result<Exporter> {
        let sources = &flags.sources;
        let lengths = Lengths { ipv4: sources.prefix_ipv4, ipv6: sources.prefix_ipv6 };
        let choice = Choice { top: sources.top as usize, min_entries: sources.min_entries, lengths };
        let mishaps = Arc::new(Mishaps::default());
        let judging = flags.collectors.0.has(Collector::Sockets).then(|| Judging {
            grace: flags.grace,
            setting: "--collector.sockets.grace",
            procfs: flags.procfs.clone(),
        });
        let held = Held::new(sources.hold, choice.top);
        Ok(Exporter {
            enabled: flags.collectors.0,
            reader: Reader::start(&flags.procfs)?,
            dumps: Dumps::start(choice, held, flags.max_age, judging, Arc::clone(&mishaps))?,
            mishaps,
            told: RefCell::default(),
            identity_told: Cell::new(false),
        })
    }

    /// Whether the collector thread gets on, as the watchdog asks.
    pub(crate) fn works(&self) -> bool {
        self.dumps.works()
    }

    /// Reads all that `scrape` asks for, the dump first: it removes expired entries, which the count would show.
    pub(crate) async fn gather(&self, scrape: Scrape) -> Exposition {
        let started = Instant::now();
        let dump = match scrape.collectors.need_dump() {
            true => Some(self.dumps.get(scrape.patience).await),
            false => None,
        };
        let waited = started.elapsed();
        let Reading { readings, process, table_id } = self.reader.read(scrape.collectors).await;

        let mut outcomes = readings.outcomes.clone();
        let wanted = scrape.collectors.iter().filter(|collector| collector.needs_dump());
        outcomes.extend(
            wanted.zip(dump.iter().cycle()).map(|(collector, dump)| of_dump(collector, dump, waited)),
        );
        self.tell(&outcomes);
        if let (Err(error), false) = (&table_id, self.identity_told.get()) {
            tracing::error!(%error, "nf_conntrack_table_info is missing: alerts cannot say which table they are about");
            self.identity_told.set(true);
        }
        let worked = |collector| {
            outcomes.iter().any(|outcome| outcome.collector == collector && outcome.result.is_ok())
        };
        let [flows, sources, sockets] =
            [Collector::Flows, Collector::Sources, Collector::Sockets].map(worked);
        let dump = dump.and_then(Result::ok).filter(|_| flows || sources || sockets);
        Exposition {
            readings,
            flows,
            sources,
            sockets,
            sources_enabled: self.enabled.has(Collector::Sources),
            dump,
            outcomes,
            table_id: table_id.ok(),
            process,
            dump_errors: self.mishaps.errors(),
            raise_refused: self.mishaps.raise_refused(),
        }
    }

    fn tell(&self, outcomes: &[Outcome]) {
        let mut told = self.told.borrow_mut();
        for outcome in outcomes {
            match &outcome.result {
                Ok(()) => told.succeeded(outcome.collector),
                Err(reason) => told.failed(outcome.collector, reason),
            }
        }
    }
}

/// How a collector that needs a dump fared with it.
fn of_dump(collector: Collector, dump: &Result<Arc<Snapshot>, Missing>, waited: Duration) -> Outcome {
    let snapshot = match dump {
        Ok(snapshot) => snapshot,
        Err(missing) => return Outcome { collector, result: Err(missing.to_string()), took: waited },
    };
    let (result, took) = match collector {
        Collector::Sources => (snapshot.sources.as_ref().map(drop).map_err(String::clone), snapshot.took),
        Collector::Sockets => {
            (snapshot.sockets.as_ref().map(drop).map_err(ToString::to_string), snapshot.sockets_took)
        }
        _ => (Ok(()), snapshot.dump_took),
    };
    Outcome { collector, result, took }
}
