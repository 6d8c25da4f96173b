//! What the verdict adds to a dump. Measured, not tested: it wants an optimised build and a quiet machine.
//!
//! `cargo test --release -p tests --test socketless -- --ignored --nocapture cost`

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use conntrack::{
    Summary, Table,
    own::OwnAddresses,
    socketless::{Connected, Judge, TcpTimeouts},
};
use rustix::{
    net::sockopt,
    time::{ClockId, clock_gettime},
};
use tests::{
    Result,
    topology::{Family, Topology},
};

use crate::{bury::connect_from, listener};

const ENTRIES: usize = 100_000;
const SOCKETS: usize = 1_000;
const ROUNDS: usize = 41;

/// What a table's entries are, as far as the verdict's cost goes.
#[derive(Debug, Clone, Copy)]
enum Entries {
    /// Idle for less than the grace.
    Young,
    /// Neither end is this host.
    Forwarded,
    /// Each is looked up.
    Dead,
}

fn plain() -> Summary {
    let mut summary = Summary::new();
    Table::open().unwrap().visit(|flow| summary.add(flow)).unwrap();
    summary
}

fn judged(entries: Entries) -> Summary {
    let mut summary = Summary::new();
    let mut own = OwnAddresses::read().unwrap();
    if let Entries::Forwarded = entries {
        own = OwnAddresses::of(["127.0.0.0/8".parse().unwrap()], []);
    }
    let timeouts = TcpTimeouts::read(Path::new("/proc")).unwrap();
    let grace = if let Entries::Young = entries { 400_000 } else { 3 };
    let sockets = Connected::read().unwrap();
    let mut judge = Judge::new(&sockets, &own, timeouts, Duration::from_secs(grace)).unwrap();
    Table::open().unwrap().visit(|flow| summary.add_judged(flow, judge.judge(flow))).unwrap();
    judge.in_time().unwrap();
    summary
}

/// This thread's time on a CPU, the kernel's work for it included: other processes do not count.
fn cpu_time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let start = now();
    let value = work();
    (now() - start, value)
}

/// Milliseconds without and with verdicts, taken in turn: medians.
fn medians(entries: Entries) -> [f64; 2] {
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let (without, summary) = cpu_time(plain);
        let (with, judged) = cpu_time(|| judged(entries));
        assert!(summary.entries >= ENTRIES as u64);
        let dead = judged.judged.unwrap().socketless;
        assert_eq!(dead, if let Entries::Dead = entries { ENTRIES as u64 } else { 0 });
        took[0].push(without);
        took[1].push(with);
    }
    took.map(|mut took| {
        took.sort_unstable();
        took[ROUNDS / 2].as_secs_f64() * 1000.0
    })
}

/// Dead slots: real connections, thrown away at both ends, and no RST is seen by the table.
fn fill(scene: &Topology) -> Result<()> {
    const MUTE: &str =
        "table inet mute { chain out { type filter hook output priority raw; tcp flags rst drop; }; }";
    let (server, client) = (&scene.server, &scene.peer("client").namespace);
    let own = scene.peer("client").address(Family::V4);
    server.nft(MUTE)?;
    client.nft(MUTE)?;
    for port in 80..84 {
        let at = scene.server_socket(Family::V4, port);
        let listener = listener(server, at);
        client.run(|| {
            // The kernel's own choice may take a port again.
            for port in (1024..).take(ENTRIES / 4) {
                for end in [connect_from(SocketAddr::new(own, port), at), listener.accept().unwrap().0] {
                    sockopt::set_socket_linger(&end, Some(Duration::ZERO)).unwrap();
                }
            }
        });
    }
    Ok(())
}

#[test]
#[ignore = "a measurement"]
fn cost() -> Result<()> {
    let scene = Topology::direct(&["client"])?;
    let at = scene.server_socket(Family::V4, 8080);
    scene.server.sysctl("net/core/somaxconn", "65535")?;
    let listener = listener(&scene.server, at);
    rustix::net::listen(&listener, 65_535).unwrap();
    let connect = || (0..SOCKETS).map(|_| TcpStream::connect(at).unwrap()).collect::<Vec<_>>();
    let _held = scene.peer("client").namespace.run(connect);
    fill(&scene)?;
    std::thread::sleep(Duration::from_secs(5)); // Idle for longer than the grace.
    scene.server.run(|| {
        for entries in [Entries::Young, Entries::Forwarded, Entries::Dead] {
            let [plain, judged] = medians(entries);
            let more = (judged / plain - 1.0) * 100.0;
            println!("{ENTRIES} entries, {entries:?}, {SOCKETS} sockets: {plain:.1} ms, judged {judged:.1} ms, {more:+.1} %");
        }
        let (sockets, found) = cpu_time(|| Connected::read().unwrap());
        assert_eq!(found.len(), SOCKETS);
        println!("the sockets alone: {sockets:.1?}");
    });
    Ok(())
}
