//! `replay`: what another policy would have decided on what really happened. The same [`decide`], on evidence, table and
//! facts of the host as the audit log kept them, with the state folded forward from line to line. What the log cannot tell
//! is said, never guessed.

mod scene;
mod show;

pub use show::{Shown, json, text};

use crate::alert::Alert;
use crate::audit::{self, BadLine, Recorded};
use crate::decide::{decide, decide_all};
use crate::nominate::rule_for;
use crate::now::Now;
use crate::plan::{Decision, Plan};
use crate::policy::{Policy, Rule, Sources};
use crate::source;
use crate::state::State;
use ipnet::IpNet;
use scene::Past;
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A decision, as far as a comparison goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The rule, if one was found.
    pub rule: Option<String>,
    /// The audit log's word.
    pub word: String,
    /// The refusal's word.
    pub reason: Option<String>,
    /// The refusal as a sentence.
    pub why: Option<String>,
    /// What is banned.
    pub net: Option<IpNet>,
    /// How long a ban lasts, in seconds, where it is known.
    pub lasts: Option<u64>,
    /// Whether it is carried out.
    pub enforce: bool,
}

/// What the new policy makes of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// It would have decided this.
    Decided(Verdict),
    /// Nobody can say, and why not: a sentence that stands alone.
    Unknown(String),
}

/// One decision of the log, with as much of its line as is shown: a log may hold hundreds of thousands, with all labels.
#[derive(Debug, Clone)]
pub struct Compared {
    /// When, as the line has it.
    pub time: String,
    /// Of the line.
    pub id: String,
    /// The nominated address.
    pub source: Option<IpAddr>,
    /// The alert's name.
    pub alert: Option<String>,
    /// What was decided.
    pub old: Verdict,
    /// What would have been.
    pub new: Then,
}

/// A whole log.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Its decisions, in their order.
    pub decisions: Vec<Compared>,
    /// Bans that were in force before the first line: they are taken for granted.
    pub from_before: usize,
    /// Lines that cannot be read.
    pub bad: Vec<BadLine>,
}

/// Replays these files in turn, the oldest first.
///
/// # Errors
/// A file cannot be read, or not one line of them is a decision; a sentence.
pub fn replay(policy: &Policy, files: &[PathBuf]) -> Result<Replayed, String> {
    let mut fold = Fold::new(policy);
    let bad = audit::read(files, |line| fold.line(line))?;
    let decisions = fold.decisions;
    if decisions.is_empty() {
        let first =
            bad.first().map(|bad| format!("; line {} of {}: {}", bad.line, bad.file.display(), bad.error));
        let read: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        return Err(format!("no decision is in {}{}", read.join(", "), first.unwrap_or_default()));
    }
    Ok(Replayed { decisions, from_before: fold.from_before, bad })
}

/// Replays a log in memory, in which there may be no decision.
pub(crate) fn replay_from(policy: &Policy, log: &[u8]) -> Replayed {
    let (mut fold, mut bad) = (Fold::new(policy), Vec::new());
    let read = audit::read_from(log, Path::new(audit::FILE), &mut bad, &mut |line| fold.line(line));
    read.expect("memory can be read");
    Replayed { decisions: fold.decisions, from_before: fold.from_before, bad }
}

/// The state as the new policy's decisions leave it.
struct Fold<'p> {
    policy: &'p Policy,
    state: State,
    last: Duration,
    seen: HashSet<IpNet>,
    from_before: usize,
    decisions: Vec<Compared>,
}

