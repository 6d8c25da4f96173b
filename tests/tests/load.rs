//! Many Prometheis at once on the real exporter, with those who send slowly and those who do not read beside them: no scrape takes
//! longer than its deadline, memory stays flat, and the slow ones are ended by their limits. The long form:
//!
//! `make load`

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use tests::{
    Result,
    entries::{Wanted, insert},
    netns::Namespace,
    programs::{Program, Running},
};

const CONNECTIONS: usize = 100;
const SLOW: usize = 10;
/// Prometheus's default, which it sends in its header.
const DEADLINE: Duration = Duration::from_secs(10);
const SCRAPE: &[u8] =
    b"GET /metrics HTTP/1.1\r\nHost: load\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\nConnection: keep-alive\r\n\r\n";
/// What memory may grow by after the first round: the allocator's own rounding, and no more however many scrapes follow.
const MOST_GROWTH: u64 = 4 << 20;
/// Looks at what is resident, one after each tenth of the scrapes.
const LOOKS: usize = 10;
/// What the last looks may differ by, of a hundred: what an allocator keeps grows less and less, what is lost for each scrape does not.
const MOST_NOISE: u64 = 5;
/// `web::Limits::header_timeout`, and `write_timeout`.
const LIMITS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(30)];

fn started(entries: u32) -> Result<(Namespace, Running, SocketAddr)> {
    let namespace = Namespace::new("load")?;
    namespace.track_connections()?;
    namespace.run(|| insert((0..entries).map(|number| Wanted::nth(number, 100, number % 3 != 0))));
    let address = Program::Exporter.default_address();
    let running = Program::Exporter.start(&namespace, address, &["--web.max-requests=0"])?;
    Ok((namespace, running, address))
}

/// One scrape on a connection that stays open: how long it took.
fn scrape(stream: &mut BufReader<TcpStream>) -> Duration {
    let began = Instant::now();
    stream.get_mut().write_all(SCRAPE).expect("a request is sent");
    let mut line = String::new();
    stream.read_line(&mut line).expect("a status line");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).expect("a header");
        let header = line.trim_end().to_ascii_lowercase();
        match header.strip_prefix("content-length: ") {
            Some(value) => length = value.parse().expect("a length"),
            None if header.is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    let text = String::from_utf8_lossy(&body);
    let entries =
        text.lines().find_map(|line| line.strip_prefix("nf_conntrack_entries ")?.parse::<f64>().ok());
    // 3,000 and the connections of this test themselves.
    assert!(entries.is_some_and(|entries| entries >= 3000.0), "not the whole answer: {text}");
    began.elapsed()
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE * 6)).expect("a timeout");
    BufReader::new(stream)
}

/// So many scrapes over a hundred connections: what each took.
fn scrapes(address: SocketAddr, count: usize) -> Vec<Duration> {
    thread::scope(|scope| {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(move || {
                    let mut stream = connect(address);
                    (0..count / CONNECTIONS).map(|_| scrape(&mut stream)).collect::<Vec<_>>()
                })
            })
            .collect();
        connections.into_iter().flat_map(|thread| thread.join().expect("no scrape fails")).collect()
    })
}

/// Sends a head byte by byte until the other side ends it: after how long, or None if `over` came first.
fn slow_writer(address: SocketAddr, over: &AtomicBool) -> Option<Duration> {
    let mut stream = connect(address).into_inner();
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let began = Instant::now();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").expect("a beginning");
    while !over.load(Ordering::Relaxed) {
        let sent = stream.write_all(b"x");
        match stream.read(&mut [0; 1024]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && sent.is_ok() => {}
            _ => return Some(began.elapsed()),
        }
    }
    None
}

