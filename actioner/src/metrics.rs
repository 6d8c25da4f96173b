//! What Prometheus is told. No address is ever a label here: addresses are in the audit log.

mod labels;
mod registry;

use crate::enforce::Outcome;
use crate::plan::{Decision, Plan};
use crate::refusal::Refusal;
use labels::{Action, Cause, Code, Cover, Reason, Rule, RuleOutcome, RuleResult, What, Window};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

/// A gauge that holds a fraction.
type Fraction = Gauge<f64, AtomicU64>;

/// The rule label of alerts that no rule matched.
const NO_RULE: &str = "none";

/// Every counter and gauge of this program. Cheap to clone: the values are shared.
#[derive(Clone, Debug)]
pub struct Metrics {
    webhooks: Family<Code, Counter>,
    alerts: Family<RuleOutcome, Counter>,
    refusals: Family<Reason, Counter>,
    bans: Family<RuleResult, Counter>,
    unbans: Family<Cause, Counter>,
    drift: Family<What, Counter>,
    deleted: Family<Rule, Counter>,
    clipped: Counter,
    sockets: Counter,
    truncated: Counter,
    audit_errors: Counter,
    active: Gauge,
    active_limit: Gauge,
    enforced: Gauge,
    looked: Fraction,
    enforcing: Gauge,
    flood: Gauge,
    paused: Gauge,
    breaker_open: Gauge,
    store_degraded: Gauge,
    reachable: Family<Cover, Gauge>,
    budget: Family<Window, Fraction>,
    reload_ok: Gauge,
    reload_at: Fraction,
    took: Family<Action, Histogram, fn() -> Histogram>,
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

/// A stage of an action, as the histogram's label names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The dump that evidence is read from.
    Survey,
    /// Bans written and read back.
    Ban,
    /// Sockets destroyed and entries deleted.
    Delete,
    /// After the answer: entries made meanwhile looked for, and deleted.
    LookAgain,
    /// From the alert's arrival to the answer.
    Total,
}

impl Stage {
    const ALL: [Stage; 5] = [Stage::Survey, Stage::Ban, Stage::Delete, Stage::LookAgain, Stage::Total];

    fn word(self) -> &'static str {
        match self {
            Stage::Survey => "survey",
            Stage::Ban => "ban",
            Stage::Delete => "delete",
            Stage::LookAgain => "look_again",
            Stage::Total => "total",
        }
    }
}

impl Metrics {
    /// All at zero, those with known labels included: an empty family prints nothing.
    pub fn new(rules: impl Iterator<Item = String>) -> Metrics {
        let metrics = Metrics {
            webhooks: Family::default(),
            alerts: Family::default(),
            refusals: Family::default(),
            bans: Family::default(),
            unbans: Family::default(),
            drift: Family::default(),
            deleted: Family::default(),
            clipped: Counter::default(),
            sockets: Counter::default(),
            truncated: Counter::default(),
            audit_errors: Counter::default(),
            active: Gauge::default(),
            active_limit: Gauge::default(),
            enforced: Gauge::default(),
            looked: Fraction::default(),
            enforcing: Gauge::default(),
            flood: Gauge::default(),
            paused: Gauge::default(),
            breaker_open: Gauge::default(),
            store_degraded: Gauge::default(),
            reachable: Family::default(),
            budget: Family::default(),
            reload_ok: Gauge::default(),
            reload_at: Fraction::default(),
            took: Family::new_with_constructor(seconds),
        };
        for reason in Refusal::REASONS {
            drop(metrics.refusals.get_or_create(&Reason { reason }));
        }
        for code in [200, 400, 401, 413, 503] {
            drop(metrics.webhooks.get_or_create(&Code { code }));
        }
        for cause in ["expired", "by_hand", "spared", "panic"] {
            drop(metrics.unbans.get_or_create(&Cause { cause }));
        }
        for what in
            ["set", "rule", "ban_missing", "ban_shortened", "ban_lengthened", "ban_foreign", "keep_reachable"]
        {
            drop(metrics.drift.get_or_create(&What { what }));
        }
        for state in ["covered", "refused"] {
            drop(metrics.reachable.get_or_create(&Cover { state }));
        }
        for stage in Stage::ALL {
            drop(metrics.took.get_or_create(&Action { action: stage.word() }));
        }
        drop(metrics.alerts.get_or_create(&RuleOutcome { rule: NO_RULE.to_owned(), outcome: "refused" }));
        metrics.know(rules);
        metrics
    }

    /// Shows the zeros of these rules.
    pub fn know(&self, rules: impl Iterator<Item = String>) {
        for rule in rules {
            for outcome in ["banned", "deleted", "dry_run", "already_banned", "refused", "resolved", "failed"]
            {
                drop(self.alerts.get_or_create(&RuleOutcome { rule: rule.clone(), outcome }));
            }
            for result in ["enforced", "dry_run", "failed"] {
                drop(self.bans.get_or_create(&RuleResult { rule: rule.clone(), result }));
            }
            drop(self.deleted.get_or_create(&Rule { rule }));
        }
    }

    /// A webhook was answered.
    pub fn answered(&self, code: u16) {
        self.webhooks.get_or_create(&Code { code }).inc();
    }

    /// Alertmanager left alerts out.
    pub fn left_out(&self, alerts: u64) {
        self.truncated.inc_by(alerts);
    }

