//! Plans become facts in the kernel: ban, verify, destroy sockets, delete, measure. Dry run is matched here and nowhere else.

use crate::firewall::{Ban, Change, Firewall};
use crate::plan::{Decision, Plan};
use crate::policy::{DeleteAction, Limits};
use crate::survey::{self, Removal};
use ipnet::IpNet;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// What became of the bans and deletions of one batch of plans.
#[derive(Debug, Default)]
pub struct Outcome {
    bans: HashMap<IpNet, Banned>,
    /// What was deleted; None where nothing was to be, an error where it failed.
    pub removal: Option<Result<Removal, String>>,
    /// How long the bans took, sent and read back.
    pub ban_took: Option<Duration>,
    /// How long destroying and deleting took.
    pub delete_took: Option<Duration>,
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

    /// The bans that are not in force.
    pub fn failed(&self) -> impl Iterator<Item = &IpNet> {
        self.bans.iter().filter(|(_, banned)| matches!(banned, Banned::Failed(_))).map(|(net, _)| net)
    }
}

/// Carries out what the plans say, those of dry run excepted. `firewall` is None while nothing may be enforced.
pub fn enforce(plans: &[&Plan], firewall: Option<&mut (dyn Firewall + 'static)>, limits: &Limits) -> Outcome {
    let mut outcome = Outcome::default();
    let enforced = plans.iter().filter(|plan| plan.enforce);
    let verdicts: Vec<_> = enforced.flat_map(|plan| &plan.verdicts).collect();
    let mut bans: Vec<Ban> = Vec::new();
    for verdict in &verdicts {
        if let Decision::Ban(ban) = &verdict.decision {
            bans.push(Ban { net: ban.net, timeout: ban.lasts });
        }
    }
    if !bans.is_empty() {
        let started = Instant::now();
        outcome.bans = ban(&bans, firewall);
        outcome.ban_took = Some(started.elapsed());
    }
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
        // Deleting without a ban in force would break the living and let the entries come back (DOMAIN.md, 3).
        .filter(|net| !matches!(outcome.bans.get(net), Some(Banned::Failed(_))))
        .collect();
    if !to_clear.is_empty() {
        let started = Instant::now();
        let removal = survey::remove(to_clear.into_iter(), limits.deletes_per_action);
        outcome.removal = Some(removal.map_err(|error| error.to_string()));
        outcome.delete_took = Some(started.elapsed());
    }
    outcome
}

fn ban(bans: &[Ban], firewall: Option<&mut (dyn Firewall + 'static)>) -> HashMap<IpNet, Banned> {
    let all = |reason: &str| bans.iter().map(|ban| (ban.net, Banned::Failed(reason.to_owned()))).collect();
    let Some(firewall) = firewall else {
        return all("no firewall is set up: the policy enforced nothing when it was read");
    };
    match firewall.ban(bans) {
        Err(error) => all(&error.to_string()),
        Ok(results) => bans
            .iter()
            .zip(results)
            .map(|(ban, result)| {
                let banned = match result {
                    Ok(enforced) => {
                        Banned::InForce { remaining: enforced.remaining, change: enforced.change }
                    }
                    Err(error) => Banned::Failed(error.to_string()),
                };
                (ban.net, banned)
            })
            .collect(),
    }
}
