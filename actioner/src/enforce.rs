//! Plans become facts in the kernel: ban, verify, destroy sockets, delete, measure. Dry run is matched here and nowhere else.

use crate::firewall::{Ban, Change};
use crate::now::Now;
use crate::plan::{Decision, Plan, Whose};
use crate::policy::{DeleteAction, Limits};
use crate::removal::{self, Removal, Removed};
use crate::survey::{self, Survey};
use crate::switch::Switch;
use crate::wall::Wall;
use conntrack::dead::{Buried, DeadSlot};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// What became of the bans and deletions of one batch of plans.
#[derive(Debug, Default)]
pub struct Outcome {
    bans: HashMap<IpNet, Banned>,
    /// Bans that should have stood and did not: the kernel had lost them, and has them again.
    pub put_back: BTreeSet<IpNet>,
    /// What was deleted; None where nothing was to be, an error where it failed.
    pub removal: Option<Result<Removal, String>>,
    buried: BTreeMap<Whose, Result<Burial, String>>,
    /// How long the bans took, sent and read back.
    pub ban_took: Option<Duration>,
    /// How long destroying and deleting took.
    pub delete_took: Option<Duration>,
}

/// What became of dead slots that were to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Burial {
    /// What the kernel says of each.
    pub slots: Buried,
    /// More were there than `limits.deletes_per_action` allows.
    pub clipped: bool,
}

/// What became of one ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Banned {
    /// It was read back from the set.
    InForce {
        /// What the kernel has left; None: for ever, somebody else's doing.
        remaining: Option<Duration>,
        /// What had to be written for it.
        change: Change,
    },
    /// It is not in force, and why.
    Failed(String),
}

impl Outcome {
    /// What became of the ban of `net`; None where none was carried out (dry run).
    pub fn ban(&self, net: &IpNet) -> Option<&Banned> {
        self.bans.get(net)
    }

    /// What was deleted for `net`; None where nothing was to be.
    pub fn removed(&self, net: &IpNet) -> Option<Removed> {
        self.removal.as_ref()?.as_ref().ok()?.by_net.get(net).copied()
    }

    /// Whether entries of `net` made since the dump are yet to be looked for.
    pub fn is_yet_to_look_again(&self, net: &IpNet) -> bool {
        matches!(&self.removal, Some(Ok(removal)) if removal.is_yet_to_look_again(net))
    }

    /// What became of these dead slots; None where none was to be deleted (dry run).
    pub fn buried(&self, whose: Whose) -> Option<&Result<Burial, String>> {
        self.buried.get(&whose)
    }

    /// Whether any deletion was tried.
    pub fn deleted_something(&self) -> bool {
        self.removal.is_some() || !self.buried.is_empty()
    }

    /// Every burial.
    pub fn burials(&self) -> impl Iterator<Item = &Result<Burial, String>> {
        self.buried.values()
    }

    /// Why the ban of `net` is not in force, if it was tried and is not.
    pub fn failure(&self, net: &IpNet) -> Option<&str> {
        match self.bans.get(net) {
            Some(Banned::Failed(why)) => Some(why),
            _ => None,
        }
    }
}

/// A standing ban is written again for so much less than it has left: rounding to whole seconds must not lengthen it.
const ROUNDING: Duration = Duration::from_secs(2);

/// When a batch was decided, and when it is carried out: after the store was written, which can take seconds.
#[derive(Debug, Clone, Copy)]
pub struct Moments {
    /// Bans last from here.
    pub decided: Now,
    /// The present.
    pub carried_out: Now,
}

