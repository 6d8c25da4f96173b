//! What an attacker can do by himself neither buys him immunity nor switches bans off for others.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use serde_json::Value;
use tests::{
    Result,
    attack::{Attack, Pace, hoard},
    flood::syn_flood,
    http,
    http::Server,
    listing::list,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, members, message, quiet};

const FORTY: Pace = Pace { count: 40, per_second: 1000, within: Duration::from_secs(20) };

/// A server with a web service, and an attacker with forty connections to it.
struct Siege {
    topology: Topology,
    _service: Responder,
    _attack: Attack,
    him: String,
}

fn siege(keep_alive: KeepAlive) -> Result<Siege> {
    let topology = Topology::direct(&["attacker", "other"])?;
    let target = topology.server_socket(Family::V4, 80);
    let service = Responder::start(&topology.server, target, Accept::AtOnce, keep_alive)?;
    let attacker = topology.peer("attacker");
    let attack = hoard(&attacker.namespace, vec![attacker.v4.into()], target, FORTY)?;
    wait_until("forty connections of the attacker", SOON, || match attack.made() {
        40 => Ok(()),
        other => Err(other),
    })?;
    let him = attacker.v4.to_string();
    Ok(Siege { topology, _service: service, _attack: attack, him })
}

/// He is banned, whatever he did before.
fn assert_banned(actioner: &Actioner<'_>, siege: &Siege) -> Result<()> {
    let answer = actioner.alert(&[&siege.him])?;
    assert_eq!(count(&answer, "banned"), 1, "{answer}\n{}", actioner.log());
    let members = members(&siege.topology.server, "conntrack-guard-4")?;
    assert_eq!(members.iter().map(|(net, _)| net.as_str()).collect::<Vec<_>>(), [siege.him.as_str()]);
    Ok(())
}

#[test]
fn a_connection_to_ssh_without_a_key_buys_nothing() -> Result<()> {
    let siege = siege(KeepAlive::Off)?;
    let ssh = siege.topology.server_socket(Family::V4, 22);
    let _daemon = Responder::start(&siege.topology.server, ssh, Accept::AtOnce, KeepAlive::Off)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&siege.topology.server)?;
    let attacker = &siege.topology.peer("attacker").namespace;
    let before_authentication = attacker.run(|| TcpStream::connect(ssh)).unwrap();
    assert_banned(&actioner, &siege)?;
    drop(before_authentication);
    Ok(())
}

#[test]
fn neither_do_scrapes_nor_garbage_webhooks_and_neither_silences_the_real_one() -> Result<()> {
    let siege = siege(KeepAlive::Off)?;
    let home = Home::new(POLICY);
    let open = siege.topology.server_socket(Family::V4, 10049);
    let actioner = home.start_with(
        &siege.topology.server,
        &[
            "--web.listen-address",
            "127.0.0.1:10049",
            "--web.listen-address",
            &open.to_string(),
            "--web.allow-unauthenticated-webhooks",
        ],
    )?;
    let attacker = &siege.topology.peer("attacker").namespace;
    let door = Server::Tcp(open);
    let scrape = attacker.run(|| http::get(&door, "/metrics", &[]))?;
    assert_eq!(scrape.status, 200);
    // Not JSON, not a message, cut short, and a message about everybody but himself.
    let others: Vec<Value> = (0..50).map(|host| actioner.about(&format!("203.0.113.{host}"))).collect();
    let whole = message(&others);
    for (body, status) in
        [("", 400), ("\u{0}garbage", 400), ("{}", 400), (&whole[..whole.len() / 2], 400), (&whole, 200)]
    {
        for _ in 0..20 {
            let answer = attacker.run(|| http::post(&door, "/webhook", &[], body.as_bytes()))?;
            assert_eq!(answer.status, status, "{}", answer.text());
        }
    }
    assert_eq!(
        members(&siege.topology.server, "conntrack-guard-4")?,
        [],
        "he names whom he likes, to no effect"
    );
    assert_banned(&actioner, &siege)
}

