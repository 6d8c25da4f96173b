//! Every metric of DESIGN.md is there, with the numbers that conntrack(8) shows.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};

use tests::listing::{self, Entry};

use crate::lab::{Exporter, Lab, Metrics, assured};

/// One of each kind, none of which expires during the test.
const ODD: [&str; 9] = [
    "-p tcp -s 198.51.100.2 -d 192.0.2.1 --sport 1 --dport 80 --state SYN_SENT -t 9000",
    "-p tcp -s 198.51.100.2 -d 192.0.2.1 --sport 2 --dport 80 --state SYN_RECV -u SEEN_REPLY -t 9000",
    "-p tcp -s 198.51.100.2 -d 192.0.2.1 --sport 3 --dport 80 --state TIME_WAIT -u SEEN_REPLY,ASSURED -t 9000 --src-nat 192.0.2.7",
    "-p tcp -s 198.51.100.2 -d 192.0.2.1 --sport 4 --dport 80 --state CLOSE_WAIT -u SEEN_REPLY -t 9000 --dst-nat 192.0.2.8",
    "-p icmp -s 198.51.100.2 -d 192.0.2.1 --icmp-type 8 --icmp-code 0 --icmp-id 7 -t 9000",
    "-p icmpv6 -s 2001:db8::7 -d 2001:db8:1::1 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 7 -t 9000",
    "-p gre -s 198.51.100.2 -d 192.0.2.1 --srckey 5 --dstkey 6 -t 9000",
    "-p sctp -s 198.51.100.2 -d 192.0.2.1 --orig-port-src 5 --orig-port-dst 6 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2 -t 9000",
    "-p udp -s 2001:db8::7 -d 2001:db8:1::1 --sport 5 --dport 6 -t 9000 -u SEEN_REPLY",
];

/// Every metric of DESIGN.md, with the labels it must have.
const EVERY: [(&str, &[&str]); 46] = [
    ("nf_conntrack_entries", &[]),
    ("nf_conntrack_entries_limit", &[]),
    ("nf_conntrack_buckets", &[]),
    ("nf_conntrack_state_entries", &["family", "protocol", "state"]),
    ("nf_conntrack_assured_entries", &["family", "protocol"]),
    ("nf_conntrack_unreplied_entries", &["family", "protocol"]),
    ("nf_conntrack_offload_entries", &["family", "protocol"]),
    ("nf_conntrack_snat_entries", &["family", "protocol"]),
    ("nf_conntrack_dnat_entries", &["family", "protocol"]),
    ("nf_conntrack_expected_entries", &["family", "protocol"]),
    ("nf_conntrack_socketless_entries", &[]),
    ("nf_conntrack_deferred_entries", &[]),
    ("nf_conntrack_local_entries", &[]),
    ("nf_conntrack_sources", &[]),
    ("nf_conntrack_sources_over", &["entries"]),
    ("nf_conntrack_source_entries", &["source"]),
    ("nf_conntrack_source_assured_entries", &["source"]),
    ("nf_conntrack_source_half_open_entries", &["source"]),
    ("nf_conntrack_source_socketless_entries", &["source"]),
    ("nf_conntrack_prefix_entries", &["prefix"]),
    ("nf_conntrack_prefix_sources", &["prefix"]),
    ("nf_conntrack_other_sources_entries", &[]),
    ("nf_conntrack_stat_found_total", &[]),
    ("nf_conntrack_stat_invalid_total", &[]),
    ("nf_conntrack_stat_insert_total", &[]),
    ("nf_conntrack_stat_insert_failed_total", &[]),
    ("nf_conntrack_stat_drop_total", &[]),
    ("nf_conntrack_stat_early_drop_total", &[]),
    ("nf_conntrack_stat_error_total", &[]),
    ("nf_conntrack_stat_search_restart_total", &[]),
    ("nf_conntrack_stat_clash_resolve_total", &[]),
    ("nf_conntrack_stat_chain_too_long_total", &[]),
    ("nf_conntrack_timeout_seconds", &["protocol", "state"]),
    ("nf_conntrack_table_info", &["table_id"]),
    ("nf_conntrack_scrape_collector_success", &["collector"]),
    ("nf_conntrack_scrape_collector_duration_seconds", &["collector"]),
    ("nf_conntrack_dump_timestamp_seconds", &[]),
    ("conntrack_exporter_dump_errors_total", &["reason"]),
    ("conntrack_exporter_build_info", &["version"]),
    ("process_cpu_seconds_total", &[]),
    ("process_open_fds", &[]),
    ("process_max_fds", &[]),
    ("process_virtual_memory_bytes", &[]),
    ("process_resident_memory_bytes", &[]),
    ("process_start_time_seconds", &[]),
    ("process_threads", &[]),
];

