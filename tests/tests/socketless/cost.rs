//! What the verdict adds to a dump. Measured, not tested: it wants an optimised build and a quiet machine.
//!
//! `cargo test --release -p tests --test socketless -- --ignored --nocapture cost`

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use conntrack::{
    Summary, Table,
    own::OwnAddresses,
    socketless::{Connected, Judge, TcpTimeouts},
};
use tests::{
    Result,
    netns::Namespace,
    topology::{Family, Topology},
};

use crate::listener;

const ENTRIES: usize = 100_000;
const SOCKETS: usize = 1_000;
const ROUNDS: usize = 41;

fn plain() -> Summary {
    let mut summary = Summary::new();
    Table::open().unwrap().visit(|flow| summary.add(flow)).unwrap();
    summary
}

fn judged() -> Summary {
    let mut summary = Summary::new();
    let own = OwnAddresses::read().unwrap();
    let timeouts = TcpTimeouts::read(Path::new("/proc")).unwrap();
    let sockets = Connected::read().unwrap();
    let mut judge = Judge::new(&sockets, &own, timeouts, Duration::from_secs(30)).unwrap();
    Table::open().unwrap().visit(|flow| summary.add_judged(flow, judge.judge(flow))).unwrap();
    judge.in_time().unwrap();
    summary
}

/// The medians of both, taken in turn, in milliseconds.
fn medians(namespace: &Namespace) -> [f64; 2] {
    namespace.run(|| {
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (took, read) in took.iter_mut().zip([plain, judged]) {
                let start = Instant::now();
                assert!(read().entries >= ENTRIES as u64);
                took.push(start.elapsed());
            }
        }
        took.map(|mut took| {
            took.sort_unstable();
            took[ROUNDS / 2].as_secs_f64() * 1000.0
        })
    })
}

/// Entries as `conntrack -R` takes them: established connections from clients to port 80 of `to`, so many seconds left.
fn entries(namespace: &Namespace, to: &str, left: u32) -> Result<()> {
    let line = |number: usize| {
        let source = format!("198.18.{}.{}", number / 250 % 250, number % 250);
        let port = 1024 + number / 62_500;
        format!(
            "-A -p tcp -s {source} -d {to} -r {to} -q {source} --sport {port} --dport 80 --reply-port-src 80 \
             --reply-port-dst {port} --state ESTABLISHED -u SEEN_REPLY,ASSURED -t {left}\n"
        )
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), (0..ENTRIES).map(line).collect::<String>()).unwrap();
    namespace.command(&["conntrack", "-R", &file.path().to_string_lossy()]).map(drop)
}

#[test]
#[ignore = "a measurement"]
fn cost() -> Result<()> {
    for (what, to, left) in [
        ("forwarded connections, none judged", "203.0.113.9", 400_000),
        ("the host's connections, each busy", "192.0.2.1", 300),
        ("dead slots, each looked up", "192.0.2.1", 400_000),
    ] {
        let scene = Topology::direct(&["client"])?;
        let server = &scene.server;
        server.sysctl("net/core/somaxconn", "65535")?;
        let at = SocketAddr::new(scene.server_address(Family::V4), 8080);
        let listener = listener(server, at);
        rustix::net::listen(&listener, 65_535).unwrap();
        let connect = || (0..SOCKETS).map(|_| TcpStream::connect(at).unwrap()).collect::<Vec<_>>();
        let _held = scene.peer("client").namespace.run(connect);
        entries(server, to, left)?;
        let dead = server.run(judged).judged.unwrap().socketless;
        let [plain, judged] = medians(server);
        let sockets = server.run(|| {
            let start = Instant::now();
            assert_eq!(Connected::read().unwrap().len(), SOCKETS);
            start.elapsed()
        });
        let more = (judged / plain - 1.0) * 100.0;
        println!(
            "{ENTRIES} {what} ({dead} dead), {SOCKETS} sockets: {plain:.1} ms, judged {judged:.1} ms, {more:+.1} % (sockets alone {sockets:.1?})"
        );
    }
    Ok(())
}
