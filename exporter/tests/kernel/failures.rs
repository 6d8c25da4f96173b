//! A collector that fails costs its own metrics, is told once, and comes back.

use std::fs;
use std::os::unix::fs::symlink;

use crate::lab::{Lab, assured};

/// Root in name, with none of what CAP_NET_ADMIN allows.
const UNPRIVILEGED: [&str; 4] = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", "--"];

#[test]
fn without_net_admin_the_dump_fails_alone() {
    let lab = Lab::new();
    lab.add(&assured("198.51.100.1", 60));
    let exporter = lab.start_under(&UNPRIVILEGED, &[]);
    for scrape in 1..=3 {
        let metrics = exporter.scrape();
        assert!(!metrics.success("flows") && !metrics.success("sources") && !metrics.success("sockets"));
        assert!(metrics.success("table") && metrics.success("stat") && metrics.success("timeouts"));
        assert_eq!(metrics.value("nf_conntrack_entries"), 60.0);
        assert!(metrics.value("nf_conntrack_entries_limit") > 0.0);
        assert!(metrics.value("nf_conntrack_stat_insert_total") >= 60.0, "from procfs");
        assert!(metrics.of("nf_conntrack_state_entries").is_empty());
        assert!(metrics.of("nf_conntrack_source_entries").is_empty());
        assert!(metrics.get("nf_conntrack_socketless_entries").is_none());
        let errors = "conntrack_exporter_dump_errors_total{reason=\"not_permitted\"}";
        assert_eq!(metrics.value(errors), f64::from(scrape));
    }
    let log = exporter.log();
    assert_eq!(log.matches("collector=flows").count(), 1, "{log}");
    assert_eq!(log.matches("collector=sockets").count(), 1, "{log}");
    assert!(log.contains("CAP_NET_ADMIN is missing"), "{log}");
}

#[test]
fn an_ordinary_user_sees_count_and_limit_too() {
    let lab = Lab::new();
    // The one capability that lets him reach the binary, wherever the workspace lies.
    let reach = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"];
    let user =
        [&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], &reach[..], &["--"]].concat();
    let metrics = lab.start_under(&user, &[]).scrape();
    assert!(metrics.success("table") && metrics.success("timeouts") && !metrics.success("flows"));
    assert_eq!(metrics.value("nf_conntrack_entries"), 0.0);
}

#[test]
fn a_kernel_without_the_module_is_told_and_the_module_is_found_when_it_comes() {
    let lab = Lab::new();
    let procfs = tempfile::tempdir().unwrap();
    let below = |path: &str| procfs.path().join(path);
    for name in ["self", "thread-self", "stat"] {
        symlink(format!("/proc/{name}"), below(name)).unwrap();
    }
    let exporter = lab.start(&[&format!("--path.procfs={}", procfs.path().display())]);
    for _ in 0..2 {
        let metrics = exporter.scrape();
        assert!(!metrics.success("table") && !metrics.success("timeouts"));
        assert!(metrics.success("stat") && metrics.success("flows"), "they do not need those files");
        assert!(metrics.get("nf_conntrack_entries").is_none());
        assert!(metrics.get("process_open_fds").is_some());
    }
    let log = exporter.log();
    assert_eq!(log.matches("collector=table").count(), 1, "{log}");
    assert!(log.contains("nf_conntrack_count does not exist: nf_conntrack is not loaded"), "{log}");

    fs::create_dir_all(below("sys/net/netfilter")).unwrap();
    for (name, text) in [("count", "7\n"), ("max", "0\n"), ("buckets", "512\n"), ("generic_timeout", "600\n")]
    {
        fs::write(below(&format!("sys/net/netfilter/nf_conntrack_{name}")), text).unwrap();
    }
    let metrics = exporter.scrape();
    assert!(metrics.success("table") && metrics.success("timeouts"));
    assert_eq!(metrics.value("nf_conntrack_entries"), 7.0);
    assert_eq!(metrics.value("nf_conntrack_entries_limit"), 0.0, "unlimited");
    assert!(exporter.log().contains("collector works again"), "{}", exporter.log());
}
