//! The answer is what Prometheus and its tools expect.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::http;
use tests::servers::{Binary, Prometheus, PrometheusSetup};
use tests::wait::wait_until;

use crate::lab::{Lab, Metrics, assured};

fn filled() -> Lab {
    let lab = Lab::new();
    lab.add(&[assured("198.51.100.1", 60), assured("2001:db8::9", 55)].concat());
    lab
}

#[test]
fn the_classic_format_passes_promtool() {
    let lab = filled();
    let exporter = lab.start(&[]);
    let answer = exporter.get("/metrics", &[]);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut promtool = Command::new(Binary::Promtool.path().unwrap())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(&answer.body).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn openmetrics_has_the_same_samples() {
    let lab = filled();
    let exporter = lab.start(&["--collector.flows.max-age=1h"]);
    let classic = exporter.scrape();
    let answer =
        exporter.get("/metrics", &["Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"]);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(kind));
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"));
    let names = |metrics: &Metrics| metrics.0.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&Metrics::read(&text)), names(&classic));
}

#[test]
fn every_series_and_type_arrives_in_prometheus() {
    let lab = filled();
    let exporter = lab.start(&[]);
    let setup = PrometheusSetup {
        jobs: vec![("conntrack-exporter".into(), vec!["127.0.0.1:10048".into()])],
        ..PrometheusSetup::default()
    };
    let prometheus = Prometheus::start(&lab.namespace, ([127, 0, 0, 1], 9090).into(), &setup).unwrap();
    let selector = "{job=\"conntrack-exporter\",__name__!~\"up|scrape_.*\"}";
    let arrived = wait_until("a scrape", Duration::from_secs(20), || {
        match prometheus.query(&lab.namespace, selector) {
            Ok(series) if !series.is_empty() => Ok(series),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    let classic = exporter.get("/metrics", &[]).text();
    // What Prometheus does itself (its own connections, say) may add a state, but no series: the states have zeros.
    let expected = Metrics::read(&classic).0;
    assert_eq!(arrived.len(), expected.len(), "{arrived:#?}\n{expected:#?}");
    for (labels, _) in &arrived {
        let name = &labels["__name__"];
        assert!(expected.keys().any(|series| series.split('{').next() == Some(name)), "{name}");
    }

    let metadata = prometheus.api(&lab.namespace, "/api/v1/targets/metadata").unwrap();
    let known = metadata["data"].as_array().unwrap();
    for line in classic.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        // Prometheus keeps the family's name in OpenMetrics, less _total and _info.
        let family = name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name);
        let kind = if name.ends_with("_info") { "info" } else { kind };
        let found = known.iter().find(|entry| entry["metric"] == family || entry["metric"] == name);
        let found = found.unwrap_or_else(|| panic!("no metadata of {name}"));
        assert_eq!(found["type"], kind, "{name}");
        assert!(found["help"].as_str().is_some_and(|help| help.ends_with('.')), "{found}");
    }
}

#[test]
fn the_other_paths_answer_too() {
    let lab = Lab::new();
    let exporter = lab.start(&["--web.telemetry-path=/table"]);
    assert!(exporter.get("/", &[]).text().contains("<a href=\"/table\">"));
    assert_eq!(exporter.get("/-/healthy", &[]).status, 200);
    assert_eq!(exporter.get("/table", &[]).status, 200);
    let nothing = exporter.get("/metrics", &[]);
    assert_eq!((nothing.status, nothing.text().contains("/table")), (404, true));
    let post = lab.namespace.run(|| http::post(&exporter.running.address, "/table", &[], b"")).unwrap();
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn it_stops_when_it_is_told_to() {
    let lab = Lab::new();
    let mut exporter = lab.start(&[]);
    exporter.scrape();
    assert!(exporter.running.process.stop().unwrap().success(), "{}", exporter.log());
}
