//! Which sources are shown, and for how long.

use crate::lab::{Lab, assured};

fn entries(source: &str) -> String {
    format!("nf_conntrack_source_entries{{source=\"{source}\"}}")
}

const A: &str = "198.51.100.1";
const B: &str = "2001:db8::b";

fn delete(lab: &Lab, source: &str) {
    let family = if source.contains(':') { "ipv6" } else { "ipv4" };
    lab.namespace.command(&["conntrack", "-D", "-f", family, "-s", source]).unwrap();
}

#[test]
fn a_source_that_was_shown_stays_with_its_true_values() {
    let lab = Lab::new();
    lab.add(&[assured(A, 9), assured(B, 6)].concat());
    let flags = ["--collector.sources.top=1", "--collector.sources.min-entries=5"];
    let exporter = lab.start(&flags);
    let before = exporter.scrape();
    assert_eq!((before.value(&entries(A)), before.get(&entries(B))), (9.0, None));
    assert_eq!(before.value("nf_conntrack_other_sources_entries"), 6.0);

    delete(&lab, A);
    lab.add(&assured(A, 2));
    let after = exporter.scrape();
    assert_eq!(
        (after.value(&entries(A)), after.value(&entries(B))),
        (2.0, 6.0),
        "below min-entries, yet held"
    );
    after.add_up();
    delete(&lab, A);
    let gone = exporter.scrape();
    assert_eq!((gone.value(&entries(A)), gone.value(&entries(B))), (0.0, 6.0));
    assert_eq!(gone.value(&format!("nf_conntrack_source_assured_entries{{source=\"{A}\"}}")), 0.0);
    gone.add_up();
}

#[test]
fn without_a_hold_a_source_goes_when_it_leaves_the_top() {
    let lab = Lab::new();
    lab.add(&[assured(A, 9), assured(B, 6)].concat());
    let exporter = lab.start(&[
        "--collector.sources.top=1",
        "--collector.sources.min-entries=5",
        "--collector.sources.hold=0",
    ]);
    assert_eq!(exporter.scrape().value(&entries(A)), 9.0);
    delete(&lab, A);
    let after = exporter.scrape();
    assert_eq!((after.get(&entries(A)), after.value(&entries(B))), (None, 6.0));
}

#[test]
fn the_first_by_each_count_are_shown_and_prefixes_have_the_lengths_of_the_flags() {
    let lab = Lab::new();
    let half_open = |port| {
        format!("-p tcp -s 198.51.101.7 -d 192.0.2.1 --sport {port} --dport 80 --state SYN_SENT -t 9000")
    };
    lab.add(&[assured(A, 9), (1..=7).map(half_open).collect()].concat());
    let exporter = lab.start(&[
        "--collector.sources.top=1",
        "--collector.sources.min-entries=1",
        "--collector.sources.prefix-ipv4=16",
    ]);
    let metrics = exporter.scrape();
    assert_eq!(metrics.value(&entries(A)), 9.0);
    assert_eq!(metrics.value(&entries("198.51.101.7")), 7.0, "the first by half-open entries");
    assert_eq!(metrics.value("nf_conntrack_source_half_open_entries{source=\"198.51.101.7\"}"), 7.0);
    assert_eq!(metrics.value("nf_conntrack_prefix_entries{prefix=\"198.51.0.0/16\"}"), 16.0);
    assert_eq!(metrics.value("nf_conntrack_prefix_sources{prefix=\"198.51.0.0/16\"}"), 2.0);
}
