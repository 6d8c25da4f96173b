//! The honest client: the one whom no defence may cut off.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{Result, failure::Tried, netns::Namespace};

/// What the client does.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Connections it keeps open.
    pub keep: usize,
    /// The pause between two rounds, in each of which every kept connection has one exchange.
    pub round: Duration,
    /// The pause between two new connections, each of one exchange.
    pub open: Duration,
    /// How long it waits for a connection or an answer. Whoever is banned, or whose entry is gone, waits for ever; the kernel repeats a
    /// SYN after a second, and on a busy machine a service gets no CPU for as long.
    pub patience: Duration,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            keep: 20,
            round: Duration::from_millis(100),
            open: Duration::from_millis(50),
            patience: Duration::from_secs(10),
        }
    }
}

/// What the client has lived through.
#[derive(Debug, Clone, Default)]
pub struct HonestReport {
    /// Kept connections that are still good.
    pub kept: usize,
    /// Exchanges on kept connections.
    pub exchanged: usize,
    /// New connections that were made, answered and closed.
    pub opened: usize,
    /// Every failure: which connection, what happened, when.
    pub lost: Vec<String>,
    /// The longest that a connection or an answer took.
    pub slowest: Duration,
}

/// An honest client at work, until [`finish`](Self::finish) or drop.
#[derive(Debug)]
pub struct Honest {
    diary: Arc<Diary>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Diary {
    start: Instant,
    stop: AtomicBool,
    report: Mutex<HonestReport>,
}

impl Honest {
    /// Connects its kept connections to `kept_at` and begins; new connections go to `opens_at` in turn.
    ///
    /// # Errors
    /// When a kept connection cannot be made: there is no peace to begin with.
    pub fn start(
        namespace: &Namespace,
        kept_at: SocketAddr,
        opens_at: Vec<SocketAddr>,
        habits: Habits,
    ) -> Result<Self> {
        let connected =
            || (0..habits.keep).map(|_| connect(kept_at, habits.patience)).collect::<io::Result<Vec<_>>>();
        let mut kept =
            namespace.run(connected).tried(|| format!("the honest client's connections to {kept_at}"))?;
        let report = HonestReport { kept: kept.len(), ..HonestReport::default() };
        let diary = Arc::new(Diary {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            report: Mutex::new(report),
        });
        let (keeper, opener) = (diary.clone(), diary.clone());
        let keeping = namespace.thread("honest, kept", move || {
            while keeper.goes_on(habits.round) {
                kept.retain_mut(|stream| keeper.exchange_on(stream));
            }
        })?;
        let mut honest = Self { diary, threads: vec![keeping] };
        honest.threads.push(namespace.thread("honest, new", move || {
            for target in opens_at.iter().cycle() {
                if !opener.goes_on(habits.open) {
                    break;
                }
                opener.open_one(*target, habits.patience);
            }
        })?);
        Ok(honest)
    }

    /// What it has lived through so far.
    pub fn so_far(&self) -> HonestReport {
        self.diary.page().clone()
    }

    /// Ends it and returns all it has lived through.
    pub fn finish(mut self) -> HonestReport {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.diary.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.diary.page().lost.push("a thread of the honest client panicked".into());
            }
        }
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.end();
    }
}

impl Diary {
    fn page(&self) -> MutexGuard<'_, HonestReport> {
        self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn goes_on(&self, pause: Duration) -> bool {
        thread::sleep(pause);
        !self.stop.load(Ordering::Relaxed)
    }

    fn lost(&self, what: &str, error: &io::Error) {
        let after = self.start.elapsed().as_secs_f64();
        self.page().lost.push(format!("{after:.2} s: {what}: {error}"));
    }

    fn took(&self, begun: Instant) -> MutexGuard<'_, HonestReport> {
        let mut page = self.page();
        page.slowest = page.slowest.max(begun.elapsed());
        page
    }

    fn exchange_on(&self, stream: &mut TcpStream) -> bool {
        let begun = Instant::now();
        match exchange(stream) {
            Ok(()) => self.took(begun).exchanged += 1,
            Err(error) => {
                let from = stream.local_addr().map_or_else(|_| "?".into(), |address| address.to_string());
                self.lost(&format!("kept connection from {from}"), &error);
                self.page().kept -= 1;
                return false;
            }
        }
        true
    }

    fn open_one(&self, target: SocketAddr, patience: Duration) {
        let begun = Instant::now();
        match connect(target, patience).and_then(|mut stream| exchange(&mut stream)) {
            Ok(()) => self.took(begun).opened += 1,
            Err(error) => self.lost(&format!("new connection to {target}"), &error),
        }
    }
}

fn connect(target: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, patience)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    let question = *b"GET /peace HTTP/1.1\r\n\r\n";
    let mut answer = [0; 23];
    stream.write_all(&question)?;
    stream.read_exact(&mut answer)?;
    if answer == question { Ok(()) } else { Err(io::Error::other("another answer than what was sent")) }
}