/// Asks and never reads, until the other side ends it: after how long, or None if `over` came first.
fn slow_reader(address: SocketAddr, over: &AtomicBool) -> Option<Duration> {
    let mut stream = connect(address).into_inner();
    setsockopt(&stream, RcvBuf, &4096).expect("a small buffer");
    stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let began = Instant::now();
    // More answers than any buffer between us holds, and then no more.
    while !over.load(Ordering::Relaxed) {
        match stream.write(SCRAPE) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Some(began.elapsed()),
            Ok(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

/// The slow ones of both kinds beside `work`; what became of each of them when it had ended.
fn beside_slow_ones<T>(address: SocketAddr, work: impl FnOnce() -> T) -> (T, [Vec<Option<Duration>>; 2]) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let start = |slow: fn(SocketAddr, &AtomicBool) -> Option<Duration>| {
            let over = &over;
            (0..SLOW).map(|_| scope.spawn(move || slow(address, over))).collect::<Vec<_>>()
        };
        let slow = [start(slow_writer), start(slow_reader)];
        let done = catch_unwind(AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        let done = done.unwrap_or_else(|panic| resume_unwind(panic));
        (done, slow.map(|kind| kind.into_iter().map(|thread| thread.join().expect("it ends")).collect()))
    })
}

fn judged(what: &str, mut took: Vec<Duration>, memory: [u64; 2]) {
    took.sort_unstable();
    let (median, p99, most) = (took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1]);
    let [before, after] = memory;
    println!(
        "{what}: {} scrapes over {CONNECTIONS} connections: median {median:.1?}, p99 {p99:.1?}, longest {most:.1?}; peak memory {} KiB after the first {}, {} KiB at the end",
        took.len(),
        before >> 10,
        CONNECTIONS * 2,
        after >> 10
    );
    assert!(most < DEADLINE, "the longest took {most:?}");
    assert!(after < before + MOST_GROWTH, "from {before} to {after} bytes");
}

/// What is lost for each scrape grows from look to look; what an allocator keeps does not.
fn flat(resident: &[u64]) {
    let kibibytes: Vec<u64> = resident.iter().map(|bytes| bytes >> 10).collect();
    println!("resident after each tenth of the scrapes, KiB: {kibibytes:?}");
    let last = &resident[LOOKS / 2..];
    let (least, most) = (last.iter().min().unwrap_or(&0), last.iter().max().unwrap_or(&0));
    assert!((most - least) * 100 <= most * MOST_NOISE, "it still grows, or shrinks: {kibibytes:?} KiB");
}

#[test]
fn a_thousand_scrapes_beside_slow_clients_keep_their_deadline_in_flat_memory() -> Result<()> {
    const SCRAPES: usize = 1_000;
    let (namespace, running, address) = started(3_000)?;
    namespace.run(|| {
        let (took, _) = beside_slow_ones(address, || {
            scrapes(address, CONNECTIONS * 2);
            let before = running.process.peak_memory()?;
            Ok::<_, tests::Failure>((scrapes(address, SCRAPES), before))
        });
        let (took, before) = took?;
        judged("short", took, [before, running.process.peak_memory()?]);
        Ok(())
    })
}

#[test]
#[ignore = "make load: 10,000 scrapes, and until the slow clients are ended"]
fn ten_thousand_scrapes_and_every_slow_client_is_ended_by_its_limit() -> Result<()> {
    let (namespace, running, address) = started(3_000)?;
    namespace.run(|| {
        let began = Instant::now();
        let (took, [writers, readers]) = beside_slow_ones(address, || {
            scrapes(address, CONNECTIONS * 2);
            let before = running.process.peak_memory()?;
            let (mut took, mut resident) = (Vec::new(), Vec::new());
            for _ in 0..LOOKS {
                took.extend(scrapes(address, 10_000 / LOOKS));
                resident.push(running.process.anonymous_memory()?);
            }
            // The limits, and as much again for a machine that lags.
            thread::sleep((LIMITS[1] * 2).saturating_sub(began.elapsed()));
            Ok::<_, tests::Failure>((took, before, resident))
        });
        println!("ended: slow writers {writers:.1?}, slow readers {readers:.1?}");
        for (kind, limit) in [writers, readers].iter().zip(LIMITS) {
            for ended in kind {
                let ended = ended.expect("it still holds its connection");
                assert!(
                    ended + Duration::from_secs(1) > limit && ended < limit * 2,
                    "ended after {ended:?}, limit {limit:?}"
                );
            }
        }
        let (took, before, resident) = took?;
        flat(&resident);
        judged("long", took, [before, running.process.peak_memory()?]);
        Ok(())
    })
}
