//! What real Alertmanagers send means to us what they meant.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use conntrack_actioner::alert::{Alert, Origin};
use conntrack_actioner::source;
use conntrack_actioner::webhook::{Notification, parse};

const VERSIONS: [&str; 2] = ["alertmanager-0.25.0", "alertmanager-0.33.1"];

fn sample(version: &str, name: &str) -> Notification {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/samples/webhooks")
        .join(version)
        .join(format!("{name}.json"));
    let body = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&body, Origin::Webhook).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources<'a>(alerts: impl IntoIterator<Item = &'a Alert>) -> Vec<String> {
    alerts
        .into_iter()
        .map(|alert| source::parse(alert.label("source")).expect("an address").to_string())
        .collect()
}

fn firing(notification: &Notification) -> Vec<&Alert> {
    notification.alerts.iter().filter(|alert| alert.firing).collect()
}

/// (file, alerts, firing, truncated, receiver)
const COUNTS: [(&str, usize, usize, u64, &str); 10] = [
    ("firing-ipv6", 1, 1, 0, "each"),
    ("firing-single", 1, 1, 0, "each"),
    ("resolved-single", 1, 0, 0, "each"),
    ("grouped-firing-3", 3, 3, 0, "grouped"),
    ("grouped-firing-500", 500, 500, 0, "grouped"),
    ("grouped-mixed-2firing-1resolved", 3, 2, 0, "grouped"),
    ("grouped-resolved-2", 2, 0, 0, "grouped"),
    ("grouped-resolved-500", 500, 0, 0, "grouped"),
    ("truncated-firing-10-of-500", 10, 10, 490, "truncated"),
    ("truncated-resolved-10-of-500", 10, 0, 490, "truncated"),
];

#[test]
fn every_sample_counts_what_was_sent() {
    for version in VERSIONS {
        for (name, alerts, firing_alerts, truncated, receiver) in COUNTS {
            let notification = sample(version, name);
            assert_eq!(notification.alerts.len(), alerts, "{version}/{name}: alerts");
            assert_eq!(firing(&notification).len(), firing_alerts, "{version}/{name}: firing");
            assert_eq!(notification.truncated_alerts, truncated, "{version}/{name}: truncated");
            assert_eq!(&*notification.receiver, receiver, "{version}/{name}");
            assert!(!notification.group_key.is_empty(), "{version}/{name}");
            assert!(notification.external_url.starts_with("http://"), "{version}/{name}");
        }
    }
}

/// So that a sample added later is not passed over.
#[test]
fn no_sample_is_left_untested() {
    for version in VERSIONS {
        let directory =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples/webhooks").join(version);
        let found: BTreeSet<String> = fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        let mut tested: BTreeSet<String> = COUNTS.iter().map(|(name, ..)| (*name).to_owned()).collect();
        tested.insert("nowait-first-partial-batch".to_owned());
        assert_eq!(found, tested, "{version}");
    }
}

#[test]
fn an_alert_carries_its_own_labels_and_times() {
    let notification = sample("alertmanager-0.33.1", "grouped-mixed-2firing-1resolved");
    let resolved = &notification.alerts[0];
    assert!(!resolved.firing);
    assert_eq!(resolved.label("source"), "1.2.3.4");
    assert_eq!(resolved.name(), "SourceTooManyEntries");
    assert_eq!(resolved.label("instance"), "127.0.0.1:48080");
    assert_eq!(resolved.label("absent"), "");
    assert_eq!(resolved.annotations["value"], "500");
    assert_eq!(resolved.fingerprint, "aae563dc3968b656");
    assert_eq!(resolved.starts_at, "2026-11-22T16:23:16.037Z");
    assert_eq!(resolved.origin, Origin::Webhook);
    assert_eq!(&*resolved.receiver, "grouped");
    assert_eq!(
        &*resolved.group_key,
        r#"{}/{alertname="SourceTooManyEntries"}:{alertname="SourceTooManyEntries"}"#
    );
}

/// The group's status is "firing" in a mixed group: who reads that bans a source that has stopped.
#[test]
fn a_mixed_group_fires_only_for_those_that_fire() {
    for version in VERSIONS {
        let notification = sample(version, "grouped-mixed-2firing-1resolved");
        assert_eq!(sources(firing(&notification)), ["1.2.3.5", "2001:db8::1"], "{version}");
    }
}

#[test]
fn both_families_arrive() {
    for version in VERSIONS {
        assert_eq!(sources(&sample(version, "firing-ipv6").alerts), ["2001:db8::1"]);
        assert_eq!(sources(&sample(version, "firing-single").alerts), ["1.2.3.4"]);
        assert_eq!(
            sources(&sample(version, "grouped-firing-3").alerts),
            ["1.2.3.4", "1.2.3.5", "2001:db8::1"],
            "{version}"
        );
    }
}

#[test]
fn five_hundred_alerts_are_five_hundred_sources() {
    for version in VERSIONS {
        let notification = sample(version, "grouped-firing-500");
        let distinct: BTreeSet<String> = sources(&notification.alerts).into_iter().collect();
        assert_eq!(distinct.len(), 500, "{version}");
        let fingerprints: BTreeSet<&str> =
            notification.alerts.iter().map(|a| a.fingerprint.as_str()).collect();
        assert_eq!(fingerprints.len(), 500, "{version}");
    }
}

/// A group that was cut by `group_wait: 0s` looks complete: nothing in it says that more will come.
#[test]
fn a_partial_first_batch_is_an_ordinary_message() {
    for (version, alerts) in VERSIONS.into_iter().zip([41, 11]) {
        let notification = sample(version, "nowait-first-partial-batch");
        assert_eq!(firing(&notification).len(), alerts, "{version}");
        assert_eq!(notification.truncated_alerts, 0, "{version}");
    }
}
