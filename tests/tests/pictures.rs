//! `make pictures`: the dashboards as they look while an attack is on, light and dark, by Grafana's own components.

use std::{env, fs, net::IpAddr, net::SocketAddr, path::Path, time::Duration};

use ipnet::IpNet;
use tests::{
    Result,
    attack::{Attack, Pace, slow_fill},
    netns::Namespace,
    programs::{Program, workspace},
    scenario::{Scenario, Seer},
    servers::{Prometheus, PrometheusSetup},
    topology::Family,
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(90);
/// So much of it is shown.
const SHOWN: Duration = Duration::from_secs(180);
/// Each holds the 300 dead slots that a ban takes after some twenty seconds. More of them than may be banned in a minute, so that some are refused.
const ARMY: Pace = Pace { count: 40_000, per_second: 240, within: Duration::from_secs(170) };
/// Those who come later stay below that, and are still there when the picture is drawn.
const LATER: Pace = Pace { count: 1200, per_second: 20, within: Duration::from_secs(170) };

/// The dashboards, each with the Prometheus that it is drawn from.
const DASHBOARDS: [(&str, u16); 3] = [("conntrack", 9090), ("actioner", 9090), ("fleet", FLEET)];
/// Sees the clients' hosts too.
const FLEET: u16 = 9091;

/// In lines of the grid: how full, when, who, what was done, what fires.
const FIRST_SCREEN: u64 = 26;

#[test]
#[ignore = "it needs node and chromium, and draws: make pictures"]
fn draw() -> Result<()> {
    let tool =
        env::var("DASHBOARD_SHOT").expect("DASHBOARD_SHOT is where packaging/pictures.sh put the tool");
    let army: IpNet = "198.51.100.128/28".parse().expect("a prefix");
    let scenario = Scenario::start_with_many(Family::V4, Seer::Prometheus, army)?;
    let server = &scenario.topology().server;
    let mut others = Vec::new();
    for name in ["honest", "busy"] {
        let host = scenario.topology().peer(name);
        host.namespace.track_connections()?;
        let at = SocketAddr::new(host.v4.into(), Program::Exporter.default_address().port());
        let flags = ["--collector.sources.min-entries", "1", "--web.listen-address", &at.to_string()];
        others.push((at.to_string(), Program::Exporter.start(&host.namespace, at, &flags)?));
    }
    let targets: Vec<String> = others.iter().map(|(at, _)| at.clone()).collect();
    let fleet = fleet(server, &targets)?;
    let sources: Vec<IpAddr> = army.hosts().collect();
    let (later, first) = sources.split_at(3);
    let _first = attack(&scenario, first, ARMY)?;
    let prometheus = &scenario.monitoring().prometheus;
    wait_until("ten bans, and one refused", SOON, || {
        let asked =
            "sum(conntrack_actioner_enforced_bans) >= 10 and sum(conntrack_actioner_refusals_total) > 0";
        has(prometheus, server, asked)
    })?;
    let _later = attack(&scenario, later, LATER)?;
    for (prometheus, exporter) in [(prometheus, 1), (&fleet, 3)] {
        wait_until("enough to be shown", SHOWN, || {
            let long = format!("count(count_over_time(nf_conntrack_entries[5m]) > 110) >= {exporter}");
            has(prometheus, server, &long)
        })?;
    }
    let copies = tempfile::tempdir().expect("a directory");
    for (name, port) in DASHBOARDS {
        // On a busy machine a scrape may have gone without the dump: then nobody would be shown.
        wait_until("somebody to be shown", SOON, || {
            let sources =
                "count(nf_conntrack_source_entries) > 3 and sum(nf_conntrack_socketless_entries) >= 0";
            has(prometheus, server, sources)
        })?;
        picture(server, &tool, copies.path(), (name, name), port, u64::MAX)?;
    }
    let (name, port) = DASHBOARDS[0];
    picture(server, &tool, copies.path(), (name, "first-screen"), port, FIRST_SCREEN)
}

/// The rules are asked too: its dashboard counts what fires.
fn fleet(server: &Namespace, others: &[String]) -> Result<Prometheus> {
    let here = |program: Program| format!("localhost:{}", program.default_address().port());
    let mut exporters = vec![here(Program::Exporter)];
    exporters.extend_from_slice(others);
    let setup = PrometheusSetup {
        jobs: vec![
            ("conntrack-exporter".to_owned(), exporters),
            ("conntrack-actioner".to_owned(), vec![here(Program::Actioner)]),
        ],
        rules: vec![workspace().join("alerts/conntrack-guard.rules.yml")],
        alertmanagers: Vec::new(),
    };
    Prometheus::start(server, SocketAddr::from(([127, 0, 0, 1], FLEET)), &setup)
}

fn attack(scenario: &Scenario, from: &[IpAddr], pace: Pace) -> Result<Attack> {
    let attacker = &scenario.topology().peer("attacker").namespace;
    slow_fill(attacker, from.to_vec(), scenario.target(), pace)
}

fn has(prometheus: &Prometheus, server: &Namespace, expression: &str) -> Result<(), String> {
    match prometheus.query(server, expression) {
        Ok(series) if !series.is_empty() => Ok(()),
        other => Err(format!("{expression}: {other:?}")),
    }
}

/// Light and dark, of what the Prometheus at that port knows: the panels of a dashboard down to a line of its grid.
fn picture(
    server: &Namespace,
    tool: &str,
    copies: &Path,
    (name, called): (&str, &str),
    port: u16,
    down_to: u64,
) -> Result<()> {
    let file = workspace().join(format!("dashboards/{name}.json"));
    let text = fs::read_to_string(file).expect("a dashboard");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json["time"] = serde_json::json!({"from": "now-3m", "to": "now"});
    let panels = json["panels"].as_array_mut().expect("panels");
    panels.retain(|panel| panel["gridPos"]["y"].as_u64().is_some_and(|y| y < down_to));
    let copy = copies.join(format!("{called}.json"));
    fs::write(&copy, json.to_string()).expect("a copy");
    for theme in ["light", "dark"] {
        let out = workspace().join(format!("docs/pictures/{called}-{theme}.png"));
        let (copy, out) = (copy.display(), out.display());
        let draw = format!("cd {tool} && node shot.mjs {copy} http://127.0.0.1:{port} {out} {theme}");
        let said = server.command(&["bash", "-c", &draw])?;
        let report: serde_json::Value = serde_json::from_slice(&said.stdout).expect("a report");
        assert_eq!(
            (&report["fatal"], &report["problems"]),
            (&serde_json::Value::Null, &serde_json::json!([])),
            "{name}"
        );
        println!("{out}");
    }
    Ok(())
}
