//! The laboratory itself: its attacks must look as DOMAIN.md says, or nothing proved in it counts.

use std::{net::IpAddr, process::Command, time::Duration};

use tests::{
    Result,
    attack::{Pace, hoard, slow_fill},
    failure::Failure,
    flood::{syn_flood, udp_spray},
    honest::{Habits, Honest},
    listing::{Entry, by_state, list},
    netns::Namespace,
    responder::{Accept, KeepAlive, Responder},
    tools::{self, Tool},
    topology::{Family, Topology},
    wait::wait_until,
};

const FAST: Pace = Pace { count: 50, per_second: 1000, within: Duration::from_secs(20) };
const SOON: Duration = Duration::from_secs(30);

/// Lines of `ss -tn` in that state towards the port, in either family.
fn sockets(namespace: &Namespace, state: &str, port: u16) -> Result<usize> {
    let filter = format!("sport = :{port}");
    Ok(namespace.output(&["ss", "-Htn", "state", state, &filter])?.lines().count())
}

fn of_source(entries: &[Entry], source: IpAddr) -> Vec<&Entry> {
    entries.iter().filter(|entry| entry.source() == source.to_string()).collect()
}

fn dead_slots(family: Family) -> Result<()> {
    tools::require(&Tool::ALL)?;
    let scene = Topology::direct(&["attacker"])?;
    // The kernel repeats its SYN-ACK once only: request sockets expire in seconds instead of a minute.
    scene.server.sysctl("net/ipv4/tcp_synack_retries", "1")?;
    let target = scene.server_socket(family, 80);
    let responder = Responder::start(&scene.server, target, Accept::Deferred, KeepAlive::Off)?;
    let attacker = scene.peer("attacker").address(family);

    let tally = slow_fill(&scene.peer("attacker").namespace, vec![attacker], target, FAST)?.finish();
    assert_eq!((tally.made, tally.first_failure), (50, None));
    assert_eq!(sockets(&scene.server, "syn-recv", 80)?, 50);

    let dead = |when: &str| -> Result<()> {
        let entries = list(&scene.server)?;
        let his = of_source(&entries, attacker);
        assert_eq!(his.len(), 50, "{when}: {:?}", by_state(&entries));
        for entry in his {
            assert_eq!(entry.state.as_deref(), Some("ESTABLISHED"), "{when}: {entry:?}");
            assert!(entry.is("ASSURED"), "{when}: {entry:?}");
            assert!(entry.timeout > Some(400_000), "{when}: {entry:?}");
        }
        Ok(())
    };
    dead("with request sockets")?;
    wait_until("the request sockets to expire", Duration::from_secs(60), || {
        match sockets(&scene.server, "all", 80) {
            Ok(1) => Ok(()),
            Ok(count) => Err(format!("{} sockets beside the listener", count - 1)),
            Err(failure) => Err(failure.to_string()),
        }
    })?;
    dead("without any socket")?;
    assert_eq!(responder.accepted(), 0, "the service never saw one of them");
    Ok(())
}

#[test]
fn a_slow_fill_leaves_fifty_slots_without_a_socket_over_ipv4() -> Result<()> {
    dead_slots(Family::V4)
}

#[test]
fn a_slow_fill_leaves_fifty_slots_without_a_socket_over_ipv6() -> Result<()> {
    dead_slots(Family::V6)
}

#[test]
fn a_hoarder_owns_real_sockets() -> Result<()> {
    let scene = Topology::routed(&["attacker"])?;
    for (family, port) in [(Family::V4, 80), (Family::V6, 80)] {
        let target = scene.server_socket(family, port);
        let accept = if family == Family::V4 { Accept::AtOnce } else { Accept::Deferred };
        let responder =
            Responder::start(&scene.server, target, accept, KeepAlive::Every(Duration::from_secs(1)))?;
        let attacker = scene.peer("attacker");
        let attack = hoard(&attacker.namespace, vec![attacker.address(family)], target, FAST)?;
        wait_until("the service to accept fifty connections", SOON, || match responder.accepted() {
            50 => Ok(()),
            other => Err(other),
        })?;
        assert_eq!(sockets(&scene.server, "established", port)?, 50);
        assert_eq!(attack.finish().made, 50);
    }
    Ok(())
}

#[test]
fn an_honest_client_loses_nothing_in_peace() -> Result<()> {
    let scene = Topology::direct(&["attacker", "honest"])?;
    let (web, web6) = (scene.server_socket(Family::V4, 80), scene.server_socket(Family::V6, 443));
    let _web = Responder::start(&scene.server, web, Accept::Deferred, KeepAlive::Off)?;
    let _web6 = Responder::start(&scene.server, web6, Accept::AtOnce, KeepAlive::Off)?;
    let habits =
        Habits { round: Duration::from_millis(10), open: Duration::from_millis(5), ..Habits::default() };
    let honest = Honest::start(&scene.peer("honest").namespace, web, vec![web, web6], habits)?;
    wait_until("a hundred new connections", SOON, || match honest.so_far() {
        report if report.opened >= 100 && report.exchanged >= 500 => Ok(()),
        report => Err(format!("{report:?}")),
    })?;
    let report = honest.finish();
    assert_eq!(report.lost, Vec::<String>::new());
    assert_eq!(report.kept, 20);
    Ok(())
}

