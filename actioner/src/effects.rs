//! The one thread that owns state, firewall, audit log and table: what it does, nobody else does.
//!
//! Its loop: drain the queue → one survey → decide each in order → one ban batch → delete → audit → reply. What arrives
//! during a survey waits for the next one, so evidence always postdates the alert, and 500 webhooks cost two or three dumps.

use crate::alert::Alert;
use crate::audit::{Audit, Context};
use crate::decide::{Scene, decide};
use crate::enforce::{self, Banned, Outcome};
use crate::firewall::Firewall;
use crate::host::Host;
use crate::metrics::{Metrics, Stage};
use crate::nominate::{nominate, rule_for};
use crate::now::Now;
use crate::plan::{Decision, Plan};
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::report;
use crate::state::State;
use crate::survey::{self, Survey};
use crate::watch::{self, Gauge, LastDump};
use crate::webhook::Notification;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often bans are counted in the kernel, at least.
const LOOK: Duration = Duration::from_secs(5);
/// So many orders are taken together at most, so that a batch ends.
const BATCH: usize = 4096;

/// An order to the effects thread.
#[derive(Debug)]
pub enum Order {
    /// A notification to be decided and answered.
    Decide(Notification, oneshot::Sender<Result<Decided, Unread>>),
    /// A policy to be put in force; the answer says whether it is.
    Reload(Box<Policy>, oneshot::Sender<Result<(), String>>),
    /// Finish what is queued and end.
    Stop,
}

/// What became of a notification's alerts: the answer's body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Decided {
    /// Alerts in the notification.
    pub alerts: u64,
    /// Sources banned: read back from the kernel.
    pub banned: u64,
    /// Sources that would have been banned.
    pub dry_run: u64,
    /// Sources whose ban the kernel did not take.
    pub failed: u64,
    /// Sources banned before.
    pub already_banned: u64,
    /// Sources and alerts refused.
    pub refused: u64,
    /// Alerts that were resolved.
    pub resolved: u64,
}

/// The live table could not be read, so nothing was decided: worth another try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread(pub String);

/// What the thread owns.
pub struct Effects {
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// What earlier decisions left.
    pub state: State,
    /// Where bans live; None while the policy enforces nothing.
    pub firewall: Option<Box<dyn Firewall>>,
    /// Makes a firewall for a policy that begins to enforce.
    pub open_firewall: fn(&Policy) -> Result<Box<dyn Firewall>, String>,
    /// The audit log.
    pub audit: Audit,
    /// The counters.
    pub metrics: Metrics,
    /// The watch's cheap look; None where the kernel does not offer it.
    pub gauge: Option<Gauge>,
    /// The dump before.
    pub last_dump: Option<LastDump>,
    /// What the watch's alerts led to last, so that only changes are written down.
    pub watched: HashMap<(String, Option<IpAddr>), &'static str>,
}

/// One alert with its decision.
struct Case {
    alert: Alert,
    plan: Plan,
}

impl Effects {
    /// Works until told to stop or until the queue's other end is gone.
    pub fn run(mut self, orders: &Receiver<Order>) {
        let mut looked = Instant::now();
        self.look();
        loop {
            let wait = self.policy.watch.as_ref().map_or(LOOK, |watch| watch.interval.min(LOOK));
            let first = match orders.recv_timeout(wait) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut stop = false;
            let mut notifications = Vec::new();
            for order in first.into_iter().chain(orders.try_iter().take(BATCH)) {
                match order {
                    Order::Decide(notification, reply) => notifications.push((notification, reply)),
                    Order::Reload(policy, reply) => drop(reply.send(self.reload(*policy))),
                    Order::Stop => stop = true,
                }
            }
            if !notifications.is_empty() {
                self.answer(notifications);
            }
            if stop {
                return;
            }
            self.watch();
            if looked.elapsed() >= LOOK {
                self.look();
                looked = Instant::now();
            }
        }
    }

    fn answer(&mut self, notifications: Vec<(Notification, oneshot::Sender<Result<Decided, Unread>>)>) {
        let started = Instant::now();
        let counts: Vec<usize> =
            notifications.iter().map(|(notification, _)| notification.alerts.len()).collect();
        let (alerts, replies): (Vec<_>, Vec<_>) =
            notifications.into_iter().map(|(notification, reply)| (notification.alerts, reply)).unzip();
        match self.process(alerts.into_iter().flatten().collect(), None) {
            Err(unread) => replies.into_iter().for_each(|reply| drop(reply.send(Err(unread.clone())))),
            Ok((cases, outcome)) => {
                let mut cases = cases.iter();
                for (count, reply) in counts.into_iter().zip(replies) {
                    // A client that hung up cancels nothing.
                    let _ = reply.send(Ok(sum(cases.by_ref().take(count), &outcome)));
                }
            }
        }
        self.metrics.took(Stage::Total, started.elapsed());
    }

