//! What holds for each dashboard before anybody asks Prometheus: it imports anywhere, its numbers are those of the range and the hosts
//! chosen, no attacker can fill a legend, and a reader finds a sentence and a unit at each panel.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

use crate::file::Dashboard;

/// Those that Grafana 10 to 13 draw without a plugin, and that `make pictures` draws too.
const PANELS: [&str; 5] = ["stat", "timeseries", "table", "text", "row"];
/// What Grafana 10.0 writes. Later ones migrate it; a later one's file would reach 10.0 unmigrated.
const SCHEMA: u64 = 38;
/// Labels that may stand in a legend: we bound them, or whoever runs Prometheus.
const LEGENDS: [&str; 15] = [
    "instance",
    "family",
    "protocol",
    "state",
    "entries",
    "collector",
    "reason",
    "rule",
    "result",
    "outcome",
    "cause",
    "window",
    "code",
    "action",
    "what",
];
/// What series of several metrics are joined on. Two jobs may scrape one instance, and one job has many.
const JOINS: [&str; 4] = ["job, instance", "table_id", "source", "job"];

/// Everything that is wrong, said at once.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, right: bool, dashboard: &Dashboard, panel: &Value, what: &str) {
        if !right {
            self.0.push(format!("{}: {}: {what}", dashboard.name, panel["title"]));
        }
    }

    #[track_caller]
    fn assert_none(self) {
        assert!(self.0.is_empty(), "{:#?}", self.0);
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn targets(panel: &Value) -> &[Value] {
    panel["targets"].as_array().map_or(&[], Vec::as_slice)
}

/// What stands between a parenthesis, which is the first character, and its partner.
fn inside(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[1..at];
        }
    }
    panic!("a parenthesis is not closed: {text}");
}

fn uids<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("datasource"));
            fields.values().for_each(|field| uids(field, found));
        }
        Value::Array(list) => list.iter().for_each(|one| uids(one, found)),
        _ => {}
    }
}

#[test]
fn a_dashboard_imports_anywhere() {
    let mut wrong = Wrong::default();
    for dashboard in &Dashboard::all() {
        let json = &dashboard.json;
        assert!(
            json["schemaVersion"].as_u64().is_some_and(|version| version <= SCHEMA),
            "{}",
            dashboard.name
        );
        assert!(json["__inputs"].is_null() && json["id"].is_null(), "{}", dashboard.name);
        let mut sources = Vec::new();
        uids(json, &mut sources);
        assert!(sources.len() > 20, "{}: {sources:?}", dashboard.name);
        let fixed: Vec<_> = sources
            .into_iter()
            .filter(|source| !["${datasource}", "-- Grafana --"].contains(&text(source, "uid")))
            .collect();
        assert!(fixed.is_empty(), "{}: fixed data sources: {fixed:?}", dashboard.name);
        let mut ids = BTreeSet::new();
        for panel in dashboard.panels() {
            wrong.unless(ids.insert(panel["id"].as_u64()), dashboard, panel, "its id is another's too");
            wrong.unless(PANELS.contains(&text(panel, "type")), dashboard, panel, "an unknown type of panel");
            let asks = targets(panel).iter().all(|target| !target["datasource"].is_null());
            wrong.unless(asks, dashboard, panel, "a query without a data source");
        }
    }
    wrong.assert_none();
}

#[test]
fn data_source_job_and_instance_are_chosen_and_all_of_them_at_first() {
    for dashboard in Dashboard::all() {
        let variables = dashboard.variables();
        let names: Vec<_> = variables.iter().map(|variable| text(variable, "name")).collect();
        assert_eq!(names, ["datasource", "job", "instance"], "{}", dashboard.name);
        assert_eq!(
            (text(&variables[0], "type"), &variables[0]["current"]),
            ("datasource", &serde_json::json!({}))
        );
        for variable in &variables[1..] {
            assert_eq!(
                (&variable["multi"], &variable["includeAll"], &variable["current"]["value"][0]),
                (&Value::Bool(true), &Value::Bool(true), &Value::from("$__all")),
                "{}: {}",
                dashboard.name,
                variable["name"]
            );
        }
        assert!(text(&variables[2]["query"], "query").contains("job=~\"$job\""), "{}", dashboard.name);
        let marks: Vec<_> =
            dashboard.annotations().into_iter().map(|annotation| text(annotation, "name")).collect();
        assert_eq!(marks, ["Bans", "Breaker open"], "{}", dashboard.name);
    }
}

#[test]
fn panels_lie_beside_each_other() {
    let mut wrong = Wrong::default();
    for dashboard in &Dashboard::all() {
        let panels = dashboard.panels();
        let place = |panel: &Value| {
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place on the grid"))
        };
        for (at, panel) in panels.iter().enumerate() {
            let [x, y, w, h] = place(panel);
            wrong.unless(x + w <= 24 && w > 0 && h > 0, dashboard, panel, "outside the grid");
            for other in &panels[..at] {
                let [left, top, width, height] = place(other);
                let apart = x + w <= left || left + width <= x || y + h <= top || top + height <= y;
                wrong.unless(apart, dashboard, panel, &format!("overlaps {}", other["title"]));
            }
        }
    }
    wrong.assert_none();
}

