//! What was done is written down: counters, log, audit lines. Only what is news, where the watch says it again and again.

use crate::alert::{Alert, Origin};
use crate::audit::Context;
use crate::effects::{Case, Effects};
use crate::enforce::Outcome;
use crate::metrics::Stage;
use crate::plan::{Decision, Plan};
use crate::removal::Removal;
use crate::report;
use std::collections::HashSet;

/// Of one batch, so many alerts that no rule decided are written down.
const UNRULED: u64 = 20;

impl Effects {
    /// Counts and logs what the kernel did.
    pub(crate) fn count(&self, outcome: &Outcome) {
        if let Some(took) = outcome.ban_took {
            self.metrics.took(Stage::Ban, took);
        }
        if let Some(took) = outcome.delete_took {
            self.metrics.took(Stage::Delete, took);
        }
        for burial in outcome.burials() {
            match burial {
                Ok(burial) => self.metrics.removed(u64::from(burial.clipped), 0),
                Err(error) => {
                    tracing::error!(error, "dead slots could not be deleted: the next alert tries again");
                }
            }
        }
        for net in &outcome.put_back {
            tracing::error!(%net, "its ban was not in the kernel: put back");
        }
        match &outcome.removal {
            Some(Ok(removal)) => self.count_removal(removal),
            Some(Err(error)) => {
                tracing::error!(
                    error,
                    "banned, but entries could not be deleted: the next alert tries again"
                );
            }
            None => {}
        }
    }

    /// Counts and logs one removal, its entries excepted, which are counted by rule.
    pub(crate) fn count_removal(&self, removal: &Removal) {
        let clipped = removal.by_net.values().filter(|removed| removed.clipped).count() as u64;
        self.metrics.removed(clipped, removal.sockets.destroyed);
        if clipped > 0 {
            let limit = self.policy.limits.deletes_per_action;
            tracing::warn!(
                clipped,
                limit,
                "more entries than limits.deletes_per_action allows: the next alert goes on"
            );
        }
        removal.troubles().iter().for_each(|trouble| tracing::error!("{trouble}"));
    }

    /// Counters, log and audit lines of a batch.
    pub(crate) fn write_down(&mut self, cases: &[Case], outcome: &Outcome, context: Context<'_>) {
        let (mut counted, mut buried) = (HashSet::new(), HashSet::new());
        let mut unruled = 0_u64;
        for Case { alert, plan } in cases {
            if alert.origin == Origin::Watch && !self.is_news(alert, plan, outcome) {
                continue;
            }
            self.metrics.decided(plan, outcome);
            if let (Some(Ok(removal)), Some(rule)) = (&outcome.removal, &plan.rule) {
                for net in plan.verdicts.iter().filter_map(|verdict| verdict.decision.net()) {
                    if let Some(removed) = removal.by_net.get(&net)
                        && counted.insert(net)
                    {
                        self.metrics.deleted(rule, removed.deleted);
                    }
                }
            }
            for whose in plan.verdicts.iter().filter_map(|verdict| verdict.decision.socketless_of()) {
                if let (Some(Ok(burial)), Some(rule)) = (outcome.buried(whose), &plan.rule)
                    && buried.insert(whose)
                {
                    self.metrics.deleted(rule, burial.slots.deleted);
                }
            }
            // Anybody who may send webhooks may send these: they must not push what was done out of log and audit.
            unruled += u64::from(plan.rule.is_none());
            if plan.rule.is_none() && unruled > UNRULED {
                continue;
            }
            report::log(alert, plan, outcome);
            self.audit.record(alert, plan, outcome, context);
        }
        if let Some(more) = unruled.checked_sub(UNRULED).filter(|more| *more > 0) {
            tracing::info!(
                more,
                "alerts about other hosts, or that no rule matches, are counted and not written down one by one"
            );
        }
        self.audit.settle();
    }

    /// Whether the watch says something else of this source than it said at its last dump, or something was done.
    fn is_news(&mut self, alert: &Alert, plan: &Plan, outcome: &Outcome) -> bool {
        let mut news = false;
        for verdict in &plan.verdicts {
            let word = match &verdict.decision {
                Decision::Refused(refusal) => refusal.reason(),
                decision => decision.word(),
            };
            let changed = self.told.is_news(alert.name(), verdict.source, word);
            let done = verdict.decision.net().is_some_and(|net| {
                plan.enforce
                    && (outcome.failure(&net).is_some()
                        || outcome.put_back.contains(&net)
                        || outcome.removed(&net).is_some_and(|removed| removed.deleted > 0))
            });
            let buried = verdict.decision.socketless_of().and_then(|whose| outcome.buried(whose));
            let done = done
                || buried.is_some_and(|buried| !matches!(buried, Ok(burial) if burial.slots.deleted == 0));
            news |= done || changed || matches!(verdict.decision, Decision::Ban(_));
        }
        news
    }
}