/// Carries out what the plans say, those of dry run excepted. `wall` is None while nothing may be enforced.
///
/// A ban that stands already is asked for again, for the kernel may have lost it; deleting without a ban in force would
/// break the living and let the entries come back (DOMAIN.md, 3).
///
/// `switch` is asked before each effect: somebody may have stopped everything since the decision.
///
/// `survey` is what the plans were decided on: its dead slots are what may be deleted as such.
pub fn enforce(
    plans: &[&Plan],
    wall: Result<&mut Wall, &str>,
    survey: Option<&Survey>,
    limits: &Limits,
    switch: &Switch,
    moments: Moments,
) -> Outcome {
    let mut outcome = Outcome::default();
    let enforced = plans.iter().filter(|plan| plan.enforce);
    let verdicts: Vec<_> = enforced.flat_map(|plan| &plan.verdicts).collect();
    let bans: Vec<Ban> = verdicts.iter().filter_map(|verdict| wanted(&verdict.decision, moments)).collect();
    if !bans.is_empty() {
        let started = Instant::now();
        let none = |why: &str| bans.iter().map(|ban| (ban.net, Banned::Failed(why.to_owned()))).collect();
        outcome.bans = match wall {
            _ if !switch.may_act() => none("somebody stopped all actions just now"),
            Ok(wall) => wall.ban(&bans),
            Err(why) => none(why),
        };
        outcome.ban_took = Some(started.elapsed());
    }
    outcome.put_back = verdicts
        .iter()
        .filter_map(|verdict| match &verdict.decision {
            Decision::AlreadyBanned { net, .. } => Some(*net),
            _ => None,
        })
        .filter(|net| matches!(outcome.ban(net), Some(Banned::InForce { change: Change::Added, .. })))
        .filter(|net| !verdicts.iter().any(|verdict| is_new(&verdict.decision, net)))
        .collect();
    // A ban that ends at this moment is not written again, and nothing is deleted without one.
    let for_ever = |net: &IpNet| {
        verdicts.iter().any(|verdict| {
            matches!(verdict.decision, Decision::AlreadyBanned { net: other, until: None, .. } if other == *net)
        })
    };
    let may_clear = |net: &IpNet| match outcome.ban(net) {
        Some(Banned::InForce { .. }) => true,
        Some(Banned::Failed(_)) => false,
        None => for_ever(net),
    };
    let to_clear: BTreeSet<IpNet> = verdicts
        .iter()
        .filter_map(|verdict| match &verdict.decision {
            Decision::Ban(ban) if ban.delete == Some(DeleteAction::All) => Some(ban.net),
            Decision::AlreadyBanned { net, delete: Some(DeleteAction::All), .. }
                if verdict.evidence.is_some_and(|evidence| evidence.entries > 0) =>
            {
                Some(*net)
            }
            _ => None,
        })
        .filter(|net| may_clear(net))
        .collect();
    if !to_clear.is_empty() && switch.may_act() {
        let started = Instant::now();
        let removal = removal::remove(to_clear.into_iter(), limits.deletes_per_action, survey);
        outcome.removal = Some(removal.map_err(|error| error.to_string()));
        outcome.delete_took = Some(started.elapsed());
    }
    let failed = |whose: &Whose| matches!(whose, Whose::Of(net) if outcome.failure(net).is_some());
    let to_bury: BTreeSet<Whose> = verdicts
        .iter()
        .filter_map(|verdict| verdict.decision.socketless_of())
        .filter(|whose| !failed(whose))
        .collect();
    if let Some(survey) = survey.filter(|_| !to_bury.is_empty() && switch.may_act()) {
        let started = Instant::now();
        outcome.buried = to_bury.into_iter().map(|whose| (whose, bury(whose, survey, limits))).collect();
        outcome.delete_took = Some(outcome.delete_took.unwrap_or_default() + started.elapsed());
    }
    outcome
}

fn bury(whose: Whose, survey: &Survey, limits: &Limits) -> Result<Burial, String> {
    let dead = survey.dead.as_ref().map_err(ToString::to_string)?;
    let of = |slot: &&DeadSlot| match whose {
        Whose::Everybodys => true,
        Whose::Of(net) => net.contains(&slot.key().source().to_canonical()),
    };
    let most = usize::try_from(limits.deletes_per_action).unwrap_or(usize::MAX);
    let slots: Vec<DeadSlot> = dead.iter().filter(of).take(most).copied().collect();
    // What was kept can be less than what was counted: the rest is for the next alert.
    let counted = survey.summary.judged.map_or(0, |judged| judged.socketless);
    let clipped = dead.iter().filter(of).count() > most || counted > dead.len() as u64;
    let slots = survey::bury(&slots).map_err(|error| error.to_string())?;
    Ok(Burial { slots, clipped })
}

fn wanted(decision: &Decision, Moments { decided, carried_out: now }: Moments) -> Option<Ban> {
    match decision {
        Decision::Ban(ban) => {
            let late = now.boot.saturating_sub(decided.boot);
            let timeout = ban.lasts.checked_sub(late).filter(|left| !left.is_zero())?;
            Some(Ban { net: ban.net, timeout })
        }
        Decision::AlreadyBanned { net, until: Some(until), .. } => {
            let timeout = until.checked_sub(now.boot + ROUNDING).filter(|left| !left.is_zero())?;
            Some(Ban { net: *net, timeout })
        }
        _ => None,
    }
}

fn is_new(decision: &Decision, net: &IpNet) -> bool {
    matches!(decision, Decision::Ban(ban) if ban.net == *net)
}
