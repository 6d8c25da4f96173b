//! The moment of a recorded decision, as far as its line keeps it.

use crate::alert::{Alert, Origin};
use crate::audit::Recorded;
use crate::decide::Scene;
use crate::evidence::{Evidence, TableFill};
use crate::host::Host;
use crate::now::Now;
use crate::plan::{Decision, Plan};
use crate::policy::{Policy, Rule, ThisHost};
use crate::replay::Verdict;
use crate::spared::{Flood, Spared};
use crate::state::State;
use conntrack::own::OwnAddresses;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Refusals that come after the facts of the host, so that their line tells that no such fact stood against a ban.
const BEHIND_THE_GUARD: [&str; 8] = [
    "never_ban",
    "prefix_too_wide",
    "spoofed_flood",
    "unbanned_by_hand",
    "budget_exhausted",
    "breaker_open",
    "paused",
    "panicked",
];
/// What people had ordered; it would have stood in the way of any policy.
const ORDERED: [&str; 3] = ["unbanned_by_hand", "paused", "panicked"];

/// The alert, with what of it decides.
pub(super) fn alert(line: &Recorded) -> Alert {
    Alert {
        labels: line.labels.clone(),
        annotations: Default::default(),
        fingerprint: String::new(),
        starts_at: String::new(),
        firing: line.verdict != "resolved",
        origin: Origin::Webhook,
        receiver: "".into(),
        group_key: "".into(),
    }
}

/// A recorded decision's surroundings.
pub(super) struct Past<'l> {
    line: &'l Recorded,
    /// What of the host spared it: the reason's word and sentence. Outer None: not known.
    spared: Option<Option<(&'l str, &'l str)>>,
}

/// A moment to decide in.
pub(super) struct Moment {
    host: Host,
    table: TableFill,
    flood: Option<Flood>,
    now: Now,
}

impl Moment {
    pub(super) fn as_scene(&self) -> Scene<'_> {
        Scene { host: &self.host, table: self.table, flood: self.flood, now: self.now }
    }
}

