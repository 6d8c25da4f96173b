//! Dead slots are counted, and where they cannot be told apart nothing is said of them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use tests::attack::{self, Pace};
use tests::netns::Namespace;
use tests::responder::{Accept, KeepAlive, Responder};
use tests::topology::{Family, Topology};
use tests::wait::wait_until;

use crate::lab::{Exporter, Lab, Metrics, assured};

const SOCKETLESS: &str = "nf_conntrack_socketless_entries";
const DEFERRED: &str = "nf_conntrack_deferred_entries";
const BY_SOURCE: &str = "nf_conntrack_source_socketless_entries";
const ESTABLISHED: &str = "net/netfilter/nf_conntrack_tcp_timeout_established";

/// Connections that have said something once and are kept.
fn keep_alive(namespace: &Namespace, count: usize, server: SocketAddr) -> Vec<TcpStream> {
    let connect = || {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    };
    namespace.run(|| (0..count).map(|_| connect()).collect())
}

fn of_source(metrics: &Metrics, source: IpAddr) -> Option<f64> {
    metrics.get(&format!("{BY_SOURCE}{{source=\"{source}\"}}"))
}

/// Scrapes until the numbers of deferred and of socketless entries are these.
fn wait_for(exporter: &Exporter<'_>, deferred: usize, socketless: usize, patience: Duration) -> Metrics {
    let what = format!("{deferred} deferred and {socketless} socketless entries");
    wait_until(&what, patience, || {
        let metrics = exporter.scrape();
        // Nothing is told of them where a busy machine took longer to read than the grace.
        match [DEFERRED, SOCKETLESS].map(|name| metrics.get(name)) {
            found if found == [deferred, socketless].map(|wanted| Some(wanted as f64)) => Ok(metrics),
            found => Err(format!("{found:?}")),
        }
    })
    .unwrap()
}

/// A server with a deferring listener that gives up in seconds.
fn deferring(family: Family) -> (Topology, Responder) {
    let scene = Topology::direct(&["attacker", "honest"]).unwrap();
    // The kernel repeats its SYN-ACK once only: request sockets expire in seconds instead of a minute.
    scene.server.sysctl("net/ipv4/tcp_synack_retries", "1").unwrap();
    let server = scene.server_socket(family, 80);
    let listener = Responder::start(&scene.server, server, Accept::Deferred, KeepAlive::Off).unwrap();
    (scene, listener)
}

/// Returns how many slots it took; a busy machine can lose a packet of many.
fn slow_fill(scene: &Topology, sources: Vec<IpAddr>, count: usize, server: SocketAddr) -> usize {
    let pace = Pace { count, per_second: u32::MAX, within: Duration::from_secs(60) };
    let attacker = &scene.peer("attacker").namespace;
    attack::slow_fill(attacker, sources, server, pace).unwrap().finish().made
}

fn a_slow_fill_is_told(family: Family) {
    let (scene, listener) = deferring(family);
    let (attacker, honest) = (scene.peer("attacker").address(family), scene.peer("honest"));
    // He holds more entries, so the attacker is listed for his dead slots alone.
    let kept = keep_alive(&honest.namespace, 60, listener.address());
    let honest = honest.address(family);
    let exporter = Exporter::start(
        &scene.server,
        &[],
        &["--collector.sockets.grace=2s", "--collector.sources.top=1", "--collector.sources.min-entries=1"],
    );
    assert_eq!(slow_fill(&scene, vec![attacker], 40, listener.address()), 40);

    let metrics = wait_for(&exporter, 40, 0, Duration::from_secs(30));
    assert_eq!((of_source(&metrics, attacker), of_source(&metrics, honest)), (None, Some(0.0)));
    let metrics = wait_for(&exporter, 0, 40, Duration::from_secs(60));
    assert_eq!((of_source(&metrics, attacker), of_source(&metrics, honest)), (Some(40.0), Some(0.0)));
    assert!(
        metrics.of(BY_SOURCE).keys().eq(metrics.of("nf_conntrack_source_entries").keys()),
        "all that are listed"
    );
    metrics.add_up();
    drop(kept);
}

