//! Every expression of our dashboards and rules, asked of a real Prometheus while the attack is on: none is broken, none
//! names a metric that nobody exposes, and each panel has something to show.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;
use tests::{
    Result,
    attack::Pace,
    exposition::{Exposed, Form},
    http,
    programs::workspace,
    scenario::{SLOW_FILL, Scenario, Seer},
    topology::Family,
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(45);
/// He goes on knocking until all has been asked.
const ATTACK: Pace = Pace { count: 4000, ..SLOW_FILL };
/// Annotations with such a metric are rightly empty while all is well, each with its reason: they are asked all the same. Keep it short.
const RIGHTLY_EMPTY: [(&str, &str); 1] =
    [("conntrack_actioner_breaker_open", "the bans of this attack help")];
/// Beginnings of the names of our metrics and recorded series.
const OURS: [&str; 5] =
    ["nf_conntrack_", "conntrack_exporter_", "conntrack_actioner_", "instance:", "process_"];

/// An expression, and where it stands.
#[derive(Debug, Clone)]
struct Asked {
    place: String,
    expression: String,
    /// It marks moments of a graph, and is empty where nothing has happened.
    annotation: bool,
}

impl Asked {
    fn may_be_empty(&self) -> bool {
        self.annotation && RIGHTLY_EMPTY.iter().any(|(metric, _)| self.expression.contains(metric))
    }
}

/// A dashboard's file, read.
struct Dashboard {
    file: PathBuf,
    json: Value,
}

impl Dashboard {
    fn all() -> Vec<Self> {
        let directory = workspace().join("dashboards");
        let files = fs::read_dir(&directory)
            .expect("dashboards/ is there")
            .map(|entry| entry.expect("an entry").path());
        let mut files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|ext| ext == "json")).collect();
        files.sort();
        assert!(files.len() >= 3, "{files:?}");
        let read = |file: PathBuf| {
            let text = fs::read_to_string(&file).expect("a readable file");
            let json =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            Self { file, json }
        };
        files.into_iter().map(read).collect()
    }

    fn variables(&self) -> &[Value] {
        self.json["templating"]["list"].as_array().map_or(&[], Vec::as_slice)
    }

    /// What Grafana puts in place of each variable on first sight.
    fn values(&self) -> BTreeMap<String, String> {
        // A data source's choice stands in no expression.
        let queried = self.variables().iter().filter(|variable| variable["type"] != "datasource");
        let value = |variable: &Value| {
            let name = variable["name"].as_str().expect("a variable has a name").to_owned();
            let value = match variable["includeAll"].as_bool() {
                Some(true) => variable["allValue"].as_str().unwrap_or(".+"),
                _ => {
                    variable["current"]["value"].as_str().unwrap_or_else(|| panic!("{variable} has no value"))
                }
            };
            (name, value.to_owned())
        };
        let mut values: BTreeMap<_, _> = queried.map(value).collect();
        for (name, time) in [("__rate_interval", "1m"), ("__interval", "15s"), ("__range", "1h")] {
            values.insert(name.into(), time.into());
        }
        values
    }

    /// Every expression in it, its variables filled in; those of query variables too.
    fn expressions(&self) -> Vec<Asked> {
        let values = self.values();
        let name = self.file.file_name().expect("a file").to_string_lossy().into_owned();
        let mut found = Vec::new();
        panels(&self.json["panels"], &mut |panel| {
            let title = panel["title"].as_str().unwrap_or_default();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression =
                    target["expr"].as_str().unwrap_or_else(|| panic!("{title}: {target} has no expr"));
                found.push((format!("{name}: {title}"), expression.to_owned()));
            }
        });
        assert!(found.len() >= 10, "{name} has expressions: {found:?}");
        for variable in self.variables() {
            let query = variable["query"]["query"].as_str().unwrap_or_default();
            if let Some(inside) = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'))
            {
                let (series, label) = inside.rsplit_once(", ").expect("a series and a label");
                let place = format!("{name}: variable {}", variable["name"]);
                found.push((place, format!("count by ({label}) ({series})")));
            }
        }
        let panels = found.len();
        for annotation in self.json["annotations"]["list"].as_array().into_iter().flatten() {
            if let Some(expression) = annotation["expr"].as_str() {
                found.push((format!("{name}: annotation {}", annotation["name"]), expression.to_owned()));
            }
        }
        assert_eq!(found.len() - panels, 2, "{name} marks bans and the breaker");
        let filled = |(index, (place, expression)): (usize, (String, String))| {
            let expression =
                filled(&expression, &values).unwrap_or_else(|name| panic!("{place}: what is ${name}?"));
            Asked { place, expression, annotation: index >= panels }
        };
        found.into_iter().enumerate().map(filled).collect()
    }
}

fn panels(list: &Value, found: &mut impl FnMut(&Value)) {
    for panel in list.as_array().into_iter().flatten() {
        found(panel);
        panels(&panel["panels"], found);
    }
}

/// `$name` and `${name}` replaced; a name that is not known is the error.
fn filled(expression: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = expression;
    while let Some((before, after)) = rest.split_once('$') {
        text += before;
        let braced = after.starts_with('{');
        let after = after.strip_prefix('{').unwrap_or(after);
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        let name = &after[..end];
        text += values.get(name).ok_or(name)?;
        rest = &after[end + usize::from(braced)..];
    }
    Ok(text + rest)
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
        let answers = |asked: &Asked| match prometheus.query(server, &asked.expression) {
            Ok(series) => asked.may_be_empty() || series.iter().any(|(_, value)| !value.is_nan()),
            Err(failure) => panic!("{}: {failure}", asked.place),
        };
        silent.retain(|asked| !answers(asked));
        if silent.is_empty() { Ok(()) } else { Err(format!("without an answer: {silent:#?}")) }
    })?;
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
fn variables_and_names_are_read_as_meant() {
    let values =
        BTreeMap::from([("job".to_owned(), "j".to_owned()), ("__range".to_owned(), "1h".to_owned())]);
    assert_eq!(filled("a{job=\"$job\"}[$__range] + ${job}x", &values), Ok("a{job=\"j\"}[1h] + jx".into()));
    assert_eq!(filled("a[$__unknown]", &values), Err("__unknown".into()));
    let found = names("sum(instance:x:ratio) / nf_conntrack_a{table_id=\"conntrack-guard\"}", false);
    assert_eq!(found, BTreeSet::from(["instance:x:ratio".into(), "nf_conntrack_a".into()]));
    assert_eq!(
        names("nf_conntrack_max is full: nf_conntrack_b{x}", true),
        BTreeSet::from(["nf_conntrack_b".into()])
    );
}
