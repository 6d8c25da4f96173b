//! The order of judgement: table identity → matchers → require → never banned → budget.

use crate::scene::{
    Desk, HOARDER, about, alert, ban, forge, host, is_repeat, now, only, policy, refusal, table, with,
};
use conntrack_actioner::evidence::{Evidence, TableFill};
use conntrack_actioner::plan::Decision;
use conntrack_actioner::policy::DeleteAction;
use conntrack_actioner::refusal::Refusal;
use conntrack_actioner::source;
use std::time::Duration;

const MINUTES_10: Duration = Duration::from_secs(600);

#[test]
fn a_hoarder_is_banned_and_his_entries_deleted() {
    let mut desk = Desk::new(policy(HOARDER), &[("198.51.100.66", 300, 0)]);
    let plan = desk.act(&about("198.51.100.66"), now(0.0));
    assert!(plan.enforce);
    let ban = ban(&plan);
    assert_eq!((ban.net, ban.lasts, ban.offence), ("198.51.100.66/32".parse().unwrap(), MINUTES_10, 1));
    assert_eq!(ban.delete, Some(DeleteAction::All));
    let evidence = Evidence { entries: 300, assured: 300, half_open: 0, socketless: None };
    assert_eq!(plan.verdicts[0].evidence, Some(evidence));
}

/// Each step of the order, told apart by what everything behind it would have said: with every reason to refuse at once the
/// first is given; take it away and the next is.
#[test]
fn the_order_of_judgement() {
    let text = "enforce: true\nnever_ban: [198.51.100.66]\nlimits: {bans_per_minute: 1}\n";
    let mut desk = Desk::new(with(text, HOARDER), &[("198.51.100.66", 299, 9), ("198.51.100.67", 300, 0)]);
    assert!(matches!(only(&desk.act(&about("198.51.100.67"), now(0.0))), Decision::Ban(_)));
    let him: std::net::IpAddr = "198.51.100.66".parse().unwrap();
    desk.host.spared.resolvers.insert(him);
    forge(&mut desk.table, 5000);

    let mut labels = vec![("alertname", "Other"), ("source", "198.51.100.66"), ("table_id", "beef")];
    assert_eq!(refusal(&desk.plan(&alert(&labels), now(0.0))).reason(), "other_host");
    labels[2].1 = "feed";
    assert_eq!(refusal(&desk.plan(&alert(&labels), now(0.0))).reason(), "no_rule");
    labels[0].1 = "Hoarder";
    assert_eq!(refusal(&desk.plan(&alert(&labels), now(0.0))).reason(), "require_not_met");
    desk.table.sources.add(him, true, false, false);
    assert_eq!(refusal(&desk.plan(&alert(&labels), now(0.0))).reason(), "resolver");
    desk.host.spared.resolvers.clear();
    assert_eq!(refusal(&desk.plan(&alert(&labels), now(0.0))).reason(), "never_ban");
    desk.policy = with("enforce: true\nnever_ban: []\nlimits: {bans_per_minute: 1}\n", HOARDER);
    assert_eq!(refusal(&desk.plan(&alert(&labels), now(0.0))).reason(), "spoofed_flood");
    desk.table = table(&[("198.51.100.66", 300, 9)]);
    assert_eq!(refusal(&desk.plan(&alert(&labels), now(0.0))).reason(), "budget_exhausted");
    assert!(matches!(only(&desk.plan(&alert(&labels), now(60.0))), Decision::Ban(_)));
}

/// Own entries are set apart before any source's are counted, so "0 entries" would be a riddle.
#[test]
fn a_source_that_is_this_host_is_called_so_and_not_innocent() {
    let mut desk = Desk::new(policy(HOARDER), &[("192.0.2.1", 300, 0)]);
    desk.table.set_local_apart(&desk.host.own);
    for own in ["192.0.2.1", "::ffff:192.0.2.1", "203.0.113.200"] {
        assert_eq!(refusal(&desk.plan(&about(own), now(0.0))).reason(), "own_address", "{own}");
    }
}