/// A connection of this host to itself, open both ways.
fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    (near, far)
}

/// Family, protocol, state: as the exporter is to name them.
fn labels(entry: &Entry) -> (String, String, String) {
    let protocol = match entry.protocol {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        47 => "gre",
        58 => "icmpv6",
        132 => "sctp",
        other => panic!("protocol {other} is not of this test"),
    };
    let state = match (&entry.state, entry.is("ASSURED"), entry.is("UNREPLIED")) {
        (Some(state), ..) => state.to_lowercase(),
        (None, true, _) => "assured".to_owned(),
        (None, false, true) => "unreplied".to_owned(),
        (None, false, false) => "replied".to_owned(),
    };
    let family = if entry.source().contains(':') { "ipv6" } else { "ipv4" };
    (family.to_owned(), protocol.to_owned(), state)
}

fn counted<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, f64> {
    let mut counts = BTreeMap::new();
    keys.for_each(|key| *counts.entry(key).or_default() += 1.0);
    counts
}

#[test]
fn every_metric_is_there_and_says_what_conntrack_says() {
    let lab = Lab::new();
    lab.add(&ODD);
    lab.add(&[assured("198.51.100.1", 60), assured("198.51.100.3", 12), assured("2001:db8::9", 55)].concat());
    let connections = lab.namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (0..7).map(|_| connect(&listener)).collect::<Vec<_>>()
    });
    let exporter = lab.start(&[]);
    let metrics = exporter.scrape();
    let entries = listing::list(&lab.namespace).unwrap();
    assert_eq!(entries.len(), 60 + 12 + 55 + ODD.len() + connections.len());

    for (name, labels) in EVERY {
        let samples = metrics.of(name);
        assert!(!samples.is_empty(), "{name} is missing");
        for shown in samples.keys() {
            let names: Vec<_> =
                shown.split('"').step_by(2).map(|part| part.trim_matches(['{', ',', '=', '}'])).collect();
            let names: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
            assert_eq!(names, labels, "labels of {name}{shown}");
        }
    }
    states_agree(&metrics, &entries);
    sources_agree(&metrics, &entries);
    sysctls_agree(&exporter, &lab, &metrics);
    assert!(metrics.value("nf_conntrack_stat_insert_total") >= 136.0, "what ctnetlink inserted");
    drop(connections);
}

fn states_agree(metrics: &Metrics, entries: &[Entry]) {
    let expected = counted(entries.iter().map(labels));
    for ((family, protocol, state), count) in &expected {
        let series = format!(
            "nf_conntrack_state_entries{{family=\"{family}\",protocol=\"{protocol}\",state=\"{state}\"}}"
        );
        assert_eq!(metrics.value(&series), *count, "{series}");
    }
    assert_eq!(metrics.sum("nf_conntrack_state_entries"), entries.len() as f64, "and zeros elsewhere");
    let marked = |mark: &str| metrics.sum(&format!("nf_conntrack_{mark}_entries"));
    let flagged = |flag| entries.iter().filter(|entry| entry.is(flag)).count() as f64;
    assert_eq!((marked("assured"), marked("unreplied")), (flagged("ASSURED"), flagged("UNREPLIED")));
    assert_eq!((marked("snat"), marked("dnat"), marked("offload"), marked("expected")), (1.0, 1.0, 0.0, 0.0));
}

