//! What earlier decisions left: bans in force, offences, budget. Changed by [`State::apply`] alone; no clock of its own.
//!
//! There are two ledgers, one of what is enforced and one of what was only decided (dry run). A rule on trial neither
//! spends the budget of the others nor hides or lengthens their bans.

use crate::firewall::Ban;
use crate::now::Now;
use crate::plan::{Decision, Plan, PlannedBan};
use crate::policy::{BanAction, Limits};
use crate::refusal::Refusal;
use ipnet::IpNet;
use std::collections::HashMap;
use std::time::Duration;

/// An offence is forgotten after this long without another, counted from the end of its ban.
const DECAY: Duration = Duration::from_secs(7 * 24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Bans in force, offences, budget.
#[derive(Debug, Default)]
pub struct State {
    enforced: Ledger,
    shadow: Ledger,
}

/// A network that is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// When the last of its bans ends, on the boot clock. None: never, somebody else's doing.
    pub until: Option<Duration>,
}

/// What a ban replaced in the state, so that it can be taken back.
#[derive(Debug)]
#[must_use = "a ban that the kernel did not take has to be taken back"]
pub struct Undo {
    /// What was to be banned.
    pub net: IpNet,
    rule: String,
    enforce: bool,
    offences: Option<Offences>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// A row for each rule that banned the network: identity is (source, rule).
    bans: HashMap<IpNet, Vec<Row>>,
    offences: HashMap<(IpNet, String), Offences>,
    minute: Bucket,
    hour: Bucket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// None for a ban that was in the kernel when we started.
    rule: Option<String>,
    until: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Offences {
    count: u32,
    last: Duration,
}

/// A token bucket: full at first, refilled evenly over its window.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    spent: f64,
    at: Duration,
}

impl Bucket {
    fn spent_at(&self, capacity: u32, window: Duration, now: Now) -> f64 {
        let refilled =
            now.boot.saturating_sub(self.at).as_secs_f64() / window.as_secs_f64() * f64::from(capacity);
        (self.spent - refilled).max(0.0)
    }

    fn remaining(&self, capacity: u32, window: Duration, now: Now) -> f64 {
        (f64::from(capacity) - self.spent_at(capacity, window, now)).max(0.0)
    }

    fn take(&mut self, capacity: u32, window: Duration, now: Now) {
        *self = Bucket { spent: self.spent_at(capacity, window, now) + 1.0, at: now.boot };
    }

    fn give_back(&mut self) {
        self.spent = (self.spent - 1.0).max(0.0);
    }
}

impl Row {
    fn lasts_at(&self, now: Now) -> bool {
        self.until.is_none_or(|until| until > now.boot)
    }

    /// Whether it answers an offence under `rule`: it is the rule's own, or was in the kernel when we started.
    fn covers(&self, rule: &str) -> bool {
        self.rule.as_deref().is_none_or(|own| own == rule)
    }
}

impl Ledger {
    fn standing(&self, net: &IpNet, rule: &str, now: Now) -> Option<Standing> {
        let in_force = || self.bans.get(net).into_iter().flatten().filter(|row| row.lasts_at(now));
        if !in_force().any(|row| row.covers(rule)) {
            return None;
        }
        // Absent means for ever, so it is the longest.
        let until = in_force().map(|row| row.until).max_by_key(|until| until.unwrap_or(Duration::MAX));
        Some(Standing { until: until.flatten() })
    }

    fn active(&self, now: Now) -> usize {
        self.bans.values().filter(|rows| rows.iter().any(|row| row.lasts_at(now))).count()
    }

    fn budget(&self, limits: &Limits, now: Now) -> [f64; 2] {
        let minute = self.minute.remaining(limits.bans_per_minute, MINUTE, now);
        let hour = self.hour.remaining(limits.bans_per_hour, HOUR, now);
        [minute, hour]
    }

    /// Returns the offences before this one. A row of the same rule can only be one that has ended.
    fn ban(&mut self, rule: &str, ban: &PlannedBan, limits: &Limits, now: Now) -> Option<Offences> {
        self.minute.take(limits.bans_per_minute, MINUTE, now);
        self.hour.take(limits.bans_per_hour, HOUR, now);
        let until = now.boot + ban.lasts;
        let rows = self.bans.entry(ban.net).or_default();
        rows.retain(|row| row.lasts_at(now));
        rows.push(Row { rule: Some(rule.to_owned()), until: Some(until) });
        let offences = Offences { count: ban.offence, last: until };
        self.offences.insert((ban.net, rule.to_owned()), offences)
    }

    fn take_back(&mut self, undo: Undo) {
        self.minute.give_back();
        self.hour.give_back();
        if let Some(rows) = self.bans.get_mut(&undo.net) {
            rows.retain(|row| row.rule.as_deref() != Some(&undo.rule));
            if rows.is_empty() {
                self.bans.remove(&undo.net);
            }
        }
        let key = (undo.net, undo.rule);
        match undo.offences {
            Some(before) => drop(self.offences.insert(key, before)),
            None => drop(self.offences.remove(&key)),
        }
    }

    fn expire(&mut self, now: Now) -> usize {
        let before = self.bans.len();
        self.keep_rows(|_, row| row.lasts_at(now));
        self.offences.retain(|_, offences| now.boot.saturating_sub(offences.last) < DECAY);
        before - self.bans.len()
    }

