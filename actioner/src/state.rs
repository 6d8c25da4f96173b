//! What earlier decisions left: bans in force, offences, budget. Changed by [`State::apply`] alone; no clock of its own.

use crate::now::Now;
use crate::plan::{Decision, Plan, PlannedBan};
use crate::policy::{BanAction, Limits};
use crate::refusal::Refusal;
use ipnet::IpNet;
use std::collections::HashMap;
use std::time::Duration;

/// An offence is forgotten after this long without another.
const DECAY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bans in force, offences, budget.
#[derive(Debug, Default)]
pub struct State {
    bans: HashMap<IpNet, Standing>,
    offences: HashMap<(IpNet, String), Offences>,
    minute: Bucket,
    hour: Bucket,
}

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The rule that made it; None for one that was in the kernel when we started.
    pub rule: Option<String>,
    /// When it ends, on the boot clock. None: never, somebody else's doing.
    pub until: Option<Duration>,
    /// Decided in dry run: it is in no kernel, and only keeps repeats and budgets as they would be.
    pub shadow: bool,
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
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

impl State {
    /// Nothing banned, a full budget.
    pub fn new() -> State {
        State::default()
    }

    /// The ban in force on exactly this network, if any.
    pub fn standing(&self, net: &IpNet, now: Now) -> Option<&Standing> {
        self.bans.get(net).filter(|ban| ban.lasts_at(now))
    }

    /// Every ban in force.
    pub fn in_force(&self, now: Now) -> impl Iterator<Item = (&IpNet, &Standing)> {
        self.bans.iter().filter(move |(_, ban)| ban.lasts_at(now))
    }

    /// How long the next ban of this source under this rule lasts, and the how-manieth offence it would be.
    pub fn next_ban(&self, net: IpNet, rule: &str, action: &BanAction, now: Now) -> (Duration, u32) {
        let earlier = match self.offences.get(&(net, rule.to_owned())) {
            Some(offences) if now.boot.saturating_sub(offences.last) < DECAY => offences.count,
            _ => 0,
        };
        let factor = u64::from(action.factor).checked_pow(earlier).unwrap_or(u64::MAX);
        let seconds = action.for_.as_secs().max(1).saturating_mul(factor);
        let lasts = if earlier == 0 { action.for_ } else { Duration::from_secs(seconds) };
        (lasts.min(action.max), earlier + 1)
    }

    /// Whether the budget allows one more ban beside `planned` others that are not applied yet.
    ///
    /// # Errors
    /// Which limit is used up.
    pub fn afford(&self, limits: &Limits, planned: u32, now: Now) -> Result<(), Refusal> {
        if self.in_force(now).count() + planned as usize >= limits.active_bans as usize {
            return Err(Refusal::TooManyActiveBans { limit: limits.active_bans });
        }
        let [minute, hour] = self.budget(limits, now);
        if minute < f64::from(planned) + 1.0 {
            let limit = format!("limits.bans_per_minute = {}", limits.bans_per_minute);
            return Err(Refusal::BudgetExhausted { limit });
        }
        if hour < f64::from(planned) + 1.0 {
            let limit = format!("limits.bans_per_hour = {}", limits.bans_per_hour);
            return Err(Refusal::BudgetExhausted { limit });
        }
        Ok(())
    }

    /// Bans left in this minute's and this hour's budget.
    pub fn budget(&self, limits: &Limits, now: Now) -> [f64; 2] {
        let minute = self.minute.remaining(limits.bans_per_minute, MINUTE, now);
        let hour = self.hour.remaining(limits.bans_per_hour, HOUR, now);
        [minute, hour]
    }

    /// Folds a plan in: its bans are in force from now, spend the budget and count as offences.
    pub fn apply(&mut self, plan: &Plan, limits: &Limits, now: Now) {
        let Some(rule) = &plan.rule else { return };
        for verdict in &plan.verdicts {
            if let Decision::Ban(ban) = &verdict.decision {
                self.ban(rule, ban, !plan.enforce, now);
                self.minute.take(limits.bans_per_minute, MINUTE, now);
                self.hour.take(limits.bans_per_hour, HOUR, now);
            }
        }
    }

    fn ban(&mut self, rule: &str, ban: &PlannedBan, shadow: bool, now: Now) {
        // Another rule's longer ban stays as long as it was; one without end stays without end.
        let until = match self.standing(&ban.net, now) {
            Some(Standing { until: None, .. }) => None,
            Some(Standing { until: Some(until), shadow: earlier, .. }) if *earlier == shadow => {
                Some((*until).max(now.boot + ban.lasts))
            }
            _ => Some(now.boot + ban.lasts),
        };
        self.bans.insert(ban.net, Standing { rule: Some(rule.to_owned()), until, shadow });
        self.offences
            .insert((ban.net, rule.to_owned()), Offences { count: ban.offence, last: now.boot + ban.lasts });
    }

    /// A ban that the kernel did not take: not in force, and not an offence either, so that the next alert tries again.
    pub fn forget(&mut self, net: &IpNet, rule: &str) {
        self.bans.remove(net);
        if let Some(offences) = self.offences.get_mut(&(*net, rule.to_owned())) {
            offences.count = offences.count.saturating_sub(1);
        }
    }

    /// Takes in a ban that the kernel already held when we started. Ours from an earlier run, or somebody's by hand.
    pub fn adopt(&mut self, net: IpNet, remaining: Option<Duration>, now: Now) {
        let until = remaining.map(|remaining| now.boot + remaining);
        self.bans.entry(net).or_insert(Standing { rule: None, until, shadow: false });
    }

    /// Forgets what has ended, and the offences that have decayed. Returns how many enforced bans ended.
    pub fn expire(&mut self, now: Now) -> usize {
        let before = self.bans.values().filter(|ban| !ban.shadow).count();
        self.bans.retain(|_, ban| ban.lasts_at(now));
        self.offences.retain(|_, offences| now.boot.saturating_sub(offences.last) < DECAY);
        before - self.bans.values().filter(|ban| !ban.shadow).count()
    }

    /// Enforcement was turned on: what was only decided in dry run is no ban.
    pub fn discard_shadows(&mut self) {
        self.bans.retain(|_, ban| !ban.shadow);
        self.offences.clear();
        (self.minute, self.hour) = (Bucket::default(), Bucket::default());
    }
}

impl Standing {
    /// Whether this ban answers an offence under `rule`: its own, or one that was in the kernel when we started. A ban of
    /// dry run answers none that is enforced.
    pub fn covers(&self, rule: &str, enforce: bool) -> bool {
        (self.rule.is_none() || self.rule.as_deref() == Some(rule)) && !(self.shadow && enforce)
    }

    fn lasts_at(&self, now: Now) -> bool {
        self.until.is_none_or(|until| until > now.boot)
    }
}
