//! Failures are told once, when they begin, change or end: a scrape comes every few seconds, for days.

use std::collections::HashMap;
use std::fmt::Display;

use crate::collector::Collector;

/// Which failure of each collector was told last.
#[derive(Debug, Default)]
pub(crate) struct Told(HashMap<Collector, String>);

impl Told {
    /// Tells a failure that is not the one told last.
    pub(crate) fn failed(&mut self, collector: Collector, reason: &dyn Display) {
        let reason = reason.to_string();
        if self.0.get(&collector) != Some(&reason) {
            tracing::error!(collector = collector.name(), %reason, "collector failed; told once until it changes");
            self.0.insert(collector, reason);
        }
    }

    /// Tells that a failure is over.
    pub(crate) fn succeeded(&mut self, collector: Collector) {
        if self.0.remove(&collector).is_some() {
            tracing::info!(collector = collector.name(), "collector works again");
        }
    }
}
