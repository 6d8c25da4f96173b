//! When the watch looks, what it raises, and what of it is news.

use crate::scene::{Desk, host, now, only, table, with};
use conntrack_actioner::alert::Origin;
use conntrack_actioner::evidence::TableFill;
use conntrack_actioner::now::Now;
use conntrack_actioner::plan::Decision;
use conntrack_actioner::policy::{Policy, Watch};
use conntrack_actioner::pressure::{LastDump, Look, Losses};
use conntrack_actioner::watch::{MOST, Told, raise};
use std::time::Duration;

const RULES: &str = "
- name: hoarder
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {assured: 30}}
  actions: [{ban: {for: 10m}}]
- name: largest
  matchers: ['alertname=\"Full\"', 'severity=\"info\"']
  sources: {top: 1}
  require: {source: {assured: 30}}
  actions: [{ban: {for: 10m}}]
";

fn policy(alerts: &str) -> Policy {
    let head =
        format!("enforce: true\nnever_ban: []\nwatch:\n  interval: 1s\n  every: 30s\n  alerts:\n{alerts}");
    with(&head, RULES)
}

fn watch(policy: &Policy) -> &Watch {
    policy.watch.as_ref().unwrap()
}

const HOARDER: &str =
    "  - {alert: Hoarder, source: {assured: 30}, table: {fill_percent: 50}, labels: {severity: info}}\n";
const FULL: &str = "  - {alert: Full, host: {entries: 100}, labels: {severity: info}}\n";

fn fill(entries: u64) -> TableFill {
    TableFill { entries, limit: 1000 }
}

fn dumped(seconds: f64, took: f64, entries: u64) -> Option<LastDump> {
    Some(LastDump { at: now(seconds).boot, took: Duration::from_secs_f64(took), entries, losses: None })
}

fn due(watch: &Watch, last: Option<LastDump>, fill: TableFill, now: Now) -> bool {
    conntrack_actioner::pressure::due(watch, last, Look { fill, losses: None }, now)
}

#[test]
fn when_it_looks() {
    let policy = policy(HOARDER);
    let looks = |last, entries, at| due(watch(&policy), last, fill(entries), now(at));
    assert!(looks(None, 0, 0.0), "at once when it starts");
    assert!(!looks(dumped(0.0, 0.1, 0), 0, 29.9), "in peace as rarely as `every` says");
    assert!(looks(dumped(0.0, 0.1, 0), 0, 30.0));
    assert!(!looks(dumped(0.0, 0.1, 500), 499, 1.0));
    assert!(looks(dumped(0.0, 0.1, 500), 500, 1.0), "as full as an alert asks for: at every look");
    assert!(!looks(dumped(0.0, 0.1, 500), 500, 0.9), "never twice in an interval");
    assert!(looks(dumped(0.0, 0.1, 0), 100, 1.0), "grown by a tenth of the limit since");
    assert!(!looks(dumped(0.0, 0.1, 0), 99, 1.0));
    assert!(!looks(dumped(0.0, 2.0, 900), 900, 9.9), "slow dumps take a fifth of the time at most");
    assert!(looks(dumped(0.0, 2.0, 900), 900, 10.0));
    assert!(!looks(dumped(0.0, 2.0, 499), 500, 1.9));
    assert!(looks(dumped(0.0, 2.0, 499), 500, 2.0), "but pressure that is new does not wait for that");
    let unlimited = TableFill { entries: 1_000_000, limit: 0 };
    assert!(!due(watch(&policy), dumped(0.0, 0.1, 0), unlimited, now(1.0)));
}

#[test]
fn a_number_of_entries_presses_as_a_part_of_the_limit_does() {
    let policy = policy("  - {alert: Hoarder, source: {assured: 30}, table: {entries: 500}}\n");
    let unlimited = |entries| TableFill { entries, limit: 0 };
    assert!(!due(watch(&policy), dumped(0.0, 0.1, 0), unlimited(499), now(1.0)));
    assert!(due(watch(&policy), dumped(0.0, 0.1, 0), unlimited(500), now(1.0)));
}

#[test]
fn an_alert_that_asks_for_no_fill_is_looked_for_once_so_many_were_made() {
    let policy = policy(
        "  - {alert: Dead, host: {socketless: 100}}\n  - {alert: Hoarder, source: {assured: 300, entries: 20}}\n  - {alert: Full, host: {entries: 2}, table: {fill_percent: 90}}\n",
    );
    let unlimited = |entries| TableFill { entries, limit: 0 };
    for (before, entries, after, expected) in [
        (1000, 1099, 1.0, false),
        (1000, 1100, 1.0, true),
        (1000, 1100, 0.9, false),
        (1000, 0, 1.0, false),
        (1000, 9999, 29.9, true),
        (0, 99, 29.9, false),
    ] {
        let due = due(watch(&policy), dumped(0.0, 0.1, before), unlimited(entries), now(after));
        assert_eq!(due, expected, "{before} → {entries} after {after} s");
    }
    assert!(!due(watch(&policy), dumped(0.0, 2.0, 0), unlimited(5000), now(9.9)), "a fifth of the time");
    assert!(due(watch(&policy), dumped(0.0, 2.0, 0), unlimited(5000), now(10.0)));
}

