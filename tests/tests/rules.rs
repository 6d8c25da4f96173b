//! Every shipped rule has been seen to fire, to stay quiet where something only looks like it, and to stop: in `alerts/tests`, which
//! promtool evaluates (`alerts/check.sh`). Here is asked that none of the three is missing, for any alert in any severity.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use regex::Regex;
use serde_json::Value;
use tests::programs::workspace;

const RULES: &str = "alerts/conntrack-guard.rules.yml";
const TESTS: &str = "alerts/tests";

/// An alert in a severity.
type Tier = (String, String);

/// What a test file says of a moment: of which alerts it asks, and what it expects to fire, each with its instance.
struct Moment {
    second: u32,
    asks: Box<dyn Fn(&Tier) -> bool>,
    firing: BTreeSet<(Tier, String)>,
}

/// One test of one file.
struct Case {
    /// Metrics of each instance.
    input: BTreeMap<String, BTreeSet<String>>,
    moments: Vec<Moment>,
}

fn yaml(path: &str) -> Value {
    let text = fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// 5m, 1h30m or 45s.
fn seconds(text: &str) -> u32 {
    let part = Regex::new(r"(\d+)([hms])").unwrap();
    let unit = |unit: &str| match unit {
        "h" => 3600,
        "m" => 60,
        _ => 1,
    };
    part.captures_iter(text).map(|part| part[1].parse::<u32>().unwrap() * unit(&part[2])).sum()
}

/// The matchers of a selector, without its braces.
fn matchers(selector: &str) -> Vec<(String, String, String)> {
    let matcher = Regex::new(r#"(\w+)(=~|!~|!=|=)"([^"]*)""#).unwrap();
    matcher.captures_iter(selector).map(|found| (found[1].into(), found[2].into(), found[3].into())).collect()
}

fn holds((operator, wanted): (&str, &str), value: &str) -> bool {
    let like = || Regex::new(&format!("^(?:{wanted})$")).unwrap().is_match(value);
    match operator {
        "=" => value == wanted,
        "!=" => value != wanted,
        "=~" => like(),
        _ => !like(),
    }
}

/// An expression about `ALERTS`: every selector of it must let the tier through.
fn of_expression(test: &Value) -> Moment {
    let expression = test["expr"].as_str().unwrap();
    let selectors = Regex::new(r"ALERTS\{([^}]*)\}").unwrap();
    let selected: Vec<_> =
        selectors.captures_iter(expression).flat_map(|found| matchers(&found[1])).collect();
    let about = !selected.is_empty();
    let says = |label: &str| {
        let of = selected.iter().find(|(name, operator, _)| name == label && operator == "=");
        of.map(|(_, _, value)| value.clone())
    };
    let (alert, severity) = (says("alertname"), says("severity"));
    let samples = test["exp_samples"].as_array().into_iter().flatten();
    let firing = samples.filter_map(|sample| {
        let labels = matchers(sample["labels"].as_str()?);
        let label =
            |wanted: &str| labels.iter().find(|(name, ..)| name == wanted).map(|(.., value)| value.clone());
        let tier = (label("alertname").or(alert.clone())?, label("severity").or(severity.clone())?);
        (label("alertstate").as_deref() == Some("firing"))
            .then(|| (tier, label("instance").unwrap_or_default()))
    });
    let firing = firing.collect();
    let asks = move |(alert, severity): &Tier| {
        about
            && selected.iter().all(|(name, operator, wanted)| match name.as_str() {
                "alertname" => holds((operator, wanted), alert),
                "severity" => holds((operator, wanted), severity),
                _ => true,
            })
    };
    Moment { second: seconds(test["eval_time"].as_str().unwrap()), asks: Box::new(asks), firing }
}

fn of_alert(test: &Value) -> Moment {
    let alert = test["alertname"].as_str().unwrap().to_owned();
    let alerts = test["exp_alerts"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |alerting: &Value| {
        let labels = &alerting["exp_labels"];
        ((alert.clone(), text(&labels["severity"])), text(&labels["instance"]))
    };
    let firing = alerts.map(one).collect();
    let asks = move |(asked, _): &Tier| *asked == alert;
    Moment { second: seconds(test["eval_time"].as_str().unwrap()), asks: Box::new(asks), firing }
}

fn case(test: &Value) -> Case {
    let mut input: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for series in test["input_series"].as_array().unwrap() {
        let series = series["series"].as_str().unwrap();
        let (metric, labels) = series.split_once('{').unwrap();
        let instance = matchers(labels).into_iter().find(|(name, ..)| name == "instance").unwrap().2;
        input.entry(instance).or_default().insert(metric.to_owned());
    }
    let list = |name: &str| test[name].as_array().cloned().unwrap_or_default();
    let (expressions, alerts) = (list("promql_expr_test"), list("alert_rule_test"));
    let moments = expressions.iter().map(of_expression).chain(alerts.iter().map(of_alert)).collect();
    Case { input, moments }
}

fn cases() -> Vec<Case> {
    let files = fs::read_dir(workspace().join(TESTS)).unwrap();
    let names = files.map(|file| format!("{TESTS}/{}", file.unwrap().file_name().to_string_lossy()));
    names
        .flat_map(|name| yaml(&name)["tests"].as_array().unwrap().iter().map(case).collect::<Vec<_>>())
        .collect()
}

/// Each tier, and the metrics that its expression reads, directly or by what is recorded.
fn tiers() -> BTreeMap<Tier, BTreeSet<String>> {
    let rules = yaml(RULES);
    let rules: Vec<&Value> = rules["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    let name =
        Regex::new(r"\b(?:instance:)?(?:nf_conntrack|conntrack)_\w+(?::\w+)?|\bup\b|\bALERTS\b").unwrap();
    let read = |rule: &Value| -> BTreeSet<String> {
        name.find_iter(rule["expr"].as_str().unwrap()).map(|found| found.as_str().to_owned()).collect()
    };
    let recorded: BTreeMap<&str, BTreeSet<String>> =
        rules.iter().filter_map(|rule| Some((rule["record"].as_str()?, read(rule)))).collect();
    let whole = |rule: &Value| {
        read(rule).into_iter().flat_map(|metric| recorded.get(&*metric).cloned().unwrap_or([metric].into()))
    };
    let tier = |rule: &Value| {
        (rule["alert"].as_str().unwrap().into(), rule["labels"]["severity"].as_str().unwrap().into())
    };
    rules
        .iter()
        .filter(|rule| rule["alert"].is_string())
        .map(|rule| (tier(rule), whole(rule).collect()))
        .collect()
}

/// When a test expects the tier first, and where.
fn fires(case: &Case, tier: &Tier) -> Option<(u32, BTreeSet<String>)> {
    let firing = case.moments.iter().flat_map(|moment| {
        moment
            .firing
            .iter()
            .filter(|(of, _)| of == tier)
            .map(|(_, instance)| (moment.second, instance.clone()))
    });
    let firing: Vec<_> = firing.collect();
    let first = firing.iter().map(|(second, _)| *second).min()?;
    Some((first, firing.into_iter().map(|(_, instance)| instance).collect()))
}

/// Whether a later moment of the same test asks for it, and it is gone.
fn stops(case: &Case, tier: &Tier) -> bool {
    let Some((first, _)) = fires(case, tier) else { return false };
    let gone = |moment: &Moment| {
        moment.second > first && (moment.asks)(tier) && !moment.firing.iter().any(|(of, _)| of == tier)
    };
    case.moments.iter().any(gone)
}

/// Whether an instance that has what the rule reads is asked about, and never expected.
fn quiet(case: &Case, tier: &Tier, metrics: &BTreeSet<String>) -> bool {
    let ever = fires(case, tier).map(|(_, instances)| instances).unwrap_or_default();
    let alike = |(instance, has): (&String, &BTreeSet<String>)| {
        !ever.contains(instance) && metrics.iter().any(|metric| has.contains(metric))
    };
    case.moments.iter().any(|moment| (moment.asks)(tier)) && case.input.iter().any(alike)
}

/// What is missing; sentences.
fn missing(tiers: &BTreeMap<Tier, BTreeSet<String>>, cases: &[Case]) -> Vec<String> {
    let mut missing = Vec::new();
    for (tier, metrics) in tiers {
        let (alert, severity) = tier;
        let mut ask = |found: bool, what: &str| {
            if !found {
                missing.push(format!("{TESTS}: no test {what} {alert} ({severity})"));
            }
        };
        ask(cases.iter().any(|case| fires(case, tier).is_some()), "sees the firing of");
        ask(cases.iter().any(|case| stops(case, tier)), "sees the end of");
        ask(cases.iter().any(|case| quiet(case, tier, metrics)), "has a look-alike for");
    }
    missing
}

#[test]
fn every_rule_is_seen_to_fire_to_stay_quiet_on_a_look_alike_and_to_stop() {
    let (tiers, cases) = (tiers(), cases());
    assert!(tiers.len() > 45 && cases.len() > 45, "{} rules, {} tests", tiers.len(), cases.len());
    let missing = missing(&tiers, &cases);
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn what_is_missing_is_named() {
    let tier = ("A".to_owned(), "info".to_owned());
    let tiers = [(tier, ["m".to_owned()].into())].into();
    let test = |series: &str, moments: &str| {
        let text = format!("input_series: [{series}]\npromql_expr_test: [{moments}]");
        case(&serde_yaml::from_str(&text).unwrap())
    };
    let one = |name: &str| format!(r#"{{series: 'm{{instance="{name}"}}', values: 1}}"#);
    let fires = r#"{eval_time: 1m, expr: 'ALERTS{alertname="A"}', exp_samples: [{labels: 'ALERTS{alertname="A", alertstate="firing", severity="info", instance="a"}', value: 1}]}"#;
    let empty =
        |time: &str| format!(r#"{{eval_time: {time}, expr: 'ALERTS{{alertname=~"A|B"}}', exp_samples: []}}"#);
    let names = |cases: &[Case]| {
        let what = ["firing", "end", "look-alike"];
        let all = missing(&tiers, cases).join("\n");
        what.into_iter().filter(|word| all.contains(word)).collect::<Vec<_>>()
    };
    let both = format!("{}, {}", one("a"), one("b"));
    assert_eq!(names(&[]), ["firing", "end", "look-alike"]);
    assert_eq!(names(&[test(&both, &format!("{fires}, {}", empty("1m30s")))]), [""; 0]);
    assert_eq!(names(&[test(&both, &format!("{fires}, {}", empty("30s")))]), ["end"]);
    assert_eq!(names(&[test(&one("a"), &format!("{fires}, {}", empty("2m")))]), ["look-alike"]);
    assert_eq!(names(&[test(&both, &empty("2m"))]), ["firing", "end"]);
}
