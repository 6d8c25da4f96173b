//! Bans and offences of one kind: what is enforced, or what was only decided (dry run).

use super::bucket::Bucket;
use crate::now::Now;
use crate::plan::PlannedBan;
use crate::policy::{BanAction, Limits};
use crate::refusal::Refusal;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

/// An offence is forgotten after this long without another, counted from the end of its ban.
const DECAY: Duration = Duration::from_secs(7 * 24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// A row for each rule that banned the network: identity is (source, rule).
    pub(super) bans: HashMap<IpNet, Vec<Row>>,
    /// No row of `bans` ends before: until then all of them count, and need not be walked for each source that is judged.
    pub(super) first_end: Option<Duration>,
    pub(super) offences: HashMap<(IpNet, String), Offences>,
    pub(super) minute: Bucket,
    pub(super) hour: Bucket,
}

/// One reason for which a network is banned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Whose doing it is.
    pub cause: Cause,
    /// When it ends, on the boot clock. None: never, which only somebody else can want.
    #[serde(with = "super::milliseconds::optional")]
    pub until: Option<Duration>,
    /// When it began, in milliseconds since 1970: for people.
    pub since: u64,
}

/// Whose doing a ban is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A rule of the policy's.
    Rule {
        /// Its name.
        name: String,
        /// The how-manieth offence, from 1.
        offence: u32,
    },
    /// Somebody's, with `conntrack-actioner ban`.
    Hand {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// It was in the kernel, and nothing was written down about it.
    Adopted,
}

/// Bans of a network under a rule so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offences {
    pub(super) count: u32,
    #[serde(with = "super::milliseconds")]
    pub(super) forgotten: Duration,
}

/// A network that is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// When the last of its bans ends, on the boot clock. None: never, somebody else's doing.
    pub until: Option<Duration>,
}

impl Row {
    fn lasts_at(&self, now: Now) -> bool {
        self.until.is_none_or(|until| until > now.boot)
    }

    pub(super) fn is_a_rules(&self) -> bool {
        matches!(self.cause, Cause::Rule { .. })
    }

    fn is_of(&self, rule: &str) -> bool {
        matches!(&self.cause, Cause::Rule { name, .. } if name == rule)
    }

    /// Whether it answers an offence under `rule`: it is the rule's own, or nobody's, or a person's.
    fn covers(&self, rule: &str) -> bool {
        !self.is_a_rules() || self.is_of(rule)
    }
}

impl Ledger {
    pub(super) fn standing(&self, net: &IpNet, rule: &str, now: Now) -> Option<Standing> {
        let covers = |row: &Row| row.lasts_at(now) && row.covers(rule);
        if !self.bans.get(net).into_iter().flatten().any(covers) {
            return None;
        }
        self.until(net, now)
    }

    /// When the last of its bans ends.
    pub(super) fn until(&self, net: &IpNet, now: Now) -> Option<Standing> {
        let in_force = self.bans.get(net).into_iter().flatten().filter(|row| row.lasts_at(now));
        // Absent means for ever, so it is the longest.
        let until = in_force.map(|row| row.until).max_by_key(|until| until.unwrap_or(Duration::MAX));
        until.map(|until| Standing { until })
    }

    /// Whether the network is banned.
    pub(super) fn holds(&self, net: &IpNet, now: Now) -> bool {
        self.bans.get(net).is_some_and(|rows| rows.iter().any(|row| row.lasts_at(now)))
    }

    pub(super) fn active(&self, now: Now) -> usize {
        if self.first_end.is_none_or(|end| end > now.boot) {
            return self.bans.len();
        }
        self.bans.keys().filter(|net| self.holds(net, now)).count()
    }

    pub(super) fn rows(&self, now: Now) -> impl Iterator<Item = (IpNet, &Row)> {
        let rows = self.bans.iter().flat_map(|(net, rows)| rows.iter().map(|row| (*net, row)));
        rows.filter(move |(_, row)| row.lasts_at(now))
    }

    pub(super) fn budget(&self, limits: &Limits, now: Now) -> [f64; 2] {
        let minute = self.minute.remaining(limits.bans_per_minute, MINUTE, now);
        let hour = self.hour.remaining(limits.bans_per_hour, HOUR, now);
        [minute, hour]
    }

    pub(super) fn afford(&self, limits: &Limits, planned: usize, now: Now) -> Result<(), Refusal> {
        self.has_room(limits, planned, now)?;
        let [minute, hour] = self.budget(limits, now);
        // A deadline in whole nanoseconds gives a token back a hair too late.
        let needed = planned as f64 + 1.0 - 1e-6;
        let used_up =
            |name: &str, limit: u32| Refusal::BudgetExhausted { limit: format!("{name} = {limit}") };
        if minute < needed {
            return Err(used_up("limits.bans_per_minute", limits.bans_per_minute));
        }
        if hour < needed {
            return Err(used_up("limits.bans_per_hour", limits.bans_per_hour));
        }
        Ok(())
    }