#[test]
fn what_a_full_table_costs_is_a_reason_to_look() {
    let policy = policy(HOARDER);
    let losses = |early_drop, drop, insert_failed| Losses { early_drop, drop, insert_failed };
    let before = losses(10, 20, 30);
    for (after, expected) in [
        (None, false),
        (Some(before), false),
        (Some(losses(11, 20, 30)), true),
        (Some(losses(10, 21, 30)), true),
        (Some(losses(10, 25, 35)), false),
        (Some(losses(10, 26, 35)), true),
        (Some(losses(0, 0, 0)), false),
    ] {
        let last = LastDump { losses: Some(before), ..dumped(0.0, 0.1, 400).unwrap() };
        let look = Look { fill: fill(400), losses: after };
        let due = |at| conntrack_actioner::pressure::due(watch(&policy), Some(last), look, now(at));
        assert_eq!(due(1.0), expected, "{after:?}");
        assert!(!due(0.9));
    }
    let unknown = dumped(0.0, 0.1, 400);
    let look = Look { fill: fill(400), losses: Some(before) };
    assert!(!conntrack_actioner::pressure::due(watch(&policy), unknown, look, now(1.0)));
}

#[test]
fn whom_it_raises() {
    let policy = policy(HOARDER);
    let summary = table(&[("198.51.100.1", 30, 0), ("198.51.100.2", 29, 99), ("2001:db8:1::1", 31, 0)]);
    assert!(raise(watch(&policy), &summary, fill(499), &host()).is_empty(), "not full enough");
    let alerts = raise(watch(&policy), &summary, fill(500), &host());
    let sources: Vec<_> = alerts.iter().map(|alert| alert.label("source")).collect();
    assert_eq!(sources, ["2001:db8:1::1", "198.51.100.1"], "the largest first");
    for alert in &alerts {
        assert!(alert.firing && alert.origin == Origin::Watch);
        let labels = ["alertname", "severity", "table_id", "instance"].map(|name| alert.label(name));
        assert_eq!(labels, ["Hoarder", "info", "feed", "web1"]);
        assert_eq!(alert.fingerprint.len(), 16);
    }
    assert_ne!(alerts[0].fingerprint, alerts[1].fingerprint);
    let again = raise(watch(&policy), &summary, fill(500), &host());
    assert_eq!(alerts, again, "the same state is the same alert");
}

#[test]
fn an_alert_about_the_host_comes_once_and_without_a_source() {
    let policy = policy(FULL);
    let summary = |entries| {
        let mut summary = table(&[("198.51.100.1", 60, 0)]);
        summary.entries = entries;
        summary
    };
    assert!(raise(watch(&policy), &summary(99), fill(0), &host()).is_empty());
    let alerts = raise(watch(&policy), &summary(100), fill(0), &host());
    assert_eq!(alerts.iter().map(|alert| alert.label("source")).collect::<Vec<_>>(), [""]);

    let mut desk = Desk::new(policy, &[("198.51.100.1", 60, 0), ("198.51.100.2", 40, 0)]);
    assert!(
        matches!(only(&desk.act(&alerts[0], now(0.0))), Decision::Ban(ban) if ban.net.to_string() == "198.51.100.1/32")
    );
}

#[test]
fn a_flood_of_sources_is_raised_up_to_a_bound() {
    let policy = policy("  - {alert: Hoarder, source: {entries: 1}}\n");
    let mut summary = table(&[]);
    for host in 0..=MOST as u32 {
        summary.sources.add(std::net::Ipv4Addr::from_bits(0xc612_0000 + host).into(), true, false, false);
    }
    assert_eq!(raise(watch(&policy), &summary, fill(0), &host()).len(), MOST);
}

#[test]
fn what_is_news() {
    let mut told = Told::default();
    let him = Some("198.51.100.1".parse().unwrap());
    let other = Some("198.51.100.2".parse().unwrap());
    // One dump a line: what is said of him, and whether it is news.
    for (word, news) in [
        (Some("require_not_met"), true),
        (Some("require_not_met"), false),
        (Some("ban"), true),
        (Some("already_banned"), false),
        (Some("already_banned"), false),
        (Some("budget_exhausted"), true),
        (None, false),
        (Some("budget_exhausted"), true),
    ] {
        told.begin();
        if let Some(word) = word {
            assert_eq!(told.is_news("A", him, word), news, "{word}");
        }
        assert_eq!(
            told.is_news("A", other, "no_rule"),
            word == Some("require_not_met") && news,
            "others have stories of their own"
        );
    }
    assert!(told.is_news("B", him, "budget_exhausted"), "and so have alerts");
}