    /// Decides, carries out and writes down. A survey is taken if any alert needs one and none is given.
    fn process(
        &mut self,
        alerts: Vec<Alert>,
        survey: Option<Survey>,
    ) -> Result<(Vec<Case>, Outcome), Unread> {
        let now = Now::read();
        let host = Host::read().map_err(Unread)?;
        let policy = Arc::clone(&self.policy);
        let needs_survey = |alert: &Alert| alert.firing && rule_for(&policy, &host, alert).is_ok();
        let survey = match survey {
            Some(survey) => Some(survey),
            None if alerts.iter().any(needs_survey) => Some(self.survey(&host)?),
            None => None,
        };
        let budget = self.state.budget(&policy.limits, now);
        let cases: Vec<Case> = alerts
            .into_iter()
            .map(|alert| {
                let plan = self.plan(&policy, &host, &alert, survey.as_ref(), now);
                self.state.apply(&plan, &policy.limits, now);
                Case { alert, plan }
            })
            .collect();
        let plans: Vec<&Plan> = cases.iter().map(|case| &case.plan).collect();
        let outcome = enforce::enforce(&plans, self.firewall.as_deref_mut(), &policy.limits);
        self.take_in(&cases, &outcome);
        let context = Context {
            table_id: &host.table_id,
            policy: &policy.hash,
            budget,
            now,
            table_after: outcome
                .removal
                .as_ref()
                .and_then(|_| self.gauge.as_ref()?.read().ok())
                .map(|fill| fill.entries),
        };
        self.write_down(&cases, &outcome, context);
        self.show_bans(now);
        Ok((cases, outcome))
    }

    fn plan(&self, policy: &Policy, host: &Host, alert: &Alert, survey: Option<&Survey>, now: Now) -> Plan {
        let rule = match rule_for(policy, host, alert) {
            Ok(rule) => rule,
            Err(refusal) => return Plan::refused(None, refusal),
        };
        if !alert.firing {
            return Plan::whole(Some(rule.name.clone()), Decision::Resolved);
        }
        let Some(survey) = survey else {
            // Host addresses changed between two reads: refused rather than guessed.
            let refusal =
                Refusal::EvidenceUnavailable("the live table was not read for this alert".to_owned());
            return Plan::refused(Some(rule.name.clone()), refusal);
        };
        match nominate(rule, alert, &survey.summary) {
            Err(refusal) => Plan::refused(Some(rule.name.clone()), refusal),
            Ok(nominees) => {
                decide(policy, &self.state, rule, &nominees, Scene { host, table: survey.table, now })
            }
        }
    }

    fn survey(&mut self, host: &Host) -> Result<Survey, Unread> {
        let survey = survey::take(&host.own).map_err(|error| {
            tracing::error!(%error, "the conntrack table cannot be read: nothing can be decided");
            Unread(format!("the live table cannot be read, so nothing was decided: {error}"))
        })?;
        self.metrics.took(Stage::Survey, survey.dump.elapsed);
        let now = Now::read();
        self.last_dump =
            Some(LastDump { at: now.boot, took: survey.dump.elapsed, entries: survey.table.entries });
        if let Some((count, first)) = survey.dump.malformed {
            tracing::warn!(count, %first, "entries that could not be read were passed over");
        }
        Ok(survey)
    }

    /// Bans that the kernel did not take are no bans.
    fn take_in(&mut self, cases: &[Case], outcome: &Outcome) {
        let failed: Vec<_> = outcome.failed().copied().collect();
        for case in cases {
            let Some(rule) = &case.plan.rule else { continue };
            for verdict in &case.plan.verdicts {
                if let Decision::Ban(ban) = &verdict.decision
                    && failed.contains(&ban.net)
                {
                    self.state.forget(&ban.net, rule);
                }
            }
        }
        if let Some(took) = outcome.ban_took {
            self.metrics.took(Stage::Ban, took);
        }
        if let Some(took) = outcome.delete_took {
            self.metrics.took(Stage::Delete, took);
        }
        if let Some(Ok(removal)) = &outcome.removal {
            let clipped = removal.by_net.values().filter(|removed| removed.clipped).count() as u64;
            self.metrics.removed(clipped, removal.sockets.destroyed);
        }
    }

    fn write_down(&mut self, cases: &[Case], outcome: &Outcome, context: Context<'_>) {
        let mut counted = std::collections::HashSet::new();
        for Case { alert, plan } in cases {
            if alert.origin == crate::alert::Origin::Watch && !self.is_news(alert, plan) {
                continue;
            }
            let failed = |decision: &Decision| match decision {
                Decision::Ban(ban) => matches!(outcome.ban(&ban.net), Some(Banned::Failed(_))),
                _ => false,
            };
            self.metrics.decided(plan, failed);
            if let (Some(Ok(removal)), Some(rule)) = (&outcome.removal, &plan.rule) {
                for net in plan.verdicts.iter().filter_map(|verdict| verdict.decision.net()) {
                    if let Some(removed) = removal.by_net.get(&net)
                        && counted.insert(net)
                    {
                        self.metrics.deleted(rule, removed.matched);
                    }
                }
            }
            report::log(alert, plan, outcome);
            if let Err(error) = self.audit.record(alert, plan, outcome, context) {
                self.metrics.audit_failed();
                let path = self.audit.path().display();
                tracing::error!(%path, %error, "an audit line is lost; the decision stands");
            }
        }
        if let Some(Err(error)) = &outcome.removal {
            tracing::error!(%error, "banned, but entries could not be deleted: the next alert tries again");
        }
    }

