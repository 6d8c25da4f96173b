//! An attacker and honest clients behind one address: the running actioner frees the slots, and nobody honest notices.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpStream},
};

use tests::{
    Result,
    attack::{self, Pace},
    guard::Guard,
    listing::{Entry, list},
    netns::Namespace,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::{
    PATIENCE,
    bury::behind,
    connect,
    kinds::{FAMILIES, ask, make_deletion_fatal},
};

/// Slots that the attacker takes, in each family.
const SLOTS: usize = 300;
/// Honest connections that sit idle meanwhile, in each family.
const IDLE: usize = 200;

const POLICY: &str = "\
enforce: true
never_ban: []
socketless_grace: 3s
watch:
  interval: 500ms
  every: 500ms
  alerts: [{alert: DeadSlots, source: {socketless: 50}}]
rules:
- name: dead
  matchers: [alertname=DeadSlots]
  sources: {label: source}
  require: {source: {socketless: 1}}
  actions: [{delete: socketless}]
";

fn entries_of(server: &Namespace, address: IpAddr) -> Vec<Entry> {
    let address = address.to_string();
    list(server)
        .unwrap()
        .into_iter()
        .filter(|entry| entry.source() == address && entry.protocol == 6)
        .collect()
}

#[test]
fn delete_socketless_frees_the_slots_and_breaks_no_honest_connection() -> Result<()> {
    let scene = Topology::direct(&["nat"])?;
    let [attacker, honest] = behind(&scene.peer("nat").namespace, ["attacker", "honest"])?;
    let server = &scene.server;
    server.sysctl("net/ipv4/tcp_synack_retries", "1")?;
    let mut responders = Vec::new();
    let mut idle: Vec<TcpStream> = Vec::new();
    let at = |family| -> SocketAddr { scene.server_socket(family, 80) };
    for family in FAMILIES {
        responders.push(Responder::start(server, at(family), Accept::Deferred, KeepAlive::Off)?);
        wait_until("the way through the translation", PATIENCE, || {
            honest.run(|| TcpStream::connect(at(family))).map(|mut stream| ask(&mut stream))
        })?;
        idle.extend((0..IDLE).map(|_| connect(&honest, at(family))));
        idle.iter_mut().for_each(ask);
    }
    let of_honest: BTreeSet<(IpAddr, u16)> = idle
        .iter()
        .map(|stream| (stream.peer_addr().unwrap().ip(), stream.local_addr().unwrap().port()))
        .collect();
    assert_eq!(of_honest.len(), 2 * IDLE);
    make_deletion_fatal(server)?;
    for (family, own) in [(Family::V4, "198.18.0.2"), (Family::V6, "2001:db8:18:0::2")] {
        let pace = Pace { count: SLOTS, per_second: u32::MAX, within: PATIENCE };
        let tally = attack::slow_fill(&attacker, vec![own.parse().unwrap()], at(family), pace)?.finish();
        assert_eq!(tally.made, SLOTS, "{tally:?}");
        let together = entries_of(server, scene.peer("nat").address(family)).len();
        assert!(together >= SLOTS + IDLE, "{together} entries behind the one address");
    }

    let guard = Guard::start(server, POLICY)?;
    wait_until("every slot of the attacker to be free", 2 * PATIENCE, || {
        match guard.metric("deleted_entries_total{rule=\"dead\"}").unwrap_or(0.0) {
            deleted if deleted >= (2 * SLOTS) as f64 => Ok(()),
            deleted => Err(format!("{deleted} deleted\n{}", guard.running.process.log())),
        }
    })?;
    let looked = guard.dumps()?;
    wait_until("three more looks, which delete nothing", PATIENCE, || match guard.dumps().unwrap() {
        looks if looks >= looked + 3.0 => Ok(()),
        looks => Err(looks),
    })?;
    assert_eq!(guard.metric("deleted_entries_total{rule=\"dead\"}")?, (2 * SLOTS) as f64);
    for family in FAMILIES {
        let left = entries_of(server, scene.peer("nat").address(family));
        let established = left.iter().filter(|entry| entry.state.as_deref() == Some("ESTABLISHED")).count();
        assert_eq!(established, IDLE, "those of the honest and no other");
    }
    idle.iter_mut().for_each(ask);
    for family in FAMILIES {
        ask(&mut connect(&honest, at(family)));
    }
    Ok(())
}