/// The other side of it: whoever knows the password and sends from there is spared, and nobody who does not.
#[test]
fn a_webhook_with_the_password_protects_its_sender_and_one_without_does_not() -> Result<()> {
    for (token, outcome) in [("wrong", "banned"), ("right", "refused")] {
        let siege = siege(KeepAlive::Off)?;
        let home = Home::new(POLICY);
        fs::write(home.path("token"), "right").unwrap();
        fs::set_permissions(home.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
        let open = siege.topology.server_socket(Family::V4, 10049);
        let (token_file, open_at) = (home.path("token").display().to_string(), open.to_string());
        let actioner = home.start_guarded(
            &siege.topology.server,
            &["--web.listen-address", &open_at, "--web.bearer-token-file", &token_file],
        )?;
        let attacker = &siege.topology.peer("attacker").namespace;
        let body = message(&[actioner.about("203.0.113.1")]);
        let header = format!("Authorization: Bearer {token}");
        let sent =
            attacker.run(|| http::post(&Server::Tcp(open), "/webhook", &[&header], body.as_bytes()))?;
        assert_eq!(sent.status, if token == "right" { 200 } else { 401 }, "{}", sent.text());
        let answer = actioner.alert(&[&siege.him])?;
        assert_eq!(count(&answer, outcome), 1, "{token}: {answer}");
        if outcome == "refused" {
            assert_eq!(answer["reasons"]["webhook_peer"]["count"], 1, "{answer}");
        }
    }
    Ok(())
}

/// After somebody deletes his entries the server's keep-alives put them back with the server as their source.
#[test]
fn entries_that_the_server_itself_turned_round_buy_nothing() -> Result<()> {
    let siege = siege(KeepAlive::Every(Duration::from_secs(1)))?;
    let server = &siege.topology.server;
    let home = Home::new(POLICY);
    let actioner = home.start(server)?;
    // Half of them, so that enough evidence is left.
    let his = list(server)?.into_iter().filter(|entry| entry.source() == siege.him);
    let ports: Vec<String> = his.filter_map(|mut entry| entry.original.remove("sport")).take(15).collect();
    assert_eq!(ports.len(), 15);
    for port in ports {
        server.command(&["conntrack", "-D", "-p", "tcp", "-s", &siege.him, "--sport", &port])?;
    }
    let address = siege.topology.server_address(Family::V4).to_string();
    wait_until("assured entries that come from the server", SOON, || {
        let entries = list(server).map_err(|failure| failure.to_string())?;
        let turned = entries.iter().any(|entry| entry.source() == address && entry.is("ASSURED"));
        if turned { Ok(()) } else { Err(format!("none among {}", entries.len())) }
    })?;
    assert_banned(&actioner, &siege)
}

/// Whom this host itself called is spared, although he looks like any hoarder.
#[test]
fn a_dependency_that_looks_like_a_hoarder_is_spared() -> Result<()> {
    let siege = siege(KeepAlive::Off)?;
    let attacker = siege.topology.peer("attacker");
    let at = SocketAddr::new(attacker.v4.into(), 5432);
    let _database = Responder::start(&attacker.namespace, at, Accept::AtOnce, KeepAlive::Off)?;
    let server = &siege.topology.server;
    let connection = server.run(|| TcpStream::connect(at)).unwrap();
    let home = Home::new(POLICY);
    let actioner = home.start(server)?;
    let answer = actioner.alert(&[&siege.him])?;
    assert_eq!((count(&answer, "banned"), count(&answer, "refused")), (0, 1), "{answer}");
    assert_eq!(answer["reasons"]["outbound"]["count"], 1, "{answer}");
    assert_eq!(actioner.metric("refusals_total{reason=\"outbound\"}")?, 1.0);
    drop(connection);
    Ok(())
}

/// Nothing is restarted or reloaded: the kernel announces it.
#[test]
fn an_address_and_a_gateway_added_meanwhile_are_known_to_the_next_decision() -> Result<()> {
    let lab = quiet("meanwhile")?;
    let ours = "203.0.113.9";
    fill(&lab, HIM, 30)?;
    fill(&lab, ours, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    lab.ip(&format!(
        "link add d0 type veth peer name d1\nlink set d0 up\nlink set d1 up\naddr add {ours}/32 dev lo\n\
         route add 192.0.2.128/25 via {HIM} dev d0 onlink table 77\n"
    ))?;
    for (source, reason) in [(HIM, "gateway"), (ours, "own_address")] {
        let answer = actioner.alert(&[source])?;
        assert_eq!(answer["reasons"][reason]["count"], 1, "{source}: {answer}");
    }
    lab.ip(&format!("addr del {ours}/32 dev lo\n"))?;
    let answer = actioner.alert(&[ours])?;
    assert_eq!(count(&answer, "banned"), 1, "{answer}");
    Ok(())
}

/// Two rules: what a forger could make, and what he could not.
const RULES: &str = "\
enforce: true
never_ban: []
limits: {bans_per_minute: 10000, bans_per_hour: 60000, active_bans: 50000}
rules:
- name: dead
  matchers: ['alertname=\"Dead\"']
  sources: {label: source}
  require: {source: {socketless: 20}}
  actions: [{ban: {for: 10m}}]
- name: hoarder
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {assured: 20}}
  actions: [{ban: {for: 10m}}]
";

#[test]
fn a_flood_of_forged_sources_bans_no_innocent_and_protects_no_attacker() -> Result<()> {
    const SOURCES: usize = 3000;
    let topology = Topology::direct(&["forger"])?;
    let server = &topology.server;
    let target = topology.server_socket(Family::V4, 80);
    let _service = Responder::start(server, target, Accept::AtOnce, KeepAlive::Off)?;
    let prefix = "198.18.0.0/19".parse().unwrap();
    topology.give_prefix("forger", prefix)?;
    // Slots that nobody stands behind, and as many entries whose end is not here: both look assured.
    let (dead, framed) = ("203.0.113.66", "203.0.113.67");
    let slots: String = (1..=40)
        .map(|port| {
            format!("-I -s {dead} -d 192.0.2.1 -p tcp --sport {} --dport 80 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 4000\n", 1000 + port)
        })
        .collect();
    server.command_with_input(&["conntrack", "--load-file", "-"], &slots)?;
    fill(server, framed, 40)?;

    let home = Home::new(RULES);
    let actioner = home.start(server)?;
    let about = |name: &str, source: &str| {
        let mut alert = actioner.about(source);
        alert["labels"]["alertname"] = name.into();
        let answer = actioner.post(&message(&[alert]))?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Ok::<Value, tests::Failure>(serde_json::from_str(&answer.text()).unwrap())
    };
    assert_eq!(actioner.metric("spoofed_flood")?, 0.0);

    let pace = Pace { count: SOURCES, per_second: 20_000, within: Duration::from_secs(30) };
    let flood = syn_flood(&topology.peer("forger").namespace, prefix, target, pace)?;
    wait_until("the forged sources", SOON, || {
        match server.read_sysctl("net/netfilter/nf_conntrack_count").map(|count| count.parse::<usize>()) {
            Ok(Ok(entries)) if entries >= 2500 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    let answer = about("Hoarder", framed)?;
    assert_eq!(answer["reasons"]["spoofed_flood"]["count"], 1, "{answer}");
    assert_eq!(actioner.metric("spoofed_flood")?, 1.0);
    assert_eq!(actioner.metric("refusals_total{reason=\"spoofed_flood\"}")?, 1.0);
    assert!(actioner.log().contains("tcp_syncookies"), "{}", actioner.log());
    let answer = about("Dead", dead)?;
    assert_eq!(count(&answer, "banned"), 1, "{answer}");
    drop(flood);

    server.command(&["conntrack", "-D", "-s", &prefix.to_string()])?;
    let answer = about("Hoarder", framed)?;
    assert_eq!(count(&answer, "banned"), 1, "{answer}");
    assert_eq!(actioner.metric("spoofed_flood")?, 0.0);
    Ok(())
}
