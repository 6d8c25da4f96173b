//! Threshold passed → the attacker's packets dropped within one interval plus one dump.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tests::{
    Result,
    attack::{Pace, hoard},
    guard::Guard,
    programs::as_released,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::fill;

const INTERVAL: Duration = Duration::from_secs(1);
/// Deciding and the ban, by the program as it is released; else also what others do on the same cores.
fn rest() -> Duration {
    Duration::from_secs(if as_released() { 1 } else { 5 })
}

/// Others' entries, so that a dump takes its time.
const OTHERS: u32 = 20_000;
const HIS: usize = 400;
const SOON: Duration = Duration::from_secs(30);

/// `entries` of the table are the threshold; a look on its own comes once an hour only.
fn policy(entries: u32, limit: u32) -> String {
    format!(
        "enforce: true\n\
         never_ban: []\n\
         watch:\n  interval: 1s\n  every: 1h\n  alerts:\n  \
         - {{alert: Hoarder, source: {{assured: 300}}, table: {{fill_percent: {:.6}}}}}\n\
         rules:\n\
         - name: hoarder\n  matchers: [alertname=Hoarder]\n  sources: {{label: source}}\n  \
           require: {{source: {{assured: 300}}}}\n  actions: [{{ban: {{for: 10m}}}}, {{delete: all}}]\n",
        f64::from(entries) * 100.0 / f64::from(limit)
    )
}

/// When packets arrived that the attacker sends every two milliseconds.
struct Packets {
    stop: Arc<AtomicBool>,
    sender: thread::JoinHandle<()>,
    receiver: thread::JoinHandle<Option<Instant>>,
}

impl Packets {
    fn start(scene: &Topology) -> Result<Self> {
        let at = scene.server_socket(Family::V4, 53);
        let arriving = scene.server.run(|| UdpSocket::bind(at)).unwrap();
        arriving.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let attacker = scene.peer("attacker");
        let leaving =
            attacker.namespace.run(|| UdpSocket::bind((attacker.address(Family::V4), 5353))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (until, over) = (stop.clone(), stop.clone());
        let sender = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                leaving.send_to(b"?", at).unwrap();
                thread::sleep(Duration::from_millis(2));
            }
        });
        let receiver = thread::spawn(move || {
            let mut last = None;
            while !over.load(Ordering::Relaxed) {
                if arriving.recv(&mut [0]).is_ok() {
                    last = Some(Instant::now());
                }
            }
            last
        });
        Ok(Self { stop, sender, receiver })
    }

    /// When the last one arrived.
    fn end(self) -> Instant {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().unwrap();
        self.receiver.join().unwrap().expect("at first they arrive")
    }
}

#[test]
fn once_the_threshold_is_passed_his_packets_are_dropped_within_an_interval_and_a_dump() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    let server = &scene.server;
    let at = scene.server_socket(Family::V4, 80);
    let _responder = Responder::start(server, at, Accept::AtOnce, KeepAlive::Off)?;
    fill(server, OTHERS)?;
    let count =
        || -> u32 { server.read_sysctl("net/netfilter/nf_conntrack_count").unwrap().parse().unwrap() };
    let limit: u32 = server.read_sysctl("net/netfilter/nf_conntrack_max")?.parse().unwrap();
    let packets = Packets::start(&scene)?;
    let threshold = count() + 350;
    let guard = Guard::start(server, &policy(threshold, limit))?;
    wait_until("its first look, at nothing", SOON, || match guard.dumps() {
        Ok(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    assert_eq!(guard.metric("enforced_bans")?, 0.0);
    let dumped =
        || guard.metric("action_duration_seconds_sum{action=\"survey\"}").map(Duration::from_secs_f64);
    let first = dumped()?;

    let attacker = scene.peer("attacker");
    let pace = Pace { count: HIS, per_second: 2000, within: SOON };
    let attack = hoard(&attacker.namespace, vec![attacker.address(Family::V4)], at, pace)?;
    let start = Instant::now();
    let passed = loop {
        assert!(start.elapsed() < SOON, "{} entries, {:?}", count(), attack.tried());
        if count() >= threshold {
            break Instant::now();
        }
    };
    wait_until("his ban", SOON, || match guard.metric("enforced_bans") {
        Ok(1.0) => Ok(()),
        other => Err(format!("{other:?}\n{}", guard.running.process.log())),
    })?;
    assert_eq!(guard.dumps()?, 2.0, "it looked once, when there was something to see");
    let dump = dumped()? - first;
    // A tenth of a second of silence is fifty packets that did not arrive.
    thread::sleep(Duration::from_millis(100));
    let took = packets.end().saturating_duration_since(passed);
    // The first look was just over, and the watch lets as much time pass as that took: on a busy machine, seconds.
    let allowed = INTERVAL + first + dump + rest();
    println!(
        "threshold passed → last packet: {took:?}; a dump of {OTHERS} entries {dump:?}, allowed {allowed:?}"
    );
    assert!(took <= allowed, "{took:?}, not {allowed:?}\n{}", guard.running.process.log());
    drop(attack);
    Ok(())
}
