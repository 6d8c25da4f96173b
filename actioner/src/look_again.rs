//! After the answer: entries that the banned made between the dump and their ban, where the table is too large for anybody to wait for a
//! second dump of it. The next orders do wait: nothing is decided meanwhile.

use crate::audit::{Event, What};
use crate::effects::{Case, Effects};
use crate::enforce::Outcome;
use crate::metrics::Stage;
use crate::removal;
use ipnet::IpNet;
use std::time::Instant;

impl Effects {
    /// Does what the batch's deletion left to be done, if it left anything.
    pub(crate) fn look_again(&mut self, cases: &[Case], outcome: Outcome) {
        let Some(Ok(removal)) = outcome.removal else { return };
        let Some(rest) = removal.rest else { return };
        if !self.switch.may_act() {
            tracing::warn!(
                "somebody stopped all actions just now: what the banned made while they were being banned is left in the table"
            );
            return;
        }
        let started = Instant::now();
        let found = removal::look_again(rest);
        self.metrics.took(Stage::LookAgain, started.elapsed());
        match found {
            Err(error) => tracing::error!(
                %error,
                "banned, and what the dump had shown is deleted; the table could not be read again for what they made meanwhile: the next alert tries again"
            ),
            Ok(removal) => {
                self.count_removal(&removal);
                for (net, removed) in removal.by_net.iter().filter(|(_, removed)| removed.deleted > 0) {
                    self.found_again(*net, removed.deleted, rule_of(net, cases));
                }
            }
        }
    }

    fn found_again(&mut self, net: IpNet, deleted: u64, rule: Option<&str>) {
        tracing::info!(%net, rule, deleted, "deleted what it made while it was being banned");
        if let Some(rule) = rule {
            self.metrics.deleted(rule, deleted);
        }
        let event = Event::new(What::Deletion, "policy").about(net);
        self.audit.record_event(&event.with("rule", rule).with("entries_deleted", deleted));
    }
}

/// The first rule that had it banned, or found it so: entries deleted before were counted for it, too.
fn rule_of<'c>(net: &IpNet, cases: &'c [Case]) -> Option<&'c str> {
    let mut plans = cases.iter().map(|case| &case.plan);
    plans
        .find(|plan| plan.verdicts.iter().any(|verdict| verdict.decision.net() == Some(*net)))?
        .rule
        .as_deref()
}
