//! The decision: pure, no I/O, no clock. `decide(policy, state, host, alert, nominees, now) → Plan`.
//!
//! Order of judgement: table identity → matchers → require → never-banned → grace → spoof guard → budget → breaker → pause. The pause
//! comes last, so that the audit log shows what it kept from happening. One thing is known before any evidence: that a source is
//! this host itself, whose entries are not counted as a source's.

use crate::evidence::{Evidence, Shortfall, TableFill};
use crate::guard::{ban_prefix, host_spares, may_be_banned};
use crate::host::Host;
use crate::nominate::Nominee;
use crate::now::Now;
use crate::plan::{Decision, Plan, PlannedBan, Verdict, Whose};
use crate::policy::{Policy, Rule, Thresholds};
use crate::refusal::Refusal;
use crate::spared::Flood;
use crate::state::State;
use ipnet::IpNet;
use std::net::IpAddr;

/// What a decision is made on beside policy, state and rule.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Who we are.
    pub host: &'a Host,
    /// How full the table is.
    pub table: TableFill,
    /// Whether somebody forges sources.
    pub flood: Option<Flood>,
    /// When.
    pub now: Now,
}

/// Judges each nominee of a firing alert under its rule. `state` is what [`State::apply`] made of the plans before.
pub fn decide(policy: &Policy, state: &State, rule: &Rule, nominees: &[Nominee], scene: Scene<'_>) -> Plan {
    let mut planned: Vec<IpNet> = Vec::new();
    let mut verdicts = Vec::with_capacity(nominees.len());
    for (source, evidence) in nominees {
        let decision = judge(policy, state, rule, (*source, *evidence), &planned, scene);
        let decision = decision.unwrap_or_else(Decision::Refused);
        if let Decision::Ban(ban) = &decision {
            planned.push(ban.net);
        }
        verdicts.push(Verdict { source: Some(*source), evidence: *evidence, decision });
    }
    if verdicts.is_empty() {
        verdicts.push(Verdict { source: None, evidence: None, decision: Decision::Refused(nobody(rule)) });
    }
    Plan { rule: Some(rule.name.clone()), enforce: policy.enforces(rule), table: Some(scene.table), verdicts }
}

/// Judges a firing alert under a rule for `sources: all`, which deletes dead slots whoever made them.
pub fn decide_all(policy: &Policy, state: &State, rule: &Rule, all: Evidence, scene: Scene<'_>) -> Plan {
    let decision =
        delete_socketless(state, rule, Whose::Everybodys, all, scene).unwrap_or_else(Decision::Refused);
    let verdicts = vec![Verdict { source: None, evidence: Some(all), decision }];
    Plan { rule: Some(rule.name.clone()), enforce: policy.enforces(rule), table: Some(scene.table), verdicts }
}

/// A dead slot is dead whoever made it: neither the never-banned list nor budget and breaker are asked.
fn delete_socketless(
    state: &State,
    rule: &Rule,
    whose: Whose,
    evidence: Evidence,
    scene: Scene<'_>,
) -> Result<Decision, Refusal> {
    evidence.meets(&rule.require.source)?;
    scene.table.meets(&rule.require.table)?;
    let some = evidence.meets(&Thresholds { socketless: Some(1), ..Thresholds::default() });
    some.map_err(|shortfall| match (shortfall, whose) {
        (Shortfall::Below { .. }, Whose::Everybodys) => Refusal::NothingDead,
        (shortfall, _) => shortfall.into(),
    })?;
    state.may_act(scene.now)?;
    Ok(Decision::DeleteSocketless(whose))
}

fn uncounted(source: IpAddr) -> Refusal {
    Refusal::EvidenceUnavailable(format!(
        "more sources than fit are in the table, and {source} was not among those that were counted"
    ))
}

/// Not one remote source has any of what the rule requires.
fn nobody(rule: &Rule) -> Refusal {
    match Evidence::default().meets(&rule.require.source) {
        Err(shortfall) => shortfall.into(),
        Ok(()) => Refusal::EvidenceUnavailable("the live table holds no source of another host".to_owned()),
    }
}

fn unforged(rule: &Rule, flood: Option<Flood>) -> Result<(), Refusal> {
    match flood.filter(|flood| flood.could_forge(rule)) {
        None => Ok(()),
        Some(flood) => Err(Refusal::SpoofedFlood {
            sources: flood.sources,
            unreplied_percent: flood.unreplied_percent(),
        }),
    }
}

fn judge(
    policy: &Policy,
    state: &State,
    rule: &Rule,
    (source, evidence): Nominee,
    planned: &[IpNet],
    scene: Scene<'_>,
) -> Result<Decision, Refusal> {
    let Some(action) = &rule.ban else {
        let evidence = evidence.ok_or_else(|| uncounted(source))?;
        return delete_socketless(state, rule, Whose::Of(source.into()), evidence, scene);
    };
    let net = ban_prefix(source, action.ipv4_prefix, action.ipv6_prefix);
    let enforce = policy.enforces(rule);
    if let Some(standing) = state.standing(&net, &rule.name, enforce, scene.now) {
        // Spared since then, by a new policy or a new address of this host: its entries are not touched again.
        may_be_banned(net, scene.host, policy)?;
        return Ok(Decision::AlreadyBanned { net, until: standing.until, delete: rule.delete });
    }
    if planned.contains(&net) {
        let (lasts, _) = state.next_ban(net, &rule.name, action, enforce, scene.now);
        return Ok(Decision::AlreadyBanned { net, until: Some(scene.now.boot + lasts), delete: rule.delete });
    }
    if scene.host.own.contains(source) {
        host_spares(source.into(), scene.host)?;
    }
    let evidence = evidence.ok_or_else(|| uncounted(source))?;
    evidence.meets(&rule.require.source)?;
    scene.table.meets(&rule.require.table)?;
    may_be_banned(net, scene.host, policy)?;
    state.grace(&net, scene.now)?;
    unforged(rule, scene.flood)?;
    state.afford(&policy.limits, planned.len(), enforce, scene.now)?;
    state.may_act(scene.now)?;
    let (lasts, offence) = state.next_ban(net, &rule.name, action, enforce, scene.now);
    Ok(Decision::Ban(PlannedBan { net, lasts, offence, delete: rule.delete }))
}
