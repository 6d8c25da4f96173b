//! `docs/policy.md` says what the reader does: its keys are those that are accepted, its defaults and bounds are the reader's,
//! its examples are valid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use conntrack_actioner::policy::Policy;
use regex::Regex;
use serde_json::{Value, json};

/// No key is a slip of the finger away from it, so the reader answers with all that it knows.
const UNKNOWN: &str = "zzzzzzzzzzzz";

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a row of the page says of a key.
#[derive(Debug)]
struct Row {
    bounds: String,
    default: String,
}

fn rows() -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for line in page().lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').splitn(4, " | ").map(str::trim).collect();
        let [key, bounds, default, _] = cells[..] else { panic!("not four columns: {line}") };
        let row = Row { bounds: bounds.to_owned(), default: default.to_owned() };
        let key = key.trim_matches('`').to_owned();
        assert!(rows.insert(key.clone(), row).is_none(), "{key} stands twice");
    }
    rows
}

fn messages(policy: &str) -> Vec<String> {
    match Policy::parse(policy, Path::new("/nonexistent")) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.problems().iter().map(|problem| problem.message.clone()).collect(),
    }
}

/// `value` under the path: `a[].b` is a mapping with the key `a`, whose value is a list of one mapping with the key `b`.
fn nested(path: &str, value: Value) -> Value {
    let mut value = value;
    for step in path.split('.').rev() {
        value = match step.strip_suffix("[]") {
            Some(name) => json!({ name: [value] }),
            None => json!({ step: value }),
        };
    }
    value
}

/// The keys that the reader knows in the mapping at `path`; `None` where it takes no mapping.
fn known(path: &str) -> Option<Vec<String>> {
    let unknown = if path.is_empty() { UNKNOWN.to_owned() } else { format!("{path}.{UNKNOWN}") };
    let begin = format!("unknown key `{unknown}`; known here: ");
    let found = messages(&nested(&unknown, json!(1)).to_string());
    let list = found.iter().find_map(|message| message.strip_prefix(&begin))?;
    Some(list.split(", ").map(str::to_owned).collect())
}

/// Every key that the reader accepts, found by asking it.
fn accepted(path: &str, found: &mut BTreeSet<String>) {
    for key in known(path).unwrap_or_default() {
        let below = if path.is_empty() { key } else { format!("{path}.{key}") };
        accepted(&below, found);
        accepted(&format!("{below}[]"), found);
        found.insert(below);
    }
}

/// A policy in which every mapping that may be left out is there, with the bounds of one key out of the way of another.
fn base() -> Value {
    json!({
        "never_ban": [],
        "limits": {"widest_prefix": {"ipv4": 8, "ipv6": 16}},
        "firewall": {},
        "watch": {"interval": "100ms", "every": "2147482s", "alerts": [{"alert": "A", "host": {"entries": 1, "assured": 1}, "table": {"entries": 1}}]},
        "keep_reachable": {"ports": [1], "from": ["192.0.2.1"]},
        "rules": [{
            "name": "r",
            "matchers": ["alertname=A"],
            "require": {"source": {"socketless": 1, "assured": 1}},
            "actions": [{"ban": {"for": "1s"}}],
        }],
    })
}

/// The mapping that holds the last key of the path, made where it is missing.
fn holder<'v>(policy: &'v mut Value, path: &'v str) -> (&'v mut Value, &'v str) {
    let (before, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = policy;
    for step in before.split('.').filter(|step| !step.is_empty()) {
        at = match step.strip_suffix("[]") {
            Some(name) => &mut at[name][0],
            None => &mut at[step],
        };
    }
    (at, key)
}

fn with(path: &str, value: Value) -> String {
    let mut policy = base();
    let (holder, key) = holder(&mut policy, path);
    holder[key] = value;
    policy.to_string()
}

fn without(path: &str) -> String {
    let mut policy = base();
    let (holder, key) = holder(&mut policy, path);
    match holder.as_object_mut() {
        Some(holder) => drop(holder.remove(key)),
        // The mapping itself is left out in the base, and looking for it has made it.
        None => policy = base(),
    }
    policy.to_string()
}

/// What the text means, whatever its spelling.
fn meaning(policy: &str) -> Policy {
    let policy = Policy::parse(policy, Path::new("/nonexistent"))
        .unwrap_or_else(|errors| panic!("{policy}\n{errors}"));
    let mut plain = policy.clone();
    plain.hash = String::new();
    plain.warnings = Vec::new();
    plain
}

