//! The breaker: bans that do not lower the pressure are stopped, for they only cost.
//!
//! A ban that is followed by a deletion leaves nothing of what its network held, and nothing of it comes back. So what is looked at is what
//! the *banned* hold a minute later. How full the table is by then proves nothing: whoever has a second army could fill it, and the breaker
//! would open for him just when bans work. Nobody who is banned can add to what is counted here: his packets end before conntrack
//! sees them, forged ones too. A ban that deletes nothing is not on trial: what it stops is growth, and old entries stay for days.
//! Refusals and failed bans never open it. It never stops `delete: socketless`.

use crate::now::Now;
use crate::refusal::Refusal;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// So many bans are a trial.
const LEAST: usize = 5;
/// So long after the first of them the pressure is looked at.
const SETTLES: Duration = Duration::from_secs(60);
/// A trial that nobody looked at for so long is none: who knows what happened since.
const STALE: Duration = Duration::from_secs(300);
/// An open breaker closes by itself after this long.
const OPEN_FOR: Duration = Duration::from_secs(3600);

/// Closed, closed with bans on trial, or open.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    /// Under a name of its own: what an older version kept as `trial` was the whole table's.
    on_trial: Option<Trial>,
    open: Option<Open>,
}

/// Bans whose effect is waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trial {
    #[serde(with = "super::milliseconds")]
    settles: Duration,
    /// Entries of each network before it was banned.
    before: BTreeMap<IpNet, u64>,
}

/// Why it is open, and until when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// On the boot clock.
    #[serde(with = "super::milliseconds")]
    pub until: Duration,
    /// Bans that did not help.
    pub bans: u64,
    /// Entries that the banned held before.
    pub before: u64,
    /// And a minute later.
    pub after: u64,
}

impl Breaker {
    /// Networks were banned and their entries deleted, of which there were so many.
    pub fn banned(&mut self, held: impl IntoIterator<Item = (IpNet, u64)>, now: Now) {
        let mut held = held.into_iter().peekable();
        if held.peek().is_none() {
            return;
        }
        self.on_trial.take_if(|trial| trial.settles + STALE < now.boot);
        let fresh = || Trial { settles: now.boot + SETTLES, before: BTreeMap::new() };
        let trial = self.on_trial.get_or_insert_with(fresh);
        for (net, entries) in held {
            let most = trial.before.entry(net).or_default();
            *most = entries.max(*most);
        }
    }

    /// The table was read. `in_force`: who is banned yet, for whoever is free again may come back. `held`: what these networks hold now.
    /// Returns why the breaker opened, if it did just now.
    pub fn measure(
        &mut self,
        in_force: impl Fn(&IpNet) -> bool,
        held: impl FnOnce(&[IpNet]) -> u64,
        now: Now,
    ) -> Option<&Open> {
        let trial = self.on_trial.take_if(|trial| trial.settles <= now.boot)?;
        let stale = trial.settles + STALE < now.boot;
        let banned: Vec<(IpNet, u64)> = trial.before.into_iter().filter(|(net, _)| in_force(net)).collect();
        if stale || banned.len() < LEAST {
            return None;
        }
        let before = banned.iter().map(|(_, entries)| entries).sum();
        let nets: Vec<IpNet> = banned.into_iter().map(|(net, _)| net).collect();
        let (bans, after) = (nets.len() as u64, held(&nets));
        let opens = after >= before;
        opens.then(|| &*self.open.insert(Open { until: now.boot + OPEN_FOR, bans, before, after }))
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
        let on_trial = self.on_trial.and_then(|trial| Some(Trial { settles: to(trial.settles)?, ..trial }));
        let open = self.open.and_then(|open| Some(Open { until: to(open.until)?, ..open }));
        Breaker { on_trial, open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn now(seconds: u64) -> Now {
        Now { boot: Duration::from_secs(1000 + seconds), wall: SystemTime::UNIX_EPOCH }
    }

    /// So many networks with 300 entries each.
    fn army(first: u32, count: u32) -> Vec<(IpNet, u64)> {
        let net =
            |host| IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(0xc633_6400 + host)));
        (first..first + count).map(|host| (net(host), 300)).collect()
    }

    /// The breaker's look at a table in which the banned hold so much, all of them banned yet.
    fn look(breaker: &mut Breaker, held: u64, seconds: u64) -> Option<Open> {
        breaker.measure(|_| true, |_| held, now(seconds)).cloned()
    }

    #[test]
    fn it_opens_when_five_banned_hold_as_much_as_before_and_closes_after_an_hour() {
        let mut breaker = Breaker::default();
        breaker.banned(army(1, 3), now(0));
        breaker.banned(army(4, 2), now(30));
        assert!(look(&mut breaker, 3000, 59).is_none(), "too early to tell");
        assert!(breaker.check(now(59)).is_ok());
        let open = look(&mut breaker, 1500, 60).unwrap();
        assert_eq!((open.bans, open.before, open.after), (5, 1500, 1500));
        assert_eq!(breaker.check(now(61)).unwrap_err().reason(), "breaker_open");
        assert!(breaker.check(now(60 + 3599)).is_err());
        assert!(breaker.check(now(60 + 3600)).is_ok());
    }

    #[test]
    fn it_stays_closed_where_bans_helped_or_were_few_and_a_hand_closes_it() {
        let mut breaker = Breaker::default();
        breaker.banned(army(1, 50), now(0));
        assert!(look(&mut breaker, 50 * 300 - 1, 60).is_none());
        breaker.banned(army(1, 4), now(100));
        assert!(look(&mut breaker, 20_000, 160).is_none(), "four bans prove nothing");
        assert!(look(&mut breaker, 20_000, 1000).is_none(), "without bans it never opens");
        breaker.banned(army(1, 5), now(1000));
        assert!(look(&mut breaker, 20_000, 1000 + 361).is_none(), "who knows what happened since");
        breaker.banned(army(1, 5), now(1400));
        breaker.banned(army(11, 5), now(1800));
        assert!(look(&mut breaker, 1499, 1860).is_none(), "a stale trial is not added to");
        breaker.banned([], now(1900));
        assert!(look(&mut breaker, 20_000, 2000).is_none(), "refusals are no bans");
        breaker.banned(army(1, 5), now(3000));
        assert!(look(&mut breaker, 1500, 3060).is_some());
        assert!(breaker.close(now(3061)) && breaker.check(now(3061)).is_ok());
        assert!(!breaker.close(now(3061)));
    }

    #[test]
    fn only_those_who_were_banned_and_are_yet_are_asked_for() {
        let mut breaker = Breaker::default();
        let first = army(1, 6);
        breaker.banned(first.clone(), now(0));
        breaker.banned([(first[0].0, 10)], now(1));
        let asked = |nets: &[IpNet]| {
            assert_eq!(
                nets,
                first[..5].iter().map(|(net, _)| *net).collect::<Vec<_>>(),
                "nobody else's entries count"
            );
            1499
        };
        let free = first[5].0;
        assert!(breaker.measure(|net| *net != free, asked, now(60)).is_none(), "the most that each held");
        breaker.banned(army(1, 5), now(100));
        let open = breaker.measure(|net| *net != first[0].0, |_| 10_000, now(160));
        assert!(open.is_none(), "one is free again, and four prove nothing");
    }
}
