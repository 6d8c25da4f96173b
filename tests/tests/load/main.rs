//! Many Prometheis at once on the real exporter, with those who send slowly and those who do not read beside them: no scrape takes
//! longer than its deadline, memory stays flat, and the slow ones are ended by their limits. The long form:
//!
//! `make load`

mod flat;
mod prometheis;

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
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

use prometheis::{CONNECTIONS, DEADLINE, Over, Round, SCRAPE, connect};

const SLOW: usize = 10;
/// What memory may grow by after the first round: the allocator's own rounding, and no more however many scrapes follow.
const MOST_GROWTH: u64 = 4 << 20;
/// Of a program that a hundred ask at once: main, collector, reader, and those of a dump.
const MOST_THREADS: usize = 6;
/// `web::Limits::header_timeout`, and `write_timeout`.
const LIMITS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(30)];

/// As Prometheus asks the exporter.
const KEPT: Round = Round { program: Program::Exporter, over: Over::One };

/// A namespace whose table has three thousand entries.
fn filled() -> Result<Namespace> {
    let namespace = Namespace::new("load")?;
    namespace.track_connections()?;
    namespace.run(|| insert((0..3_000).map(|number| Wanted::nth(number, 100, number % 3 != 0))));
    Ok(namespace)
}

fn started() -> Result<(Namespace, Running, SocketAddr)> {
    let namespace = filled()?;
    let address = Program::Exporter.default_address();
    let running = Program::Exporter.start(&namespace, address, &["--web.max-requests=0"])?;
    Ok((namespace, running, address))
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

#[test]
fn a_thousand_scrapes_beside_slow_clients_keep_their_deadline_in_flat_memory() -> Result<()> {
    const SCRAPES: usize = 1_000;
    let (namespace, running, address) = started()?;
    namespace.run(|| {
        let (took, _) = beside_slow_ones(address, || {
            KEPT.of(CONNECTIONS * 2);
            let before = running.process.peak_memory()?;
            Ok::<_, tests::Failure>((KEPT.of(SCRAPES), before))
        });
        let (took, before) = took?;
        assert!(running.process.threads()? <= MOST_THREADS, "a thread keeps memory: not one for each scrape");
        judged("short", took, [before, running.process.peak_memory()?]);
        Ok(())
    })
}

#[test]
#[ignore = "make load: 10,000 scrapes, and until the slow clients are ended"]
fn ten_thousand_scrapes_and_every_slow_client_is_ended_by_its_limit() -> Result<()> {
    let (namespace, running, address) = started()?;
    namespace.run(|| {
        let began = Instant::now();
        let (took, [writers, readers]) = beside_slow_ones(address, || {
            KEPT.of(CONNECTIONS * 2);
            let before = running.process.peak_memory()?;
            let took = KEPT.of(10_000);
            // The limits, and as much again for a machine that lags.
            thread::sleep((LIMITS[1] * 2).saturating_sub(began.elapsed()));
            Ok::<_, tests::Failure>((took, before))
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
        let (took, before) = took?;
        judged("long", took, [before, running.process.peak_memory()?]);
        Ok(())
    })
}