    fn keep_rows(&mut self, keep: impl Fn(&IpNet, &Row) -> bool) {
        self.bans.retain(|net, rows| {
            rows.retain(|row| keep(net, row));
            !rows.is_empty()
        });
    }
}

impl State {
    /// Nothing banned, a full budget.
    pub fn new() -> State {
        State::default()
    }

    fn ledger(&self, enforce: bool) -> &Ledger {
        if enforce { &self.enforced } else { &self.shadow }
    }

    fn ledger_mut(&mut self, enforce: bool) -> &mut Ledger {
        if enforce { &mut self.enforced } else { &mut self.shadow }
    }

    /// The ban in force on exactly this network that answers an offence under `rule`, if any. What was only decided in
    /// dry run answers nothing that is to be enforced.
    pub fn standing(&self, net: &IpNet, rule: &str, enforce: bool, now: Now) -> Option<Standing> {
        let real = self.enforced.standing(net, rule, now);
        real.or_else(|| if enforce { None } else { self.shadow.standing(net, rule, now) })
    }

    /// How many networks should be banned in the kernel.
    pub fn active(&self, now: Now) -> usize {
        self.enforced.active(now)
    }

    /// Every ban that should be in the kernel, with the time it has left.
    pub fn enforced(&self, now: Now) -> impl Iterator<Item = Ban> + '_ {
        self.enforced.bans.iter().filter_map(move |(net, rows)| {
            let longest = rows.iter().filter_map(|row| row.until).max()?;
            let timeout = longest.checked_sub(now.boot).filter(|left| !left.is_zero())?;
            Some(Ban { net: *net, timeout })
        })
    }

    /// How long the next ban of this network under this rule lasts, and the how-manieth offence it would be.
    pub fn next_ban(
        &self,
        net: IpNet,
        rule: &str,
        action: &BanAction,
        enforce: bool,
        now: Now,
    ) -> (Duration, u32) {
        let earlier = match self.ledger(enforce).offences.get(&(net, rule.to_owned())) {
            Some(offences) if now.boot.saturating_sub(offences.last) < DECAY => offences.count,
            _ => 0,
        };
        let factor = action.factor.checked_pow(earlier).unwrap_or(u32::MAX);
        (action.for_.saturating_mul(factor).min(action.max), earlier.saturating_add(1))
    }

    /// Whether the budget allows one more ban beside `planned` others that are not applied yet.
    ///
    /// # Errors
    /// Which limit is used up.
    pub fn afford(&self, limits: &Limits, planned: usize, enforce: bool, now: Now) -> Result<(), Refusal> {
        let ledger = self.ledger(enforce);
        if ledger.active(now) + planned >= limits.active_bans as usize {
            return Err(Refusal::TooManyActiveBans { limit: limits.active_bans });
        }
        let [minute, hour] = ledger.budget(limits, now);
        let needed = planned as f64 + 1.0;
        if minute < needed {
            let limit = format!("limits.bans_per_minute = {}", limits.bans_per_minute);
            return Err(Refusal::BudgetExhausted { limit });
        }
        if hour < needed {
            let limit = format!("limits.bans_per_hour = {}", limits.bans_per_hour);
            return Err(Refusal::BudgetExhausted { limit });
        }
        Ok(())
    }

    /// Bans left in this minute's and this hour's budget.
    pub fn budget(&self, limits: &Limits, enforce: bool, now: Now) -> [f64; 2] {
        self.ledger(enforce).budget(limits, now)
    }

    /// Folds a plan in: its bans are in force from now, spend the budget and count as offences. What the kernel then does
    /// not take goes into [`State::take_back`], the last first.
    pub fn apply(&mut self, plan: &Plan, limits: &Limits, now: Now) -> Vec<Undo> {
        let Some(rule) = &plan.rule else { return Vec::new() };
        let (enforce, ledger) = (plan.enforce, self.ledger_mut(plan.enforce));
        let bans = plan.verdicts.iter().filter_map(|verdict| match &verdict.decision {
            Decision::Ban(ban) => Some(ban),
            _ => None,
        });
        bans.map(|ban| {
            let offences = ledger.ban(rule, ban, limits, now);
            Undo { net: ban.net, rule: rule.clone(), enforce, offences }
        })
        .collect()
    }

    /// A ban that the kernel did not take: not in force, no offence, and not paid for, so that the next alert tries again.
    pub fn take_back(&mut self, undo: Undo) {
        self.ledger_mut(undo.enforce).take_back(undo);
    }

    /// Takes in a ban that the kernel already held when we started. Ours from an earlier run, or somebody's by hand.
    pub fn adopt(&mut self, net: IpNet, remaining: Option<Duration>, now: Now) {
        let until = remaining.map(|remaining| now.boot + remaining);
        self.enforced.bans.entry(net).or_insert_with(|| vec![Row { rule: None, until }]);
    }

    /// A ban without end is somebody else's doing, and so is its end: `in_kernel` says what still stands.
    pub fn forget_permanent(&mut self, in_kernel: impl Fn(&IpNet) -> bool) {
        self.enforced.keep_rows(|net, row| row.until.is_some() || in_kernel(net));
    }

    /// Forgets what has ended, and the offences that have decayed. Returns how many enforced bans ended.
    pub fn expire(&mut self, now: Now) -> usize {
        self.shadow.expire(now);
        self.enforced.expire(now)
    }

    /// Enforcement was turned on: what was only decided in dry run is forgotten.
    pub fn discard_shadows(&mut self) {
        self.shadow = Ledger::default();
    }
}
