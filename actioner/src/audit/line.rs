//! The line of a decision.

use super::SCHEMA;
use crate::alert::Alert;
use crate::enforce::{Banned, Burial, Outcome};
use crate::evidence::{Evidence, TableFill};
use crate::foreign::shorten;
use crate::guard::{ban_prefix, host_spares};
use crate::host::Host;
use crate::now::Now;
use crate::plan::{Decision, Plan, Verdict};
use crate::policy::Policy;
use crate::spared::Flood;
use crate::survey::Survey;
use ipnet::IpNet;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    schema: u32,
    time: String,
    event: &'static str,
    id: String,
    table_id: &'a str,
    policy: &'a str,
    rule: Option<&'a str>,
    enforce: bool,
    origin: &'static str,
    actor: &'static str,
    receiver: &'a str,
    group_key: &'a str,
    fingerprint: &'a str,
    labels: Cow<'a, BTreeMap<String, String>>,
    source: Option<String>,
    /// What a ban would be of: the source, or the rule's prefix around it.
    net: Option<IpNet>,
    evidence: Option<&'a Evidence>,
    table: Option<&'a TableFill>,
    budget: Budget,
    /// What of this host spares `net`, whatever the policy says; null: nothing. Absent where nobody is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    spared: Option<Option<Spared>>,
    /// Established sockets of this host with `net` at the decision; null: not counted.
    live_sockets: Option<u64>,
    /// A flood of forged sources; null: there was none. Absent where the table was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    flood: Option<Option<Flood>>,
    verdict: &'static str,
    reason: Option<&'static str>,
    why: Option<String>,
    result: Option<Result_<'a>>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Budget {
    minute: f64,
    hour: f64,
}

/// A refusal by what is true of this host.
#[derive(Debug, Serialize)]
struct Spared {
    reason: &'static str,
    why: String,
}

/// What became of it in the kernel.
#[derive(Debug, Default, Serialize)]
#[serde(rename = "Result")]
struct Result_<'a> {
    net: Option<String>,
    ban: Option<&'static str>,
    offence: Option<u32>,
    expires: Option<String>,
    entries_deleted: Option<u64>,
    entries_revived: Option<u64>,
    deletion_clipped: Option<bool>,
    /// Entries made between the dump and the ban are yet to be looked for: a line with the event `deletion` tells of those found.
    #[serde(skip_serializing_if = "Option::is_none")]
    looking_again: Option<bool>,
    error: Option<&'a str>,
    table_after: Option<u64>,
}

/// What all lines of one batch share.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Who this host was.
    pub host: &'a Host,
    /// The policy that decided.
    pub policy: &'a Policy,
    /// Bans left in the budget before the batch: this minute, this hour.
    pub budget: [f64; 2],
    /// When it was decided.
    pub now: Now,
    /// Entries after the batch.
    pub table_after: Option<u64>,
    /// The reading of the live table that it was decided on, if one was needed.
    pub survey: Option<&'a Survey>,
}

pub(super) fn line<'a>(
    id: String,
    alert: &'a Alert,
    plan: &'a Plan,
    verdict: &'a Verdict,
    outcome: &'a Outcome,
    context: Context<'a>,
) -> Line<'a> {
    let (reason, why) = match &verdict.decision {
        Decision::Refused(refusal) => (Some(refusal.reason()), Some(refusal.to_string())),
        _ => (None, None),
    };
    let net = net(plan, verdict, context.policy);
    Line {
        schema: SCHEMA,
        time: rfc3339(context.now.wall),
        event: "decision",
        id,
        table_id: &context.host.table_id,
        policy: &context.policy.hash,
        rule: plan.rule.as_deref(),
        enforce: plan.enforce,
        origin: alert.origin.as_str(),
        actor: "policy",
        receiver: &alert.receiver,
        group_key: &alert.group_key,
        fingerprint: &alert.fingerprint,
        labels: bounded(&alert.labels),
        source: verdict.source.map(|source| source.to_string()),
        net,
        evidence: verdict.evidence.as_ref(),
        table: plan.table.as_ref(),
        budget: Budget { minute: rounded(context.budget[0]), hour: rounded(context.budget[1]) },
        spared: net.map(|net| spared(net, context)),
        live_sockets: net.and_then(|net| context.survey?.live.as_ref()?.with(&net)),
        flood: context.survey.map(|survey| survey.flood),
        verdict: verdict.decision.word(),
        reason,
        why,
        result: result(plan, &verdict.decision, outcome, context),
    }
}

