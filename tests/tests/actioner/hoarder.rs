//! The webhook about a hoarder with real connections, while an honest client is at work.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use tests::{
    Result,
    attack::{Pace, hoard},
    honest::{Habits, Honest},
    listing::list,
    netns::Namespace,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::lab::{Home, POLICY, SOON, count, dry, members, raw_rules, set_of, sets, with_end};

const FIFTY: Pace = Pace { count: 50, per_second: 1000, within: Duration::from_secs(20) };

fn sockets_with(namespace: &Namespace, peer: &str) -> Result<usize> {
    Ok(namespace.output(&["ss", "-Htn", "dst", &format!("[{peer}]")])?.lines().count())
}

struct Scene {
    topology: Topology,
    _responder: Responder,
    attack: tests::attack::Attack,
    honest: Honest,
    him: String,
}

/// A server whose keep-alives ask once a second, an attacker with fifty connections, an honest client with twenty.
fn attacked(family: Family) -> Result<Scene> {
    let topology = Topology::direct(&["attacker", "honest"])?;
    let target = topology.server_socket(family, 80);
    let keep_alive = KeepAlive::Every(Duration::from_secs(1));
    let responder = Responder::start(&topology.server, target, Accept::AtOnce, keep_alive)?;
    // Each of its short connections leaves an assured entry in TIME_WAIT for two minutes: ten in a test of five seconds.
    let habits = Habits { open: Duration::from_millis(500), ..Habits::default() };
    let honest = Honest::start(&topology.peer("honest").namespace, target, vec![target], habits)?;
    let attacker = topology.peer("attacker");
    let attack = hoard(&attacker.namespace, vec![attacker.address(family)], target, FIFTY)?;
    wait_until("fifty connections of the attacker", SOON, || match attack.made() {
        50 => Ok(()),
        other => Err(other),
    })?;
    let him = attacker.address(family).to_string();
    Ok(Scene { him, topology, _responder: responder, attack, honest })
}

fn banned(family: Family) -> Result<()> {
    let scene = attacked(family)?;
    let (server, him) = (&scene.topology.server, scene.him.as_str());
    // Entries of others, one of them turned round and one of the other family.
    for other in ["203.0.113.200", "2001:db8:5::5"] {
        crate::lab::fill(server, other, 30)?;
    }
    let others = |namespace: &Namespace| -> Result<Vec<u32>> {
        let mut ids: Vec<_> = list(namespace)?
            .iter()
            .filter(|entry| ["203.0.113.200", "2001:db8:5::5"].contains(&entry.source()))
            .filter_map(|entry| entry.number("id"))
            .collect();
        ids.sort_unstable();
        Ok(ids)
    };
    let before = others(server)?;
    assert_eq!(before.len(), 60);

    let home = Home::new(POLICY);
    let actioner = home.start(server)?;
    let answer = actioner.alert(&[him])?;
    assert_eq!(count(&answer, "banned"), 1, "{answer}");

    let address = him.parse().unwrap();
    assert_eq!(
        members(server, set_of(address))?.iter().map(|(net, _)| net.as_str()).collect::<Vec<_>>(),
        [him]
    );
    assert!((500..=600).contains(&members(server, set_of(address))?[0].1));
    assert_eq!(sockets_with(server, him)?, 0, "his sockets are destroyed");
    let target = scene.topology.server_socket(family, 80);
    let attacker = scene.topology.peer("attacker");
    let again = attacker.namespace.run(|| TcpStream::connect_timeout(&target, Duration::from_millis(400)));
    assert!(again.is_err(), "his packets still arrive");
    // Longer than the server's keep-alives would need to put his entries back, turned round.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        let his = with_end(server, him)?;
        assert!(his.is_empty(), "after {:?}: {his:?}", start.elapsed());
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(others(server)?, before, "nobody else lost an entry");
    wait_until("the honest to have gone on", SOON, || match scene.honest.so_far() {
        report if report.exchanged > 100 => Ok(()),
        report => Err(format!("{report:?}")),
    })?;
    let report = scene.honest.finish();
    assert!(report.lost.is_empty() && report.kept == 20, "{report:?}");
    drop(scene.attack);

    for (sample, expected) in [
        ("bans_total{rule=\"hoarder\",result=\"enforced\"}", 1.0),
        ("alerts_total{rule=\"hoarder\",outcome=\"banned\"}", 1.0),
        ("active_bans", 1.0),
        ("enforced_bans", 1.0),
        ("enforcing", 1.0),
        ("destroyed_sockets_total", 50.0),
    ] {
        assert_eq!(actioner.metric(sample)?, expected, "{sample}");
    }
    let deleted = actioner.metric("deleted_entries_total{rule=\"hoarder\"}")?;
    assert!((50.0..=110.0).contains(&deleted), "{deleted}");
    let audit = actioner.audit();
    assert_eq!(audit.len(), 1, "{audit:#?}");
    let line = &audit[0];
    assert_eq!((&line["verdict"], &line["result"]["ban"]), (&"ban".into(), &"in_force".into()), "{line}");
    assert_eq!(line["source"], him);
    assert!(line["evidence"]["assured"].as_u64() >= Some(50), "{line}");
    assert_eq!(line["result"]["entries_deleted"].as_f64(), Some(deleted), "{line}");
    assert_eq!(line["table_id"], actioner.table_id);
    assert_eq!(line["live_sockets"], 50, "what he held when it was decided: {line}");
    assert_eq!(
        (&line["event"], line["net"].as_str().map(|net| net.starts_with(him))),
        (&"decision".into(), Some(true))
    );
    let of = line.as_object().unwrap();
    assert!(of.contains_key("spared") && line["spared"].is_null() && of.contains_key("flood"), "{line}");
    Ok(())
}