fn sources_agree(metrics: &Metrics, entries: &[Entry]) {
    let local = |source: &str| source.parse::<IpAddr>().unwrap().is_loopback();
    let by_source = counted(entries.iter().map(Entry::source).filter(|source| !local(source)));
    let shown = metrics.of("nf_conntrack_source_entries");
    let expected: Vec<_> = by_source.iter().filter(|(_, count)| **count >= 50.0).collect();
    assert_eq!(shown.len(), expected.len(), "{shown:?}");
    for (source, count) in expected {
        assert_eq!(shown[format!("{{source=\"{source}\"}}").as_str()], *count);
        let assured = format!("nf_conntrack_source_assured_entries{{source=\"{source}\"}}");
        assert_eq!(metrics.value(&assured), *count);
        let half_open = format!("nf_conntrack_source_half_open_entries{{source=\"{source}\"}}");
        assert_eq!(metrics.value(&half_open), 0.0);
    }
    metrics.add_up();
    assert_eq!(metrics.value("nf_conntrack_local_entries"), 7.0);
    assert_eq!(metrics.value("nf_conntrack_sources"), by_source.len() as f64);
    assert_eq!(metrics.value("nf_conntrack_sources_over{entries=\"10\"}"), 3.0);
    assert_eq!(metrics.value("nf_conntrack_sources_over{entries=\"100\"}"), 0.0);
    assert_eq!(metrics.value("nf_conntrack_prefix_entries{prefix=\"198.51.100.0/24\"}"), 79.0);
    assert_eq!(metrics.value("nf_conntrack_prefix_sources{prefix=\"198.51.100.0/24\"}"), 3.0);
    assert_eq!(metrics.value("nf_conntrack_prefix_entries{prefix=\"2001:db8::/64\"}"), 57.0);
}

fn sysctls_agree(exporter: &Exporter<'_>, lab: &Lab, metrics: &Metrics) {
    let sysctl = |name: &str| -> f64 {
        lab.namespace.read_sysctl(&format!("net/netfilter/nf_conntrack_{name}")).unwrap().parse().unwrap()
    };
    assert_eq!(metrics.value("nf_conntrack_entries"), sysctl("count"));
    assert_eq!(metrics.value("nf_conntrack_entries_limit"), sysctl("max"));
    assert_eq!(metrics.value("nf_conntrack_buckets"), sysctl("buckets"));
    lab.namespace.sysctl("net/netfilter/nf_conntrack_tcp_timeout_established", "12345").unwrap();
    let established = "nf_conntrack_timeout_seconds{protocol=\"tcp\",state=\"established\"}";
    assert_eq!(exporter.scrape().value(established), 12345.0, "read anew, in this namespace");
    let id = lab.namespace.run(conntrack::identity::table_id).unwrap();
    assert_eq!(metrics.value(&format!("nf_conntrack_table_info{{table_id=\"{id}\"}}")), 1.0);
}

#[test]
fn only_what_is_asked_for_is_collected() {
    let lab = Lab::new();
    let exporter = lab.start(&["--no-collector.stat"]);
    let metrics = exporter.scrape_with("?collect[]=table&collect%5B%5D=timeouts", &[]);
    let collectors: Vec<_> = metrics.of("nf_conntrack_scrape_collector_success").into_keys().collect();
    assert_eq!(collectors, ["{collector=\"table\"}", "{collector=\"timeouts\"}"]);
    assert!(metrics.of("nf_conntrack_state_entries").is_empty());
    assert!(metrics.get("nf_conntrack_dump_timestamp_seconds").is_none(), "no dump was made for it");

    let flows = exporter.scrape_with("?collect[]=flows", &[]);
    assert!(flows.success("flows") && flows.of("nf_conntrack_source_entries").is_empty());
    assert!(flows.get("nf_conntrack_sources").is_none() && flows.get("nf_conntrack_entries").is_none());

    let metrics = exporter.scrape();
    assert!(metrics.get("nf_conntrack_stat_drop_total").is_none() && metrics.success("flows"));
    for (query, sentence) in [
        ("?collect[]=hosts", "collect[]=hosts: there is no such collector"),
        ("?collect[]=table&collect[]=stat", "collect[]=stat: this collector is disabled"),
    ] {
        let answer = exporter.get(&format!("/metrics{query}"), &[]);
        assert_eq!(answer.status, 400);
        assert!(answer.text().starts_with(sentence), "{}", answer.text());
    }
}
