//! Beside a filter of the host's own: what was open goes on, and where it would cut peers off nothing is covered.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use serde_json::json;
use tests::{
    Result,
    listing::list,
    netns::Namespace,
    programs::Program,
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::stage::*;

/// The usual filter: by state, everything else dropped.
fn strict_filter(namespace: &Namespace) -> Result<()> {
    for (save, icmp) in [("iptables-restore", "icmp"), ("ip6tables-restore", "ipv6-icmp")] {
        let neighbours = if icmp == "icmp" {
            String::new()
        } else {
            let kind = |number| format!("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type {number} -j ACCEPT\n");
            (133..=136).map(kind).collect()
        };
        let rules = format!(
            "*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n{neighbours}\
             -A INPUT -m conntrack --ctstate INVALID -j DROP\n\
             -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
             -A INPUT -p tcp -m multiport --dports 22,80 -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n"
        );
        namespace.command_with_input(&[save], &rules)?;
    }
    Ok(())
}

fn says(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"y").is_ok() && stream.read(&mut byte).is_ok_and(|read| read == 1)
}

#[test]
fn behind_a_filter_by_state_open_connections_go_on_and_large_answers_pass_a_narrow_hop() -> Result<()> {
    let scene = Topology::routed(&["monitor", "visitor"])?;
    let (server, monitor) = (&scene.server, &scene.peer("monitor").namespace);
    let echoes = [Family::V4, Family::V6].map(|family| echo(server, scene.server_address(family), SSH));
    let _echoes = echoes.into_iter().collect::<Result<Vec<_>>>()?;
    strict_filter(server)?;
    let open = |family| {
        monitor.run(|| {
            let stream = TcpStream::connect(scene.server_socket(family, SSH)).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream
        })
    };
    let mut before = [open(Family::V4), open(Family::V6)];
    assert!(before.iter_mut().all(says));
    let actioner = Actioner::start(server, POLICY)?;
    let covered = actioner.status()["keep_reachable"]["covered"].clone();
    assert_eq!(
        covered.as_array().map(Vec::len),
        Some(2),
        "both families: {}",
        actioner.running.process.log()
    );
    assert!(before.iter_mut().all(says), "a tracked connection goes on untracked");

    scene.router().ip("link set dev monitor mtu 1300")?;
    for family in [Family::V4, Family::V6] {
        let mut stream = open(family);
        let mut back = stream.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut bytes = vec![0; 100_000];
            back.read_exact(&mut bytes).map(|()| bytes.len())
        });
        stream.write_all(&vec![7; 100_000]).unwrap();
        let read = reader.join().unwrap();
        assert_eq!(read.ok(), Some(100_000), "{family:?}: answers larger than the hop");
    }
    let tracked = |entry: &tests::listing::Entry| {
        entry.original.get("dport").is_some_and(|port| port == "22")
            && entry.original.get("sport").is_some_and(|sport| {
                !before.iter().any(|stream| stream.local_addr().unwrap().port().to_string() == *sport)
            })
    };
    let entries: Vec<_> = list(server)?.into_iter().filter(tracked).collect();
    assert_eq!(entries.len(), 0, "{entries:?}");

    // A peer that is banned is dropped before it goes untracked.
    let him = scene.peer("monitor").address(Family::V4).to_string();
    let program = Program::Actioner.path()?.display().to_string();
    let socket = actioner.home.path().join("admin.sock").display().to_string();
    server.command(&[
        &program,
        "ban",
        &him,
        "--for",
        "10m",
        "--reason",
        "test",
        "--admin.socket",
        &socket,
    ])?;
    let him = || answered_within(PATIENCE, scene.server_socket(Family::V4, SSH));
    assert!(!monitor.run(him), "banned");
    assert!(monitor.run(|| answered(scene.server_socket(Family::V6, SSH))), "by another address");

    actioner.end(server)?;
    let left = rules(server)?;
    assert!(!left.contains("conntrack-guard"), "{left}");
    assert!(left.contains("--ctstate INVALID -j DROP"), "the host's own rules stay: {left}");
    assert!(monitor.run(|| answered(scene.server_socket(Family::V4, SSH))), "tracked again");
    Ok(())
}

#[test]
fn a_filter_of_nftables_own_that_would_cut_peers_off_keeps_everything_tracked() -> Result<()> {
    let scene = Topology::direct(&["monitor"])?;
    let (server, monitor) = (&scene.server, &scene.peer("monitor").namespace);
    let _echo = echo(server, scene.server_address(Family::V4), SSH)?;
    let filter = |new: &str| {
        format!(
            "table inet filter {{ chain input {{ type filter hook input priority 0; policy drop;\n\
             ct state established,related accept\nct state {new} tcp dport 22 accept\n}}; }}"
        )
    };
    server.nft(&filter("new"))?;
    let mut open = monitor.run(|| TcpStream::connect(scene.server_socket(Family::V4, SSH)).unwrap());
    open.set_read_timeout(Some(SOON)).unwrap();
    let actioner = Actioner::start(server, POLICY)?;
    let status = || actioner.status()["keep_reachable"].clone();
    assert_eq!(status()["covered"], json!([]), "{}", status());
    let why = status()["refused"][0]["why"].as_str().unwrap().to_owned();
    assert!(
        why.contains("table inet filter") && why.contains("tcp dport 22 ct state untracked accept"),
        "{why}"
    );
    assert!(says(&mut open) && monitor.run(|| answered(scene.server_socket(Family::V4, SSH))), "as before");

    server.nft(&format!("delete table inet filter\n{}", filter("{ new, untracked }")))?;
    wait_until("the ports to be covered", SOON, || match status() {
        now if now["covered"].as_array().is_some_and(|covered| covered.len() == 2) => Ok(()),
        now => Err(now),
    })?;
    assert!(says(&mut open) && monitor.run(|| answered(scene.server_socket(Family::V4, SSH))), "untracked");
    Ok(())
}
