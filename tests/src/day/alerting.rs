//! What Prometheus' rule manager does with the answers to an alert's expression: `for` and `keep_firing_for`.
//! Read in `rules/alerting.go` (`AlertingRule.Eval`).

/// `for` and `keep_firing_for` in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// So long it must hold before it fires.
    pub hold: u32,
    /// So long it goes on firing when it holds no more.
    pub keep: u32,
}

/// A time in which an alert fired, from its first evaluation to the first at which it did no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fired {
    /// The first second.
    pub from: u32,
    /// The first second after it; the end of the day where it fired to the end.
    pub until: u32,
}

/// An alert that is known to the manager.
enum Active {
    Pending { since: u32 },
    Firing { from: u32, absent_since: Option<u32> },
}

/// When an alert fires whose expression gave something at the seconds `held`, evaluated each `step` seconds of `first..end`.
pub fn fired(timing: Timing, held: &[u32], first: u32, end: u32, step: u32) -> Vec<Fired> {
    let mut held = held.iter().copied().peekable();
    let mut active: Option<Active> = None;
    let mut found = Vec::new();
    for now in (first..end).step_by(step as usize) {
        let holds = held.next_if_eq(&now).is_some();
        active = match (active, holds) {
            (None, false) | (Some(Active::Pending { .. }), false) => None,
            (None, true) => Some(promoted(now, now, timing)),
            (Some(Active::Pending { since }), true) => Some(promoted(since, now, timing)),
            (Some(Active::Firing { from, .. }), true) => Some(Active::Firing { from, absent_since: None }),
            (Some(Active::Firing { from, absent_since }), false) => {
                let since = absent_since.unwrap_or(now);
                if now - since < timing.keep {
                    Some(Active::Firing { from, absent_since: Some(since) })
                } else {
                    found.push(Fired { from, until: now });
                    None
                }
            }
        };
    }
    if let Some(Active::Firing { from, .. }) = active {
        found.push(Fired { from, until: end });
    }
    found
}

fn promoted(since: u32, now: u32, timing: Timing) -> Active {
    if now - since >= timing.hold {
        Active::Firing { from: now, absent_since: None }
    } else {
        Active::Pending { since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u32 = 600;

    fn at(timing: Timing, held: &[u32]) -> Vec<(u32, u32)> {
        fired(timing, held, 0, END, 60).into_iter().map(|one| (one.from, one.until)).collect()
    }

    #[test]
    fn without_for_it_fires_at_once_and_stops_at_once() {
        assert_eq!(at(Timing::default(), &[60, 120, 300]), [(60, 180), (300, 360)]);
        assert_eq!(at(Timing::default(), &[]), []);
    }

    #[test]
    fn for_waits_and_begins_anew_after_a_gap() {
        let timing = Timing { hold: 120, keep: 0 };
        assert_eq!(at(timing, &[0, 60, 180, 240]), []);
        assert_eq!(at(timing, &[0, 60, 180, 240, 300, 360]), [(300, 420)]);
    }

    #[test]
    fn keep_firing_for_bridges_gaps_and_ends() {
        let timing = Timing { hold: 0, keep: 120 };
        assert_eq!(at(timing, &[60, 180]), [(60, 360)]);
        // What was never more than pending is not kept.
        assert_eq!(at(Timing { hold: 120, keep: 120 }, &[60, 120]), []);
    }

    #[test]
    fn what_fires_at_the_end_fires_until_the_end() {
        assert_eq!(at(Timing { hold: 60, keep: 0 }, &[480, 540]), [(540, 600)]);
    }
}