#[test]
fn a_slow_fill_is_deferred_then_socketless_and_the_honest_source_is_not_over_ipv4() {
    a_slow_fill_is_told(Family::V4);
}

#[test]
fn a_slow_fill_is_deferred_then_socketless_and_the_honest_source_is_not_over_ipv6() {
    a_slow_fill_is_told(Family::V6);
}

#[track_caller]
fn silent_on_sockets(metrics: &Metrics) {
    assert!(!metrics.success("sockets"));
    for name in [SOCKETLESS, DEFERRED, BY_SOURCE] {
        assert!(metrics.of(name).is_empty(), "{name} would be a guess");
    }
}

#[test]
fn where_timeouts_leave_no_room_nothing_is_guessed_and_all_else_comes() {
    let lab = Lab::new();
    lab.add(&assured("198.51.100.1", 60));
    lab.namespace.sysctl(ESTABLISHED, "300").unwrap();
    let exporter = lab.start(&[]);
    for _ in 0..3 {
        let metrics = exporter.scrape();
        silent_on_sockets(&metrics);
        for collector in ["table", "stat", "flows", "sources", "timeouts"] {
            assert!(metrics.success(collector), "{collector}");
        }
        assert_eq!(metrics.value("nf_conntrack_source_entries{source=\"198.51.100.1\"}"), 60.0);
        metrics.add_up();
    }
    let log = exporter.log();
    assert_eq!(log.matches("collector=sockets").count(), 1, "told once:\n{log}");
    assert!(log.contains("nf_conntrack_tcp_timeout_established is 300 s"), "{log}");

    lab.namespace.sysctl(ESTABLISHED, "432000").unwrap();
    let metrics = exporter.scrape();
    assert!(metrics.success("sockets"));
    assert_eq!((metrics.value(SOCKETLESS), metrics.value(DEFERRED)), (0.0, 0.0), "they go elsewhere");
    assert_eq!(of_source(&metrics, [198, 51, 100, 1].into()), Some(0.0));
    assert!(exporter.log().contains("collector works again"), "{}", exporter.log());
}

#[test]
fn sockets_can_be_asked_for_alone_and_left_out() {
    let (scene, listener) = deferring(Family::V4);
    let attacker = scene.peer("attacker").address(Family::V4);
    assert_eq!(slow_fill(&scene, vec![attacker], 60, listener.address()), 60);
    // Long enough for dead slots to be known again in the next dump.
    let grace = "--collector.sockets.grace=5s";
    let exporter = Exporter::start(&scene.server, &[], &[grace]);
    wait_for(&exporter, 0, 60, Duration::from_secs(60));
    let alone = exporter.scrape_with("?collect[]=sockets", &[]);
    assert_eq!((alone.value(SOCKETLESS), of_source(&alone, attacker)), (60.0, Some(60.0)));
    assert!(alone.of("nf_conntrack_source_entries").is_empty());
    assert!(alone.of("nf_conntrack_state_entries").is_empty());
    assert!(alone.get("nf_conntrack_dump_timestamp_seconds").is_some());
    let others = exporter.scrape_with("?collect[]=flows&collect[]=sources", &[]);
    assert!(others.get(SOCKETLESS).is_none() && others.of(BY_SOURCE).is_empty());
    assert!(others.success("sources") && !others.of("nf_conntrack_source_entries").is_empty());
    drop(exporter);

    let nameless = Exporter::start(&scene.server, &[], &[grace, "--no-collector.sources"]);
    let metrics = nameless.scrape();
    assert_eq!(metrics.value(SOCKETLESS), 60.0);
    assert!(metrics.of(BY_SOURCE).is_empty(), "no address is shown where none is wanted");
    drop(nameless);

    let off = Exporter::start(&scene.server, &[], &["--no-collector.sockets"]);
    let metrics = off.scrape();
    assert!(metrics.get(SOCKETLESS).is_none() && metrics.of(BY_SOURCE).is_empty());
    assert!(metrics.success("sources"));
    assert!(metrics.get("nf_conntrack_scrape_collector_success{collector=\"sockets\"}").is_none());
    assert_eq!(off.get("/metrics?collect[]=sockets", &[]).status, 400);
}