impl Fold<'_> {
    fn new(policy: &Policy) -> Fold<'_> {
        Fold {
            policy,
            state: State::new(),
            last: Duration::ZERO,
            seen: HashSet::new(),
            from_before: 0,
            decisions: Vec::new(),
        }
    }

    fn line(&mut self, line: Recorded) {
        if line.is_decision() {
            let compared = self.compare(line);
            self.decisions.push(compared);
        } else {
            self.happened(&line);
        }
    }

    /// The log has the wall clock alone. Where that was set back, no time has passed.
    fn now(&mut self, line: &Recorded) -> Option<Now> {
        let wall = std::time::SystemTime::from(line.at()?);
        let since = wall.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last = self.last.max(since);
        Some(Now { boot: self.last, wall })
    }

    /// What people did, they would have done.
    fn happened(&mut self, line: &Recorded) {
        let Some(now) = self.now(line) else { return };
        scene::fold_in(&mut self.state, line, now);
    }

    fn compare(&mut self, mut line: Recorded) -> Compared {
        let old = recorded(&line);
        let new = match self.now(&line) {
            None => Err(format!("its time {:?} is none", line.time)),
            Some(now) => {
                self.state.expire(now);
                self.remember_older(&line, now);
                self.decided(&line, now)
            }
        };
        Compared {
            time: line.time,
            id: line.id,
            source: line.source,
            alert: line.labels.remove("alertname"),
            old,
            new: new.map_or_else(Then::Unknown, Then::Decided),
        }
    }

    /// A ban that is mentioned before it was made is older than the log.
    fn remember_older(&mut self, line: &Recorded, now: Now) {
        let Some(net) = line.result.as_ref().and_then(|result| result.net).or(line.net) else { return };
        if !self.seen.insert(net) || line.verdict != "already_banned" {
            return;
        }
        let expires = line.result.as_ref().and_then(|result| result.expires.as_deref());
        let expires =
            expires.and_then(|at| at.parse::<jiff::Timestamp>().ok()).map(std::time::SystemTime::from);
        let remaining = expires.map(|expires| expires.duration_since(now.wall).unwrap_or_default());
        self.state.adopt(net, remaining, now);
        self.from_before += 1;
    }

    fn decided(&mut self, line: &Recorded, now: Now) -> Result<Verdict, String> {
        let alert = scene::alert(line);
        let past = Past::of(line);
        let rule =
            match past.identity(self.policy, &alert).map(|host| rule_for(self.policy, &host, &alert))? {
                Ok(rule) => rule,
                Err(refusal) => return Ok(verdict(&Plan::refused(refusal))),
            };
        if !alert.firing {
            return Ok(verdict(&Plan::whole(rule, self.policy.enforces(rule), Decision::Resolved)));
        }
        let plan = self.plan(rule, &alert, &past, now)?;
        if let Some(ordered) = past.was_ordered_otherwise(&plan)? {
            return Ok(ordered);
        }
        self.state.apply(&plan, &self.policy.limits, now);
        Ok(past.in_its_words(verdict(&plan)))
    }

    fn plan(&self, rule: &Rule, alert: &Alert, past: &Past<'_>, now: Now) -> Result<Plan, String> {
        let source = match &rule.sources {
            Sources::All => {
                let scene = past.scene(now)?;
                return Ok(decide_all(self.policy, &self.state, rule, past.of_all(rule)?, scene.as_scene()));
            }
            Sources::Label(label) => match source::parse(alert.label(label)) {
                Ok(source) => source,
                Err(error) => {
                    let refusal = crate::refusal::Refusal::NotASource { label: label.clone(), source: error };
                    return Ok(Plan::whole(rule, self.policy.enforces(rule), Decision::Refused(refusal)));
                }
            },
            Sources::Top(_) => past.nominated_by_the_same(self.policy, rule)?,
        };
        let net = self.net(rule, source);
        let evidence = past.evidence(rule, source, net, self.policy)?;
        let scene = past.scene(now)?;
        let plan = decide(self.policy, &self.state, rule, &[(source, evidence)], scene.as_scene());
        past.knows_the_guard(&plan, net)?;
        Ok(plan)
    }

    fn net(&self, rule: &Rule, source: IpAddr) -> IpNet {
        let ban = rule.ban.as_ref();
        ban.map_or_else(
            || source.into(),
            |ban| crate::guard::ban_prefix(source, ban.ipv4_prefix, ban.ipv6_prefix),
        )
    }
}

fn recorded(line: &Recorded) -> Verdict {
    let result = line.result.as_ref();
    let expires = result.and_then(|result| result.expires.as_deref()?.parse::<jiff::Timestamp>().ok());
    let lasts = expires.zip(line.at()).map(|(end, at)| end.duration_since(at).as_secs_f64().round() as u64);
    Verdict {
        rule: line.rule.clone(),
        word: line.verdict.clone(),
        reason: line.reason.clone(),
        why: line.why.clone(),
        net: result.and_then(|result| result.net),
        lasts: lasts.filter(|_| line.verdict == "ban"),
        enforce: line.enforce,
    }
}

/// Of a plan for one line, which has one verdict.
fn verdict(plan: &Plan) -> Verdict {
    let decision = plan.verdicts.first().map(|verdict| &verdict.decision);
    let refusal = match decision {
        Some(Decision::Refused(refusal)) => Some(refusal),
        _ => None,
    };
    Verdict {
        rule: plan.rule.clone(),
        word: decision.map_or("", Decision::word).to_owned(),
        reason: refusal.map(|refusal| refusal.reason().to_owned()),
        why: refusal.map(ToString::to_string),
        net: decision.and_then(Decision::net),
        lasts: match decision {
            Some(Decision::Ban(ban)) => Some(ban.lasts.as_secs()),
            _ => None,
        },
        enforce: plan.enforce,
    }
}

#[cfg(test)]
mod tests;
