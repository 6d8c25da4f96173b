//! `delete: socketless`: dead slots go, whoever made them, and nothing else does.

use std::time::Duration;

use serde_json::Value;
use tests::{
    Result,
    attack::{Attack, Pace, hoard},
    listing::Entry,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::lab::{Actioner, Home, SOON, count, sets, with_end};

const POLICY: &str = "\
enforce: true
never_ban: []
socketless_grace: 3s
rules:
- name: dead
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {socketless: 20}}
  actions: [{delete: socketless}]
";
const DEAD: usize = 40;
const ALIVE: usize = 15;
/// Idle for 1,000 s of the five days.
const IDLE: u32 = 431_000;

/// A server, and one address behind which dead slots and living, idle connections stand.
struct Shared {
    topology: Topology,
    _responder: Responder,
    living: Attack,
    address: String,
}

impl Shared {
    fn new(family: Family) -> Result<Shared> {
        let topology = Topology::direct(&["shared"])?;
        let server = &topology.server;
        let target = topology.server_socket(family, 80);
        let responder = Responder::start(server, target, Accept::AtOnce, KeepAlive::Off)?;
        let peer = topology.peer("shared");
        let pace = Pace { count: ALIVE, per_second: 1000, within: Duration::from_secs(10) };
        let living = hoard(&peer.namespace, vec![peer.address(family)], target, pace)?;
        wait_until("the living connections", SOON, || match living.made() {
            ALIVE => Ok(()),
            other => Err(other),
        })?;
        let address = peer.address(family).to_string();
        let to = topology.server_address(family);
        let lines: String = (0..DEAD)
            .map(|number| {
                let port = 1000 + number;
                format!("-I -s {address} -d {to} -p tcp --sport {port} --dport 80 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t {IDLE}\n")
            })
            .collect();
        server.command_with_input(&["conntrack", "--load-file", "-"], &lines)?;
        let shared = Shared { living, address, _responder: responder, topology };
        wait_until("the living to be idle for longer than the grace", SOON, || {
            let left =
                shared.entries().unwrap().iter().filter_map(|entry| entry.timeout).max().unwrap_or(u32::MAX);
            if left < 432_000 - 4 { Ok(()) } else { Err(left) }
        })?;
        Ok(shared)
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        with_end(&self.topology.server, &self.address)
    }

    /// Where others want every CPU the dumps may take longer than the grace, and nothing can be told: then the next alert tells.
    fn alert(&self, actioner: &Actioner<'_>) -> Result<Value> {
        wait_until("dumps within the grace", SOON, || {
            match actioner.alert(&[&self.address]).map_err(|failure| failure.to_string())? {
                answer if answer["reasons"]["evidence_unavailable"].is_null() => Ok(answer),
                answer => Err(answer.to_string()),
            }
        })
    }

    /// Every living connection still is one: its socket is there, and so is its entry.
    fn all_live(&self) -> Result<()> {
        let listed = ["ss", "-Htn", "state", "established", "dst", &format!("[{}]", self.address)];
        assert_eq!(self.topology.server.output(&listed)?.lines().count(), ALIVE);
        assert_eq!(self.living.made(), ALIVE);
        Ok(())
    }
}

fn only_the_dead_go(family: Family) -> Result<()> {
    let shared = Shared::new(family)?;
    let server = &shared.topology.server;
    let actioner = Home::new(POLICY);
    let actioner = actioner.start(server)?;
    let answer = shared.alert(&actioner)?;
    assert_eq!(count(&answer, "socketless_deleted"), 1, "{answer}\n{}", actioner.log());
    assert_eq!(shared.entries()?.len(), ALIVE, "the living keep theirs");
    shared.all_live()?;
    assert_eq!(actioner.metric("deleted_entries_total{rule=\"dead\"}")?, DEAD as f64);
    let line = actioner.audit().pop().unwrap();
    assert_eq!(
        (&line["verdict"], &line["result"]["entries_deleted"]),
        (&"delete_socketless".into(), &DEAD.into())
    );
    assert_eq!(line["evidence"]["socketless"], DEAD);
    // Nobody was banned, and a second alert finds nothing dead.
    assert_eq!(actioner.metric("enforced_bans")?, 0.0);
    assert_eq!(count(&shared.alert(&actioner)?, "refused"), 1);
    assert_eq!(shared.entries()?.len(), ALIVE);
    Ok(())
}

#[test]
fn dead_slots_go_and_living_connections_behind_the_same_address_stay() -> Result<()> {
    only_the_dead_go(Family::V4)
}

#[test]
fn the_same_over_ipv6() -> Result<()> {
    only_the_dead_go(Family::V6)
}

#[test]
fn dry_run_counts_them_and_deletes_none() -> Result<()> {
    let shared = Shared::new(Family::V4)?;
    let home = Home::new(&POLICY.replace("enforce: true", "enforce: false"));
    let actioner = home.start(&shared.topology.server)?;
    assert_eq!(count(&shared.alert(&actioner)?, "dry_run"), 1);
    assert_eq!(shared.entries()?.len(), ALIVE + DEAD);
    assert_eq!(sets(&shared.topology.server)?, [""; 0]);
    assert_eq!(actioner.audit().pop().unwrap()["evidence"]["socketless"], DEAD);
    Ok(())
}

/// The gentlest cure comes by itself: the watch raises the host's alert, and a rule for all sources clears it.
#[test]
fn the_watch_clears_dead_slots_by_itself() -> Result<()> {
    let shared = Shared::new(Family::V4)?;
    let policy = "\
enforce: true
never_ban: [private, 0.0.0.0/0]
socketless_grace: 3s
watch:
  interval: 1s
  every: 1s
  alerts: [{alert: ConntrackSocketlessEntries, host: {socketless: 30}}]
rules:
- name: dead-slots
  matchers: ['alertname=\"ConntrackSocketlessEntries\"']
  sources: all
  actions: [{delete: socketless}]
";
    let home = Home::new(policy);
    let actioner = home.start(&shared.topology.server)?;
    wait_until("the dead slots to be gone", SOON, || match shared.entries().unwrap().len() {
        ALIVE => Ok(()),
        other => Err(format!("{other} entries\n{}", actioner.log())),
    })?;
    shared.all_live()?;
    wait_until("the audit line", SOON, || actioner.audit().pop().ok_or("none"))?;
    let lines = actioner.audit();
    assert_eq!(
        (&lines[0]["origin"], &lines[0]["result"]["entries_deleted"]),
        (&"watch".into(), &DEAD.into())
    );
    let looked = actioner.dumps()?;
    wait_until("two more looks, which must find nothing to say", SOON, || match actioner.dumps().unwrap() {
        looks if looks >= looked + 2.0 => Ok(()),
        looks => Err(looks),
    })?;
    assert_eq!(actioner.audit().len(), lines.len());
    Ok(())
}

/// Where the kernel's timeouts leave no room between idle and busy, nothing is guessed.
#[test]
fn what_cannot_be_told_is_refused() -> Result<()> {
    let shared = Shared::new(Family::V4)?;
    let server = &shared.topology.server;
    let home = Home::new(POLICY);
    let actioner = home.start(server)?;
    server.sysctl("net/netfilter/nf_conntrack_tcp_timeout_established", "300")?;
    let answer = actioner.alert(&[&shared.address])?;
    assert_eq!(count(&answer, "refused"), 1, "{answer}");
    assert_eq!(answer["reasons"]["evidence_unavailable"]["count"], 1, "{answer}");
    assert!(actioner.log().contains("cannot be told"), "{}", actioner.log());
    assert_eq!(shared.entries()?.len(), ALIVE + DEAD);
    Ok(())
}
