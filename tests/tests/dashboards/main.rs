//! Every expression of our dashboards and rules, asked of a real Prometheus while the attack is on: none is broken, none
//! names a metric that nobody exposes, and each panel has something to show.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod file;
mod form;

use std::{collections::BTreeSet, time::Duration};

use file::{Asked, Dashboard};
use serde_json::Value;
use tests::{
    Result,
    attack::Pace,
    exposition::{Exposed, Form},
    http,
    netns::Namespace,
    scenario::{SLOW_FILL, Scenario, Seer},
    servers::Prometheus,
    topology::Family,
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(45);
/// He goes on knocking until all has been asked.
const ATTACK: Pace = Pace { count: 4000, ..SLOW_FILL };
/// Beginnings of the names of our metrics and recorded series.
const OURS: [&str; 5] =
    ["nf_conntrack_", "conntrack_exporter_", "conntrack_actioner_", "instance:", "process_"];

/// Whether a panel with it has something to show. The error is Prometheus's.
fn answered(prometheus: &Prometheus, server: &Namespace, expression: &str) -> Result<bool> {
    let series = prometheus.query(server, expression)?;
    Ok(series.iter().any(|(_, value)| !value.is_nan()))
}

/// Names of metrics in an expression, or in prose where only what is followed by `{` or `[` counts as one.
fn names(text: &str, prose: bool) -> BTreeSet<String> {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut names = BTreeSet::new();
    let mut rest = text;
    while let Some(start) = rest.find(part_of_name) {
        rest = &rest[start..];
        let end = rest.find(|c| !part_of_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if OURS.iter().any(|ours| name.starts_with(ours)) && (!prose || after.starts_with(['{', '['])) {
            names.insert(name.to_owned());
        }
        rest = after;
    }
    names
}

#[test]
fn every_expression_of_dashboards_and_rules_works_while_the_attack_is_on() -> Result<()> {
    let scenario = Scenario::start(Family::V4, Seer::Prometheus)?;
    let attack = scenario.slow_fill(ATTACK)?;
    let server = &scenario.topology().server;
    let prometheus = &scenario.monitoring().prometheus;

    let asked: Vec<_> = Dashboard::all().iter().flat_map(Dashboard::expressions).collect();
    let mut silent = asked.clone();
    wait_until("every expression to have an answer", SOON, || {
        let answers = |asked: &Asked| match answered(prometheus, server, &asked.expression) {
            Ok(answered) => answered || asked.may_be_empty(),
            Err(failure) => panic!("{}: {failure}", asked.place),
        };
        silent.retain(|asked| !answers(asked));
        if silent.is_empty() { Ok(()) } else { Err(format!("without an answer: {silent:#?}")) }
    })?;
    let empty = answered(prometheus, server, "nf_conntrack_entries{job=\"misspelt\"}")?;
    let nan = answered(prometheus, server, "0 * nf_conntrack_entries / 0")?;
    assert!(!empty && !nan, "an empty panel is seen");
    assert!(answered(prometheus, server, "sum(nf_conntrack_entries").is_err(), "a broken one is seen");
    wait_until("the loop to close meanwhile", SOON, || match scenario.look() {
        Ok(look) if look.bans(scenario.attackers()) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    assert!(!attack.done(), "the attack was on all the while");

    let rules = prometheus.api(server, "/api/v1/rules")?;
    let groups = rules["data"]["groups"].as_array().cloned().unwrap_or_default();
    let rules: Vec<Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect();
    assert!(rules.len() >= 10, "{rules:#?}");
    let mut known = BTreeSet::new();
    for rule in &rules {
        assert_eq!((rule["health"].as_str(), &rule["lastError"]), (Some("ok"), &Value::Null), "{rule:#}");
        if rule["type"] == "recording" {
            known.insert(rule["name"].as_str().expect("a name").to_owned());
        }
    }

    for running in [&scenario.monitoring().exporter, scenario.actioner()] {
        let answer = server.run(|| http::get(&running.address, "/metrics", &[Form::Classic.accept()]))?;
        let exposed = Exposed::parse(&answer.text(), Form::Classic).expect("the classic form");
        known.extend(exposed.series().into_iter().map(|(name, _)| name));
    }
    let mut unknown = BTreeSet::new();
    let mut hold_against = |place: &str, names: BTreeSet<String>| {
        unknown.extend(
            names.into_iter().filter(|name| !known.contains(name)).map(|name| format!("{place}: {name}")),
        );
    };
    for Asked { place, expression, .. } in &asked {
        hold_against(place, names(expression, false));
    }
    for rule in &rules {
        let place = rule["name"].as_str().unwrap_or_default();
        hold_against(place, names(rule["query"].as_str().unwrap_or_default(), false));
        for annotation in rule["annotations"].as_object().into_iter().flatten() {
            hold_against(place, names(annotation.1.as_str().unwrap_or_default(), true));
        }
    }
    assert!(unknown.is_empty(), "named, but exposed by nobody: {unknown:#?}");
    Ok(())
}

#[test]
fn names_are_read_as_meant() {
    let found = names("sum(instance:x:ratio) / nf_conntrack_a{table_id=\"conntrack-guard\"}", false);
    assert_eq!(found, BTreeSet::from(["instance:x:ratio".into(), "nf_conntrack_a".into()]));
    assert_eq!(
        names("nf_conntrack_max is full: nf_conntrack_b{x}", true),
        BTreeSet::from(["nf_conntrack_b".into()])
    );
}
