//! The breaker: bans that do not lower the pressure are stopped, for they only cost.
//!
//! Pressure is the number of *assured TCP* entries: assured ones lock a server out (DOMAIN.md, 1), and a blind spoofer cannot make
//! those of TCP, so he cannot open it. Refusals and failed bans never open it. It never stops `delete: socketless`.

use crate::now::Now;
use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// So many bans are a trial.
const LEAST: u32 = 5;
/// So long after the first of them the pressure is looked at.
const SETTLES: Duration = Duration::from_secs(60);
/// A trial that nobody looked at for so long is none: what grew since then may be anybody's.
const STALE: Duration = Duration::from_secs(300);
/// An open breaker closes by itself after this long.
const OPEN_FOR: Duration = Duration::from_secs(3600);

/// Closed, closed with bans on trial, or open.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    trial: Option<Trial>,
    open: Option<Open>,
}

/// Bans whose effect is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Trial {
    #[serde(with = "super::milliseconds")]
    settles: Duration,
    assured_before: u64,
    bans: u32,
}

/// Why it is open, and until when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// On the boot clock.
    #[serde(with = "super::milliseconds")]
    pub until: Duration,
    /// Bans that did not help.
    pub bans: u32,
    /// Assured entries before the first of them.
    pub before: u64,
    /// And a minute later.
    pub after: u64,
}

impl Breaker {
    /// Bans were carried out; so many assured entries were in the table when they were decided.
    pub fn banned(&mut self, bans: u32, assured: u64, now: Now) {
        if bans == 0 {
            return;
        }
        let fresh = Trial { settles: now.boot + SETTLES, assured_before: assured, bans: 0 };
        self.trial.take_if(|trial| trial.settles + STALE < now.boot);
        self.trial.get_or_insert(fresh).bans += bans;
    }

    /// The table was read. Returns why the breaker opened, if it did just now.
    pub fn measure(&mut self, assured: u64, now: Now) -> Option<&Open> {
        let trial = self.trial.filter(|trial| trial.settles <= now.boot)?;
        self.trial = None;
        let stale = trial.settles + STALE < now.boot;
        if stale || trial.bans < LEAST || assured < trial.assured_before {
            return None;
        }
        let Trial { bans, assured_before: before, .. } = trial;
        Some(self.open.insert(Open { until: now.boot + OPEN_FOR, bans, before, after: assured }))
    }

    /// What it is open for.
    pub fn open(&self, now: Now) -> Option<&Open> {
        self.open.as_ref().filter(|open| open.until > now.boot)
    }

    /// Whether bans may be made.
    ///
    /// # Errors
    /// [`Refusal::BreakerOpen`].
    pub fn check(&self, now: Now) -> Result<(), Refusal> {
        match self.open(now) {
            None => Ok(()),
            Some(Open { bans, before, after, .. }) => {
                Err(Refusal::BreakerOpen { bans: *bans, before: *before, after: *after })
            }
        }
    }

    /// Closed by hand. Returns whether it was open.
    pub fn close(&mut self, now: Now) -> bool {
        let was_open = self.open(now).is_some();
        *self = Breaker::default();
        was_open
    }

    /// The same on another clock; what has ended is forgotten.
    pub(super) fn moved(self, to: impl Fn(Duration) -> Option<Duration>) -> Breaker {
        let trial = self.trial.and_then(|trial| Some(Trial { settles: to(trial.settles)?, ..trial }));
        let open = self.open.and_then(|open| Some(Open { until: to(open.until)?, ..open }));
        Breaker { trial, open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn now(seconds: u64) -> Now {
        Now { boot: Duration::from_secs(1000 + seconds), wall: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn it_opens_when_five_bans_did_not_lower_the_pressure_and_closes_after_an_hour() {
        let mut breaker = Breaker::default();
        breaker.banned(3, 10_000, now(0));
        breaker.banned(2, 9_000, now(30));
        assert!(breaker.measure(12_000, now(59)).is_none(), "too early to tell");
        assert!(breaker.check(now(59)).is_ok());
        let open = breaker.measure(10_000, now(60)).unwrap();
        assert_eq!((open.bans, open.before, open.after), (5, 10_000, 10_000));
        assert_eq!(breaker.check(now(61)).unwrap_err().reason(), "breaker_open");
        assert!(breaker.check(now(60 + 3599)).is_err());
        assert!(breaker.check(now(60 + 3600)).is_ok());
    }

    #[test]
    fn it_stays_closed_where_bans_helped_or_were_few_and_a_hand_closes_it() {
        let mut breaker = Breaker::default();
        breaker.banned(50, 10_000, now(0));
        assert!(breaker.measure(9_999, now(60)).is_none());
        breaker.banned(4, 10_000, now(100));
        assert!(breaker.measure(20_000, now(160)).is_none(), "four bans prove nothing");
        assert!(breaker.measure(20_000, now(1000)).is_none(), "without bans it never opens");
        breaker.banned(5, 10_000, now(1000));
        assert!(breaker.measure(20_000, now(1000 + 361)).is_none(), "who knows what happened since");
        breaker.banned(5, 10_000, now(1400));
        breaker.banned(5, 20_000, now(1800));
        assert!(breaker.measure(19_000, now(1860)).is_none(), "a stale trial is not added to");
        breaker.banned(0, 1, now(1000));
        assert!(breaker.measure(20_000, now(2000)).is_none(), "refusals are no bans");
        breaker.banned(5, 10_000, now(3000));
        assert!(breaker.measure(10_000, now(3060)).is_some());
        assert!(breaker.close(now(3061)) && breaker.check(now(3061)).is_ok());
        assert!(!breaker.close(now(3061)));
    }
}
