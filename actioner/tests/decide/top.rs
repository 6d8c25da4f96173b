//! `sources: {top: N}` and bans of prefixes.

use crate::scene::{Desk, alert, now, policy, refusal};
use conntrack_actioner::alert::Alert;
use conntrack_actioner::nominate::Nominator;
use conntrack_actioner::plan::{Decision, Plan};
use conntrack_actioner::refusal::Refusal;
use std::net::IpAddr;

fn rules(top: usize, require: &str) -> String {
    format!(
        "
- name: largest
  matchers: ['alertname=\"Full\"']
  sources: {{top: {top}}}
  require: {{source: {{{require}}}}}
  actions: [{{ban: {{for: 10m}}}}]
"
    )
}

fn full() -> Alert {
    alert(&[("alertname", "Full")])
}

fn sources(plan: &Plan) -> Vec<String> {
    plan.verdicts.iter().map(|verdict| verdict.source.unwrap().to_string()).collect()
}

const TABLE: [(&str, u32, u32); 5] = [
    ("198.51.100.3", 10, 90),
    ("198.51.100.2", 40, 0),
    ("198.51.100.1", 40, 0),
    ("2001:db8:1::1", 50, 5),
    ("198.51.100.9", 0, 500),
];

#[test]
fn the_rank_is_what_the_rule_requires() {
    for (require, expected) in [
        ("assured: 1", ["2001:db8:1::1", "198.51.100.1", "198.51.100.2"]),
        ("entries: 1", ["198.51.100.9", "198.51.100.3", "2001:db8:1::1"]),
        ("assured: 1, half_open: 1", ["2001:db8:1::1", "198.51.100.1", "198.51.100.2"]),
    ] {
        let desk = Desk::new(policy(&rules(3, require)), &TABLE);
        assert_eq!(sources(&desk.plan(&full(), now(0.0))), expected, "{require}");
    }
}

#[test]
fn each_of_them_is_judged_by_itself() {
    let desk = Desk::new(policy(&rules(10, "assured: 41")), &TABLE);
    let plan = desk.plan(&full(), now(0.0));
    let banned = plan.verdicts.iter().filter_map(|verdict| match &verdict.decision {
        Decision::Ban(ban) => Some(ban.net.addr()),
        _ => None,
    });
    let banned: Vec<IpAddr> = banned.collect();
    assert_eq!(banned, ["2001:db8:1::1".parse::<IpAddr>().unwrap()]);
    assert_eq!(plan.verdicts.len(), 4, "the one without an assured entry is not even named");
}

#[test]
fn this_host_is_never_among_them() {
    let mut desk = Desk::new(policy(&rules(10, "assured: 1")), &TABLE);
    for own in ["192.0.2.1", "203.0.113.200", "2001:db8::1"] {
        (0..1000).for_each(|_| desk.table.sources.add(own.parse().unwrap(), true, false, false));
    }
    desk.table.set_local_apart(&desk.host.own.clone());
    let named = sources(&desk.plan(&full(), now(0.0)));
    assert_eq!(named[0], "2001:db8:1::1");
    assert_eq!(named.len(), 4, "{named:?}");
}

#[test]
fn one_budget_for_all_of_them() {
    let policy = crate::scene::with(
        "enforce: true\nnever_ban: []\nlimits: {bans_per_minute: 2}\n",
        &rules(10, "assured: 1"),
    );
    let desk = Desk::new(policy, &TABLE);
    let words: Vec<_> = desk.plan(&full(), now(0.0)).verdicts.iter().map(|v| v.decision.word()).collect();
    assert_eq!(words, ["ban", "ban", "refused", "refused"]);
}

#[test]
fn an_empty_table_meets_no_requirement() {
    let desk = Desk::new(policy(&rules(10, "assured: 5")), &[]);
    let plan = desk.plan(&full(), now(0.0));
    assert_eq!(plan.verdicts[0].source, None);
    assert!(
        matches!(refusal(&plan), Refusal::RequireNotMet { what: "source.assured", found: 0.0, .. }),
        "{plan:?}"
    );
}

#[test]
fn asked_for_more_than_before_it_looks_again() {
    let desk = Desk::new(policy(&rules(3, "assured: 1")), &TABLE);
    let mut nominator = Nominator::new(&desk.table);
    for most in [1, 4, 2, 3] {
        let top = nominator.top(&desk.policy.rules[0], most);
        assert_eq!(top.len(), most);
        assert_eq!(top[0].0, "2001:db8:1::1".parse::<IpAddr>().unwrap());
    }
}

const PREFIX: &str = "
- name: prefixes
  matchers: ['alertname=\"Full\"']
  sources: {top: 10}
  require: {source: {assured: 100}}
  actions: [{ban: {for: 10m, ipv4_prefix: 24, ipv6_prefix: 64}}]
";

#[test]
fn a_prefix_is_judged_by_all_its_hosts_and_banned_once() {
    let limits = "enforce: true\nnever_ban: []\nlimits: {widest_prefix: {ipv4: 24, ipv6: 64}}\n";
    let table = [
        ("198.51.100.3", 60, 3),
        ("198.51.100.2", 40, 0),
        ("203.0.113.7", 99, 0),
        ("2001:db8:7::1", 60, 0),
        ("2001:db8:7::2", 40, 0),
        ("2001:db8:7:1::3", 99, 0),
    ];
    let desk = Desk::new(crate::scene::with(limits, PREFIX), &table);
    let plan = desk.plan(&full(), now(0.0));
    let said = |source: &str| {
        let verdict = plan.verdicts.iter().find(|v| v.source == Some(source.parse().unwrap())).unwrap();
        (
            verdict.decision.word(),
            verdict.decision.net().map(|net| net.to_string()),
            verdict.evidence.unwrap().assured,
        )
    };
    assert_eq!(said("198.51.100.3"), ("ban", Some("198.51.100.0/24".into()), 100));
    assert_eq!(said("198.51.100.2"), ("already_banned", Some("198.51.100.0/24".into()), 100));
    assert_eq!(said("2001:db8:7::1"), ("ban", Some("2001:db8:7::/64".into()), 100));
    assert_eq!(said("2001:db8:7::2"), ("already_banned", Some("2001:db8:7::/64".into()), 100));
    assert_eq!(said("203.0.113.7"), ("refused", None, 99));
    assert_eq!(said("2001:db8:7:1::3"), ("refused", None, 99));
}
