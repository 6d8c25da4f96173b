//! A machine that misbehaves under the exporter: its clock is set, its log's disk is full, somebody else has its port.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::lab::{Lab, assured};
use tests::tools::{Tool, require};

const HIM: &str = "198.51.100.1";
const YEAR: i64 = 365 * 86_400;

/// Only the wall clock of this one process is shifted; not confined, for libfaketime has its shared memory in /dev/shm.
const CLOCK: &str = "export LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1) FAKETIME_TIMESTAMP_FILE=CLOCK_IS_HERE FAKETIME_NO_CACHE=1 \
                     FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1; exec \"$0\" \"$@\" --no-confine";

#[test]
fn a_wall_clock_that_jumps_by_a_year_either_way_costs_no_scrape_and_drops_no_source_that_is_held() {
    require(&[Tool::Faketime]).unwrap();
    let lab = Lab::new();
    lab.add(&assured(HIM, 60));
    let directory = tempfile::tempdir().unwrap();
    let clock = directory.path().join("clock");
    let set = |ahead: i64| {
        let new = directory.path().join("new");
        fs::write(&new, format!("{ahead:+}\n")).unwrap();
        fs::rename(&new, &clock).unwrap();
    };
    set(0);
    let script = CLOCK.replace("CLOCK_IS_HERE", &clock.display().to_string());
    let exporter = lab.start_under(&["sh", "-c", &script], &["--collector.sources.top=1"]);
    let held = format!("nf_conntrack_source_entries{{source=\"{HIM}\"}}");
    assert_eq!(exporter.scrape().value(&held), 60.0);
    lab.add(&assured("198.51.100.2", 90));
    for ahead in [YEAR, -YEAR, 0] {
        set(ahead);
        let metrics = exporter.scrape();
        for collector in ["table", "stat", "flows", "sources", "sockets", "timeouts"] {
            assert!(metrics.success(collector), "{collector}, {ahead} s ahead\n{}", exporter.log());
        }
        assert_eq!(metrics.value(&held), 60.0, "{ahead} s ahead");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() + ahead as f64;
        let dumped = metrics.value("nf_conntrack_dump_timestamp_seconds");
        assert!((dumped - now).abs() < 60.0, "it says when, by the clock as it is: {dumped}, not {now}");
        assert!(metrics.value("nf_conntrack_scrape_collector_duration_seconds{collector=\"flows\"}") < 60.0);
        assert_eq!(exporter.get("/-/healthy", &[]).status, 200);
    }
}

#[test]
fn a_log_that_takes_no_line_costs_no_scrape() {
    let lab = Lab::new();
    lab.add(&assured(HIM, 60));
    let wrapper = ["sh", "-c", "exec \"$0\" \"$@\" >/dev/full 2>&1"];
    let mut exporter = lab.start_under(&wrapper, &["--log.level=debug"]);
    for _ in 0..3 {
        assert_eq!(exporter.scrape().value("nf_conntrack_entries"), 60.0);
    }
    exporter.running.process.running().unwrap();
    assert_eq!(exporter.log(), "", "nothing could be written");
}

#[test]
fn a_second_exporter_on_the_same_port_says_who_has_it_and_leaves_the_first_alone() {
    let lab = Lab::new();
    let exporter = lab.start(&[]);
    let program = env!("CARGO_BIN_EXE_conntrack-exporter");
    let second = lab.namespace.command(&[program, "--web.listen-address=127.0.0.1:10048"]).unwrap_err();
    let said = second.to_string();
    assert!(said.contains("the port is in use") && said.contains("ss -ltnp"), "{said}");
    assert_eq!(exporter.get("/-/ready", &[]).status, 200);
}
