//! Sources that stay shown after they left the top, so that a series does not flicker and alerts with `for:` work.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Sources kept for each place in the top: an attacker who takes turns with his addresses must not fill Prometheus.
const KEPT_FOR_EACH: usize = 100;

/// The sources that are shown, and when each was last among the top.
#[derive(Debug)]
pub(crate) struct Held {
    hold: Duration,
    most: usize,
    ranked: HashMap<IpAddr, Instant>,
}

impl Held {
    /// None yet; each will be held for `hold`, and at most a hundred times `top` of them.
    pub(crate) fn new(hold: Duration, top: usize) -> Held {
        Held { hold, most: top.saturating_mul(KEPT_FOR_EACH), ranked: HashMap::new() }
    }

    /// Takes in who is among the top at `now`; returns whom to show: they, and those whose hold is not over, in the order
    /// of their addresses. Where they are too many, those go first that left the top first.
    pub(crate) fn with(&mut self, top: BTreeSet<IpAddr>, now: Instant) -> BTreeSet<IpAddr> {
        let hold = self.hold;
        self.ranked.retain(|_, last| now.saturating_duration_since(*last) < hold);
        let surplus = self.ranked.keys().filter(|source| !top.contains(*source)).count() + top.len();
        if let Some(surplus) = surplus.checked_sub(self.most).filter(|surplus| *surplus > 0) {
            let mut oldest: Vec<_> = self
                .ranked
                .iter()
                .filter(|(source, _)| !top.contains(*source))
                .map(|(s, last)| (*last, *s))
                .collect();
            oldest.sort_unstable();
            for (_, source) in oldest.iter().take(surplus) {
                self.ranked.remove(source);
            }
        }
        let mut shown = top;
        for source in &shown {
            self.ranked.insert(*source, now);
        }
        shown.extend(self.ranked.keys());
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(300);

    fn set(lasts: &[u8]) -> BTreeSet<IpAddr> {
        lasts.iter().map(|last| IpAddr::from([198, 51, 100, *last])).collect()
    }

    #[test]
    fn a_source_stays_for_its_hold_and_no_longer() {
        let start = Instant::now();
        let mut held = Held::new(HOLD, 10);
        assert_eq!(held.with(set(&[1, 2]), start), set(&[1, 2]));
        assert_eq!(held.with(set(&[2]), start + HOLD / 2), set(&[1, 2]));
        assert_eq!(
            held.with(set(&[3]), start + HOLD),
            set(&[2, 3]),
            "1 was last among the top five minutes ago"
        );
        assert_eq!(held.with(set(&[]), start + HOLD * 3), set(&[]));
    }

    #[test]
    fn without_a_hold_only_the_top_is_shown() {
        let start = Instant::now();
        let mut held = Held::new(Duration::ZERO, 10);
        assert_eq!(held.with(set(&[1]), start), set(&[1]));
        assert_eq!(held.with(set(&[2]), start), set(&[2]));
    }

    #[test]
    fn those_who_take_turns_are_bounded_and_the_top_is_never_dropped() {
        let start = Instant::now();
        let mut held = Held::new(HOLD, 1);
        for last in 0..=255u8 {
            held.with(set(&[last]), start + Duration::from_secs(u64::from(last) / 2));
        }
        let shown = held.with(set(&[7]), start + Duration::from_secs(200));
        assert_eq!(shown.len(), KEPT_FOR_EACH);
        assert!(
            shown.is_superset(&set(&[7, 255, 200])) && !shown.contains(&IpAddr::from([198, 51, 100, 100]))
        );
    }
}
