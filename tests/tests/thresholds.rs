//! Thresholds exist once, in `alerts/thresholds.yaml`: the shipped rules, the packaged policy and the README say the same.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{collections::BTreeMap, fs, process::Command};

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use tests::programs::{Program, workspace};

const THRESHOLDS: &str = "alerts/thresholds.yaml";
const RULES: &str = "alerts/conntrack-guard.rules.yml";
const POLICY: &str = "packaging/policy.yaml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Threshold {
    value: f64,
    #[serde(default)]
    policy: Vec<String>,
    #[serde(default)]
    rules: BTreeMap<String, String>,
    #[serde(default)]
    flags: Vec<String>,
}

fn read(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn yaml(file: &str) -> Value {
    serde_yaml::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn thresholds() -> BTreeMap<String, Threshold> {
    serde_yaml::from_str(&read(THRESHOLDS)).unwrap_or_else(|error| panic!("{THRESHOLDS}: {error}"))
}

/// `ALERT/SEVERITY` → expression, on one line.
fn expressions(rules: &Value) -> BTreeMap<String, String> {
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named = |rule: &Value| match rule["record"].as_str() {
        Some(record) => record.to_owned(),
        None => format!("{}/{}", text(&rule["alert"]), text(&rule["labels"]["severity"])),
    };
    let line = |rule: &Value| text(&rule["expr"]).split_whitespace().collect::<Vec<_>>().join(" ");
    rules.map(|rule| (named(rule), line(rule))).collect()
}

/// Every scalar below `value` by its path; the items of a list go by their `alert` or `name`.
fn leaves(path: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| leaves(&below(name), value, found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| {
            let name = item["alert"].as_str().or(item["name"].as_str());
            leaves(&below(name.unwrap_or(&index.to_string())), item, found);
        }),
        scalar => drop(found.insert(path.to_owned(), scalar.clone())),
    }
}

/// 300, or 30s.
fn number(value: &Value) -> Option<f64> {
    let seconds = |text: &str| text.strip_suffix('s').and_then(|number| number.parse().ok());
    value.as_f64().or_else(|| value.as_str().and_then(seconds))
}

fn filled(pattern: &str, value: f64) -> String {
    pattern.replace("{ratio}", &(value / 100.0).to_string()).replace("{}", &value.to_string())
}

/// What `rules` says otherwise than `thresholds`; sentences.
fn wrong_in_rules(thresholds: &BTreeMap<String, Threshold>, rules: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut left = expressions(rules);
    for (name, Threshold { value, rules, .. }) in thresholds {
        for (alert, pattern) in rules {
            let says = filled(pattern, *value);
            match left.get_mut(alert) {
                None => wrong.push(format!("{THRESHOLDS}, {name}: {RULES} has no alert {alert}")),
                // A number must end where the pattern ends: 300 is no 3000.
                Some(expression) => match ends(expression, &says) {
                    Some(at) => expression.replace_range(at..at + says.len(), "…"),
                    None => wrong.push(format!(
                        "{THRESHOLDS} says {name} is {value}, so {alert} in {RULES} must say `{says}`; it says `{expression}`"
                    )),
                },
            }
        }
    }
    // Comparisons with zero, and with one for yes, are questions and not thresholds.
    let threshold = Regex::new(r"[<>]=?\s*\d*\.?\d*[1-9]\d*|[=!]=\s*[\d.]*[2-9.]|\d\s*\*|\*\s*\d").unwrap();
    for (alert, expression) in &left {
        if let Some(found) = threshold.find(expression) {
            wrong.push(format!(
                "{alert} in {RULES} says `{}`, which {THRESHOLDS} does not: add it there",
                found.as_str()
            ));
        }
    }
    wrong
}

fn ends(expression: &str, says: &str) -> Option<usize> {
    let in_number =
        |at: usize| expression[at..].starts_with(|next: char| next.is_ascii_digit() || next == '.');
    expression.match_indices(says).map(|(at, _)| at).find(|at| !in_number(at + says.len()))
}

/// What `policy` says otherwise; sentences.
fn wrong_in_policy(thresholds: &BTreeMap<String, Threshold>, policy: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut left = BTreeMap::new();
    leaves("", policy, &mut left);
    for (name, Threshold { value, policy, .. }) in thresholds {
        for path in policy {
            let says = left.remove(path);
            if says.as_ref().and_then(number) != Some(*value) {
                let says = says.map_or("nothing".to_owned(), |says| says.to_string());
                wrong
                    .push(format!("{THRESHOLDS} says {name} is {value}, but {path} in {POLICY} says {says}"));
            }
        }
    }
    let decides = |path: &str| {
        path.starts_with("watch/alerts/") && !path.contains("/labels/") && !path.ends_with("/alert")
            || path.contains("/require/")
    };
    wrong.extend(left.keys().filter(|path| decides(path)).map(|path| {
        format!("{path} in {POLICY} is a threshold that {THRESHOLDS} does not have: add it there")
    }));
    wrong
}

#[test]
fn the_shipped_rules_say_what_thresholds_yaml_says() {
    let wrong = wrong_in_rules(&thresholds(), &yaml(RULES));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_packaged_policy_says_what_thresholds_yaml_says() {
    let wrong = wrong_in_policy(&thresholds(), &yaml(POLICY));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn defaults_of_flags_are_what_thresholds_yaml_says() {
    for (name, Threshold { value, flags, .. }) in thresholds() {
        for flag in flags {
            let (program, flag) = flag.split_once(' ').unwrap();
            let programs = [Program::Exporter, Program::Actioner];
            let program = programs.into_iter().find(|one| one.name() == program).unwrap();
            let output = Command::new(program.path().unwrap()).arg("--help").output().unwrap();
            let help = String::from_utf8(output.stdout).unwrap();
            let (_, about) = help.split_once(flag).unwrap_or_else(|| panic!("no {flag} in\n{help}"));
            let (_, default) = about.split_once("[default: ").unwrap();
            let default = default.split(']').next().unwrap();
            let says = number(&Value::from(default));
            assert_eq!(says, Some(value), "{THRESHOLDS} says {name} is {value}, {flag} has {default}");
        }
    }
}

/// The watch's alerts are the rules' alerts: the same rules of a policy hear both.
#[test]
fn alerts_of_the_watch_have_names_and_labels_of_the_shipped_rules() {
    let (policy, rules) = (yaml(POLICY), yaml(RULES));
    let groups = rules["groups"].as_array().unwrap();
    let remedied = |rule: &&Value| !rule["labels"]["remediation"].is_null();
    let of_rules: BTreeMap<_, _> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .filter(remedied)
        .map(|rule| (rule["alert"].as_str().unwrap(), &rule["labels"]))
        .collect();
    let alerts = policy["watch"]["alerts"].as_array().unwrap();
    let of_watch: BTreeMap<_, _> =
        alerts.iter().map(|alert| (alert["alert"].as_str().unwrap(), &alert["labels"])).collect();
    assert_eq!(of_watch, of_rules, "left: {POLICY}, right: {RULES}");
}

#[test]
fn a_threshold_that_differs_or_is_nowhere_is_named() {
    let thresholds = thresholds();
    let changed = |file: &str, from: &str, to: &str| {
        let text = read(file);
        assert!(text.contains(from), "{file} does not say {from:?}");
        serde_yaml::from_str::<Value>(&text.replacen(from, to, 1)).unwrap()
    };
    let says = |wrong: Vec<String>, words: &[&str]| {
        let all = wrong.join("\n");
        assert!(!wrong.is_empty() && words.iter().all(|word| all.contains(word)), "{all}");
    };
    let rules = |from, to| wrong_in_rules(&thresholds, &changed(RULES, from, to));
    says(
        rules(">= 300", ">= 3000"),
        &["source_socketless_entries is 300", "ConntrackSourceHoardsEntries/info"],
    );
    says(
        rules("ratio > 0.75", "ratio > 0.7"),
        &["nearly_full_percent is 75", "ConntrackTableNearlyFull/warning"],
    );
    says(
        rules("up{job=\"conntrack-actioner\"} == 0", "up > 0.5"),
        &["ConntrackActionerDown/warning", "add it there"],
    );
    says(
        rules("nf_conntrack_entries_limit > 0", "nf_conntrack_entries_limit > 8"),
        &["instance:nf_conntrack_fill:ratio"],
    );
    let policy = |from, to| wrong_in_policy(&thresholds, &changed(POLICY, from, to));
    says(
        policy("socketless: 300", "socketless: 200"),
        &["watch/alerts/ConntrackSourceHoardsEntries/source/socketless", "says 200"],
    );
    says(
        policy(
            "    source: {socketless: 300}\n    table: {fill_percent: 50}\n  actions",
            "    source: {socketless: 300}\n  actions",
        ),
        &["rules/hoarder/require/table/fill_percent", "says nothing"],
    );
    says(policy("{socketless: 1000}", "{socketless: 1000, entries: 5}"), &["host/entries", "add it there"]);
}

#[test]
fn the_readmes_policy_is_the_packaged_one() {
    let readme = read("README.md");
    let sample = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let sample: Value = serde_yaml::from_str(sample.expect("a sample in README.md")).unwrap();
    assert_eq!(sample, yaml(POLICY), "left: README.md, right: {POLICY}");
}