    pub(super) fn has_room(&self, limits: &Limits, planned: usize, now: Now) -> Result<(), Refusal> {
        if self.active(now) + planned >= limits.active_bans as usize {
            return Err(Refusal::TooManyActiveBans { limit: limits.active_bans });
        }
        Ok(())
    }

    pub(super) fn next(&self, net: IpNet, rule: &str, action: &BanAction, now: Now) -> (Duration, u32) {
        let earlier = match self.offences.get(&(net, rule.to_owned())) {
            Some(offences) if offences.forgotten > now.boot => offences.count,
            _ => 0,
        };
        let factor = action.factor.checked_pow(earlier).unwrap_or(u32::MAX);
        (action.for_.saturating_mul(factor).min(action.max), earlier.saturating_add(1))
    }

    /// A row of the same rule can only be one that has ended.
    pub(super) fn ban(&mut self, rule: &str, ban: &PlannedBan, limits: &Limits, now: Now) {
        self.minute.take(limits.bans_per_minute, MINUTE, now);
        self.hour.take(limits.bans_per_hour, HOUR, now);
        let until = now.boot + ban.lasts;
        let cause = Cause::Rule { name: rule.to_owned(), offence: ban.offence };
        self.put(ban.net, cause, Some(until), now);
        let offences = Offences { count: ban.offence, forgotten: until + DECAY };
        self.offences.insert((ban.net, rule.to_owned()), offences);
    }

    pub(super) fn put(&mut self, net: IpNet, cause: Cause, until: Option<Duration>, now: Now) {
        self.bans.entry(net).or_default().retain(|row| row.lasts_at(now));
        self.add(net, Row { cause, until, since: now.milliseconds() });
    }

    pub(super) fn add(&mut self, net: IpNet, row: Row) {
        self.first_end = earlier(self.first_end, row.until);
        self.bans.entry(net).or_default().push(row);
    }

    /// The networks whose last ban has ended.
    pub(super) fn expire(&mut self, now: Now) -> usize {
        let before = self.bans.len();
        self.keep_rows(|_, row| row.lasts_at(now));
        self.offences.retain(|_, offences| offences.forgotten > now.boot);
        before - self.bans.len()
    }

    /// Of one network's rows. No other is looked at: what is left ends no earlier than before.
    pub(super) fn keep_rows_of(&mut self, net: &IpNet, keep: impl Fn(&Row) -> bool) {
        if let Some(rows) = self.bans.get_mut(net) {
            rows.retain(keep);
            if rows.is_empty() {
                self.bans.remove(net);
            }
        }
    }

    pub(super) fn keep_rows(&mut self, keep: impl Fn(&IpNet, &Row) -> bool) {
        self.first_end = None;
        self.bans.retain(|net, rows| {
            rows.retain(|row| keep(net, row));
            self.first_end = rows.iter().fold(self.first_end, |first, row| earlier(first, row.until));
            !rows.is_empty()
        });
    }
}

/// Absent means never.
fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::SystemTime;

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, Option<u64>),
        Pass(u64),
        Expire,
        Unban(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<u8>(), proptest::option::of(1u64..100)).prop_map(|(net, lasts)| Step::Put(net, lasts)),
            (0u64..40).prop_map(Step::Pass),
            Just(Step::Expire),
            any::<u8>().prop_map(Step::Unban),
        ]
    }

    proptest! {
        #[test]
        fn the_count_of_bans_is_that_of_a_walk(steps in proptest::collection::vec(step(), 0..60)) {
            let mut ledger = Ledger::default();
            let mut now = Now { boot: Duration::ZERO, wall: SystemTime::UNIX_EPOCH };
            let net = |number: u8| IpNet::from(std::net::IpAddr::from([192, 0, 2, number % 8]));
            for step in steps {
                match step {
                    Step::Put(number, lasts) => {
                        let until = lasts.map(|lasts| now.boot + Duration::from_secs(lasts));
                        ledger.put(net(number), Cause::Adopted, until, now);
                    }
                    Step::Pass(seconds) => now.boot += Duration::from_secs(seconds),
                    Step::Expire => _ = ledger.expire(now),
                    Step::Unban(number) => drop(ledger.bans.remove(&net(number))),
                }
                let walked = ledger.bans.keys().filter(|net| ledger.holds(net, now)).count();
                prop_assert_eq!(ledger.active(now), walked);
            }
        }
    }
}
