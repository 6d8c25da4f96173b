//! `make pictures`: the dashboards as they look while the article's attack is on, light and dark, by Grafana's own components.

use std::{env, fs, time::Duration};

use tests::{
    Result,
    attack::Pace,
    programs::workspace,
    scenario::{SLOW_FILL, Scenario, Seer},
    topology::Family,
    wait::wait_until,
};

const DASHBOARDS: [&str; 3] = ["conntrack", "actioner", "fleet"];
const SOON: Duration = Duration::from_secs(60);
/// So much of it is shown.
const SHOWN: Duration = Duration::from_secs(150);
/// Some knocking goes on after the ban.
const ATTACK: Pace = Pace { count: 12_000, per_second: 40, within: Duration::from_secs(400) };

#[test]
#[ignore = "it needs node and chromium, and draws: make pictures"]
fn draw() -> Result<()> {
    let tool =
        env::var("DASHBOARD_SHOT").expect("DASHBOARD_SHOT is where packaging/pictures.sh put the tool");
    let scenario = Scenario::start(Family::V4, Seer::Prometheus)?;
    let server = &scenario.topology().server;
    let attack = scenario.slow_fill(SLOW_FILL)?;
    wait_until("the ban", SOON, || match scenario.look() {
        Ok(look) if look.bans(scenario.attackers()) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    drop(attack);
    let _next = scenario.slow_fill(ATTACK)?;
    let pictures = workspace().join("docs/pictures");
    let copies = tempfile::tempdir().expect("a directory");
    let prometheus = &scenario.monitoring().prometheus;
    wait_until("enough to be shown", SHOWN, || {
        match prometheus.query(server, "count_over_time(nf_conntrack_entries[5m]) > 100") {
            Ok(long) if !long.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    for name in DASHBOARDS {
        let text =
            fs::read_to_string(workspace().join(format!("dashboards/{name}.json"))).expect("a dashboard");
        let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["time"] = serde_json::json!({"from": "now-3m", "to": "now"});
        let copy = copies.path().join(format!("{name}.json"));
        fs::write(&copy, json.to_string()).expect("a copy");
        for theme in ["light", "dark"] {
            let out = pictures.join(format!("{name}-{theme}.png"));
            let draw = format!(
                "cd {tool} && node shot.mjs {} http://127.0.0.1:9090 {} {theme}",
                copy.display(),
                out.display()
            );
            let said = server.command(&["bash", "-c", &draw])?;
            let report: serde_json::Value = serde_json::from_slice(&said.stdout).expect("a report");
            assert_eq!(
                (&report["fatal"], &report["problems"]),
                (&serde_json::Value::Null, &serde_json::json!([])),
                "{name}"
            );
            println!("{}", out.display());
        }
    }
    Ok(())
}
