//! What others do to the firewall and to the disk under us: bans are in force again within seconds, and what is not ours stays.

use std::{
    fs,
    net::UdpSocket,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{Result, http, netns::Namespace, topology::Family, topology::Topology, wait::wait_until};

use crate::{
    kept::banned,
    lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, quiet, raw_rules},
    orders::must,
};

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

#[test]
fn a_banned_peers_packets_stop_again_whatever_is_done_to_the_firewall_and_foreign_rules_stay() -> Result<()> {
    let banned_peer = Banned::new()?;
    let server = &banned_peer.topology.server;
    let him = banned_peer.him();
    server.command(&["ipset", "create", "theirs", "hash:ip"])?;
    server.command(&["ipset", "add", "theirs", "203.0.113.7"])?;
    let saved = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A PREROUTING -m set --match-set theirs src -j ACCEPT\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -s 203.0.113.9/32 -j DROP\nCOMMIT\n";
    server.command_with_input(&["iptables-restore"], saved)?;
    assert!(banned_peer.arrives(), "nobody is banned yet");

    let home = Home::new(POLICY);
    let actioner = home.start(server)?;
    fill(server, &him, 30)?;
    assert_eq!(count(&actioner.alert(&[&him])?, "banned"), 1);
    assert!(!banned_peer.arrives(), "he is banned");

    type Meddle<'a> = (&'a str, Box<dyn Fn() -> Result<()> + 'a>);
    let run = |words: &'static [&'static str]| server.command(words).map(drop);
    let meddlings: Vec<Meddle<'_>> = vec![
        ("ipset flush", Box::new(move || run(&["ipset", "flush", "conntrack-guard-4"]))),
        ("iptables -F", Box::new(move || run(&["iptables", "-t", "raw", "-F"]))),
        (
            "ipset destroy",
            Box::new(move || {
                run(&["iptables", "-t", "raw", "-F"])?;
                wait_until("the set to be free", SOON, || run(&["ipset", "destroy", "conntrack-guard-4"]))
            }),
        ),
        ("nft flush ruleset", Box::new(move || run(&["nft", "flush", "ruleset"]))),
        ("iptables-restore", Box::new(|| server.command_with_input(&["iptables-restore"], saved).map(drop))),
        ("firewalld", Box::new(|| server.command_with_input(&["nft", "-f", "-"], FOREIGN).map(drop))),
    ];
    for (name, meddle) in meddlings {
        meddle()?;
        let (since, foreign) = (Instant::now(), theirs(server)?);
        wait_until("his packets to stop", SOON, || match banned_peer.arrives() {
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
        assert_eq!(banned(server), [him.as_str()], "{name}");
        assert_eq!(theirs(server)?, foreign, "{name}: what is not ours is as they left it");
    }
    assert!(actioner.metric("drift_total{what=\"rule\"}")? >= 4.0);

    assert_eq!(http::post(&actioner.socket, "/api/v1/panic", &[], b"")?.status, 200);
    assert!(banned_peer.arrives(), "panic lifts every ban");
    server.command(&["iptables", "-t", "raw", "-F"])?;
    // Longer than two looks at the kernel: nothing must happen in that time.
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
}

const HIM_TOO: &str = "198.51.100.67";

/// A store's directory on a disk of its own, which only the actioner's mount namespace has.
struct Disk {
    pid: String,
    storage: PathBuf,
}

impl Disk {
    fn of(home: &Home, actioner: &mut Actioner<'_>) -> Disk {
        Disk { pid: actioner.process().id().to_string(), storage: home.path("storage") }
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}/{name}", self.pid, self.storage.display()))
    }

    fn fill(&self) {
        let filled = fs::write(self.path("fill"), vec![1; 8 << 20]);
        assert!(filled.is_err(), "the disk is full: {filled:?}");
    }

    fn empty(&self) {
        fs::remove_file(self.path("fill")).unwrap();
    }

    /// As a file system that remounts itself read-only: what is open stays open.
    fn protect(&self, lab: &Namespace) -> Result<()> {
        self.inside(lab, "mount --bind STORAGE STORAGE && mount -o remount,bind,ro STORAGE")
    }

    fn inside(&self, lab: &Namespace, script: &str) -> Result<()> {
        let script = script.replace("STORAGE", &self.storage.display().to_string());
        lab.command(&["nsenter", "-t", &self.pid, "-m", "sh", "-c", &script]).map(drop)
    }

    /// Whose bans are written down.
    fn stored(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("state.json")).unwrap_or_else(|_| "{}".to_owned());
        let state: Value = serde_json::from_str(&text).unwrap();
        let bans = state["enforced"]["bans"].as_array().cloned().unwrap_or_default();
        let mut nets: Vec<String> = bans.iter().map(|ban| ban["net"].as_str().unwrap().to_owned()).collect();
        nets.sort();
        nets
    }
}