#[test]
fn the_page_has_every_key_that_is_accepted_and_no_other() {
    let mut asked = BTreeSet::new();
    accepted("", &mut asked);
    assert!(
        asked.contains("rules[].actions[].ban.ipv6_prefix"),
        "asking the reader does not work: {asked:#?}"
    );
    let written: BTreeSet<String> = rows().into_keys().collect();
    let missing: Vec<_> = asked.difference(&written).collect();
    let stale: Vec<_> = written.difference(&asked).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not in docs/policy.md: {missing:#?}\nonly there: {stale:#?}"
    );
}

#[test]
fn the_pages_defaults_are_the_readers() {
    assert_eq!(meaning(&base().to_string()), meaning(&base().to_string()));
    let mut compared = 0;
    for (key, Row { default, .. }) in rows() {
        match default.as_str() {
            "required" => {
                let found = messages(&without(&key));
                let said = format!("`{key}` is missing: ");
                assert!(found.iter().any(|message| message.starts_with(&said)), "{key}: {found:#?}");
            }
            "none, but for a ban" => {
                let found = messages(&without(&key));
                assert!(
                    found.iter().any(|message| message.contains("bans without evidence")),
                    "{key}: {found:#?}"
                );
            }
            // An action without either is an error, which policy_rules.rs tests.
            "one of the two" => {}
            literal if literal.starts_with('`') => {
                let word = literal.trim_matches('`');
                let value = serde_json::from_str(word).unwrap_or_else(|_| match word {
                    "{label: source}" => json!({"label": "source"}),
                    text => json!(text),
                });
                assert_eq!(meaning(&with(&key, value)), meaning(&without(&key)), "{key}: {word}");
                compared += 1;
            }
            _ => drop(meaning(&without(&key))),
        }
    }
    assert!(compared >= 15, "{compared} defaults were compared");
}

#[test]
fn the_pages_bounds_are_the_readers() {
    let pair = Regex::new(r"(\d+)(ms|s|) to (\d+)(ms|s|)").unwrap();
    let value = |number: u64, unit: &str| {
        if unit.is_empty() { json!(number) } else { json!(format!("{number}{unit}")) }
    };
    let mut compared = 0;
    for (key, Row { bounds, .. }) in rows() {
        let set = |value: Value| {
            if bounds.starts_with("list") { with(&key, json!([value])) } else { with(&key, value) }
        };
        let taken =
            |value: Value| assert!(messages(&set(value.clone())).is_empty(), "{key}: {value}: {bounds}");
        let refused =
            |value: Value| assert!(!messages(&set(value.clone())).is_empty(), "{key}: {value}: {bounds}");
        if let Some(found) = pair.captures(&bounds) {
            let (least, most): (u64, u64) = (found[1].parse().unwrap(), found[3].parse().unwrap());
            taken(value(least, &found[2]));
            taken(value(most, &found[4]));
            refused(value(least - 1, &found[2]));
            refused(value(most + 1, &found[4]));
        } else if bounds.contains("1 or more") {
            taken(json!(1));
            refused(json!(0));
        } else if bounds.contains("above 0, at most 100") {
            [json!(0.001), json!(100)].into_iter().for_each(taken);
            [json!(0), json!(100.1)].into_iter().for_each(refused);
        } else if bounds == "switch" {
            taken(json!(true));
            refused(json!("yes"));
        } else {
            continue;
        }
        compared += 1;
    }
    assert!(compared >= 25, "{compared} bounds were compared");
}

/// The policies in a page.
fn policies(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if page.ends_with(".md") {
        let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
        return blocks.map(str::to_owned).collect();
    }
    // A ConfigMap's, indented.
    let indented =
        text.split("policy.yaml: |\n").nth(1).and_then(|rest| rest.split("\n---").next()).unwrap_or_default();
    vec![
        indented.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect::<Vec<_>>().join("\n"),
    ]
}

/// Each page, how many policies it has at least, and of which warnings it speaks.
#[test]
fn policies_in_pages_are_valid_and_warn_only_of_what_the_page_speaks() {
    for (page, least, spoken_of) in [
        ("policy.md", 6, "there are no rules"),
        ("migrating/from-cron-script.md", 1, "evidence that can be forged"),
        ("migrating/from-fail2ban.md", 1, "evidence that can be forged"),
        ("getting-started/kubernetes.yaml", 1, "nothing at all"),
    ] {
        let examples = policies(page);
        assert!(examples.len() >= least, "{page}: {}", examples.len());
        for example in examples {
            let policy = Policy::parse(&example, Path::new("/nonexistent"))
                .unwrap_or_else(|errors| panic!("{page}: {example}\n{errors}"));
            let unexpected: Vec<_> =
                policy.warnings.iter().filter(|warning| !warning.contains(spoken_of)).collect();
            assert!(unexpected.is_empty(), "{page}: {example}\n{unexpected:#?}");
        }
    }
}
