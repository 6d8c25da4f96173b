//! `top` on the real kernel: its numbers are conntrack(8)'s, and it behaves in a terminal.
//!
//! Built with the feature `top` only: `cargo test -p conntrack-exporter --features top --test top`.

#![allow(clippy::unwrap_used)] // a test file: clippy.toml permits it inside #[test] functions only

mod pty;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pty::Pty;
use serde_json::Value;
use tests::listing;
use tests::netns::Namespace;
use tests::tools::{self, Tool};

const BINARY: &str = env!("CARGO_BIN_EXE_conntrack-exporter");
const NO_ACTIONER: &str = "--admin.socket=/nowhere/actioner.sock";

/// A server at 192.0.2.1 with nobody behind its port 80, and a table to fill.
fn server() -> Namespace {
    tools::require(&[Tool::Conntrack, Tool::Nft, Tool::Ip]).unwrap();
    let namespace = Namespace::new("top").unwrap();
    namespace.track_connections().unwrap();
    namespace.ip("address add 192.0.2.1/32 dev lo\n").unwrap();
    namespace
}

fn add(namespace: &Namespace, entries: impl IntoIterator<Item = String>) {
    let lines: String = entries.into_iter().map(|entry| format!("-A {entry}\n")).collect();
    namespace.command_with_input(&["conntrack", "-R", "-"], &lines).unwrap();
}

/// Idle for days: with 192.0.2.1 and no socket there, dead.
fn established(source: &str, ports: std::ops::Range<u16>) -> impl Iterator<Item = String> {
    ports.map(move |port| {
        format!("-p tcp -s {source} -d 192.0.2.1 --sport {port} --dport 80 --state ESTABLISHED -u ASSURED,SEEN_REPLY -t 9000")
    })
}

fn half_open(source: &str, ports: std::ops::Range<u16>) -> impl Iterator<Item = String> {
    ports.map(move |port| {
        format!(
            "-p tcp -s {source} -d 192.0.2.1 --sport {port} --dport 80 --state SYN_RECV -u SEEN_REPLY -t 600"
        )
    })
}

fn udp(source: &str, ports: std::ops::Range<u16>) -> impl Iterator<Item = String> {
    ports.map(move |port| format!("-p udp -s {source} -d 2001:db8::1 --sport {port} --dport 53 -t 600"))
}

/// Entries, assured, half-open, socketless.
type Counts = [u64; 4];

#[test]
fn once_says_what_conntrack_says() {
    let namespace = server();
    add(&namespace, established("198.51.100.7", 1..81).chain(half_open("198.51.100.7", 100..113)));
    add(&namespace, half_open("203.0.113.9", 1..41).chain(udp("2001:db8::9", 1..21)));
    add(&namespace, established("192.0.2.1", 500..503));

    let output = namespace.output(&[BINARY, "top", "--once", "--json", NO_ACTIONER]).unwrap();
    let listed = listing::list(&namespace).unwrap();
    let said: Value = serde_json::from_str(&output).unwrap();
    let mut expected: BTreeMap<String, Counts> = BTreeMap::new();
    for entry in listed.iter().filter(|entry| entry.source() != "192.0.2.1") {
        let counts = expected.entry(entry.source().to_owned()).or_default();
        let state = entry.state.as_deref();
        counts[0] += 1;
        counts[1] += u64::from(entry.is("ASSURED"));
        counts[2] += u64::from(matches!(state, Some("SYN_SENT" | "SYN_RECV" | "SYN_SENT2")));
        // No socket is in this namespace.
        counts[3] += u64::from(state == Some("ESTABLISHED"));
    }
    assert_eq!(expected["198.51.100.7"], [93, 80, 13, 80], "the table is as it was filled: {listed:?}");
    let shown: BTreeMap<String, Counts> = said["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let counts =
                ["entries", "assured", "half_open", "socketless"].map(|name| row[name].as_u64().unwrap());
            (row["source"].as_str().unwrap().to_owned(), counts)
        })
        .collect();
    assert_eq!(shown, expected);
    let total = listed.len() as u64;
    assert_eq!((said["dumped_entries"].as_u64(), said["entries"].as_u64()), (Some(total), Some(total)));
    let counted = namespace.read_sysctl("net/netfilter/nf_conntrack_count").unwrap();
    assert_eq!(counted, total.to_string());
    let sum = |place: usize| expected.values().map(|counts| counts[place]).sum::<u64>();
    // The three of this host's own are assured and dead too; they are not ranked.
    assert_eq!(said["assured_entries"].as_u64(), Some(sum(1) + 3));
    assert_eq!(said["socketless_entries"].as_u64(), Some(sum(3) + 3));
    assert_eq!((said["half_open_entries"].as_u64(), said["local_entries"].as_u64()), (Some(sum(2)), Some(3)));
    assert_eq!(said["bans_not_known"], "no actioner runs here (/nowhere/actioner.sock does not exist)");

    let plain = namespace.output(&[BINARY, "top", "--once", "--sort=half-open", NO_ACTIONER]).unwrap();
    assert!(!plain.contains('\x1b'), "no colour when piped: {plain:?}");
    let rows: Vec<&str> = plain.lines().skip_while(|line| !line.starts_with("SOURCE")).skip(1).collect();
    assert!(rows[0].starts_with("203.0.113.9") && rows[1].starts_with("198.51.100.7"), "{plain}");
    assert_eq!(rows.len(), 2, "who has none is not listed: {plain}");
    assert!(
        plain.contains("HALF-OPEN*") && plain.contains("bans     not known: no actioner runs here"),
        "{plain}"
    );
}

