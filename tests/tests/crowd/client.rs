//! One honest client: its habit, and what it has lived through.

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

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tests::{
    Result,
    http::{self, Server},
    netns::Namespace,
};

/// Generous, for others may want the machine: what is not answered by then is lost. TCP repeats what one packet lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client does again and again until it is told to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Habit {
    /// One connection, an exchange on it every so often, and a last one at the end.
    Keep(Duration),
    /// A connection for each exchange.
    Short(Duration),
    /// Connects ahead, says nothing for so long, then asks; as browsers do.
    Ahead(Duration),
    /// One connection, on which the other side speaks first and alone.
    Listen,
    /// A scrape every so often.
    Scrape(Duration),
}

/// What a client, or many together, have lived through.
#[derive(Debug, Default, Clone)]
pub(crate) struct Diary {
    pub(crate) connections: usize,
    pub(crate) bytes: usize,
    pub(crate) answers: usize,
    pub(crate) lost: Vec<String>,
}

/// A client at work, until [`Client::stop`].
pub(crate) struct Client {
    pub(crate) kind: &'static str,
    diary: Arc<Mutex<Diary>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// From an address of the namespace (port 0) to a service.
    pub(crate) fn start(
        namespace: &Namespace,
        (kind, habit): (&'static str, Habit),
        source: SocketAddr,
        target: SocketAddr,
    ) -> Result<Self> {
        let diary = Arc::new(Mutex::new(Diary::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let life = Life { source, target, diary: diary.clone(), stop: stop.clone() };
        let thread = namespace.thread(kind, move || {
            if let Err(error) = life.live(habit) {
                let ended = format!("{kind} from {} to {}: {error}", life.source, life.target);
                life.page().lost.push(ended);
            }
        })?;
        Ok(Self { kind, diary, stop, thread: Some(thread) })
    }

    pub(crate) fn so_far(&self) -> Diary {
        self.diary.lock().unwrap().clone()
    }

    /// Asks it to end; its last exchange is still made.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Diary {
        self.stop();
        self.thread.take().unwrap().join().unwrap();
        self.so_far()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Life {
    source: SocketAddr,
    target: SocketAddr,
    diary: Arc<Mutex<Diary>>,
    stop: Arc<AtomicBool>,
}

impl Life {
    /// The first failure ends it: a connection was lost.
    fn live(&self, habit: Habit) -> io::Result<()> {
        match habit {
            Habit::Keep(pause) => {
                let mut stream = self.connect()?;
                self.exchange(&mut stream)?;
                while self.goes_on(pause) {
                    self.exchange(&mut stream)?;
                }
                self.exchange(&mut stream)
            }
            Habit::Listen => {
                let mut stream = self.connect()?;
                while self.goes_on(Duration::ZERO) {
                    stream.read_exact(&mut [0; 8])?;
                    self.answered(8);
                }
                Ok(())
            }
            Habit::Short(pause) | Habit::Ahead(pause) => {
                while self.goes_on(pause) {
                    let mut stream = self.connect()?;
                    if let Habit::Ahead(silence) = habit {
                        self.goes_on(silence);
                    }
                    self.exchange(&mut stream)?;
                }
                Ok(())
            }
            Habit::Scrape(pause) => {
                while self.goes_on(pause) {
                    let answer = http::get(&Server::Tcp(self.target), "/metrics", &[]);
                    let answer = answer.map_err(|failure| io::Error::other(failure.to_string()))?;
                    if answer.status != 200 || !answer.text().contains("\nnf_conntrack_sources ") {
                        return Err(io::Error::other(format!("{}: {}", answer.status, answer.text())));
                    }
                    self.page().connections += 1;
                    self.answered(answer.body.len());
                }
                Ok(())
            }
        }
    }

    fn page(&self) -> MutexGuard<'_, Diary> {
        self.diary.lock().unwrap()
    }

    fn answered(&self, bytes: usize) {
        let mut page = self.page();
        page.bytes += bytes;
        page.answers += 1;
    }

    /// Whether it shall go on after this pause, which the end cuts short.
    fn goes_on(&self, pause: Duration) -> bool {
        let begun = Instant::now();
        loop {
            let left = pause.saturating_sub(begun.elapsed());
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let family = if self.target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // It bounds a blocking connect, too.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        rustix::net::bind(&socket, &self.source)?;
        rustix::net::connect(&socket, &self.target)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        self.page().connections += 1;
        Ok(stream)
    }

    fn exchange(&self, stream: &mut TcpStream) -> io::Result<()> {
        let question = *b"GET /peace HTTP/1.1\r\n\r\n";
        let mut answer = [0; 23];
        stream.write_all(&question)?;
        stream.read_exact(&mut answer)?;
        if answer != question {
            return Err(io::Error::other("another answer than what was sent"));
        }
        self.answered(answer.len());
        Ok(())
    }
}
