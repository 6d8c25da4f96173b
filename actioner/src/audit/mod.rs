//! `audit.jsonl`: one line a decision, enough to decide it again, and one for each thing that a human or the kernel did.
//!
//! Lines are made here and written by a thread of their own behind a bounded queue: a slow, full or read-only disk costs
//! lines, which is counted and said, and never an action.

mod event;
mod files;
mod line;
mod read;
mod writer;

pub use event::{Event, What};
pub use files::{FILE, Rotation};
pub use line::{Context, rfc3339};
pub(crate) use read::read_from;
pub use read::{BadLine, Became, Recorded, Spared, files, read};

use crate::alert::Alert;
use crate::enforce::Outcome;
use crate::metrics::Metrics;
use crate::now::Now;
use crate::plan::Plan;
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime};
use writer::{Backlog, Job, Writer};

/// The format's number: raised when a field changes its meaning.
const SCHEMA: u32 = 1;
/// Writes that wait for the disk.
const QUEUE: usize = 4096;
/// Bytes that wait for the disk: alerts can be long, and what waits is memory.
const WAITING: usize = 16 << 20;
/// Lines of one alert that are queued together.
const TOGETHER: usize = 256 << 10;
/// An answer waits so long for its lines, unless the disk was slow the last time.
const PATIENCE: Duration = Duration::from_millis(100);
/// A stop waits so long for what is queued.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The audit log. Dropping it waits, for a bounded time, until what is queued is written.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    jobs: SyncSender<Job>,
    backlog: Backlog,
    metrics: Metrics,
    table_id: Option<String>,
    lines: u64,
    run: String,
    /// The disk did not keep up when it was last waited for.
    slow: bool,
    /// When a full queue was last spoken of.
    told: Option<Instant>,
}

/// Asks the log's thread to open the file again: for SIGHUP, after somebody renamed it.
#[derive(Debug, Clone)]
pub struct Reopen(SyncSender<Job>);

impl Reopen {
    /// Does not wait. A full queue needs no telling: before each write the thread looks whether the file is still there.
    pub fn reopen(&self) {
        let _ = self.0.try_send(Job::Reopen);
    }
}

impl Audit {
    /// Opens, or makes, `audit.jsonl` in the storage directory, which is made too (0750), and starts the thread. A disk
    /// that cannot take lines at the moment (full, read-only, failing) is said loudly and tried again: protection does not
    /// wait for it.
    ///
    /// # Errors
    /// What the file system says of a place that will never do; the text names it.
    pub fn open(storage: &Path, now: Now, rotation: Rotation, metrics: Metrics) -> io::Result<Audit> {
        let path = storage.join(FILE);
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let backlog = Backlog::default();
        let writer = Writer::open(&path, rotation, metrics.clone(), backlog.clone())?;
        writer.start(queue)?;
        Ok(Audit {
            path,
            jobs,
            backlog,
            metrics,
            table_id: conntrack::identity::table_id().ok(),
            lines: 0,
            run: format!("{:x}", now.boot.as_micros()),
            slow: false,
            told: None,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For whoever hears SIGHUP.
    pub fn reopener(&self) -> Reopen {
        Reopen(self.jobs.clone())
    }

    /// Queues a line for each verdict of a plan. Never waits; what finds no room is lost, counted and said.
    pub fn record(&mut self, alert: &Alert, plan: &Plan, outcome: &Outcome, context: Context<'_>) {
        let (mut text, mut lines) = (Vec::new(), 0);
        for verdict in &plan.verdicts {
            let id = self.id();
            push(&mut text, &line::line(id, alert, plan, verdict, outcome, context));
            lines += 1;
            if text.len() > TOGETHER {
                self.send(std::mem::take(&mut text), std::mem::take(&mut lines));
            }
        }
        self.send(text, lines);
    }

    /// Queues the line of something that is no decision. Never waits; what finds no room is lost, counted and said.
    pub fn record_event(&mut self, event: &Event) {
        let id = self.id();
        let mut text = Vec::new();
        push(&mut text, &event::line(event, id, self.table_id.as_deref(), SystemTime::now()));
        self.send(text, 1);
    }

    /// Waits until what is queued is written, for 100 ms at most, and not at all while the disk does not keep up: so an
    /// answer usually finds its lines in the file, and a bad disk delays nobody.
    pub fn settle(&mut self) {
        if self.slow && !self.backlog.is_empty() {
            return;
        }
        self.slow = !self.written_within(PATIENCE);
    }

    fn id(&mut self) -> String {
        self.lines += 1;
        format!("{}-{}", self.run, self.lines)
    }

    fn send(&mut self, text: Vec<u8>, lines: u64) {
        if text.is_empty() {
            return;
        }
        let bytes = text.len();
        if self.backlog.add(bytes) <= WAITING && self.jobs.try_send(Job::Lines(text)).is_ok() {
            return;
        }
        self.backlog.done(bytes);
        self.metrics.audit_lost(lines);
        if self.told.is_none_or(|told| told.elapsed() > writer::SAY_AGAIN) {
            self.told = Some(Instant::now());
            let path = self.path.display();
            tracing::error!(%path, lines, "audit lines are lost: the disk does not keep up and their queue is full; decisions stand");
        }
    }

    fn written_within(&self, time: Duration) -> bool {
        let began = Instant::now();
        let (done, written) = mpsc::sync_channel(1);
        let mut job = Job::Flush(done);
        while let Err(TrySendError::Full(back)) = self.jobs.try_send(job) {
            if began.elapsed() >= time {
                return false;
            }
            job = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        written.recv_timeout(time.saturating_sub(began.elapsed())).is_ok()
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.written_within(LAST_WORDS) {
            let path = self.path.display();
            tracing::error!(%path, "stopped before all audit lines were written: the disk did not take them within 5 s");
        }
    }
}

fn push(text: &mut Vec<u8>, line: &impl Serialize) {
    // Maps with text keys and numbers: serde_json has nothing to refuse in them.
    if serde_json::to_writer(&mut *text, line).is_ok() {
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests;
