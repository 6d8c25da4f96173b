//! Decisions in the program's log, for the one who reads along: one line each, repeats at debug level.

use crate::alert::Alert;
use crate::enforce::{Banned, Outcome};
use crate::foreign::shorten;
use crate::plan::{Decision, Plan};
use std::net::IpAddr;

/// Logs each verdict of a plan.
pub(crate) fn log(alert: &Alert, plan: &Plan, outcome: &Outcome) {
    let rule = plan.rule.as_deref().unwrap_or("-");
    let (name, origin) = (shorten(alert.name(), 120), alert.origin.as_str());
    let name = name.as_str();
    for verdict in &plan.verdicts {
        let source = verdict.source.map_or_else(|| "-".to_owned(), |source: IpAddr| source.to_string());
        let entries = verdict.evidence.map(|evidence| evidence.entries);
        match &verdict.decision {
            Decision::Ban(ban) if !plan.enforce => {
                let lasts = humantime::format_duration(ban.lasts).to_string();
                tracing::info!(source, rule, alert = name, origin, entries, lasts, "would ban (dry run)");
            }
            Decision::Ban(ban) => match outcome.ban(&ban.net) {
                Some(Banned::InForce { .. }) => {
                    let lasts = humantime::format_duration(ban.lasts).to_string();
                    let deleted = outcome.removed(&ban.net).map(|removed| removed.deleted);
                    let net = ban.net.to_string();
                    tracing::info!(
                        source,
                        net,
                        rule,
                        alert = name,
                        origin,
                        entries,
                        lasts,
                        deleted,
                        "banned"
                    );
                }
                Some(Banned::Failed(error)) => {
                    tracing::error!(
                        source,
                        rule,
                        alert = name,
                        origin,
                        error,
                        "NOT banned: the kernel did not take it"
                    );
                }
                None => tracing::error!(source, rule, alert = name, origin, "NOT banned: it was not tried"),
            },
            Decision::AlreadyBanned { net, .. } if plan.enforce && outcome.failure(net).is_some() => {
                let error = outcome.failure(net);
                let net = net.to_string();
                tracing::error!(
                    source,
                    net,
                    rule,
                    alert = name,
                    origin,
                    error,
                    "NO LONGER banned: the kernel lost it and did not take it again"
                );
            }
            Decision::AlreadyBanned { .. } => {
                tracing::debug!(source, rule, alert = name, origin, "already banned");
            }
            Decision::DeleteSocketless(_) if !plan.enforce => {
                let socketless = verdict.evidence.and_then(|evidence| evidence.socketless);
                tracing::info!(
                    source,
                    rule,
                    alert = name,
                    origin,
                    socketless,
                    "would delete dead slots (dry run)"
                );
            }
            Decision::DeleteSocketless(whose) => match outcome.buried(*whose) {
                Some(Ok(burial)) => {
                    let (deleted, revived) = (burial.slots.deleted, burial.slots.revived);
                    tracing::info!(
                        source,
                        rule,
                        alert = name,
                        origin,
                        deleted,
                        revived,
                        "deleted dead slots"
                    );
                }
                Some(Err(error)) => {
                    tracing::error!(source, rule, alert = name, origin, error, "dead slots NOT deleted");
                }
                None => {
                    tracing::error!(source, rule, alert = name, origin, "dead slots NOT deleted: not tried");
                }
            },
            Decision::Resolved => {
                tracing::debug!(rule, alert = name, origin, "resolved: bans end by themselves");
            }
            Decision::Refused(refusal) => {
                let (reason, why) = (refusal.reason(), refusal.to_string());
                tracing::info!(source, rule, alert = name, origin, entries, reason, why, "refused");
            }
        }
    }
}
