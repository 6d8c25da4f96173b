//! The thread that reads what needs no dump, for one scrape after the other.
//!
//! One of its own, and not the runtime's pool: that starts a thread for each scrape that waits, to wait for the same files, and each
//! of them keeps memory by itself (a hundred kept 6 MiB).

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use conntrack::identity::table_id;
use tokio::sync::oneshot;
use web::process::{self, Usage};

use crate::cheap::{Cheap, Readings};
use crate::collector::Collectors;

/// What it reads for a scrape.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) readings: Readings,
    /// None: procfs does not show this process.
    pub(crate) process: Option<Usage>,
    pub(crate) table_id: io::Result<String>,
}

type Wish = (Collectors, oneshot::Sender<Reading>);

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Reader {
    wishes: mpsc::Sender<Wish>,
}

impl Reader {
    /// Starts the thread. Errors: the system has none to give.
    pub(crate) fn start(procfs: &Path) -> io::Result<Reader> {
        let (wishes, wished) = mpsc::channel();
        let procfs = procfs.to_owned();
        thread::Builder::new().name("reader".into()).spawn(move || run(&procfs, wished))?;
        Ok(Reader { wishes })
    }

    /// Those of `collectors` that need no dump, and what every scrape shows.
    ///
    /// # Panics
    /// Where reading panicked, which it does not.
    pub(crate) async fn read(&self, collectors: Collectors) -> Reading {
        let (reply, read) = oneshot::channel();
        self.wishes.send((collectors, reply)).expect("the reader lives as long as we do");
        read.await.expect("reading does not panic")
    }
}

fn run(procfs: &Path, wishes: mpsc::Receiver<Wish>) {
    let mut cheap = Cheap::below(procfs);
    for (collectors, reply) in wishes {
        let reading = Reading {
            readings: cheap.read(collectors),
            process: process::read(procfs).ok(),
            table_id: table_id(),
        };
        // Whoever asked may be gone.
        let _ = reply.send(reading);
    }
}
