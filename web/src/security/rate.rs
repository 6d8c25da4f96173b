//! `rate_limit`: a token bucket over all requests.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Fills by one token each `interval`, up to `burst`.
#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    burst: u32,
    /// When the bucket was, or will be, empty: a token taken moves it on by one interval.
    empty_at: Cell<Instant>,
}

impl Bucket {
    /// Full. `None` where the interval is zero: no limit.
    pub(super) fn new(interval: Duration, burst: u32, now: Instant) -> Option<Self> {
        let full = interval.checked_mul(burst)?;
        let empty_at = Cell::new(now.checked_sub(full).unwrap_or(now));
        (!interval.is_zero()).then_some(Self { interval, burst, empty_at })
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&self, now: Instant) -> bool {
        let full_since = now.checked_sub(self.interval.saturating_mul(self.burst)).unwrap_or(now);
        let next = self.empty_at.get().max(full_since) + self.interval;
        if next > now {
            return false;
        }
        self.empty_at.set(next);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let start = Instant::now() + Duration::from_secs(3600);
        let at = |millis| start + Duration::from_millis(millis);
        let bucket = Bucket::new(Duration::from_millis(100), 3, start).unwrap();
        assert_eq!((0..5).filter(|_| bucket.take(at(0))).count(), 3);
        assert!(!bucket.take(at(99)) && bucket.take(at(100)) && !bucket.take(at(199)));
        assert_eq!(
            (0..9).filter(|_| bucket.take(at(60_000))).count(),
            3,
            "what is not taken is not saved up"
        );
        assert!(Bucket::new(Duration::ZERO, 3, start).is_none());
        let none = Bucket::new(Duration::from_secs(1), 0, start).unwrap();
        assert!(!none.take(at(5000)), "as in exporter-toolkit, a burst of 0 lets nobody in");
    }
}