/// Each is done, and the person is told that a restart would undo it, and why.
fn orders_that_are_not_written_down(home: &Home, lab: &Namespace) -> Result<()> {
    const BRIEF: &str = "198.51.100.68";
    let orders: [(&[&str], &str); 4] = [
        (&["ban", BRIEF, "--for", "1h", "--reason", "x"], "a reboot would end it"),
        (&["unban", BRIEF], "it would be banned again"),
        (&["pause"], "a crash or a restart would end it"),
        (&["resume"], "what it ended would be back"),
    ];
    for (words, undone) in orders {
        must(home, lab, words, 6, &["in force, but not written down", undone, "state.json"])?;
    }
    Ok(())
}

fn degraded(actioner: &Actioner<'_>, wanted: f64) -> Result<()> {
    wait_until("store_degraded", SOON, || match actioner.metric("store_degraded") {
        Ok(found) if found == wanted => Ok(()),
        other => Err(format!("{other:?}\n{}", actioner.log())),
    })
}

#[test]
fn a_disk_that_fills_or_becomes_read_only_costs_durability_loudly_and_no_ban() -> Result<()> {
    for (name, at_start) in [("full", false), ("ro", false), ("full", true), ("ro", true)] {
        let lab = quiet(name)?;
        fill(&lab, HIM, 30)?;
        fill(&lab, HIM_TOO, 30)?;
        let home = Home::new(POLICY);
        let script = match (name, at_start) {
            ("full", true) => {
                "mount -t tmpfs -o size=64k none STORAGE; cat /dev/zero > STORAGE/fill 2>/dev/null"
            }
            ("ro", true) => "mount -t tmpfs -o ro,size=1m none STORAGE",
            _ => "mount -t tmpfs -o size=1m none STORAGE",
        };
        let mut actioner = home.start_on(&lab, script)?;
        let disk = Disk::of(&home, &mut actioner);
        if !at_start {
            assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1, "{name}");
            assert_eq!((disk.stored(), actioner.metric("store_degraded")?), (vec![format!("{HIM}/32")], 0.0));
            if name == "full" { disk.fill() } else { disk.protect(&lab)? }
        }
        let named = if at_start { vec![HIM, HIM_TOO] } else { vec![HIM_TOO] };
        assert_eq!(count(&actioner.alert(&named)?, "banned"), named.len() as u64, "{name}, {at_start}");
        assert_eq!(banned(&lab), [HIM, HIM_TOO], "{name}, {at_start}: enforcement goes on");
        degraded(&actioner, 1.0)?;
        let log = actioner.log();
        assert!(log.contains("would not survive a reboot"), "{name}, {at_start}: {log}");
        assert_eq!(disk.stored().len(), usize::from(!at_start), "the old file stays whole");
        orders_that_are_not_written_down(&home, &lab)?;
        assert_eq!(banned(&lab), [HIM, HIM_TOO], "{name}, {at_start}: they are carried out");

        match (name, at_start) {
            ("full", _) => disk.empty(),
            (_, true) => disk.inside(&lab, "mount -o remount,rw STORAGE")?,
            (_, false) => disk.inside(&lab, "umount STORAGE")?,
        }
        degraded(&actioner, 0.0)?;
        assert_eq!(disk.stored(), [format!("{HIM}/32"), format!("{HIM_TOO}/32")], "{name}, {at_start}");
        assert!(actioner.log().contains("can be written down again"), "{}", actioner.log());
    }
    Ok(())
}
