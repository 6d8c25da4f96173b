//! What people are spared of is never what the actioner needs: the shipped Alertmanager configuration, with two receivers.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tests::{
    Result,
    programs::Running,
    receiver::{Answer, Receiver},
    scenario::settings::{self, PEOPLE, WEBHOOK},
    servers::Alertmanager,
    topology::Topology,
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(30);
const HOST: &str = "web1:10048";

/// `alertname/severity` of every alert that a receiver was told.
fn told(receiver: &Receiver, path: &str) -> BTreeSet<String> {
    let received = receiver.received();
    let bodies = received.iter().filter(|request| request.path == path);
    let alerts = bodies.flat_map(|request| {
        let body: Value = serde_json::from_str(&request.body).expect("Alertmanager sends JSON");
        body["alerts"].as_array().cloned().unwrap_or_default()
    });
    alerts.map(|alert| name(&alert["labels"])).collect()
}

fn name(labels: &Value) -> String {
    let text = |label: &str| labels[label].as_str().unwrap_or_default().to_owned();
    let elsewhere = if text("instance") == HOST { "" } else { " elsewhere" };
    format!("{}/{}{elsewhere}", text("alertname"), text("severity"))
}

/// What Alertmanager holds back because of another alert.
fn inhibited(alertmanager: &Alertmanager, stage: &Topology) -> Result<BTreeSet<String>> {
    let alerts = alertmanager.api(&stage.server, "/api/v2/alerts")?;
    let held = |alert: &&Value| alert["status"]["inhibitedBy"].as_array().is_some_and(|by| !by.is_empty());
    let all = alerts.as_array().expect("a list of alerts");
    Ok(all.iter().filter(held).map(|alert| name(&alert["labels"])).collect())
}

fn alert(name: &str, severity: &str, remediation: bool) -> Value {
    let mut labels =
        json!({"alertname": name, "severity": severity, "job": "conntrack-exporter", "instance": HOST});
    if remediation {
        labels["remediation"] = "conntrack-guard".into();
        labels["table_id"] = "t1".into();
        labels["source"] = "198.51.100.7".into();
    }
    json!({"labels": labels, "annotations": {}})
}

/// Sends them as Prometheus does.
fn send(alertmanager: &Running, stage: &Topology, alerts: &Value) -> Result<()> {
    let body = alerts.to_string();
    let answer = alertmanager.post(
        &stage.server,
        "/api/v2/alerts",
        &["Content-Type: application/json"],
        body.as_bytes(),
    )?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    Ok(())
}

#[test]
fn people_hear_the_graver_tier_and_the_actioner_hears_everything_that_is_meant_for_it() -> Result<()> {
    let stage = Topology::direct(&["people"])?;
    let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let people = Receiver::start(&stage.server, at(PEOPLE), |_| Answer::default())?;
    let actioner = Receiver::start(&stage.server, at(WEBHOOK), |_| Answer::default())?;
    let mut alertmanager =
        Alertmanager::start(&stage.server, at("127.0.0.1:9093"), &settings::alertmanager()?)?;

    // First what inhibits, so that no other is told before it is known.
    let full = alert("ConntrackTableFull", "critical", false);
    let nearly = |severity| alert("ConntrackTableNearlyFull", severity, false);
    let remediated = |severity| alert("ConntrackSourceHoardsEntries", severity, true);
    // Another host, nearly full by a warning alone: what pages there is not held back by what does not.
    let elsewhere = |name, severity| {
        let mut alert = alert(name, severity, false);
        alert["labels"]["instance"] = "web2:10048".into();
        alert
    };
    send(alertmanager.running(), &stage, &json!([full, nearly("critical")]))?;
    wait_until("the first inhibition", SOON, || {
        let inhibited = inhibited(&alertmanager, &stage).map_err(|failure| failure.to_string())?;
        match inhibited.contains("ConntrackTableNearlyFull/critical") {
            true => Ok(()),
            false => Err(format!("{inhibited:?}")),
        }
    })?;
    // Of our own alert there is a graver tier as well: an inhibit rule that forgot remediation would hold the lesser one back.
    send(
        alertmanager.running(),
        &stage,
        &json!([
            full,
            nearly("critical"),
            nearly("warning"),
            alert("ConntrackEarlyDrop", "warning", false),
            alert("ConntrackTableFillsSoon", "warning", false),
            // Not inhibited by anything: when it has come, the others would have too.
            alert("ConntrackInsertFailed", "warning", false),
            elsewhere("ConntrackTableNearlyFull", "warning"),
            elsewhere("ConntrackTableFillsSoon", "critical"),
            remediated("critical"),
            remediated("warning"),
            alert("ConntrackTableFillsSoon", "info", true),
        ]),
    )?;
    let expected: BTreeSet<String> = [
        "ConntrackSourceHoardsEntries/critical",
        "ConntrackSourceHoardsEntries/warning",
        "ConntrackTableFillsSoon/info",
    ]
    .map(str::to_owned)
    .into();
    wait_until("the actioner to be told all that is meant for it", SOON, || {
        match told(&actioner, "/webhook") {
            told if told == expected => Ok(()),
            told => Err(format!("{told:?}")),
        }
    })?;
    wait_until("the team to be told what nothing inhibits", SOON, || {
        let told = told(&people, "/team");
        match [
            "ConntrackInsertFailed/warning",
            "ConntrackSourceHoardsEntries/warning",
            "ConntrackTableFillsSoon/info",
        ]
        .iter()
        .all(|wanted| told.contains(*wanted))
        {
            true => Ok(()),
            false => Err(format!("{told:?}")),
        }
    })?;

    let spared: BTreeSet<String> = [
        "ConntrackTableNearlyFull/critical",
        "ConntrackTableNearlyFull/warning",
        "ConntrackEarlyDrop/warning",
        "ConntrackTableFillsSoon/warning",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(inhibited(&alertmanager, &stage)?, spared, "left: what Alertmanager inhibits");
    let team = told(&people, "/team");
    assert!(team.is_disjoint(&spared), "inhibited, and told all the same: {team:?}");
    Ok(())
}
