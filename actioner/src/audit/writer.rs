//! The thread that writes: appends, sets files aside, finds the file moved away, and says what it could not write.

use super::files::{Rotation, set_aside};
use crate::metrics::Metrics;
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

/// A trouble that lasts is said again after this long, and at once when it ends.
pub(super) const SAY_AGAIN: Duration = Duration::from_secs(60);
/// A file that was moved away is let go of after this long, though nothing is written.
const LOOK: Duration = Duration::from_secs(5);

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Job {
    /// Whole lines, each with its end.
    Lines(Vec<u8>),
    /// Open the file again.
    Reopen,
    /// Say when everything before this is written, or lost.
    Flush(SyncSender<()>),
}

/// Bytes that are queued.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<AtomicUsize>);

impl Backlog {
    pub(super) fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    pub(super) fn done(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// The open file and what is wrong with it.
pub(super) struct Writer {
    path: PathBuf,
    rotation: Rotation,
    metrics: Metrics,
    backlog: Backlog,
    file: Option<File>,
    size: u64,
    /// The last line has no end: the host lost power, or a write failed half way. The next must not continue it.
    torn: bool,
    trouble: Trouble,
}

/// What was lost since it last worked, and when that was last said.
#[derive(Debug, Default)]
struct Trouble {
    lost: u64,
    said: Option<Instant>,
    /// The file cannot be set aside: it grows on, and renaming is tried again after a while.
    aside: Option<Instant>,
}

impl Writer {
    pub(super) fn open(
        path: &Path,
        rotation: Rotation,
        metrics: Metrics,
        backlog: Backlog,
    ) -> io::Result<Writer> {
        let mut writer = Writer {
            path: path.to_owned(),
            rotation,
            metrics,
            backlog,
            file: None,
            size: 0,
            torn: false,
            trouble: Trouble::default(),
        };
        match writer.make() {
            Ok(()) => {}
            Err(error) if may_pass(&error) => {
                let path = path.display();
                tracing::error!(%path, %error, "NO AUDIT LOG: decisions are made and carried out, and nothing of them is kept until the disk takes it");
                writer.trouble.said = Some(Instant::now());
            }
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
        }
        Ok(writer)
    }

    pub(super) fn start(mut self, jobs: Receiver<Job>) -> io::Result<()> {
        thread::Builder::new().name("audit".to_owned()).spawn(move || self.run(&jobs)).map(drop)
    }

    fn run(&mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(LOOK) {
                Ok(Job::Lines(lines)) => {
                    self.write(&lines);
                    self.backlog.done(lines.len());
                }
                Ok(Job::Reopen) => self.file = None,
                Ok(Job::Flush(done)) => drop(done.try_send(())),
                Err(RecvTimeoutError::Timeout) => self.let_go_if_moved(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&mut self, lines: &[u8]) {
        self.let_go_if_moved();
        self.make_room(lines.len() as u64);
        let (written, result) = self.append(lines);
        match result {
            Ok(()) => self.works_again(),
            Err(error) => self.lost(ends(&lines[written..]), &error),
        }
    }

    /// How many bytes of `lines` are in the file, all of them or with the reason why not.
    fn append(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if self.file.is_none()
            && let Err(error) = self.make()
        {
            return (0, Err(error));
        }
        let Some(file) = &mut self.file else { return (0, Ok(())) };
        if self.torn {
            if let Err(error) = file.write_all(b"\n") {
                self.file = None;
                return (0, Err(error));
            }
            (self.torn, self.size) = (false, self.size + 1);
        }
        let mut written = 0;
        while written < lines.len() {
            match file.write(&lines[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(some) => {
                    written += some;
                    self.size += some as u64;
                    self.torn = lines[written - 1] != b'\n';
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // A remount or a returning file server may give a working file again.
                    self.file = None;
                    return (written, Err(error));
                }
            }
        }
        (written, Ok(()))
    }

    /// Opens the file, and makes it and its directory where they are missing.
    fn make(&mut self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&self.path)?;
        self.size = file.metadata()?.len();
        let mut last = [b'\n'];
        if let Some(at) = self.size.checked_sub(1) {
            file.read_exact_at(&mut last, at)?;
        }
        self.torn = last != *b"\n";
        self.file = Some(file);
        Ok(())
    }

    /// Somebody renamed or removed the file, as logrotate does: what comes next belongs into a new one.
    fn let_go_if_moved(&mut self) {
        let Some(file) = &self.file else { return };
        let same = || -> io::Result<bool> {
            let (open, there) = (file.metadata()?, fs::metadata(&self.path)?);
            Ok((open.dev(), open.ino()) == (there.dev(), there.ino()))
        };
        if !same().unwrap_or(false) {
            self.file = None;
        }
    }

    fn make_room(&mut self, more: u64) {
        let full = self.rotation.max_size > 0
            && self.file.is_some()
            && self.size > 0
            && self.size + more > self.rotation.max_size;
        if !full || self.trouble.aside.is_some_and(|since| since.elapsed() < SAY_AGAIN) {
            return;
        }
        match set_aside(&self.path, self.rotation.keep) {
            Ok(()) => {
                self.file = None;
                self.trouble.aside = None;
            }
            Err(error) => {
                let (path, size) = (self.path.display(), self.size);
                tracing::error!(%path, size, %error, "the audit log cannot be set aside and grows on");
                self.trouble.aside = Some(Instant::now());
            }
        }
    }

    fn lost(&mut self, lines: u64, error: &io::Error) {
        self.metrics.audit_lost(lines);
        self.trouble.lost += lines;
        if self.trouble.said.is_none_or(|said| said.elapsed() > SAY_AGAIN) {
            let (path, lost) = (self.path.display(), self.trouble.lost);
            tracing::error!(%path, %error, lost, "audit lines are lost; decisions stand");
            self.trouble.said = Some(Instant::now());
        }
    }

    fn works_again(&mut self) {
        if self.trouble.said.take().is_some() {
            let (path, lost) = (self.path.display(), std::mem::take(&mut self.trouble.lost));
            tracing::warn!(%path, lost, "the audit log is written again; so many lines are missing");
        }
    }
}

fn ends(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Whether a disk that says this may say otherwise later: it is full, read-only or failing. A path that cannot be made or
/// must not be written is a mistake in the set-up.
fn may_pass(error: &io::Error) -> bool {
    let passing = [Errno::ROFS, Errno::NOSPC, Errno::DQUOT, Errno::IO];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}