/// Labels of more bytes than this are cut in the line, for a plan can have a thousand of them.
const LABELS: usize = 8 << 10;

fn bounded(labels: &BTreeMap<String, String>) -> Cow<'_, BTreeMap<String, String>> {
    let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes <= LABELS {
        return Cow::Borrowed(labels);
    }
    // The names that rules and people look for sort anywhere: all but the absurd are kept.
    let cut = |text: &String| shorten(text, 60);
    Cow::Owned(labels.iter().take(64).map(|(name, value)| (cut(name), cut(value))).collect())
}

/// What a ban of this source would be of, under the rule that decided.
fn net(plan: &Plan, verdict: &Verdict, policy: &Policy) -> Option<IpNet> {
    let source = verdict.source?;
    let rule = policy.rules.iter().find(|rule| plan.rule.as_ref() == Some(&rule.name));
    let around =
        |action: &crate::policy::BanAction| ban_prefix(source, action.ipv4_prefix, action.ipv6_prefix);
    let ban = rule.and_then(|rule| rule.ban.as_ref());
    Some(verdict.decision.net().unwrap_or_else(|| ban.map_or_else(|| source.into(), around)))
}

fn spared(net: IpNet, context: Context<'_>) -> Option<Spared> {
    let fact = host_spares(net, context.host).err()?;
    Some(Spared { reason: fact.reason(), why: fact.to_string() })
}

fn result<'a>(
    plan: &Plan,
    decision: &Decision,
    outcome: &'a Outcome,
    context: Context<'_>,
) -> Option<Result_<'a>> {
    if let Decision::DeleteSocketless(whose) = decision {
        return burial(plan, outcome.buried(*whose), context);
    }
    let (net, until, offence) = match decision {
        Decision::Ban(ban) => (ban.net, Some(context.now.boot + ban.lasts), Some(ban.offence)),
        Decision::AlreadyBanned { net, until, .. } => (*net, *until, None),
        Decision::DeleteSocketless(_) | Decision::Resolved | Decision::Refused(_) => return None,
    };
    let expires = |until: Duration| rfc3339(context.now.wall_at(until));
    let mut result = Result_ { net: Some(net.to_string()), offence, ..Result_::default() };
    if !plan.enforce {
        result.ban = Some("dry_run");
        result.expires = until.map(expires);
        return Some(result);
    }
    (result.ban, result.expires) = match outcome.ban(&net) {
        Some(Banned::InForce { remaining, .. }) => {
            (Some("in_force"), remaining.map(|remaining| expires(context.now.boot + remaining)))
        }
        Some(Banned::Failed(error)) => {
            result.error = Some(error);
            (Some("failed"), None)
        }
        None => (Some("in_force"), until.map(expires)),
    };
    match &outcome.removal {
        Some(Ok(removal)) => {
            let removed = removal.by_net.get(&net).copied().unwrap_or_default();
            result.entries_deleted = Some(removed.deleted);
            result.deletion_clipped = Some(removed.clipped);
            result.looking_again = removal.is_yet_to_look_again(&net).then_some(true);
        }
        Some(Err(error)) => result.error = Some(error),
        None => {}
    }
    if let Some(buried) = decision.socketless_of().and_then(|whose| outcome.buried(whose)) {
        fill_in(&mut result, buried);
    }
    result.table_after = context.table_after;
    Some(result)
}

fn burial<'a>(
    plan: &Plan,
    buried: Option<&'a Result<Burial, String>>,
    context: Context<'_>,
) -> Option<Result_<'a>> {
    if !plan.enforce {
        return None;
    }
    let mut result = Result_ { table_after: context.table_after, ..Result_::default() };
    if let Some(buried) = buried {
        fill_in(&mut result, buried);
    }
    Some(result)
}

fn fill_in<'a>(result: &mut Result_<'a>, buried: &'a Result<Burial, String>) {
    match buried {
        Ok(burial) => {
            result.entries_deleted = Some(burial.slots.deleted);
            result.entries_revived = Some(burial.slots.revived);
            result.deletion_clipped = Some(burial.clipped);
        }
        Err(error) => result.error = Some(error),
    }
}

fn rounded(tokens: f64) -> f64 {
    (tokens * 100.0).round() / 100.0
}

/// A moment as people read it, UTC, always with three decimals so that texts sort as moments do.
pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "unknown".to_owned(), |time| format!("{time:.3}"))
}
