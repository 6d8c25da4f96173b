//! Thresholds: what a source, the host or the table must show.

use super::super::fields::Field;
use super::super::problem::Log;
use super::super::rule::{Require, TableThresholds, Thresholds};

pub(super) fn require(field: &Field<'_>, log: &mut Log<'_>) -> Require {
    let Some(mut fields) = field.fields(log) else { return Require::default() };
    let source = fields.take("source").map(|field| thresholds(&field, log)).unwrap_or_default();
    let table = fields.take("table").map(|field| of_table(&field, log)).unwrap_or_default();
    fields.close(log);
    Require { source, table }
}

/// A threshold of 0 always holds: who writes it means something else.
pub(super) fn thresholds(field: &Field<'_>, log: &mut Log<'_>) -> Thresholds {
    let Some(mut fields) = field.fields(log) else { return Thresholds::default() };
    let mut count = |name| fields.take(name).and_then(|field| field.number(1..=u64::MAX, log));
    let thresholds = Thresholds {
        entries: count("entries"),
        assured: count("assured"),
        half_open: count("half_open"),
        socketless: count("socketless"),
    };
    fields.close(log);
    thresholds
}

pub(super) fn of_table(field: &Field<'_>, log: &mut Log<'_>) -> TableThresholds {
    let Some(mut fields) = field.fields(log) else { return TableThresholds::default() };
    let fill_percent = fields.take("fill_percent").and_then(|field| field.percent(log));
    let entries = fields.take("entries").and_then(|field| field.number(1..=u64::MAX, log));
    fields.close(log);
    TableThresholds { fill_percent, entries }
}
