//! DESIGN.md's example is a valid policy, means what it says, and admits what this version does not do yet.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use conntrack_actioner::policy::{
    Backend, DeleteAction, Policy, Sources, TableThresholds, ThisHost, Thresholds, WidestPrefix,
};

fn design() -> Policy {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/policies/design.yaml");
    Policy::load(&path).unwrap_or_else(|errors| panic!("{errors}"))
}

fn socketless(count: u64) -> Thresholds {
    Thresholds { socketless: Some(count), ..Thresholds::default() }
}

#[test]
fn its_sections_are_read_as_written() {
    let policy = design();
    assert!(!policy.enforce);
    assert_eq!(policy.this_host, ThisHost::Auto);
    assert!(policy.never_ban.private);
    assert_eq!(policy.never_ban.networks, ["192.0.2.10/32".parse().unwrap()]);
    let limits = policy.limits;
    assert_eq!((limits.bans_per_minute, limits.bans_per_hour, limits.active_bans), (10, 50, 1000));
    assert_eq!(limits.widest_prefix, WidestPrefix { ipv4: 32, ipv6: 64 });
    assert_eq!(limits.deletes_per_action, 50_000);
    assert_eq!(policy.firewall.backend, Backend::Ipset);
    assert_eq!(policy.firewall.set, "conntrack-guard");
    assert!(policy.firewall.manage_rule);
    assert_eq!(policy.socketless_grace, Duration::from_secs(30));
    let reachable = policy.keep_reachable.unwrap();
    assert_eq!(reachable.ports, [10048, 10049]);
    assert!(reachable.from.iter().any(|net| net.contains(&"127.0.0.1".parse::<IpAddr>().unwrap())));
    assert!(reachable.from.iter().any(|net| net.contains(&"fd00::1".parse::<IpAddr>().unwrap())));
}

#[test]
fn its_watch_looks_for_what_it_says() {
    let watch = design().watch.unwrap();
    assert_eq!((watch.interval, watch.every), (Duration::from_secs(1), Duration::from_secs(30)));
    let [hoards, host] = &watch.alerts[..] else { panic!("{:?}", watch.alerts) };
    assert_eq!(hoards.alert, "ConntrackSourceHoardsEntries");
    assert_eq!(hoards.source, socketless(300));
    assert_eq!(hoards.table.fill_percent, Some(50.0));
    assert_eq!(hoards.labels["severity"], "info");
    assert_eq!(host.alert, "ConntrackSocketlessEntries");
    assert!(host.source.is_empty());
    assert_eq!(host.host, socketless(1000));
}

#[test]
fn its_rules_are_read_as_written() {
    let policy = design();
    let [hoarder, dead] = &policy.rules[..] else { panic!("{:?}", policy.rules) };
    assert_eq!(hoarder.name, "hoarder");
    assert_eq!(hoarder.enforce, None);
    let matchers: Vec<String> = hoarder.matchers.iter().map(ToString::to_string).collect();
    assert_eq!(
        matchers,
        ["alertname=\"ConntrackSourceHoardsEntries\"", "severity=~\"info|warning|critical\""]
    );
    assert_eq!(hoarder.sources, Sources::Label("source".to_owned()));
    assert_eq!(hoarder.require.source, socketless(300));
    assert_eq!(hoarder.require.table, TableThresholds { fill_percent: Some(50.0), entries: None });
    let ban = hoarder.ban.unwrap();
    assert_eq!((ban.for_, ban.max), (Duration::from_secs(600), Duration::from_secs(24 * 3600)));
    assert_eq!((ban.factor, ban.ipv4_prefix, ban.ipv6_prefix), (4, 32, 128));
    assert_eq!(hoarder.delete, Some(DeleteAction::All));

    assert_eq!(dead.name, "dead-slots");
    assert_eq!(dead.sources, Sources::All);
    assert_eq!((dead.ban, dead.delete), (None, Some(DeleteAction::Socketless)));
}

/// Who copies the example is not left with something that does nothing.
#[test]
fn all_of_it_has_an_effect() {
    assert_eq!(design().warnings, [""; 0]);
}

/// The same text has the same name everywhere, and any other text another.
#[test]
fn its_hash_is_that_of_its_text() {
    let policy = design();
    assert_eq!(policy.hash.len(), 16);
    assert!(policy.hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/policies/design.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let nowhere = std::path::Path::new("/nonexistent");
    assert_eq!(Policy::parse(&text, nowhere).unwrap().hash, policy.hash);
    assert_ne!(Policy::parse(&text.replace("300", "301"), nowhere).unwrap().hash, policy.hash);
}
