//! What became of a notification: the answer's body.

use crate::effects::Case;
use crate::enforce::Outcome;
use crate::plan::Decision;
use serde::Serialize;
use std::collections::BTreeMap;

/// Counts, and of each reason for a refusal or failure the first sentence.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// Alerts in the notification; one more for those that Alertmanager cut off, which nominate from the live table.
    pub alerts: u64,
    /// Sources banned: read back from the kernel.
    pub banned: u64,
    /// Of those and of the ones banned before: so many whose entries made between the dump and the ban are yet to be looked for. What the
    /// dump had shown is deleted, as far as its keys found room (1.2 million of IPv4). The table is large, and a second dump would have
    /// been waited for.
    #[serde(skip_serializing_if = "is_zero")]
    pub looking_again: u64,
    /// Sources that would have been banned, or dead slots deleted.
    pub dry_run: u64,
    /// Sources whose ban the kernel did not take, or has lost.
    pub failed: u64,
    /// Decisions to delete dead slots that were carried out.
    pub socketless_deleted: u64,
    /// Sources banned before.
    pub already_banned: u64,
    /// Sources and alerts refused.
    pub refused: u64,
    /// Alerts that were resolved.
    pub resolved: u64,
    /// By reason; `ban_failed` for bans that the kernel did not take.
    pub reasons: BTreeMap<&'static str, Reason>,
}

/// Said only where it is so.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Why something was not done.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// How often.
    pub count: u64,
    /// The first of them, as a sentence.
    pub first: String,
}

impl Decided {
    pub(crate) fn of<'a>(cases: impl Iterator<Item = &'a Case>, outcome: &Outcome) -> Decided {
        let mut decided = Decided::default();
        for case in cases {
            decided.alerts += 1;
            for verdict in &case.plan.verdicts {
                decided.add(&verdict.decision, case.plan.enforce, outcome);
            }
        }
        decided
    }

    fn add(&mut self, decision: &Decision, enforce: bool, outcome: &Outcome) {
        let failure = decision.net().filter(|_| enforce).and_then(|net| outcome.failure(&net));
        let again = decision.net().filter(|net| enforce && outcome.is_yet_to_look_again(net));
        self.looking_again += u64::from(again.is_some());
        match (decision, failure) {
            (Decision::Refused(refusal), _) => {
                self.refused += 1;
                self.because(refusal.reason(), || refusal.to_string());
            }
            (Decision::Resolved, _) => self.resolved += 1,
            (Decision::DeleteSocketless(whose), _) => match outcome.buried(*whose) {
                Some(Ok(_)) => self.socketless_deleted += 1,
                Some(Err(why)) => {
                    self.failed += 1;
                    self.because("deletion_failed", || why.clone());
                }
                None => self.dry_run += 1,
            },
            (_, Some(why)) => {
                self.failed += 1;
                self.because("ban_failed", || why.to_owned());
            }
            (Decision::Ban(_), None) if enforce => self.banned += 1,
            (Decision::Ban(_), None) => self.dry_run += 1,
            (Decision::AlreadyBanned { .. }, None) => self.already_banned += 1,
        }
    }

    fn because(&mut self, reason: &'static str, sentence: impl FnOnce() -> String) {
        let reason = self.reasons.entry(reason).or_default();
        if reason.count == 0 {
            reason.first = sentence();
        }
        reason.count += 1;
    }
}