#[test]
fn which_hosts_alert_it_is() {
    let desk = Desk::new(policy(HOARDER), &[("198.51.100.66", 300, 0)]);
    let ours = |labels: &[(&str, &str)]| {
        let mut alert = about("198.51.100.66");
        alert.labels.remove("table_id");
        alert.labels.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        match only(&desk.plan(&alert, now(0.0))) {
            Decision::Ban(_) => true,
            Decision::Refused(Refusal::OtherHost(_)) => false,
            other => panic!("{labels:?}: {other:?}"),
        }
    };
    assert!(ours(&[("table_id", "feed")]));
    assert!(ours(&[("table_id", "feed"), ("instance", "127.0.0.1:10048")]));
    assert!(!ours(&[("table_id", "beef"), ("instance", "192.0.2.1:10048")]));
    for instance in
        ["192.0.2.1:10048", "192.0.2.1", "web1:10048", "Web1", "[2001:db8::1]:10048", "203.0.113.200:1"]
    {
        assert!(ours(&[("instance", instance)]), "{instance}");
        assert!(ours(&[("instance", instance), ("table_id", "")]), "{instance}, empty table_id");
    }
    for instance in [
        "127.0.0.1:10048",
        "localhost:10048",
        "[::1]:10048",
        "192.0.2.2:10048",
        "web2",
        "web1.example.org:1",
        "",
    ] {
        assert!(!ours(&[("instance", instance)]), "{instance}");
    }
    assert!(!ours(&[]));
}

#[test]
fn this_host_by_matchers_replaces_the_identity() {
    let text = "enforce: true\nnever_ban: []\nthis_host: ['cluster=\"a\"']\n";
    let desk = Desk::new(with(text, HOARDER), &[("198.51.100.66", 300, 0)]);
    let mut alert = about("198.51.100.66");
    alert.labels.insert("table_id".into(), "beef".into());
    assert_eq!(refusal(&desk.plan(&alert, now(0.0))).reason(), "other_host");
    alert.labels.insert("cluster".into(), "a".into());
    assert!(matches!(only(&desk.plan(&alert, now(0.0))), Decision::Ban(_)));
}

#[test]
fn the_first_rule_that_matches_decides_even_if_it_then_refuses() {
    let rules = "
- name: strict
  matchers: ['alertname=\"Hoarder\"', 'severity=~\"warning|critical\"']
  sources: {label: source}
  require: {source: {assured: 1000}}
  actions: [{ban: {for: 1h}}]
- name: mild
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {assured: 10}}
  actions: [{ban: {for: 1m}}]
";
    let desk = Desk::new(policy(rules), &[("198.51.100.66", 300, 0)]);
    let mut alert = about("198.51.100.66");
    let plan = desk.plan(&alert, now(0.0));
    assert_eq!((plan.rule.as_deref(), ban(&plan).lasts), (Some("mild"), Duration::from_secs(60)));
    alert.labels.insert("severity".into(), "critical".into());
    let plan = desk.plan(&alert, now(0.0));
    assert_eq!((plan.rule.as_deref(), refusal(&plan).reason()), (Some("strict"), "require_not_met"));
    alert.labels.insert("severity".into(), "xcriticalx".into());
    assert_eq!(desk.plan(&alert, now(0.0)).rule.as_deref(), Some("mild"), "matchers are anchored");
}

