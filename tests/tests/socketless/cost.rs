//! What the verdict adds to a scrape: with 1,000 sockets less than 5 % to one of 100,000 entries. Measured, not tested: it wants an
//! optimised build.
//!
//! `cargo test --release -p tests --test socketless -- --ignored --nocapture bench_of_a_scrape`
//!
//! Exporters with and without the collector `sockets` run side by side and are scraped in turn. What counts is the time that
//! their processes spend on CPUs, the kernel's work for them included, so that what else runs on the machine does not count.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tests::{
    Result,
    attack::{Pace, hoard},
    programs::{Program, Running},
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, SERVER_V4, Topology},
    wait::wait_until,
};

const ENTRIES: u32 = 100_000;
const SOCKETS: usize = 1_000;
const ROUNDS: usize = 21;
/// In per cent of a scrape without verdicts.
const MOST: f64 = 5.0;

/// What a table's entries are, as far as the verdict's cost goes, and the grace that makes them so: they are idle for 1,000 s.
const KINDS: [(&str, &str, Ipv4Addr); 3] = [
    ("young entries", "1d", SERVER_V4),
    ("dead slots", "5s", SERVER_V4),
    ("forwarded entries", "5s", Ipv4Addr::new(203, 0, 113, 200)),
];

/// An exporter under measurement: CPU and wall-clock time of each scrape.
struct Measured {
    exporter: Running,
    took: Vec<(Duration, Duration)>,
}

impl Measured {
    fn start(scene: &Topology, port: u16, flag: &str) -> Result<Self> {
        let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let listen = format!("--web.listen-address={at}");
        Ok(Self { exporter: Program::Exporter.start(&scene.server, at, &[&listen, flag])?, took: Vec::new() })
    }

    fn scrape(&mut self, scene: &Topology) -> Result<String> {
        let (cpu, wall) = (self.exporter.process.cpu_time()?, Instant::now());
        let text = self.exporter.get(&scene.server, "/metrics")?.text();
        let wall = wall.elapsed();
        self.took.push((self.exporter.process.cpu_time()? - cpu, wall));
        Ok(text)
    }

    /// Milliseconds: medians of both times.
    fn medians(&self) -> [f64; 2] {
        let median = |of: fn(&(Duration, Duration)) -> Duration| {
            let mut all: Vec<_> = self.took.iter().map(of).collect();
            all.sort_unstable();
            all[all.len() / 2].as_secs_f64() * 1000.0
        };
        [median(|took| took.0), median(|took| took.1)]
    }
}

/// Per cent that verdicts add, in CPU time.
fn added(what: &str, grace: &str, to: Ipv4Addr) -> Result<f64> {
    let scene = Topology::direct(&["client"])?;
    let at = scene.server_socket(Family::V4, 8080);
    let _responder = Responder::start(&scene.server, at, Accept::AtOnce, KeepAlive::Off)?;
    let client = scene.peer("client");
    let pace = Pace { count: SOCKETS, per_second: u32::MAX, within: Duration::from_secs(30) };
    let held = hoard(&client.namespace, vec![client.v4.into()], at, pace)?;
    wait_until("the sockets", pace.within, || match held.made() {
        SOCKETS => Ok(()),
        made => Err(made),
    })?;
    let line = |number: u32| {
        let source = Ipv4Addr::from_bits(0xc612_0000 + number % 1000);
        let port = 1024 + number / 1000;
        format!(
            "-I -s {source} -d {to} -p tcp --sport {port} --dport 80 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 431000\n"
        )
    };
    scene.server.command_with_input(
        &["conntrack", "--load-file", "-"],
        &(0..ENTRIES).map(line).collect::<String>(),
    )?;
    let mut without = Measured::start(&scene, 10051, "--no-collector.sockets")?;
    let mut with = Measured::start(&scene, 10052, &format!("--collector.sockets.grace={grace}"))?;
    let dead = if what == "dead slots" { ENTRIES } else { 0 };
    // The first of each is not counted: it grows what the next ones reuse.
    for round in 0..=ROUNDS {
        without.scrape(&scene)?;
        let text = with.scrape(&scene)?;
        let told = format!("\nnf_conntrack_socketless_entries {dead}\n");
        assert!(text.contains(&told), "not {dead} in {text}");
        if round == 0 {
            without.took.clear();
            with.took.clear();
        }
    }
    let ([plain, plain_wall], [judged, judged_wall]) = (without.medians(), with.medians());
    let more = (judged / plain - 1.0) * 100.0;
    println!(
        "{ENTRIES} {what}, {SOCKETS} sockets: {plain:.1} ms of CPU a scrape, judged {judged:.1} ms, {more:+.1} %; {plain_wall:.1} and {judged_wall:.1} ms until the answer"
    );
    Ok(more)
}

#[test]
#[ignore = "a measurement"]
fn bench_of_a_scrape_with_and_without_verdicts() -> Result<()> {
    for (what, grace, to) in KINDS {
        let more = added(what, grace, to)?;
        // An unoptimised program spends its time elsewhere.
        assert!(cfg!(debug_assertions) || more < MOST, "verdicts on {what} add {more:.1} %");
    }
    Ok(())
}
