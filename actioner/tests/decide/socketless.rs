//! Dead slots: deleted whoever made them, never guessed at.

use crate::scene::{Desk, about, ban, now, policy, refusal};
use conntrack::summary::Judged;
use conntrack_actioner::decide::{Scene, decide_all};
use conntrack_actioner::nominate::Nominator;
use conntrack_actioner::plan::{Decision, Plan, Whose};
use conntrack_actioner::policy::DeleteAction;
use conntrack_actioner::spared::Called;
use std::sync::Arc;

const DEAD: &str = "
- name: dead
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {socketless: 50}}
  actions: [{delete: socketless}]
";
const ALL: &str = "
- name: all
  matchers: ['alertname=\"Hoarder\"']
  sources: all
  actions: [{delete: socketless}]
";

/// 198.51.100.66 holds so many dead slots among 100 assured entries.
fn desk(rules: &str, dead: u32) -> Desk {
    let mut desk = Desk::new(policy(rules), &[("198.51.100.66", 100 - dead, 0)]);
    let source = "198.51.100.66".parse().unwrap();
    (0..dead).for_each(|_| desk.table.sources.add(source, true, false, true));
    desk.table.judged = Some(Judged { socketless: u64::from(dead), deferred: 0 });
    desk
}

fn decide_for_all(desk: &Desk) -> Plan {
    let scene = Scene { host: &desk.host, table: desk.fill, flood: None, now: now(0.0) };
    decide_all(&desk.policy, &desk.state, &desk.policy.rules[0], Nominator::new(&desk.table).all(), scene)
}

fn decision(plan: &Plan) -> &Decision {
    &plan.verdicts[0].decision
}

#[test]
fn enough_dead_slots_of_a_source_are_deleted_and_too_few_are_not() {
    let plan = desk(DEAD, 50).plan(&about("198.51.100.66"), now(0.0));
    let of = "198.51.100.66/32".parse().unwrap();
    assert_eq!(decision(&plan), &Decision::DeleteSocketless(Whose::Of(of)));
    assert_eq!(plan.verdicts[0].evidence.unwrap().socketless, Some(50));
    let plan = desk(DEAD, 49).plan(&about("198.51.100.66"), now(0.0));
    assert_eq!(refusal(&plan).reason(), "require_not_met");
}

#[test]
fn what_was_not_judged_is_refused_and_never_zero() {
    let mut desk = desk(DEAD, 80);
    desk.table.judged = None;
    assert_eq!(refusal(&desk.plan(&about("198.51.100.66"), now(0.0))).reason(), "evidence_unavailable");
    desk.policy = policy(ALL);
    assert_eq!(refusal(&decide_for_all(&desk)).reason(), "evidence_unavailable");
}

#[test]
fn the_rule_for_all_deletes_when_there_is_anything_dead() {
    assert_eq!(decision(&decide_for_all(&desk(ALL, 1))), &Decision::DeleteSocketless(Whose::Everybodys));
    let plan = decide_for_all(&desk(ALL, 0));
    assert_eq!(refusal(&plan).reason(), "require_not_met");
    assert!(refusal(&plan).to_string().starts_with("no dead slots left"), "{}", refusal(&plan));
}

#[test]
fn neither_do_the_hosts_own_facts_nor_a_flood() {
    let mut desk = desk(DEAD, 60);
    let him = "198.51.100.66".parse().unwrap();
    desk.host.spared.resolvers.insert(him);
    desk.host.spared.called = Arc::new(Called::of([him], [him], false));
    crate::scene::forge(&mut desk.table, 5000);
    desk.liberal = true;
    let plan = desk.plan(&about("198.51.100.66"), now(0.0));
    assert!(matches!(decision(&plan), Decision::DeleteSocketless(_)), "{plan:?}");
}

#[test]
fn the_never_banned_list_and_the_budget_do_not_stop_it() {
    let mut desk = desk(DEAD, 60);
    desk.policy = crate::scene::with(
        "enforce: true\nnever_ban: [198.51.100.66]\nlimits: {bans_per_minute: 1, bans_per_hour: 1}\n",
        DEAD,
    );
    for second in 0..3 {
        let plan = desk.act(&about("198.51.100.66"), now(f64::from(second)));
        assert!(matches!(decision(&plan), Decision::DeleteSocketless(_)), "{plan:?}");
    }
    assert_eq!(desk.state.active(now(3.0)), 0, "nobody is banned by it");
}

#[test]
fn a_ban_on_dead_slots_deletes_those_alone() {
    let rules = DEAD.replace("{delete: socketless}", "{ban: {for: 1h}}, {delete: socketless}");
    let plan = desk(&rules, 60).plan(&about("198.51.100.66"), now(0.0));
    assert_eq!(ban(&plan).delete, Some(DeleteAction::Socketless));
    assert_eq!(decision(&plan).socketless_of(), Some(Whose::Of("198.51.100.66/32".parse().unwrap())));
    // A source with as many living connections and nothing dead is no offender.
    assert_eq!(refusal(&desk(&rules, 0).plan(&about("198.51.100.66"), now(0.0))).reason(), "require_not_met");
}