#[test]
fn each_threshold_of_require_counts_and_names_itself() {
    let cases = [
        ("source: {entries: 11}", Err("source.entries = 10, and the rule requires at least 11")),
        ("source: {entries: 10}", Ok(())),
        ("source: {assured: 8}", Err("source.assured = 7, and the rule requires at least 8")),
        ("source: {assured: 7}", Ok(())),
        ("source: {assured: 7, half_open: 4}", Err("source.half_open = 3, and the rule requires at least 4")),
        ("source: {assured: 7, half_open: 3}", Ok(())),
        ("source: {socketless: 1}", Err("source.socketless, which could not be measured")),
        (
            "source: {assured: 7}, table: {fill_percent: 50.5}",
            Err("table.fill_percent = 50, and the rule requires at least 50.5"),
        ),
        ("source: {assured: 7}, table: {fill_percent: 50}", Ok(())),
        (
            "source: {assured: 7}, table: {entries: 5001}",
            Err("table.entries = 5000, and the rule requires at least 5001"),
        ),
    ];
    for (require, expected) in cases {
        let rules = HOARDER.replace("source: {assured: 300}", require);
        let mut desk = Desk::new(policy(&rules), &[("198.51.100.66", 7, 3)]);
        desk.fill = TableFill { entries: 5000, limit: 10_000 };
        let plan = desk.plan(&about("198.51.100.66"), now(0.0));
        match expected {
            Ok(()) => drop(ban(&plan)),
            Err(part) => {
                let sentence = refusal(&plan).to_string();
                assert!(sentence.contains(part), "{require}: {sentence}");
            }
        }
    }
}

#[test]
fn an_unlimited_table_is_never_filled() {
    let rules = HOARDER.replace("source: {assured: 300}", "source: {assured: 1}, table: {fill_percent: 1}");
    let mut desk = Desk::new(policy(&rules), &[("198.51.100.66", 300, 0)]);
    desk.fill.limit = 0;
    assert_eq!(refusal(&desk.plan(&about("198.51.100.66"), now(0.0))).reason(), "require_not_met");
}

#[test]
fn a_source_that_is_gone_has_no_evidence_against_it() {
    let desk = Desk::new(policy(HOARDER), &[]);
    assert_eq!(refusal(&desk.plan(&about("198.51.100.66"), now(0.0))).reason(), "require_not_met");
}

#[test]
fn what_is_no_address_is_refused_with_its_reason() {
    let desk = Desk::new(policy(HOARDER), &[]);
    for label in [
        "",
        "web.example.org",
        "198.51.100.0/24",
        "198.51.100.66:443",
        "198.051.100.66",
        "$(reboot)",
        "198.51.100.66; reboot",
        "dst",
        "-",
    ] {
        let plan = desk.plan(&about(label), now(0.0));
        let Refusal::NotASource { source, .. } = refusal(&plan) else { panic!("{label}: {plan:?}") };
        assert_eq!(Err(source.clone()), source::parse(label));
        assert!(refusal(&plan).to_string().starts_with("label \"source\": "), "{}", refusal(&plan));
    }
}

#[test]
fn each_rule_may_say_enforce_itself() {
    let trial =
        HOARDER.replace("- name: hoarder", "- name: trial\n  enforce: false").replace("Hoarder", "Trial");
    let desk = Desk::new(policy(&format!("{HOARDER}{trial}")), &[("198.51.100.66", 300, 0)]);
    assert!(desk.plan(&about("198.51.100.66"), now(0.0)).enforce);
    let other = alert(&[("alertname", "Trial"), ("source", "198.51.100.66")]);
    assert!(!desk.plan(&other, now(0.0)).enforce);
    ban(&desk.plan(&other, now(0.0)));
    let dry =
        with("never_ban: []\n", &HOARDER.replace("- name: hoarder", "- name: hoarder\n  enforce: true"));
    assert!(Desk::new(dry, &[("198.51.100.66", 300, 0)]).plan(&about("198.51.100.66"), now(0.0)).enforce);
}

#[test]
fn a_mapped_address_is_the_ipv4_one() {
    let mut desk = Desk::new(policy(HOARDER), &[("198.51.100.66", 300, 0)]);
    let plan = desk.act(&about("::ffff:198.51.100.66"), now(0.0));
    assert_eq!(ban(&plan).net, "198.51.100.66/32".parse().unwrap());
    assert!(is_repeat(&desk.plan(&about("198.51.100.66"), now(1.0))));
}

