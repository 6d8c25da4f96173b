//! The server's side: a service that sends back what it is sent.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::{Failure, Result, failure::Tried, netns::Namespace};

/// Far above any test's number of requests in SYN_RECV: a full queue makes the kernel answer with cookies, which
/// puts silent connections into the accept queue after all.
const BACKLOG: i32 = 65_535;
const LISTENER: u64 = 0;

/// When the listener hands a connection over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// When the handshake is complete.
    AtOnce,
    /// When the client has sent something: `TCP_DEFER_ACCEPT`, as Apache's `AcceptFilter` sets it.
    Deferred,
}

/// How long a silent connection is left alone before the server's kernel asks whether the peer still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// For ever.
    Off,
    /// So long, and as long again between probes; whole seconds, one at least.
    Every(Duration),
}

/// An echo service, on a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Responder {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Listens at `address` in the namespace. An IPv6 listener takes IPv6 only.
    ///
    /// # Errors
    /// When the address is taken, or `perl` is missing for [`Accept::Deferred`].
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        accept: Accept,
        keep_alive: KeepAlive,
    ) -> Result<Self> {
        namespace.sysctl("net/core/somaxconn", &BACKLOG.to_string())?;
        let listener = namespace.run(|| listen(address, accept))?;
        let address = listener.local_addr().tried(|| format!("the address of the listener at {address}"))?;
        let accepted = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let mut echo = Echo { listener, keep_alive, connections: HashMap::new(), accepted: accepted.clone() };
        let (until, name) = (stop.clone(), format!("echo {address}"));
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || {
                if let Err(error) = echo.serve(&until) {
                    eprintln!("the echo at {address} broke: {error}");
                }
            })
            .tried(|| "a thread for the echo service")?;
        Ok(Self { address, accepted, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn listen(address: SocketAddr, accept: Accept) -> Result<TcpListener> {
    let bound = || -> io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        Ok(socket)
    };
    let socket = bound().tried(|| format!("a socket at {address}"))?;
    if accept == Accept::Deferred {
        defer_accept(&socket)?;
    }
    rustix::net::listen(&socket, BACKLOG).tried(|| format!("listening at {address}"))?;
    Ok(socket.into())
}

/// Options belong to the socket and not to the process, so another program can set on a socket it inherits what no
/// crate sets without `unsafe`. 6 is `IPPROTO_TCP`, 9 `TCP_DEFER_ACCEPT` (linux/tcp.h).
fn defer_accept(socket: &OwnedFd) -> Result<()> {
    let shared = socket.try_clone().tried(|| "a second handle of the listener")?;
    let output = Command::new("perl")
        .args(["-e", "setsockopt(STDIN, 6, 9, pack('i', 3)) or die $!"])
        .stdin(Stdio::from(shared))
        .output()
        .tried(|| "starting perl (apt-get install perl-base), which sets TCP_DEFER_ACCEPT")?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::Command { command: "perl: TCP_DEFER_ACCEPT".into(), status: output.status, stderr })
}

struct Echo {
    listener: TcpListener,
    keep_alive: KeepAlive,
    connections: HashMap<u64, TcpStream>,
    accepted: Arc<AtomicUsize>,
}

impl Echo {
    fn serve(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&self.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        let mut events = [EpollEvent::empty(); 256];
        while !stop.load(Ordering::Relaxed) {
            let ready = match epoll.wait(&mut events, EpollTimeout::from(20u8)) {
                Err(nix::Error::EINTR) => 0,
                other => other?,
            };
            for event in &events[..ready] {
                match event.data() {
                    LISTENER => self.accept_all(&epoll)?,
                    connection => self.answer(connection),
                }
            }
        }
        Ok(())
    }

    fn accept_all(&mut self, epoll: &Epoll) -> io::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            let key = self.accepted.fetch_add(1, Ordering::Relaxed) as u64 + 1;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            if let KeepAlive::Every(pause) = self.keep_alive {
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, pause)?;
                sockopt::set_tcp_keepintvl(&stream, pause)?;
            }
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
            self.connections.insert(key, stream);
        }
        Ok(())
    }

    /// A peer that does not read its few bytes back is not worth a queue: it is let go like one that closed.
    fn answer(&mut self, key: u64) {
        let Some(stream) = self.connections.get_mut(&key) else { return };
        let mut bytes = [0; 4096];
        let alive = match stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => stream.write_all(&bytes[..count]).is_ok(),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if !alive {
            // Closing takes it out of the epoll set.
            self.connections.remove(&key);
        }
    }
}
