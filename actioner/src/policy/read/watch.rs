//! The watch, and whether any rule listens to it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::fields::Field;
use super::super::problem::Log;
use super::super::rule::Rule;
use super::super::settings::{Watch, WatchAlert};
use super::conditions;
use crate::foreign::shorten;

/// What the watch writes itself.
const RESERVED: [&str; 4] = ["alertname", "source", "instance", "table_id"];
/// A look costs a few microseconds, a dump up to seconds.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST_LABEL: usize = 1024;

pub(super) fn watch(field: &Field<'_>, rules: &[Rule], log: &mut Log<'_>) -> Option<Watch> {
    let mut fields = field.fields(log)?;
    let interval_field = fields.take("interval");
    let every_field = fields.take("every");
    let alerts = fields.require("alerts", "say what to look for, or leave `watch` out", log);
    fields.close(log);
    let errors = log.errors();
    let interval = interval_field.map_or(Some(Duration::from_secs(1)), |field| field.duration(SHORTEST, log));
    let every =
        every_field.as_ref().map_or(Some(Duration::from_secs(30)), |field| field.duration(SHORTEST, log));
    let (interval, every) = (interval.unwrap_or(SHORTEST), every.unwrap_or(SHORTEST));
    if every < interval && log.errors() == errors {
        let least = humantime::format_duration(interval);
        let place = every_field.as_ref().map_or(field.place(), Field::place);
        log.error(
            place,
            format!("`watch.every` must be at least `watch.interval`, {least}: each dump follows a look"),
        );
    }
    let items = alerts.and_then(|field| field.filled("alert", log)).unwrap_or_default();
    let alerts = items.iter().filter_map(|item| alert(item, rules, log)).collect();
    Some(Watch { interval, every, alerts })
}

fn alert(field: &Field<'_>, rules: &[Rule], log: &mut Log<'_>) -> Option<WatchAlert> {
    let mut fields = field.fields(log)?;
    let name = fields.require("alert", "it becomes the label alertname", log);
    let source = fields.take("source");
    let host = fields.take("host");
    let table = fields.take("table");
    let labels = fields.take("labels");
    fields.close(log);

    let errors = log.errors();
    let alert = name.and_then(|field| field.text("an alert's name", log)).unwrap_or_default().to_owned();
    let source = source.map(|field| conditions::thresholds(&field, log)).unwrap_or_default();
    let host = host.map(|field| conditions::thresholds(&field, log)).unwrap_or_default();
    let table = table.map(|field| conditions::of_table(&field, log)).unwrap_or_default();
    let labels = labels.map(|field| labels_of(&field, log)).unwrap_or_default();
    let alert = WatchAlert { alert, source, host, table, labels };
    if log.errors() == errors {
        if alert.source.is_empty() && alert.host.is_empty() && alert.table.is_empty() {
            let places = "under `source`, `host` or `table`";
            log.error(
                field.place(),
                format!("`{}` has no threshold, so it would always fire: set one {places}", field.path),
            );
        }
        unheard(&alert, rules, field, log);
    }
    Some(alert)
}

fn labels_of(field: &Field<'_>, log: &mut Log<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Some(fields) = field.fields(log) else { return labels };
    for (key, value) in fields.every() {
        let name = shorten(&key.name, 60);
        if RESERVED.contains(&key.name.as_str()) {
            log.error(key.place, format!("the label `{name}` is written by the watch itself: leave it out"));
        } else if key.name.is_empty() || key.name.len() > LONGEST_LABEL {
            log.error(key.place, format!("`{name}` is no name for a label"));
        } else if let Some(text) = value.text("a text", log) {
            labels.insert(key.name.clone(), text.to_owned());
        }
    }
    labels
}

/// A slip in a name would make the watch look and say nothing. Only labels known now are judged: the others come with
/// the alert.
fn unheard(alert: &WatchAlert, rules: &[Rule], field: &Field<'_>, log: &mut Log<'_>) {
    let mut labels = alert.labels.clone();
    labels.insert("alertname".to_owned(), alert.alert.clone());
    let hears = |rule: &Rule| {
        let mut known = rule.matchers.iter().filter(|matcher| !RESERVED[1..].contains(&matcher.name()));
        known.all(|matcher| matcher.matches(&labels))
    };
    if !rules.is_empty() && !rules.iter().any(hears) {
        log.warn(
            field.place(),
            format!(
                "no rule matches the watch's alert `{}`: it would be refused each time",
                shorten(&alert.alert, 60)
            ),
        );
    }
}