#[test]
fn an_honest_client_counts_each_connection_it_loses() -> Result<()> {
    let scene = Topology::direct(&["honest"])?;
    let web = scene.server_socket(Family::V4, 80);
    let responder = Responder::start(&scene.server, web, Accept::AtOnce, KeepAlive::Off)?;
    let honest = Honest::start(&scene.peer("honest").namespace, web, vec![web], Habits::default())?;
    drop(responder);
    wait_until("all to be lost", SOON, || match honest.so_far() {
        report if report.kept == 0 && report.lost.len() > 20 => Ok(()),
        report => Err(format!("{report:?}")),
    })?;
    let lost = honest.finish().lost;
    assert_eq!(lost.iter().filter(|line| line.contains("kept connection from 198.51.100.66")).count(), 20);
    assert!(lost.iter().any(|line| line.contains("new connection to 192.0.2.1:80")), "{lost:?}");
    Ok(())
}

#[test]
fn a_flood_is_bounded_and_stays_half_open() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    let pace = Pace { count: 2000, per_second: u32::MAX, within: Duration::from_secs(20) };
    for (family, prefix) in [(Family::V4, "198.18.0.0/15"), (Family::V6, "2001:db8:bad::/48")] {
        let prefix = prefix.parse().unwrap();
        scene.give_prefix("attacker", prefix)?;
        let target = scene.server_socket(family, 80);
        let _responder = Responder::start(&scene.server, target, Accept::AtOnce, KeepAlive::Off)?;
        let attacker = &scene.peer("attacker").namespace;
        let tally = syn_flood(attacker, prefix, target, pace)?.finish();
        assert_eq!((tally.made, tally.first_failure), (2000, None));
        let tally = udp_spray(attacker, prefix, scene.server_socket(family, 53), pace)?.finish();
        assert_eq!((tally.made, tally.first_failure), (2000, None));

        let entries: Vec<_> =
            list(&scene.server)?.into_iter().filter(|entry| entry.family == family).collect();
        let half_open = |entry: &&Entry| entry.state.as_deref() == Some("SYN_RECV") && !entry.is("ASSURED");
        assert_eq!(entries.iter().filter(half_open).count(), 2000, "{:?}", by_state(&entries));
        assert_eq!(
            entries.iter().filter(|entry| entry.protocol == 17).count(),
            2000,
            "{:?}",
            by_state(&entries)
        );
        let mut sources: Vec<_> = entries.iter().map(Entry::source).collect();
        sources.sort_unstable();
        sources.dedup();
        assert_eq!(sources.len(), 2000);
    }
    Ok(())
}

#[test]
fn an_attack_ends_in_time_even_when_nothing_answers() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    scene.server.nft(
        "table inet wall { chain in { type filter hook prerouting priority -300; tcp dport 80 drop; }; }",
    )?;
    let pace = Pace { count: 1000, per_second: 1000, within: Duration::from_secs(1) };
    let attacker = scene.peer("attacker");
    let attack =
        slow_fill(&attacker.namespace, vec![attacker.v4.into()], scene.server_socket(Family::V4, 80), pace)?;
    wait_until("the attack to end", SOON, || if attack.done() { Ok(()) } else { Err(attack.tried()) })?;
    let tally = attack.finish();
    assert_eq!(tally.made, 0);
    assert!(tally.first_failure.unwrap().contains("no answer"));
    Ok(())
}

#[test]
fn a_command_that_fails_says_why() -> Result<()> {
    let namespace = Namespace::new("lonely")?;
    let failure = namespace.command(&["ip", "link", "set", "nowhere", "up"]).unwrap_err();
    assert!(matches!(failure, Failure::Command { .. }));
    assert!(failure.to_string().contains("Cannot find device"), "{failure}");
    let failure = namespace.command(&["no-such-program"]).unwrap_err();
    assert!(failure.to_string().contains("no-such-program"), "{failure}");
    Ok(())
}

#[test]
fn a_process_ends_with_its_guard_and_its_output_stays_readable() -> Result<()> {
    let namespace = Namespace::new("lonely")?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' TERM; echo here; ip link; while :; do sleep 0.1; done"]);
    let mut process = namespace.spawn(shell)?;
    wait_until("the shell to speak", SOON, || {
        if process.log().contains("lo:") { Ok(()) } else { Err(process.log()) }
    })?;
    assert!(!process.log().contains("eth0"), "it runs in the namespace: {}", process.log());
    process.running()?;
    let gone = |id: u32| !std::path::Path::new(&format!("/proc/{id}")).exists();
    let id = process.id();
    drop(process);
    assert!(gone(id));

    let mut sleep = Command::new("sleep");
    sleep.arg("60");
    let mut process = namespace.spawn(sleep)?;
    drop(namespace);
    let status = process.wait(SOON)?;
    assert!(!status.success(), "killed with its namespace");
    Ok(())
}

#[test]
fn the_global_sysctls_cannot_be_written_from_a_namespace() -> Result<()> {
    let namespace = Namespace::new("lonely")?;
    let modes = namespace.output(&["stat", "-c", "%a", "/proc/sys/net/netfilter/nf_conntrack_max"])?;
    assert_eq!(modes.trim(), "444");
    assert_eq!(namespace.read_sysctl("net/netfilter/nf_conntrack_count")?, "0");
    Ok(())
}
