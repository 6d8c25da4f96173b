//! Something that may happen very often, and is told seldom.

use tokio::time::{Duration, Instant};

/// One thing is logged once in so long.
const QUIET: Duration = Duration::from_secs(60);

/// Counts what happens between two times that it is told.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    told: Option<Instant>,
    since: u64,
}

impl Burst {
    /// How often it happened since it was last told, when it is time to tell it again.
    pub(crate) fn note(&mut self) -> Option<u64> {
        self.since += 1;
        if self.told.is_some_and(|told| told.elapsed() < QUIET) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.since))
    }
}
