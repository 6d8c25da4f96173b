//! What the live table shows of a source: the only thing that may justify a ban.

use crate::policy::{TableThresholds, Thresholds};
use conntrack::Summary;
use conntrack::summary::{Mark, SourceCounts};
use serde::{Deserialize, Serialize};

/// Entries of one source, or of all hosts of one prefix together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// All entries.
    pub entries: u64,
    /// Entries with IPS_ASSURED.
    pub assured: u64,
    /// TCP handshakes that are not complete.
    pub half_open: u64,
    /// Established entries that no socket of this host stands behind; None: not measured.
    pub socketless: Option<u64>,
}

/// The table as a whole, after the dump that reaped what had expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableFill {
    /// Entries.
    pub entries: u64,
    /// `nf_conntrack_max`; 0 is unlimited.
    pub limit: u64,
}

impl TableFill {
    /// Entries as per cent of the limit; 0 for an unlimited table.
    pub fn percent(&self) -> f64 {
        if self.limit == 0 { 0.0 } else { self.entries as f64 * 100.0 / self.limit as f64 }
    }
}

/// A threshold that the live table does not reach, or that nobody measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Shortfall {
    /// Too little of it.
    Below {
        /// As the policy writes it: `source.assured`.
        what: &'static str,
        /// At least this was required.
        required: f64,
        /// This was found.
        found: f64,
    },
    /// It was not, or could not be, measured.
    NotMeasured {
        /// As the policy writes it.
        what: &'static str,
    },
}

impl Evidence {
    /// Whether each threshold is reached; the first that is not.
    pub fn meets(&self, thresholds: &Thresholds) -> Result<(), Shortfall> {
        let required = [
            ("source.entries", thresholds.entries, Some(self.entries)),
            ("source.assured", thresholds.assured, Some(self.assured)),
            ("source.half_open", thresholds.half_open, Some(self.half_open)),
            ("source.socketless", thresholds.socketless, self.socketless),
        ];
        for (what, required, found) in required {
            match (required, found) {
                (None, _) => {}
                (Some(_), None) => return Err(Shortfall::NotMeasured { what }),
                (Some(required), Some(found)) if found < required => {
                    return Err(Shortfall::Below { what, required: required as f64, found: found as f64 });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The number that a ranking by what the rule requires goes by: the first threshold's, in the order in which they weigh.
    pub fn rank(&self, thresholds: &Thresholds) -> u64 {
        match thresholds {
            Thresholds { socketless: Some(_), .. } => self.socketless.unwrap_or(0),
            Thresholds { assured: Some(_), .. } => self.assured,
            Thresholds { half_open: Some(_), entries: None, .. } => self.half_open,
            _ => self.entries,
        }
    }

    /// Both together.
    pub fn plus(self, more: Evidence) -> Evidence {
        Evidence {
            entries: self.entries + more.entries,
            assured: self.assured + more.assured,
            half_open: self.half_open + more.half_open,
            socketless: self.socketless.zip(more.socketless).map(|(a, b)| a + b),
        }
    }
}

impl Evidence {
    /// Of one source. `judged`: whether sockets were read for the dump it was counted in.
    pub fn of(counts: SourceCounts, judged: bool) -> Evidence {
        Evidence {
            entries: u64::from(counts.entries),
            assured: u64::from(counts.assured),
            half_open: u64::from(counts.half_open),
            socketless: judged.then_some(u64::from(counts.socketless)),
        }
    }

    /// Of all sources together, this host's own included.
    pub fn of_all(summary: &Summary) -> Evidence {
        Evidence {
            entries: summary.entries,
            assured: summary.marked_in_all(Mark::Assured),
            half_open: summary.half_open(),
            socketless: summary.judged.map(|judged| judged.socketless),
        }
    }
}

impl TableFill {
    /// Whether each threshold is reached; the first that is not. An unlimited table is never filled.
    pub fn meets(&self, thresholds: &TableThresholds) -> Result<(), Shortfall> {
        if let Some(required) = thresholds.fill_percent
            && self.percent() < required
        {
            return Err(Shortfall::Below { what: "table.fill_percent", required, found: self.percent() });
        }
        if let Some(required) = thresholds.entries
            && self.entries < required
        {
            let (required, found) = (required as f64, self.entries as f64);
            return Err(Shortfall::Below { what: "table.entries", required, found });
        }
        Ok(())
    }
}
