//! Ping-pong over one connection between two namespaces: what packets feel while something else goes on.

use std::{
    fmt,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, Pid, sched_setaffinity};

use crate::{
    Result,
    topology::{Family, Topology},
};

/// An idle moment for others on this CPU: a busy loop would starve a polite dump altogether.
const PAUSE: Duration = Duration::from_micros(200);

/// Keeps a thread, or the calling one, on the first CPU, and what it starts from now on.
///
/// # Panics
/// When the thread is gone.
pub fn pin(thread: Option<Pid>) {
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(thread, &first).unwrap();
}

/// Keeps every thread of a process on the first CPU.
///
/// # Panics
/// When the process has ended.
pub fn pin_process(id: u32) {
    for task in std::fs::read_dir(format!("/proc/{id}/task")).unwrap() {
        let thread = task.unwrap().file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
        pin(thread);
    }
}

/// How long exchanges took.
#[derive(Debug, Clone, Copy)]
pub struct Felt {
    /// One in a hundred took longer.
    pub p99: Duration,
    /// The worst.
    pub longest: Duration,
    exchanges: usize,
}

impl fmt::Display for Felt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p99 {:.1?}, longest {:.1?} of {} exchanges", self.p99, self.longest, self.exchanges)
    }
}

/// A connection from the client to the server, both ends on the first CPU, exchanging all the time.
#[derive(Debug)]
pub struct PingPong {
    stop: Arc<AtomicBool>,
    ends: [JoinHandle<Vec<Duration>>; 2],
}

impl PingPong {
    /// Connects them. The scene needs a peer named `client`.
    ///
    /// # Errors
    /// When a namespace has no thread to give.
    ///
    /// # Panics
    /// When they cannot connect.
    pub fn start(scene: &Topology) -> Result<Self> {
        let at = scene.server_socket(Family::V4, 7);
        let listener = scene.server.run(|| TcpListener::bind(at)).unwrap();
        let mut client = scene.peer("client").namespace.run(|| TcpStream::connect(at)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        [&client, &server].into_iter().for_each(|end| end.set_nodelay(true).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let answering = scene.server.thread("pong", move || {
            pin(None);
            let mut byte = [0];
            while server.read_exact(&mut byte).is_ok() {
                server.write_all(&byte).unwrap();
            }
            Vec::new()
        })?;
        let asking = scene.peer("client").namespace.thread("ping", move || {
            pin(None);
            let mut took = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                // From when it is due: a CPU that is held up does not begin in time either.
                let due = Instant::now() + PAUSE;
                thread::sleep(PAUSE);
                client.write_all(b"?").unwrap();
                client.read_exact(&mut [0]).unwrap();
                took.push(due.elapsed());
            }
            took
        })?;
        Ok(Self { stop, ends: [asking, answering] })
    }

    /// Ends it.
    ///
    /// # Panics
    /// When an exchange failed.
    pub fn end(self) -> Felt {
        self.stop.store(true, Ordering::Relaxed);
        let [asking, answering] = self.ends;
        let mut took = asking.join().unwrap();
        answering.join().unwrap();
        took.sort_unstable();
        Felt { p99: took[took.len() * 99 / 100], longest: took[took.len() - 1], exchanges: took.len() }
    }
}