#[test]
fn every_refusal_has_its_word_in_the_list_and_a_sentence() {
    let net = "198.51.100.0/24".parse().unwrap();
    let address = "198.51.100.1".parse().unwrap();
    let all = [
        (Refusal::OtherHost("its table_id is a, ours is b".into()), "other_host"),
        (Refusal::NoRule, "no_rule"),
        (
            Refusal::NotASource { label: "source".into(), source: source::parse("x").unwrap_err() },
            "not_a_source",
        ),
        (Refusal::EvidenceUnavailable("nothing is known of it".into()), "evidence_unavailable"),
        (Refusal::RequireNotMet { what: "source.assured", required: 2.0, found: 1.0 }, "require_not_met"),
        (Refusal::Loopback(net), "loopback"),
        (Refusal::LinkLocal(net), "link_local"),
        (Refusal::Multicast(net), "multicast"),
        (Refusal::Unspecified(net), "unspecified"),
        (Refusal::Broadcast(net), "broadcast"),
        (Refusal::OwnAddress { net, own: address }, "own_address"),
        (Refusal::Gateway { net, gateway: address }, "gateway"),
        (Refusal::Resolver { net, resolver: address }, "resolver"),
        (Refusal::SshSession { net, peer: address }, "ssh_session"),
        (Refusal::WebhookPeer { net, peer: address }, "webhook_peer"),
        (Refusal::Outbound { net, peer: address, how: "an assured entry leads there" }, "outbound"),
        (Refusal::OutboundUnknown(net), "outbound"),
        (Refusal::NothingDead, "require_not_met"),
        (Refusal::SpoofedFlood { sources: 2000, unreplied_percent: 90 }, "spoofed_flood"),
        (Refusal::NeverBan { net, listed: net }, "never_ban"),
        (Refusal::PrefixTooWide { net, widest: 32 }, "prefix_too_wide"),
        (Refusal::BudgetExhausted { limit: "limits.bans_per_minute = 1".into() }, "budget_exhausted"),
        (Refusal::TooManyActiveBans { limit: 1 }, "budget_exhausted"),
        (
            Refusal::UnbannedByHand { net, by: "alice".into(), left: Duration::from_secs(60) },
            "unbanned_by_hand",
        ),
        (Refusal::BreakerOpen { bans: 5, before: 1, after: 2 }, "breaker_open"),
        (Refusal::Paused { by: "alice".into() }, "paused"),
        (Refusal::Panicked { by: "alice".into() }, "panicked"),
    ];
    let mut words: Vec<_> = all.iter().map(|(refusal, _)| refusal.reason()).collect();
    for (refusal, word) in &all {
        assert_eq!(refusal.reason(), *word);
        let sentence = refusal.to_string();
        assert!(sentence.split(' ').count() >= 3, "{sentence}");
    }
    words.sort_unstable();
    words.dedup();
    let mut listed = Refusal::REASONS.to_vec();
    listed.sort_unstable();
    assert_eq!(words, listed, "the counter shows a zero for each word, and only for them");
    assert_eq!(host().name, "web1");
}

#[test]
fn an_overflowing_table_knows_nothing_of_those_it_could_not_keep() {
    let mut desk = Desk::new(policy(HOARDER), &[]);
    for host in 0..=229_376_u32 {
        desk.table.sources.add(std::net::Ipv4Addr::from_bits(0x0b00_0000 + host).into(), true, false, false);
    }
    assert_eq!(refusal(&desk.plan(&about("198.51.100.66"), now(0.0))).reason(), "evidence_unavailable");
    assert_eq!(refusal(&desk.plan(&about("11.0.0.0"), now(0.0))).reason(), "require_not_met");
}