#[test]
fn a_hoarder_is_cut_off_and_nobody_else_over_ipv4() -> Result<()> {
    banned(Family::V4)
}

#[test]
fn a_hoarder_is_cut_off_and_nobody_else_over_ipv6() -> Result<()> {
    banned(Family::V6)
}

#[test]
fn dry_run_says_the_same_and_touches_nothing() -> Result<()> {
    let scene = attacked(Family::V4)?;
    let (server, him) = (&scene.topology.server, scene.him.as_str());
    let home = Home::new(&dry());
    let actioner = home.start(server)?;
    let his = with_end(server, him)?.len();
    for repeat in 0..3 {
        let answer = actioner.alert(&[him])?;
        let expected = if repeat == 0 { (1, 0, 0) } else { (0, 1, 0) };
        assert_eq!(
            (count(&answer, "dry_run"), count(&answer, "already_banned"), count(&answer, "banned")),
            expected
        );
    }
    assert_eq!(sets(server)?, [""; 0]);
    assert!(!raw_rules(server)?.contains("conntrack-guard"));
    assert_eq!(with_end(server, him)?.len(), his);
    assert_eq!(sockets_with(server, him)?, 50);
    let target = scene.topology.server_socket(Family::V4, 80);
    scene.topology.peer("attacker").namespace.run(|| TcpStream::connect_timeout(&target, SOON)).unwrap();
    let report = scene.honest.finish();
    assert!(report.lost.is_empty(), "{report:?}");

    let line = &actioner.audit()[0];
    assert_eq!(
        (&line["verdict"], &line["enforce"], &line["result"]["ban"]),
        (&"ban".into(), &false.into(), &"dry_run".into())
    );
    assert!(line["evidence"]["assured"].as_u64() >= Some(50), "{line}");
    for (sample, expected) in [
        ("bans_total{rule=\"hoarder\",result=\"dry_run\"}", 1.0),
        ("bans_total{rule=\"hoarder\",result=\"enforced\"}", 0.0),
        ("alerts_total{rule=\"hoarder\",outcome=\"dry_run\"}", 1.0),
        ("alerts_total{rule=\"hoarder\",outcome=\"already_banned\"}", 2.0),
        ("active_bans", 0.0),
        ("enforced_bans", 0.0),
        ("enforcing", 0.0),
        ("deleted_entries_total{rule=\"hoarder\"}", 0.0),
    ] {
        assert_eq!(actioner.metric(sample)?, expected, "{sample}");
    }
    Ok(())
}

