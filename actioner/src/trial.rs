//! Whether bans help: what the banned held before and hold a minute later, for the breaker.

use crate::audit::{Event, What};
use crate::effects::Effects;
use crate::enforce::{Banned, Outcome};
use crate::now::Now;
use crate::plan::{Decision, Plan};
use crate::policy::DeleteAction;
use crate::survey::Survey;
use conntrack::Summary;
use ipnet::IpNet;

impl Effects {
    /// What was banned and cleared is on trial: the breaker looks later whether that helped.
    pub(crate) fn put_on_trial(&mut self, plans: &[&Plan], outcome: &Outcome, now: Now) {
        let held = cleared(plans, outcome);
        if !held.is_empty() {
            self.state.banned(held, now);
        }
    }

    /// Whether the bans before helped.
    pub(crate) fn measure(&mut self, survey: &Survey, now: Now) {
        let held = |nets: &[IpNet]| held_by(nets, &survey.summary);
        let Some(open) = self.state.measure(held, now) else { return };
        let (bans, before, after) = (open.bans, open.before, open.after);
        tracing::error!(
            bans,
            before,
            after,
            "bans did not lower the pressure, for the banned hold as many entries as before: no more are made for an hour \
             (`conntrack-actioner resume` closes the breaker)"
        );
        let event = Event::new(What::Breaker, "policy");
        self.audit.record_event(&event.with("bans", bans).with("before", before).with("after", after));
    }
}

/// Networks that were newly banned with everything of theirs deleted, and how many entries each had: as the dump showed, or more, where it
/// went on until the ban.
fn cleared(plans: &[&Plan], outcome: &Outcome) -> Vec<(IpNet, u64)> {
    let verdicts = plans.iter().filter(|plan| plan.enforce).flat_map(|plan| &plan.verdicts);
    let held = verdicts.filter_map(|verdict| match &verdict.decision {
        Decision::Ban(ban) if ban.delete == Some(DeleteAction::All) => {
            let seen = verdict.evidence.map_or(0, |evidence| evidence.entries);
            let deleted = outcome.removed(&ban.net).map_or(0, |removed| removed.deleted);
            matches!(outcome.ban(&ban.net), Some(Banned::InForce { .. }))
                .then_some((ban.net, seen.max(deleted)))
        }
        _ => None,
    });
    held.filter(|(_, entries)| *entries > 0).collect()
}

/// Entries whose source is in these networks. A source that found no room in the bounded map counts for nothing: the breaker
/// opens on what is seen.
fn held_by(nets: &[IpNet], summary: &Summary) -> u64 {
    let (hosts, wider): (Vec<&IpNet>, Vec<&IpNet>) =
        nets.iter().partition(|net| net.prefix_len() == net.max_prefix_len());
    let of_hosts = hosts.iter().filter_map(|net| summary.sources.get(net.addr()));
    let inside = summary
        .sources
        .iter()
        .filter(|(source, _)| wider.iter().any(|net| net.contains(&source.to_canonical())))
        .map(|(_, counts)| counts);
    let inside: u64 = if wider.is_empty() { 0 } else { inside.map(|counts| u64::from(counts.entries)).sum() };
    inside + of_hosts.map(|counts| u64::from(counts.entries)).sum::<u64>()
}