#[test]
fn a_terminal_is_filled_obeyed_and_given_back() {
    let namespace = server();
    add(&namespace, established("198.51.100.7", 1..61).chain(half_open("203.0.113.9", 1..81)));
    let mut top = Pty::start(&namespace, &[BINARY, "top", "--interval=100ms", NO_ACTIONER], 24);
    let screen = top.until_shown("198.51.100.7");
    assert_eq!(screen.len(), 24);
    assert!(screen[0].starts_with("entries  140 of "), "{screen:#?}");
    assert!(!top.is_cooked() && top.written().contains("\x1b[32m"), "raw, and coloured");
    let place = |screen: &[String], source: &str| screen.iter().position(|line| line.starts_with(source));
    assert!(place(&screen, "203.0.113.9") < place(&screen, "198.51.100.7"));

    top.press("s");
    let screen = top.until_shown("SOCKETLESS*");
    assert!(
        place(&screen, "198.51.100.7").is_some() && place(&screen, "203.0.113.9").is_none(),
        "{screen:#?}"
    );
    top.press("e/203.\r");
    let screen = top.until("the filtered list", |screen| {
        place(screen, "198.51.100.7").is_none() && place(screen, "203").is_some()
    });
    assert!(screen.iter().any(|line| line.contains("lets 1 of 2 sources pass")), "{screen:#?}");
    top.press("\x1b");
    top.until("the whole list", |screen| place(screen, "198.51.100.7").is_some());

    // It is live, and stands still when it is told to.
    add(&namespace, established("198.51.100.7", 100..110));
    top.until_shown("entries  150 of ");
    top.press(" ");
    top.until_shown("FROZEN");
    add(&namespace, established("198.51.100.7", 200..250));
    // Nothing is to happen, so there is nothing to wait for: ten intervals in which it could.
    let began = Instant::now();
    let columns = [("a", "ASSURED*"), ("h", "HALF-OPEN*"), ("e", "ENTRIES*")];
    for (key, heading) in columns.iter().cycle().take_while(|_| began.elapsed() < Duration::from_secs(1)) {
        top.press(key);
        let screen = top.until_shown(heading);
        assert!(screen[0].starts_with("entries  150 of "), "{screen:#?}");
    }
    top.press(" ");
    top.until_shown("entries  200 of ");

    top.press("e");
    top.resize(10, 40);
    let screen = top.until("ten short lines", |screen| {
        screen.len() == 10
            && screen.iter().all(|line| line.len() <= 40)
            && place(screen, "198.51.100.7").is_some()
    });
    assert!(place(&screen, "203.0.113.9").is_some() && screen[9].starts_with("q quit"), "{screen:#?}");
    top.press("q");
    assert!(top.ended().success(), "{:?}", top.written());
    top.until_given_back();
}

#[test]
fn a_signal_gives_the_terminal_back_too() {
    let namespace = server();
    let mut top = Pty::start(&namespace, &[BINARY, "top", NO_ACTIONER], 24);
    top.until_shown("q quit");
    let id = top.id().to_string();
    namespace.command(&["kill", "-TERM", &id]).unwrap();
    assert!(top.ended().success());
    top.until_given_back();
}

#[test]
fn the_actioners_bans_are_shown() {
    let namespace = server();
    add(&namespace, established("198.51.100.7", 1..11));
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("actioner.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let actioner = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 512];
        let read = stream.read(&mut asked).unwrap();
        let bans = r#"{"bans":[{"net":"198.51.100.7/32","rule":"hoarder","by":"watch","offence":1,"remaining_seconds":540,"in_kernel":true,"dry_run":false,"reason":"r"}]}"#;
        let answer = format!("HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n{bans}", bans.len());
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&asked[..read]).into_owned()
    });
    let socket = format!("--admin.socket={}", socket.display());
    let said = namespace.output(&[BINARY, "top", "--once", &socket]).unwrap();
    assert!(actioner.join().unwrap().starts_with("GET /api/v1/bans HTTP/1.0\r\n"));
    assert!(
        said.contains("bans     1 in force\nbanned   198.51.100.7 9 min\n")
            && said.contains("  9 min, hoarder\n"),
        "{said}"
    );
}

#[test]
fn a_script_gets_a_line_for_each_look_until_it_has_enough() {
    let namespace = server();
    add(&namespace, established("198.51.100.7", 1..11));
    let mut command = Command::new(BINARY);
    command.args(["top", "--json", "--interval=100ms", NO_ACTIONER]).stdout(Stdio::piped());
    let mut child = namespace.run(|| command.spawn()).unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut look = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    assert_eq!(look()["sources"][0]["grown"], Value::Null, "the first look knows no growth");
    add(&namespace, established("198.51.100.7", 20..25));
    // Which look sees them is chance; one does, and says how many came.
    let seen = (0..100).map(|_| look()).find(|look| look["entries"] == 15).unwrap();
    assert_eq!(seen["sources"][0]["entries"], 15);
    assert!(seen["sources"][0]["grown"].as_i64().is_some_and(|grown| (1..=5).contains(&grown)), "{seen:#}");
    drop(stdout);
    assert!(child.wait().unwrap().success(), "a closed pipe is no failure");
}

#[test]
fn without_the_right_to_dump_it_says_which_is_missing() {
    let failure = server()
        .command(&["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", BINARY, "top", "--once"])
        .unwrap_err()
        .to_string();
    assert!(failure.contains("the table cannot be read") && failure.contains("CAP_NET_ADMIN"), "{failure}");
}
