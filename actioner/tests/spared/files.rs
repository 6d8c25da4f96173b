//! Resolvers and authenticated sessions, from files like the system's; and the memory of them.

use conntrack_actioner::now::Now;
use conntrack_actioner::spared::{Files, nameservers, remote_host};
use conntrack_actioner::surroundings::Surroundings;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

fn addresses(all: &[&str]) -> BTreeSet<IpAddr> {
    all.iter().map(|address| address.parse().unwrap()).collect()
}

fn now(seconds: u64) -> Now {
    let boot = Duration::from_secs(seconds);
    Now { boot, wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000) + boot }
}

/// A system that only has the files of this directory.
fn system(directory: &Path) -> Files {
    fs::create_dir_all(directory.join("sessions")).unwrap();
    Files {
        resolvers: vec![directory.join("resolv.conf"), directory.join("resolved.conf")],
        sessions: directory.join("sessions"),
        utmp: directory.join("utmp"),
    }
}

/// As systemd 252 writes it.
fn session(class: &str, remote: &str, host: &str) -> String {
    format!(
        "# This is private data. Do not parse.\nUID=1000\nUSER=admin\nACTIVE=1\nIS_DISPLAY=0\nSTATE=active\nREMOTE={remote}\nTYPE=tty\n\
         ORIGINAL_TYPE=tty\nCLASS={class}\nSCOPE=session-3.scope\nFIFO=/run/systemd/sessions/3.ref\nREMOTE_HOST={host}\nSERVICE=sshd\nLEADER=1234\n"
    )
}

#[test]
fn name_servers_as_people_write_them() {
    let text = "# comment\n; comment\nsearch example.org\nnameserver 198.51.100.53\n nameserver\t2001:db8::53 \nnameserver fe80::1%eth0\n\
        nameserver ::ffff:198.51.100.54\nnameserver 127.0.0.53\n#nameserver 198.51.100.55\nnameserver\nnameserver ns.example.org\n\
        nameservers 198.51.100.56\noptions edns0\n";
    let found: Vec<String> = nameservers(text).map(|address| address.to_string()).collect();
    assert_eq!(found, ["198.51.100.53", "2001:db8::53", "fe80::1", "198.51.100.54", "127.0.0.53"]);
}

#[test]
fn sessions_of_logind() {
    let peer = |text: &str| remote_host(text).map(|address| address.to_string());
    assert_eq!(peer(&session("user", "1", "198.51.100.7")).as_deref(), Some("198.51.100.7"));
    assert_eq!(peer(&session("user-early", "1", "::ffff:198.51.100.7")).as_deref(), Some("198.51.100.7"));
    assert_eq!(peer(&session("user", "1", "fe80::7%eth0")).as_deref(), Some("fe80::7"));
    // Of this host; a name, of which whoever owns the reverse zone says what he likes; a log-in screen.
    assert_eq!(peer(&session("user", "0", "198.51.100.7")), None);
    assert_eq!(peer(&session("user", "1", "victim.example.org")), None);
    assert_eq!(peer(&session("greeter", "1", "198.51.100.7")), None);
    assert_eq!(peer(""), None);
}

#[test]
fn what_changes_is_seen_at_the_next_look_and_sessions_are_remembered_a_day() {
    let directory = TempDir::new().unwrap();
    let files = system(directory.path());
    let mut surroundings = Surroundings::open(files.clone()).unwrap();
    assert_eq!(surroundings.host(now(0)).unwrap().spared.resolvers, addresses(&[]));

    fs::write(&files.resolvers[0], "nameserver 127.0.0.53\n").unwrap();
    fs::write(&files.resolvers[1], "nameserver 198.51.100.53\n").unwrap();
    fs::write(files.sessions.join("3"), session("user", "1", "198.51.100.7")).unwrap();
    // logind's FIFO beside it: whoever reads it waits for ever.
    let fifo = files.sessions.join("3.ref");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let spared = surroundings.host(now(10)).unwrap().spared;
    assert_eq!(spared.resolvers, addresses(&["127.0.0.53", "198.51.100.53"]));
    assert_eq!(spared.sessions, addresses(&["198.51.100.7"]));
    assert!(surroundings.to_store(now(10)).is_some_and(|rows| rows.len() == 1));

    // Seen between two decisions, and over before the next.
    fs::write(files.sessions.join("4"), session("user", "1", "198.51.100.8")).unwrap();
    surroundings.look_round(now(20));
    fs::remove_file(files.sessions.join("4")).unwrap();
    fs::remove_file(files.sessions.join("3")).unwrap();
    fs::write(&files.resolvers[1], "nameserver 198.51.100.54\n").unwrap();
    let spared = surroundings.host(now(20 + 24 * 3600)).unwrap().spared;
    assert_eq!(spared.resolvers, addresses(&["127.0.0.53", "198.51.100.54"]));
    assert_eq!(spared.sessions, addresses(&["198.51.100.7", "198.51.100.8"]));
    let rows = surroundings.to_store(now(20)).unwrap();
    assert_eq!(surroundings.to_store(now(20)), None, "written down once");
    let spared = surroundings.host(now(20 + 25 * 3600)).unwrap().spared;
    assert_eq!(spared.sessions, addresses(&[]));

    let mut again = Surroundings::open(files).unwrap();
    again.restore(&rows, now(30));
    assert_eq!(again.host(now(30)).unwrap().spared.sessions, addresses(&["198.51.100.7", "198.51.100.8"]));
}

#[test]
fn a_webhooks_peer_is_remembered_once_it_passed() {
    let directory = TempDir::new().unwrap();
    let mut surroundings = Surroundings::open(system(directory.path())).unwrap();
    surroundings.remember_webhook_peer("::ffff:198.51.100.9".parse().unwrap(), now(0));
    let peers = |surroundings: &mut Surroundings, at| surroundings.host(at).unwrap().spared.webhook_peers;
    assert_eq!(peers(&mut surroundings, now(24 * 3600)), addresses(&["198.51.100.9"]));
    assert_eq!(peers(&mut surroundings, now(25 * 3600)), addresses(&[]));
}

/// Whom a file names that cannot be read is not spared: that is said, and the rest goes on.
#[test]
fn a_file_that_cannot_be_read_costs_only_itself() {
    let directory = TempDir::new().unwrap();
    let files = system(directory.path());
    fs::create_dir(&files.resolvers[0]).unwrap();
    fs::write(&files.resolvers[1], b"nameserver 198.51.100.53\n\xff\xfe\n").unwrap();
    fs::write(&files.utmp, [0xff; 1000]).unwrap();
    let mut troubles = Vec::new();
    assert_eq!(files.resolvers(&mut troubles), addresses(&["198.51.100.53"]));
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    assert!(troubles[0].starts_with(&files.resolvers[0].display().to_string()), "{troubles:?}");
    assert_eq!(files.sessions(&mut troubles), addresses(&[]));
}
