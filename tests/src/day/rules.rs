//! The rules as they are shipped.

use std::{fs, path::Path};

use serde_json::Value;

use super::alerting::Timing;
use crate::{Failure, Result, failure::Tried};

/// How loud an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Look when you have time.
    Info,
    /// Look today.
    Warning,
    /// It wakes somebody.
    Critical,
}

impl Severity {
    /// As the label says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// An alerting rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name.
    pub alert: String,
    /// Its severity.
    pub severity: Severity,
    /// Its expression.
    pub expression: String,
    /// `for` and `keep_firing_for`.
    pub timing: Timing,
    /// `remediation` and whatever other labels it adds.
    pub labels: Vec<(String, String)>,
}

/// What others ship for the same: node-mixin, as kube-prometheus ships it (NodeHighNumberConntrackEntriesUsed, no `for`), awesome-prometheus-alerts (HostConntrackLimit, 5m).
pub const NEIGHBOURS: [(&str, &str, u32); 2] = [
    ("node-mixin", "(node_nf_conntrack_entries / node_nf_conntrack_entries_limit) > 0.75", 0),
    ("awesome-prometheus-alerts", "node_nf_conntrack_entries / node_nf_conntrack_entries_limit > 0.8", 300),
];

/// Those rules, as ours are read.
pub fn neighbours() -> Vec<Rule> {
    let rule = |(alert, expression, hold): (&str, &str, u32)| Rule {
        alert: alert.into(),
        severity: Severity::Warning,
        expression: expression.into(),
        timing: Timing { hold, keep: 0 },
        labels: Vec::new(),
    };
    NEIGHBOURS.into_iter().map(rule).collect()
}

/// The recording rules of a file: name and expression, in its order.
///
/// # Errors
/// When it cannot be read.
pub fn recorded(file: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(file).tried(|| file.display().to_string())?;
    let yaml: Value =
        serde_yaml::from_str(&text).map_err(|error| Failure::answer(file.display().to_string(), error))?;
    let groups = yaml["groups"].as_array().into_iter().flatten();
    let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    let pair = |rule: &Value| Some((rule["record"].as_str()?.to_owned(), rule["expr"].as_str()?.to_owned()));
    Ok(rules.filter_map(pair).collect())
}

/// The alerting rules of a file, in its order.
///
/// # Errors
/// When it cannot be read, or says something that this reader does not know.
pub fn read(file: &Path) -> Result<Vec<Rule>> {
    let text = fs::read_to_string(file).tried(|| file.display().to_string())?;
    parse(&text).map_err(|detail| Failure::answer(file.display().to_string(), detail))
}

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let yaml: Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let groups = yaml["groups"].as_array().ok_or("no groups")?;
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
    rules.filter(|rule| rule["alert"].is_string()).map(rule).collect()
}

fn rule(yaml: &Value) -> Result<Rule, String> {
    let alert = yaml["alert"].as_str().unwrap_or_default().to_owned();
    let labels = yaml["labels"].as_object().into_iter().flatten();
    let mut labels: Vec<(String, String)> =
        labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
    let severity = labels.iter().position(|(name, _)| name == "severity");
    let severity = match severity.map(|index| labels.remove(index).1).as_deref() {
        Some("info") => Severity::Info,
        Some("warning") => Severity::Warning,
        Some("critical") => Severity::Critical,
        other => return Err(format!("{alert}: severity {other:?}")),
    };
    let time = |name: &str| match yaml[name].as_str() {
        None => Ok(0),
        Some(text) => seconds(text).ok_or_else(|| format!("{alert}: {name}: {text}")),
    };
    let timing = Timing { hold: time("for")?, keep: time("keep_firing_for")? };
    let expression = yaml["expr"].as_str().ok_or_else(|| format!("{alert}: no expr"))?.to_owned();
    Ok(Rule { alert, severity, expression, timing, labels })
}

/// Prometheus' durations, as far as rules use them: a number and s, m, h or d.
fn seconds(text: &str) -> Option<u32> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    text[..text.len() - 1].parse::<u32>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::workspace;

    #[test]
    fn the_shipped_rules_are_read() {
        let rules = read(&workspace().join("alerts/conntrack-guard.rules.yml")).expect("readable rules");
        assert!(rules.len() > 40, "{}", rules.len());
        let full = rules.iter().find(|rule| rule.alert == "ConntrackTableFull").expect("that alert");
        assert_eq!((full.severity, full.timing), (Severity::Critical, Timing { hold: 0, keep: 120 }));
        let remediation = ("remediation".to_owned(), "conntrack-guard".to_owned());
        assert_eq!(rules.iter().filter(|rule| rule.labels.contains(&remediation)).count(), 2);
    }

    #[test]
    fn durations() {
        let read = ["30s", "5m", "1h", "1d", "1h30m", "5", ""].map(seconds);
        assert_eq!(read, [Some(30), Some(300), Some(3600), Some(86_400), None, None, None]);
    }
}
