//! A day of traffic for the rules: tables of several hosts, modelled entry by lifetime, written as a Prometheus would have
//! scraped them, and judged by the rules that are shipped.
//!
//! The straight line: [`host::Host`] says what comes to a host, [`table::Table`] holds it for as long as the kernel would,
//! [`scrapes`] walks through two days of both, [`openmetrics`] writes what an exporter and an actioner would have said,
//! [`replay`] makes blocks of it and asks a real Prometheus every rule's expression over the day, [`alerting`] folds the answers
//! as the rule manager does, [`verdict`] compares, and [`page`] writes it down. All but `replay` is pure.
//!
//! Why range queries and not `promtool test rules`: its series have one interval and no gaps without stale markers by hand, and it
//! answers yes or no about moments that one has to know beforehand; here the moment is what is asked for. What range queries lack,
//! `for` and `keep_firing_for`, is thirty lines with tests of their own.

pub mod alerting;
pub mod chart;
pub mod host;
pub mod load;
pub mod openmetrics;
pub mod page;
pub mod replay;
pub mod rules;
pub mod scrapes;
pub mod table;
pub mod verdict;

/// Seconds of a day.
pub const DAY: u32 = 86_400;
/// 2026-11-24 00:00 UTC, a Tuesday: the day before the day. A fixed date, so that two runs write the same.
pub const EPOCH: i64 = 1_795_478_400;

/// `hours` and `minutes` of the day that is judged, in seconds since [`EPOCH`].
pub const fn at(hours: u32, minutes: u32) -> u32 {
    DAY + hours * 3600 + minutes * 60
}
