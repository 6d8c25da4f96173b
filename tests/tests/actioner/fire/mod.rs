//! Attacks on both programs' own doors, side by side: who was connected before is answered in time, root's socket is open, memory is
//! bounded, and everybody is let in again when it ends.

mod clear;
mod socket;
mod tls;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    panic::resume_unwind,
    slice,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tests::{http, http::Server, netns::Namespace, process::Process};

use crate::lab::message;

/// What a neighbour of an attacker waits at most, on two busy cores.
const PROMPT: Duration = Duration::from_secs(5);
/// So much more than at rest a program may take while it is attacked: the bodies' budget, twice, for what is made of them.
const MEMORY: u64 = 96 << 20;
/// Until a newcomer is let in when all is over.
const AGAIN: Duration = Duration::from_secs(40);
/// Three times as many as a port takes; what comes after is like what came before.
const CROWD: usize = 1_500;
/// `make load`.
const LARGE_CROWD: usize = 10_000;

/// A stream of bytes, encrypted or not.
trait Speaks: Read + Write + Send {}
impl<S: Read + Write + Send> Speaks for S {}

/// A connection that was there before the attack.
struct Kept(Box<dyn Speaks>);

impl Kept {
    fn is_answered(&mut self, path: &str) {
        let began = Instant::now();
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
        let ended = |answer: &[u8]| {
            let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            length.is_some_and(|length: usize| body.len() >= length)
        };
        while !ended(&answer) {
            let read = self.0.read(&mut chunk).unwrap();
            assert!(read > 0, "closed: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&chunk[..read]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        assert!(began.elapsed() < PROMPT, "{path} took {:?}", began.elapsed());
    }
}

/// A program under attack.
struct Target<'p> {
    name: &'static str,
    address: SocketAddr,
    kept: Kept,
    process: &'p Process,
    before: u64,
}

impl<'p> Target<'p> {
    fn new(
        name: &'static str,
        address: SocketAddr,
        kept: impl Speaks + 'static,
        process: &'p Process,
    ) -> Self {
        let mut kept = Kept(Box::new(kept));
        kept.is_answered("/-/healthy");
        let before = process.peak_memory().unwrap();
        Self { name, address, kept, process, before }
    }

    fn is_bounded(&self) {
        let grown = self.process.peak_memory().unwrap().saturating_sub(self.before);
        println!("{}: {} KiB more than before", self.name, grown >> 10);
        assert!(grown < MEMORY, "{}: {} MiB more than before", self.name, grown >> 20);
    }
}

/// What somebody does to one program's port.
type Attack<'a> = &'a (dyn Fn(SocketAddr) + Sync);

/// While all these are done to all of them, those who were there before are answered again and again, and `order` is obeyed.
fn withstand(targets: &mut [Target<'_>], attacks: &[Attack<'_>], order: impl Fn() + Sync) {
    let over = AtomicBool::new(false);
    let addresses: Vec<SocketAddr> = targets.iter().map(|target| target.address).collect();
    thread::scope(|scope| {
        let over = &over;
        for target in targets.iter_mut() {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    target.kept.is_answered("/metrics");
                    thread::sleep(Duration::from_millis(20));
                }
                target.kept.is_answered("/-/ready");
            });
        }
        let order = &order;
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                order();
                assert!(began.elapsed() < PROMPT, "an order over the socket took {:?}", began.elapsed());
                thread::sleep(Duration::from_millis(100));
            }
        });
        let pairs = addresses.iter().flat_map(|address| attacks.iter().map(move |attack| (attack, *address)));
        let attackers: Vec<_> = pairs.map(|(attack, address)| scope.spawn(move || attack(address))).collect();
        let ended: Vec<_> = attackers.into_iter().map(ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic)));
    });
}

/// From the calling thread's namespace.
fn connect_here(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    Ok(stream)
}

fn connect(lab: &Namespace, address: SocketAddr) -> std::io::Result<TcpStream> {
    lab.run(|| connect_here(address))
}

/// Whether the other side still holds it.
fn is_held(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    matches!((&mut &*stream).read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A webhook over the unix socket is decided.
fn obeyed(socket: &Server, alert: &Value) {
    let answer = http::post(socket, "/webhook", &[], message(slice::from_ref(alert)).as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Descriptors for a crowd.
fn many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let enough = Rlimit { current: Some(limit.maximum.unwrap_or(16_384).min(16_384)), ..limit };
    setrlimit(Resource::Nofile, enough).expect("16,384 descriptors for this test");
}