impl<'l> Past<'l> {
    pub(super) fn of(line: &'l Recorded) -> Past<'l> {
        let reason = line.reason.as_deref().unwrap_or_default();
        let spared = match &line.spared {
            Some(recorded) => {
                Some(recorded.as_ref().map(|spared| (spared.reason.as_str(), spared.why.as_str())))
            }
            // An older line, which says it only where it came to that.
            None if ["ban", "already_banned"].contains(&line.verdict.as_str()) => Some(None),
            None if BEHIND_THE_GUARD.contains(&reason) => Some(None),
            None => None,
        };
        Past { line, spared }
    }

    /// This host as far as an alert's belonging to it goes.
    pub(super) fn identity(&self, policy: &Policy, alert: &Alert) -> Result<Host, String> {
        let told = !alert.label("table_id").is_empty() || alert.label("instance").is_empty();
        if policy.this_host == ThisHost::Auto && !told {
            return Err("the alert has no table_id, and the log does not keep this host's addresses to look its instance up in".to_owned());
        }
        Ok(self.host())
    }

    /// A host for which the recorded fact holds, and no other.
    fn host(&self) -> Host {
        let mut host = Host {
            table_id: self.line.table_id.clone(),
            name: String::new(),
            own: Arc::new(OwnAddresses::default()),
            spared: Spared::default(),
        };
        let (Some(Some((reason, _))), Some(source)) = (self.spared, self.line.source) else { return host };
        if reason == "own_address" && self.line.net.is_none_or(|net| net.prefix_len() == net.max_prefix_len())
        {
            host.own = Arc::new(OwnAddresses::of([source.into()], []));
        } else {
            // Which of its facts it was is in its own words below; all are asked at the same point.
            host.spared.resolvers.insert(source);
        }
        host
    }

    pub(super) fn scene(&self, now: Now) -> Result<Moment, String> {
        let table = self.line.table.ok_or("the table was not read for this decision")?;
        Ok(Moment { host: self.host(), table, flood: self.line.flood.flatten(), now })
    }

    /// The table's largest sources at that moment are known for a rule that named them then.
    pub(super) fn nominated_by_the_same(&self, policy: &Policy, rule: &Rule) -> Result<IpAddr, String> {
        let same = self.line.policy == policy.hash && self.line.rule.as_ref() == Some(&rule.name);
        self.line.source.filter(|_| same).ok_or_else(|| {
            format!(
                "rule {} takes the table's largest sources, and which those were is not in the log",
                rule.name
            )
        })
    }

    /// Of all sources together.
    pub(super) fn of_all(&self, rule: &Rule) -> Result<Evidence, String> {
        let all = self.line.evidence.filter(|_| self.line.source.is_none());
        let all = all.ok_or("the evidence was of one source, and the new rule asks for that of all")?;
        measured(rule, Some(all))?;
        Ok(all)
    }

    /// What the log knows of `net`, which the rule would ban for `source`.
    pub(super) fn evidence(
        &self,
        rule: &Rule,
        source: IpAddr,
        net: IpNet,
        policy: &Policy,
    ) -> Result<Option<Evidence>, String> {
        match self.line.source {
            None => {
                return Err(
                    "nothing was looked up in the live table, for no rule had named a source".to_owned()
                );
            }
            Some(recorded) if recorded != source => {
                return Err(format!("the line is about {recorded}, and rule {} names {source}", rule.name));
            }
            Some(_) => {}
        }
        let of = self.line.net.or(self.line.result.as_ref().and_then(|result| result.net));
        match of {
            Some(of) if of == net => {}
            Some(of) => {
                return Err(format!("the evidence was of {of}, and rule {} goes by {net}", rule.name));
            }
            None if self.line.policy == policy.hash => {}
            None => {
                return Err(
                    "an older line, which does not say whether its evidence was of the source or of a prefix"
                        .to_owned(),
                );
            }
        }
        measured(rule, self.line.evidence)?;
        Ok(self.line.evidence)
    }

    /// Whether a plan goes beyond what is known of the guard.
    pub(super) fn knows_the_guard(&self, plan: &Plan, net: IpNet) -> Result<(), String> {
        let bans = plan.verdicts.iter().any(|verdict| matches!(verdict.decision, Decision::Ban(_)));
        if bans && self.spared.is_none() {
            return Err(format!(
                "an older line, which does not say whether a fact of this host spares {net}"
            ));
        }
        Ok(())
    }

    /// What people had ordered stood in the way of any policy's ban; of the breaker nobody can say.
    pub(super) fn was_ordered_otherwise(&self, plan: &Plan) -> Result<Option<Verdict>, String> {
        let bans = plan.verdicts.iter().any(|verdict| matches!(verdict.decision, Decision::Ban(_)));
        match self.line.reason.as_deref() {
            Some(reason) if bans && ORDERED.contains(&reason) => Ok(Some(Verdict {
                rule: plan.rule.clone(),
                word: "refused".to_owned(),
                reason: Some(reason.to_owned()),
                why: self.line.why.clone(),
                net: None,
                lasts: None,
                enforce: plan.enforce,
            })),
            Some("breaker_open") if bans => Err(
                "the breaker was open then; whether the new policy's bans would have opened it nobody can say".to_owned(),
            ),
            _ => Ok(None),
        }
    }

    /// A refusal by a fact of the host, in the words in which the line keeps it.
    pub(super) fn in_its_words(&self, mut verdict: Verdict) -> Verdict {
        if let (Some(Some((reason, why))), Some("resolver" | "own_address")) =
            (self.spared, verdict.reason.as_deref())
        {
            (verdict.reason, verdict.why) = (Some(reason.to_owned()), Some(why.to_owned()));
        }
        verdict
    }
}

fn measured(rule: &Rule, evidence: Option<Evidence>) -> Result<(), String> {
    let asks = rule.require.source.socketless.is_some() || rule.ban.is_none();
    if asks && evidence.is_some_and(|evidence| evidence.socketless.is_none()) {
        return Err(format!("rule {} asks for socketless entries, which were not counted then", rule.name));
    }
    Ok(())
}

/// What people ordered. What the policy of that time did by itself is not folded in: it was that policy's.
pub(super) fn fold_in(state: &mut State, line: &Recorded, now: Now) {
    if line.actor == "policy" || line.detail.contains_key("error") {
        return;
    }
    let until = line.detail.get("until").and_then(|until| until.as_str()?.parse::<jiff::Timestamp>().ok());
    let lasts =
        until.map(|until| std::time::SystemTime::from(until).duration_since(now.wall).unwrap_or_default());
    match (line.event.as_deref(), line.net) {
        (Some("ban"), Some(net)) => {
            let reason = line.reason.as_deref().unwrap_or_default();
            state.ban_by_hand(net, lasts.unwrap_or_default(), &line.actor, reason, now);
        }
        (Some("unban"), Some(net)) => drop(state.unban_by_hand(net, &line.actor, now)),
        (Some("pause"), _) => state.set_pause(lasts, &line.actor, now),
        (Some("resume"), _) => drop(state.resume(now)),
        (Some("panic"), _) => drop(state.panic(&line.actor)),
        _ => {}
    }
}