#[test]
fn packets_arrive_again_when_the_ban_has_ended() -> Result<()> {
    let scene = attacked(Family::V4)?;
    let (server, him) = (&scene.topology.server, scene.him.as_str());
    let home = Home::new(&POLICY.replace("for: 10m", "for: 6s"));
    let actioner = home.start(server)?;
    assert_eq!(count(&actioner.alert(&[him])?, "banned"), 1);
    let target = scene.topology.server_socket(Family::V4, 80);
    let attacker = &scene.topology.peer("attacker").namespace;
    let connect = || attacker.run(|| TcpStream::connect_timeout(&target, Duration::from_millis(300)));
    assert!(connect().is_err());
    wait_until("his packets to arrive again", SOON, || connect().map(drop))?;
    wait_until("the end to be counted", SOON, || match actioner.metric("unbans_total{cause=\"expired\"}") {
        Ok(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    assert_eq!(actioner.metric("active_bans")?, 0.0);
    Ok(())
}

#[test]
fn the_watch_bans_without_any_prometheus() -> Result<()> {
    let scene = attacked(Family::V4)?;
    let (server, him) = (&scene.topology.server, scene.him.as_str());
    let watch = "watch:\n  interval: 200ms\n  every: 200ms\n  alerts:\n  - {alert: Hoarder, source: {assured: 40}}\nrules:";
    let home = Home::new(&POLICY.replace("rules:", watch));
    let actioner = home.start(server)?;
    wait_until("the watch to ban him", SOON, || match actioner.metric("enforced_bans") {
        Ok(1.0) => Ok(()),
        other => Err(format!("{other:?}\n{}", actioner.log())),
    })?;
    assert_eq!(members(server, "conntrack-guard-4")?[0].0, him);
    wait_until("his entries to be gone", SOON, || match with_end(server, him) {
        Ok(his) if his.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let dumps = actioner.dumps()?;
    wait_until("five more looks", SOON, || match actioner.dumps() {
        Ok(now) if now >= dumps + 5.0 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let audit = actioner.audit();
    assert_eq!(audit.iter().filter(|line| line["verdict"] == "ban").count(), 1, "{audit:#?}");
    assert!(audit.iter().all(|line| line["origin"] == "watch" && line["source"] == him), "{audit:#?}");
    assert_eq!(actioner.metric("bans_total{rule=\"hoarder\",result=\"enforced\"}")?, 1.0);
    let report = scene.honest.finish();
    assert!(report.lost.is_empty(), "{report:?}");
    Ok(())
}

#[test]
fn the_watch_says_a_thing_once() -> Result<()> {
    let lab = crate::lab::quiet("watched")?;
    crate::lab::fill(&lab, crate::lab::HIM, 50)?;
    crate::lab::fill(&lab, "198.51.100.67", 10)?;
    let watch = "watch:\n  interval: 100ms\n  every: 100ms\n  alerts:\n  - {alert: Hoarder, source: {assured: 10}}\nrules:";
    let home = Home::new(&dry().replace("rules:", watch));
    let actioner = home.start(&lab)?;
    let dumps = actioner.dumps()?;
    wait_until("ten dumps", SOON, || match actioner.dumps() {
        Ok(now) if now >= dumps + 10.0 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let audit = actioner.audit();
    let mut said: Vec<_> =
        audit.iter().map(|line| (line["source"].as_str(), line["verdict"].as_str())).collect();
    said.sort_unstable();
    let expected = [(Some(crate::lab::HIM), Some("ban")), (Some("198.51.100.67"), Some("refused"))];
    assert_eq!(said, expected, "one line each, however often it looks");
    assert_eq!(actioner.metric("refusals_total{reason=\"require_not_met\"}")?, 1.0);
    Ok(())
}
