//! A token bucket kept as one deadline, so that a store can keep it: when it will be full again.

use crate::now::Now;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Full at first, refilled evenly over its window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Bucket {
    /// On the boot clock; in the past for a full one.
    #[serde(with = "super::milliseconds")]
    full_at: Duration,
}

impl Bucket {
    /// Tokens that are left of `capacity`.
    pub(super) fn remaining(self, capacity: u32, window: Duration, now: Now) -> f64 {
        let missing = self.full_at.saturating_sub(now.boot).as_secs_f64() / window.as_secs_f64();
        (f64::from(capacity) * (1.0 - missing)).max(0.0)
    }

    /// Takes one, whether it is there or not.
    pub(super) fn take(&mut self, capacity: u32, window: Duration, now: Now) {
        self.full_at = self.full_at.max(now.boot) + window / capacity.max(1);
    }

    /// The same bucket on another clock.
    pub(super) fn moved(self, to: impl Fn(Duration) -> Option<Duration>) -> Bucket {
        Bucket { full_at: to(self.full_at).unwrap_or_default() }
    }
}
