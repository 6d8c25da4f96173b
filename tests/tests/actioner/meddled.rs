//! What others do to the firewall under us: bans are in force again within seconds, and what is not ours stays.

use std::{
    net::UdpSocket,
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

use tests::{
    Result, http, netns::Namespace, programs::as_released, topology::Family, topology::Topology,
    wait::wait_until,
};

use crate::{
    kept::banned,
    kernel::rob,
    lab::{Actioner, Home, POLICY, SOON, count, fill, members, raw_rules},
};

/// Ten seconds are promised, five of them the wait for the next look at the kernel; and as many again where nobody has built the program
/// for speed, and others want the CPU.
fn back() -> Duration {
    Duration::from_secs(if as_released() { 10 } else { 20 })
}

/// A service on the server and a banned peer who goes on sending to it.
struct Banned {
    topology: Topology,
    service: UdpSocket,
}

impl Banned {
    fn new() -> Result<Banned> {
        let topology = Topology::direct(&["attacker"])?;
        let service = topology
            .server
            .run(|| UdpSocket::bind(topology.server_socket(Family::V4, 9000)))
            .expect("a port of the server's");
        service.set_read_timeout(Some(Duration::from_millis(60))).expect("a timeout");
        Ok(Banned { topology, service })
    }

    fn him(&self) -> String {
        self.topology.peer("attacker").v4.to_string()
    }

    /// Whether one of three datagrams arrives.
    fn arrives(&self) -> bool {
        let to = self.topology.server_socket(Family::V4, 9000);
        let attacker = &self.topology.peer("attacker").namespace;
        let from = (self.topology.peer("attacker").v4, 0);
        attacker.run(|| {
            let socket = UdpSocket::bind(from).unwrap();
            (0..3).for_each(|_| assert_eq!(socket.send_to(b"x", to).unwrap(), 1));
        });
        let mut heard = false;
        while self.service.recv(&mut [0; 8]).is_ok() {
            heard = true;
        }
        heard
    }
}

/// What firewalld and its like load: their own whole ruleset.
const FOREIGN: &str = "flush ruleset\ntable inet theirs { chain in { type filter hook input priority 0; ip saddr 203.0.113.0/24 counter drop; }; }\n";

/// Their rules and sets, without ours.
fn theirs(server: &Namespace) -> Result<String> {
    let rules = server.output(&["iptables", "-t", "filter", "-S"])?
        + &server.output(&["iptables", "-t", "raw", "-S"])?
        + &server.output(&["ipset", "save", "theirs"])?;
    let tables = server.output(&["nft", "list", "tables"])?;
    let inet = if tables.contains("inet theirs") {
        server.output(&["nft", "list", "table", "inet", "theirs"])?
    } else {
        String::new()
    };
    let theirs: Vec<&str> = rules.lines().filter(|line| !line.contains("conntrack-guard")).collect();
    Ok(theirs.join("\n") + &inet)
}

/// Their own, as `iptables-save` prints them.
const SAVED: &str = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A PREROUTING -m set --match-set theirs src -j ACCEPT\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -s 203.0.113.9/32 -j DROP\nCOMMIT\n";

/// A peer who is banned on a server that has rules and a set of its own.
fn with_banned_peer(then: impl FnOnce(&Banned, &Actioner<'_>) -> Result<()>) -> Result<()> {
    let banned_peer = Banned::new()?;
    let server = &banned_peer.topology.server;
    let him = banned_peer.him();
    server.command(&["ipset", "create", "theirs", "hash:ip"])?;
    server.command(&["ipset", "add", "theirs", "203.0.113.7"])?;
    server.command_with_input(&["iptables-restore"], SAVED)?;
    assert!(banned_peer.arrives(), "nobody is banned yet");
    let home = Home::new(POLICY);
    let actioner = home.start(server)?;
    fill(server, &him, 30)?;
    assert_eq!(count(&actioner.alert(&[&him])?, "banned"), 1);
    assert!(!banned_peer.arrives(), "he is banned");
    then(&banned_peer, &actioner)
}

/// What is done to a firewall, and what our log says when it is undone.
type Meddling = (&'static str, fn(&Namespace) -> Result<()>, &'static str);

const RULE: &str = "our drop rule was gone";
const BANS: &str = "gone from the kernel: put back";

const MEDDLINGS: [Meddling; 6] = [
    ("ipset flush", |server| run(server, &["ipset", "flush", "conntrack-guard-4"]), BANS),
    ("iptables -F", |server| run(server, &["iptables", "-t", "raw", "-F"]), RULE),
    ("ipset destroy", |server| rob(server, &[]), BANS),
    ("nft flush ruleset", |server| run(server, &["nft", "flush", "ruleset"]), RULE),
    ("iptables-restore", |server| server.command_with_input(&["iptables-restore"], SAVED).map(drop), RULE),
    ("firewalld", |server| server.nft(FOREIGN), RULE),
];

fn run(server: &Namespace, words: &[&str]) -> Result<()> {
    server.command(words).map(drop)
}

fn mended((name, meddle, said): Meddling) -> Result<()> {
    with_banned_peer(|banned_peer, actioner| {
        let server = &banned_peer.topology.server;
        meddle(server)?;
        let (since, foreign) = (Instant::now(), theirs(server)?);
        wait_until("his packets to stop", back(), || match banned_peer.arrives() {
            true => Err(format!("{name}: they arrive\n{}", actioner.log())),
            false => Ok(()),
        })?;
        println!("{name}: his packets stopped again after {:?}", since.elapsed());
        wait_until("both rules", SOON, || {
            match raw_rules(server).map(|rules| rules.matches("-j DROP").count()) {
                Ok(2) => Ok(()),
                other => Err(format!("{name}: {other:?}")),
            }
        })?;
        let (net, left) = members(server, "conntrack-guard-4")?.remove(0);
        assert!(net == banned_peer.him() && (500..=600).contains(&left), "{name}: {net} {left}");
        assert_eq!(banned(server).len(), 1, "{name}");
        assert_eq!(theirs(server)?, foreign, "{name}: what is not ours is as they left it");
        wait_until("it to be said", SOON, || match actioner.log() {
            log if log.contains(said) => Ok(()),
            log => Err(format!("{name}: no {said:?} in\n{log}")),
        })?;
        let drift = if said == RULE { "rule" } else { "ban_missing" };
        wait_until("it to be counted", SOON, || {
            match actioner.metric(&format!("drift_total{{what=\"{drift}\"}}")) {
                Ok(counted) if counted >= 1.0 => Ok(()),
                other => Err(format!("{name}: {drift}: {other:?}")),
            }
        })
    })
}

/// Each on a server of its own, for each waits for the next look.
#[test]
fn a_banned_peers_packets_stop_again_whatever_is_done_to_the_firewall_and_foreign_rules_stay() -> Result<()> {
    thread::scope(|scope| {
        let all = MEDDLINGS.map(|meddling| scope.spawn(move || mended(meddling)));
        all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

#[test]
fn panic_lifts_every_ban_and_nothing_is_put_back_until_resume() -> Result<()> {
    with_banned_peer(|banned_peer, actioner| {
        let (server, him) = (&banned_peer.topology.server, banned_peer.him());
        assert_eq!(http::post(&actioner.socket, "/api/v1/panic", &[], b"")?.status, 200);
        assert!(banned_peer.arrives(), "panic lifts every ban");
        server.command(&["iptables", "-t", "raw", "-F"])?;
        // Longer than until the next look at the kernel: nothing must happen in that time.
        thread::sleep(Duration::from_secs(6));
        assert!(banned_peer.arrives() && !raw_rules(server)?.contains("conntrack-guard-4"), "panic stops it");
        assert_eq!(http::post(&actioner.socket, "/api/v1/resume", &[], b"")?.status, 200);
        wait_until("the rule to be back", SOON, || match raw_rules(server) {
            Ok(rules) if rules.contains("conntrack-guard-4") => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        fill(server, &him, 30)?;
        assert_eq!(count(&actioner.alert(&[&him])?, "banned"), 1, "resume starts it");
        assert!(!banned_peer.arrives());
        Ok(())
    })
}