#[test]
fn every_panel_says_what_it_shows_and_in_what_unit() {
    let mut wrong = Wrong::default();
    for dashboard in &Dashboard::all() {
        let mut titles = BTreeSet::new();
        for panel in dashboard.panels() {
            let title = text(panel, "title");
            wrong.unless(
                !title.is_empty() && titles.insert(title),
                dashboard,
                panel,
                "another has its title",
            );
            if panel["type"] == "row" {
                continue;
            }
            wrong.unless(text(panel, "description").len() > 4, dashboard, panel, "without a description");
            if panel["type"] == "text" {
                continue;
            }
            let unit = text(&panel["fieldConfig"]["defaults"], "unit");
            let each_has = || {
                let overrides = panel["fieldConfig"]["overrides"].as_array();
                overrides.is_some_and(|all| {
                    all.iter().any(|one| one["properties"].to_string().contains(r#""id":"unit""#))
                })
            };
            wrong.unless(!unit.is_empty() || each_has(), dashboard, panel, "without a unit");
            if panel["type"] == "stat" {
                // About four letters a column, with the sign for the description behind them.
                let room = panel["gridPos"]["w"].as_u64().unwrap_or(0) * 4;
                wrong.unless(title.len() as u64 <= room, dashboard, panel, "its title is cut off");
                let now = targets(panel).iter().all(|target| target["instant"] == true);
                wrong.unless(now, dashboard, panel, "shows what was last known of a host that is gone");
                let empty = text(&panel["fieldConfig"]["defaults"], "noValue");
                wrong.unless(!empty.is_empty(), dashboard, panel, "does not say why it is empty");
            }
        }
    }
    wrong.assert_none();
}

/// `rate` and its like over what Grafana says is enough for the scrapes, or over the whole range where one number stands for it.
#[test]
fn rates_are_taken_over_the_interval_that_grafana_computes() {
    let counting = Regex::new(r"\b(?:rate|irate|increase|delta)\(").unwrap();
    let mut wrong = Wrong::default();
    let mut seen = 0;
    for dashboard in &Dashboard::all() {
        let mut judge = |panel: &Value, expression: &str, whole: bool| {
            for call in counting.find_iter(expression) {
                seen += 1;
                let over = inside(&expression[call.end() - 1..]);
                let right = over.ends_with("[$__rate_interval]") || (whole && over.ends_with("[$__range]"));
                wrong.unless(right, dashboard, panel, &format!("over a fixed time: {over}"));
            }
        };
        for panel in dashboard.panels() {
            for target in targets(panel) {
                let expression = text(target, "expr");
                judge(
                    panel,
                    expression,
                    target["instant"] == true || expression.starts_with("histogram_quantile("),
                );
            }
        }
        dashboard.annotations().into_iter().for_each(|mark| judge(mark, text(mark, "expr"), false));
    }
    assert!(seen > 40, "{seen}");
    wrong.assert_none();
}

#[test]
fn no_address_is_in_a_legend() {
    let label = Regex::new(r"\{\{\s*(\w+)\s*\}\}").unwrap();
    let by = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let mut wrong = Wrong::default();
    for dashboard in &Dashboard::all() {
        for panel in dashboard.panels() {
            for target in targets(panel).iter().filter(|target| target["format"] != "table") {
                let legend = text(target, "legendFormat");
                // Without one, Grafana writes all labels.
                wrong.unless(!legend.is_empty(), dashboard, panel, "without a legend");
                for named in label.captures_iter(legend) {
                    wrong.unless(LEGENDS.contains(&&named[1]), dashboard, panel, &format!("legend {legend}"));
                }
                let mut sums = by.captures_iter(text(target, "expr"));
                let addressed =
                    sums.any(|sum| sum[1].split(", ").any(|label| label == "source" || label == "prefix"));
                wrong.unless(!addressed, dashboard, panel, "a series for each address");
            }
        }
    }
    wrong.assert_none();
}

#[test]
fn series_are_joined_on_job_and_instance() {
    let on = Regex::new(r"\b(on|ignoring) \(([^)]*)\)").unwrap();
    let by = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let mut wrong = Wrong::default();
    let mut joins = 0;
    for dashboard in &Dashboard::all() {
        let mut judge = |panel: &Value, expression: &str| {
            for join in on.captures_iter(expression) {
                joins += 1;
                let right = &join[1] == "on" && JOINS.contains(&&join[2]);
                wrong.unless(right, dashboard, panel, &format!("joins {}", &join[0]));
            }
            for sum in by.captures_iter(expression) {
                let labels: Vec<_> = sum[1].split(", ").collect();
                let right = labels.contains(&"instance") == labels.contains(&"job");
                wrong.unless(right, dashboard, panel, &format!("an instance of every job: {}", &sum[0]));
            }
        };
        for panel in dashboard.panels() {
            targets(panel).iter().for_each(|target| judge(panel, text(target, "expr")));
        }
        dashboard.annotations().into_iter().for_each(|mark| judge(mark, text(mark, "expr")));
    }
    assert!(joins > 10, "{joins}");
    wrong.assert_none();
}