    /// An alert was decided, and carried out with this outcome.
    pub fn decided(&self, plan: &Plan, outcome: &Outcome) {
        let rule = plan.rule.clone().unwrap_or_else(|| NO_RULE.to_owned());
        for verdict in &plan.verdicts {
            match &verdict.decision {
                Decision::Refused(refusal) => {
                    self.refusals.get_or_create(&Reason { reason: refusal.reason() }).inc();
                }
                Decision::Ban(_) | Decision::AlreadyBanned { .. } => {
                    if let Some(result) = result(plan, &verdict.decision, outcome) {
                        self.bans.get_or_create(&RuleResult { rule: rule.clone(), result }).inc();
                    }
                }
                Decision::DeleteSocketless(_) | Decision::Resolved => {}
            }
        }
        self.alerts.get_or_create(&RuleOutcome { rule, outcome: one_word(plan, outcome) }).inc();
    }

    /// Entries were deleted for a rule.
    pub fn deleted(&self, rule: &str, entries: u64) {
        self.deleted.get_or_create(&Rule { rule: rule.to_owned() }).inc_by(entries);
    }

    /// Deletions were clipped, sockets destroyed.
    pub fn removed(&self, clipped: u64, sockets: u64) {
        self.clipped.inc_by(clipped);
        self.sockets.inc_by(sockets);
    }

    /// Audit lines were lost.
    pub fn audit_lost(&self, lines: u64) {
        self.audit_errors.inc_by(lines);
    }

    /// How many audit lines were lost.
    pub fn audit_lost_so_far(&self) -> u64 {
        self.audit_errors.get()
    }

    /// Bans ended by themselves.
    pub fn expired(&self, bans: usize) {
        self.unbanned("expired", bans as u64);
    }

    /// Bans ended: `expired`, `by_hand`, `spared`, `panic`.
    pub fn unbanned(&self, cause: &'static str, bans: u64) {
        self.unbans.get_or_create(&Cause { cause }).inc_by(bans);
    }

    /// Something was not in the kernel as it should be, so many times.
    pub fn drifted(&self, what: &'static str, count: u64) {
        self.drift.get_or_create(&What { what }).inc_by(count);
    }

    /// What keeps us from doing our work, or from remembering it.
    pub fn set_health(&self, stopped: bool, breaker_open: bool, store_degraded: bool) {
        self.paused.set(i64::from(stopped));
        self.breaker_open.set(i64::from(breaker_open));
        self.store_degraded.set(i64::from(store_degraded));
    }

    /// How many bans should be in force, how many may be, and how many the kernel holds.
    pub fn set_bans(&self, active: usize, limit: u32, enforced: usize) {
        self.active_limit.set(i64::from(limit));
        self.active.set(i64::try_from(active).unwrap_or(i64::MAX));
        self.enforced.set(i64::try_from(enforced).unwrap_or(i64::MAX));
    }

    /// Whether the last survey showed a flood of forged sources.
    pub fn set_flood(&self, flood: bool) {
        self.flood.set(i64::from(flood));
    }

    /// Ports that answer while the table is full, and those that should and do not.
    pub fn set_reachable(&self, [covered, refused]: [usize; 2]) {
        for (state, ports) in [("covered", covered), ("refused", refused)] {
            self.reachable.get_or_create(&Cover { state }).set(i64::try_from(ports).unwrap_or(i64::MAX));
        }
    }

    /// What is left of the budget.
    pub fn set_budget(&self, [minute, hour]: [f64; 2]) {
        self.budget.get_or_create(&Window { window: "minute" }).set(minute.floor());
        self.budget.get_or_create(&Window { window: "hour" }).set(hour.floor());
    }

    /// A policy came into force.
    pub fn policy_in_force(&self, enforcing: bool, at: SystemTime) {
        self.enforcing.set(i64::from(enforcing));
        self.reload_ok.set(1);
        self.reload_at.set(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }

    /// Sets and rules were read.
    pub fn looked(&self, at: SystemTime) {
        self.looked.set(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }

    /// A policy could not be read; the one before stays.
    pub fn reload_failed(&self) {
        self.reload_ok.set(0);
    }

    /// A stage took so long.
    pub fn took(&self, stage: Stage, time: Duration) {
        self.took.get_or_create(&Action { action: stage.word() }).observe(time.as_secs_f64());
    }
}

/// The counter's word for a ban; None where one that stands already still does.
fn result(plan: &Plan, decision: &Decision, outcome: &Outcome) -> Option<&'static str> {
    let failed = decision.net().is_some_and(|net| outcome.failure(&net).is_some());
    match decision {
        Decision::Ban(_) if !plan.enforce => Some("dry_run"),
        _ if plan.enforce && failed => Some("failed"),
        Decision::Ban(_) => Some("enforced"),
        _ => None,
    }
}

/// The one word for an alert with several verdicts: what failed goes first, what was done before what was not.
fn one_word(plan: &Plan, outcome: &Outcome) -> &'static str {
    let has =
        |wanted: &dyn Fn(&Decision) -> bool| plan.verdicts.iter().any(|verdict| wanted(&verdict.decision));
    let unburied = |decision: &Decision| {
        plan.enforce
            && decision.socketless_of().and_then(|whose| outcome.buried(whose)).is_some_and(Result::is_err)
    };
    if has(&|decision| result(plan, decision, outcome) == Some("failed") || unburied(decision)) {
        "failed"
    } else if has(&|decision| matches!(decision, Decision::Ban(_))) {
        if plan.enforce { "banned" } else { "dry_run" }
    } else if has(&|decision| matches!(decision, Decision::DeleteSocketless(_))) {
        if plan.enforce { "deleted" } else { "dry_run" }
    } else if has(&|decision| matches!(decision, Decision::AlreadyBanned { .. })) {
        "already_banned"
    } else if has(&|decision| matches!(decision, Decision::Resolved)) {
        "resolved"
    } else {
        "refused"
    }
}