    /// Whether the watch says something else of this source than it said before.
    fn is_news(&mut self, alert: &Alert, plan: &Plan) -> bool {
        let mut news = false;
        for verdict in &plan.verdicts {
            let word = match &verdict.decision {
                Decision::Refused(refusal) => refusal.reason(),
                decision => decision.word(),
            };
            let key = (alert.name().to_owned(), verdict.source);
            // "banned" and then "already banned" are one story.
            let before = self.watched.insert(key, word);
            news |= before != Some(word) && !(word == "already_banned" && before == Some("ban"));
        }
        if self.watched.len() > 100_000 {
            self.watched.clear();
        }
        news
    }

    fn watch(&mut self) {
        let policy = Arc::clone(&self.policy);
        let (Some(watch), Some(gauge)) = (&policy.watch, &self.gauge) else { return };
        let fill = match gauge.read() {
            Ok(fill) => fill,
            Err(error) => {
                tracing::error!(%error, "the watch cannot read how full the table is");
                return;
            }
        };
        if !watch::due(watch, self.last_dump, fill, Now::read()) {
            return;
        }
        let host = match Host::read() {
            Ok(host) => host,
            Err(error) => {
                tracing::error!(error, "the watch cannot read this host's addresses");
                return;
            }
        };
        let Ok(survey) = self.survey(&host) else {
            // Not again at once: a table that cannot be read is logged once in `every`.
            self.last_dump =
                Some(LastDump { at: Now::read().boot, took: Duration::ZERO, entries: fill.entries });
            return;
        };
        let alerts = watch::raise(watch, &survey.summary, survey.table, &host);
        if !alerts.is_empty() {
            let _ = self.process(alerts, Some(survey));
        }
    }

    /// Counts bans, in the state and in the kernel.
    fn look(&mut self) {
        let now = Now::read();
        let ended = self.state.expire(now);
        self.metrics.expired(ended);
        self.show_bans(now);
    }

    fn show_bans(&mut self, now: Now) {
        let active = self.state.in_force(now).filter(|(_, ban)| !ban.shadow).count();
        let enforced = match &mut self.firewall {
            None => 0,
            Some(firewall) => match firewall.list() {
                Ok(elements) => elements.len(),
                Err(error) => {
                    tracing::error!(%error, "the kernel's sets cannot be read");
                    0
                }
            },
        };
        self.metrics.set_bans(active, enforced);
        self.metrics.set_budget(self.state.budget(&self.policy.limits, now));
    }

    fn reload(&mut self, policy: Policy) -> Result<(), String> {
        if self.firewall.is_some() && policy.firewall != self.policy.firewall {
            return Err("`firewall` changed: that needs `conntrack-actioner teardown` and a restart, for bans in force would be left behind".to_owned());
        }
        let enforces = policy.enforces_anything();
        if enforces && self.firewall.is_none() {
            let mut firewall = (self.open_firewall)(&policy)?;
            adopt(firewall.as_mut(), &mut self.state)?;
            self.firewall = Some(firewall);
            self.state.discard_shadows();
        }
        self.metrics.know(policy.rules.iter().map(|rule| rule.name.clone()));
        self.metrics.policy_in_force(enforces, Now::read().wall);
        self.watched.clear();
        self.policy = Arc::new(policy);
        Ok(())
    }
}

/// Takes the bans that the kernel holds into the state: ours from an earlier run.
///
/// # Errors
/// The kernel's sets cannot be read.
pub fn adopt(firewall: &mut dyn Firewall, state: &mut State) -> Result<usize, String> {
    let now = Now::read();
    let elements = firewall.list().map_err(|error| error.to_string())?;
    for element in &elements {
        state.adopt(element.net, element.remaining, now);
    }
    Ok(elements.len())
}

fn sum<'a>(cases: impl Iterator<Item = &'a Case>, outcome: &Outcome) -> Decided {
    let mut decided = Decided::default();
    for case in cases {
        decided.alerts += 1;
        for verdict in &case.plan.verdicts {
            match &verdict.decision {
                Decision::Ban(_) if !case.plan.enforce => decided.dry_run += 1,
                Decision::Ban(ban) => match outcome.ban(&ban.net) {
                    Some(Banned::InForce { .. }) => decided.banned += 1,
                    _ => decided.failed += 1,
                },
                Decision::AlreadyBanned { .. } => decided.already_banned += 1,
                Decision::Resolved => decided.resolved += 1,
                Decision::Refused(_) => decided.refused += 1,
            }
        }
    }
    decided
}
