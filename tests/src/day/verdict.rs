//! What each rule made of each host's day.

use super::{
    alerting::Fired,
    host::{Actioner, Event, Host},
    replay::Outcome,
    rules::{Rule, Severity},
};

/// Alerts that say that somebody fills the table, before it is full.
pub const CALLS: [&str; 3] =
    ["ConntrackSocketlessEntries", "ConntrackSourceHoardsEntries", "ConntrackTableFillsSoon"];

/// An alert in one severity about one host, all its series together.
#[derive(Debug, Clone)]
pub struct Row {
    /// The alert.
    pub alert: String,
    /// Its severity.
    pub severity: Severity,
    /// When it first fired.
    pub first: u32,
    /// Seconds in which at least one of its series fired.
    pub seconds: u32,
}

/// A host's day.
#[derive(Debug)]
pub struct Verdict {
    /// Whose.
    pub host: &'static Host,
    /// When the table would be full if nobody acted.
    pub full_at: Option<u32>,
    /// What fired, in the order in which it first did.
    pub rows: Vec<Row>,
}

impl Verdict {
    /// Folds what the rules said of a host.
    pub fn new(host: &'static Host, full_at: Option<u32>, rules: &[Rule], outcomes: &[Outcome]) -> Self {
        let of = |index: usize| {
            let mut fired: Vec<Fired> = outcomes
                .iter()
                .filter(|outcome| outcome.rule == index && outcome.host == host.name)
                .flat_map(|outcome| outcome.fired.clone())
                .collect();
            fired.sort_by_key(|fired| fired.from);
            let first = fired.first()?.from;
            let Rule { alert, severity, .. } = &rules[index];
            Some(Row { alert: alert.clone(), severity: *severity, first, seconds: covered(&fired) })
        };
        let mut rows: Vec<_> = (0..rules.len()).filter_map(of).collect();
        rows.sort_by_key(|row| row.first);
        Self { host, full_at, rows }
    }

    /// Alerts that page before the table is full, or ever where it never is.
    pub fn pages(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.severity == Severity::Critical).collect()
    }

    /// When one of [`CALLS`] first fired.
    pub fn called_at(&self) -> Option<u32> {
        self.rows.iter().filter(|row| CALLS.contains(&&*row.alert)).map(|row| row.first).min()
    }

    /// Hours from then to a full table.
    pub fn hours_ahead(&self, second: u32) -> Option<f64> {
        Some((f64::from(self.full_at?) - f64::from(second)) / 3600.0)
    }

    /// What this host's day must have shown, and did not.
    pub fn faults(&self) -> Vec<String> {
        let Self { host, full_at, .. } = self;
        let is_attack = matches!(host.event, Event::Attack(_));
        let mut faults = Vec::new();
        let mut fault = |what: String| faults.push(format!("{}: {what}", host.name));
        let pages = self.pages();
        if !pages.is_empty() && (full_at.is_none() || host.actioner == Actioner::Enforcing && is_attack) {
            fault(format!("a page on a day on which the table is never full: {pages:?}"));
        }
        // Hours of honest growth to a record look like an attack to whoever sees only the sum: that may warn, and must not page.
        if host.quiet() && !host.grows_to_a_record() && self.called_at().is_some() {
            fault(format!("called, and nobody fills the table: {:?}", self.rows));
        }
        if is_attack && full_at.is_some() {
            let ahead = self.called_at().and_then(|second| self.hours_ahead(second));
            if !ahead.is_some_and(|hours| hours > 10.0) {
                fault(format!("called {ahead:?} hours ahead: {:?}", self.rows));
            }
        }
        // What the kernel cannot evict takes minutes to fill a table, so somebody can be woken before.
        if let (Event::Flood(life, ..), Some(full)) = (host.event, full_at)
            && life[0].0.assured()
            && pages.first().is_none_or(|row| row.first + 120 > *full)
        {
            fault(format!("no page two minutes before the table is full: {:?}", self.rows));
        }
        if !host.quiet() && self.rows.is_empty() {
            fault("nothing fired".into());
        }
        faults
    }
}

/// Seconds that at least one of them covers; they are sorted by their beginning.
fn covered(fired: &[Fired]) -> u32 {
    let mut until = 0;
    fired.iter().fold(0, |sum, one| {
        let fresh = one.until.saturating_sub(one.from.max(until));
        until = until.max(one.until);
        sum + fresh
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_is_counted_once() {
        let fired = |from, until| Fired { from, until };
        assert_eq!(covered(&[fired(0, 100), fired(50, 150), fired(60, 70), fired(200, 210)]), 160);
        assert_eq!(covered(&[]), 0);
    }
}
