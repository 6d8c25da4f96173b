//! Dumps are shared, and a scrape's deadline is kept.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use tests::wait::wait_until;

use crate::lab::{Lab, Metrics, assured};

const TIMESTAMP: &str = "nf_conntrack_dump_timestamp_seconds";
/// It leaves no time at all: half a second is kept back.
const NO_TIME: &str = "X-Prometheus-Scrape-Timeout-Seconds: 0.5";

fn stamps(metrics: &[Metrics]) -> BTreeSet<u64> {
    metrics.iter().map(|metrics| metrics.value(TIMESTAMP).to_bits()).collect()
}

#[test]
fn twenty_scrapes_at_once_share_their_dumps() {
    let lab = Lab::new();
    let many: Vec<_> = (0..4).flat_map(|last| assured(&format!("198.51.100.{last}"), 15_000)).collect();
    lab.add(&many);
    let exporter = lab.start(&[]);
    let id = exporter.running.process.id().to_string();
    let signal = |signal| lab.namespace.command(&["kill", signal, &id]).unwrap();
    // At once is: all of them have asked before the first is heard.
    signal("-STOP");
    let metrics: Vec<_> = thread::scope(|scope| {
        let scrapes: Vec<_> = (0..20).map(|_| scope.spawn(|| exporter.scrape())).collect();
        let asked = wait_until("twenty requests to wait for the exporter", Duration::from_secs(30), || {
            let listed =
                lab.namespace.output(&["ss", "-Htn", "state", "established", "sport = :10048"]).unwrap();
            let unread = |line: &&str| line.split_whitespace().next() != Some("0");
            match listed.lines().filter(unread).count() {
                20 => Ok(()),
                _ => Err(listed),
            }
        });
        signal("-CONT");
        asked.unwrap();
        scrapes.into_iter().map(|scrape| scrape.join().unwrap()).collect()
    });
    for metrics in &metrics {
        metrics.add_up();
        assert_eq!(metrics.value("nf_conntrack_source_entries{source=\"198.51.100.1\"}"), 15_000.0);
    }
    let dumps = stamps(&metrics).len();
    assert!(
        dumps <= 2,
        "{dumps} dumps for 20 scrapes; a second is for those that came when the first had ended"
    );
}

#[test]
fn a_young_dump_is_served_again_where_that_is_allowed() {
    let lab = Lab::new();
    let exporter = lab.start(&["--collector.flows.max-age=1h"]);
    let first = exporter.scrape();
    lab.add(&assured("198.51.100.1", 60));
    let second = exporter.scrape();
    assert_eq!(stamps(&[first, second.clone()]).len(), 1);
    assert_eq!(second.sum("nf_conntrack_state_entries"), 0.0);
    assert_eq!(second.value("nf_conntrack_entries"), 60.0, "what needs no dump is always fresh");
    drop(exporter);

    let exporter = lab.start(&[]);
    assert_eq!(
        stamps(&[exporter.scrape(), exporter.scrape()]).len(),
        2,
        "by default each scrape sees the present"
    );
}

#[test]
fn a_scrape_without_time_gets_table_and_stat_and_the_next_one_the_dump() {
    let lab = Lab::new();
    lab.add(&assured("198.51.100.1", 60));
    let exporter = lab.start(&[]);
    let late = exporter.scrape_with("", &[NO_TIME]);
    assert!(!late.success("flows") && !late.success("sources"));
    assert!(late.success("table") && late.success("stat") && late.success("timeouts"));
    assert_eq!(late.value("nf_conntrack_entries"), 60.0);
    assert!(late.get("nf_conntrack_stat_drop_total").is_some());
    assert!(late.of("nf_conntrack_state_entries").is_empty() && late.get(TIMESTAMP).is_none());

    wait_until("the late dump to serve a scrape", Duration::from_secs(30), || {
        let metrics = exporter.scrape_with("", &[NO_TIME]);
        if !metrics.success("flows") {
            return Err("still late");
        }
        metrics.add_up();
        assert_eq!(metrics.value("nf_conntrack_source_entries{source=\"198.51.100.1\"}"), 60.0);
        Ok(())
    })
    .unwrap();
    let log = exporter.log();
    assert_eq!(log.matches("collector=flows").count(), 2, "failed once, works again once:\n{log}");
    let generous = exporter.scrape_with("", &["X-Prometheus-Scrape-Timeout-Seconds: 10"]);
    assert!(generous.success("flows") && generous.success("sources"));
}
