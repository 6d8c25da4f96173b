//! The one thread that owns state, firewall, audit log and table: what it does, nobody else does.
//!
//! Its loop: drain the queue → one survey → decide each in order → one write of the store → one ban batch → delete → audit → reply → look
//! again, where the table is large. What arrives during a survey waits for the next one, so evidence always postdates the alert, and 500
//! webhooks cost two or three dumps.

use crate::alert::Alert;
use crate::asked::{Asked, with_those_cut_off};
use crate::audit::{Audit, Context, rfc3339};
use crate::decide::{Scene, decide, decide_all};
use crate::decided::Decided;
use crate::enforce::{self, Moments, Outcome};
use crate::host::Host;
use crate::metrics::{Metrics, Stage};
use crate::nominate::{Nominator, rule_for};
use crate::now::Now;
use crate::orders::{Order, Unread, with_company};
use crate::plan::{Decision, Plan};
use crate::policy::{Policy, Sources};
use crate::pressure::{Gauge, LastDump};
use crate::pulse::Pulse;
use crate::reach::Reach;
use crate::refusal::Refusal;
use crate::snapshot::Published;
use crate::spared::Flood;
use crate::state::State;
use crate::store::Store;
use crate::surroundings::Surroundings;
use crate::survey::{self, Ask, KEY_ROOM, Survey};
use crate::switch::Switch;
use crate::wall::{NoWall, Wall};
use crate::watch::{self, Told};
use crate::webhook::Notification;
use conntrack::socketless::Judging;
use ipnet::IpNet;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often the kernel is made to match the state, at least.
const LOOK: Duration = Duration::from_secs(5);
/// Why a ban is not in force where nothing was tried.
const NO_FIREWALL: &str = "no firewall is set up: the policy enforced nothing when it was read";
/// A flood that no survey looked at again is shown for so long.
pub(crate) const FLOOD_SHOWN: Duration = Duration::from_secs(300);

/// What the thread owns.
pub struct Effects {
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// What earlier decisions left.
    pub state: State,
    /// Where bans live; None until a policy enforces something.
    pub wall: Option<Wall>,
    /// Why the policy enforces and there is none all the same: it is tried again at every look.
    pub no_wall: Option<String>,
    /// Puts one up for a policy that begins to enforce.
    pub put_up_wall: fn(&Policy) -> Result<Wall, NoWall>,
    /// Where the state is written down before it is done.
    pub store: Store,
    /// The directory of store, audit log and panic file.
    pub storage: PathBuf,
    /// Bans in the kernel that no store knows are taken for ours, at the first look.
    pub adopts: bool,
    /// This host when bans were last compared with whom it spares.
    pub host_before: Option<Host>,
    /// What the kernel held when it was last asked.
    pub in_kernel: HashSet<IpNet>,
    /// Whether it answered: else nobody knows what is in force.
    pub kernel_answers: bool,
    /// Bans that the kernel did not take, and that were spoken of.
    pub failing: HashSet<IpNet>,
    /// Bans that a pause caught between decision and kernel: they wait for its end.
    pub withheld: HashSet<IpNet>,
    /// Stops effects, also those under way.
    pub switch: Arc<Switch>,
    /// A pause was in force at the last look.
    pub was_paused: bool,
    /// What `status` and `bans` show.
    pub published: Published,
    /// Whose table it is.
    pub table_id: String,
    /// When the policy came into force: for people.
    pub policy_loaded: String,
    /// The audit log.
    pub audit: Audit,
    /// The counters.
    pub metrics: Metrics,
    /// The watch's cheap look; None where the kernel does not offer it.
    pub gauge: Option<Gauge>,
    /// The dump before.
    pub last_dump: Option<LastDump>,
    /// When the table's entries were last read, and sets and rules.
    pub entries_read: Option<Now>,
    /// See [`Effects::entries_read`].
    pub kernel_read: Option<Now>,
    /// What the watch's alerts led to at its last dump, so that only changes are written down.
    pub told: Told,
    /// Who this host is and whom it spares.
    pub surroundings: Surroundings,
    /// Ports that answer while the table is full.
    pub reach: Reach,
    /// When a survey last showed a flood of forged sources.
    pub flooded: Option<Instant>,
}

/// One alert with its decision.
pub(crate) struct Case {
    pub(crate) alert: Alert,
    pub(crate) plan: Plan,
}

impl Effects {
    /// Works until told to stop or until the queue's other end is gone.
    pub fn run(mut self, orders: &Receiver<Order>, pulse: &Pulse) {
        let mut looked = Instant::now();
        loop {
            pulse.beat();
            let until_look = LOOK.saturating_sub(looked.elapsed());
            let wait = self.policy.watch.as_ref().map_or(until_look, |watch| watch.interval.min(until_look));
            let first = match orders.recv_timeout(wait) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut stop = false;
            let mut notifications = Vec::new();
            for order in first.map(|first| with_company(first, orders)).into_iter().flatten() {
                match order {
                    Order::Decide(notification, reply) => notifications.push((notification, reply)),
                    Order::Reload(policy, reply) => drop(reply.send(self.reload(*policy))),
                    Order::ByHand { order, by, reply } => drop(reply.send(self.by_hand(order, &by))),
                    Order::Stop => stop = true,
                }
            }
            if !notifications.is_empty() {
                self.answer(notifications);
            }
            if stop {
                return;
            }
            self.tick();
            if looked.elapsed() >= LOOK {
                self.look();
                looked = Instant::now();
            }
        }
    }

    fn answer(&mut self, notifications: Vec<(Notification, oneshot::Sender<Result<Decided, Unread>>)>) {
        let started = Instant::now();
        let mut asked = Vec::new();
        let (counts, replies): (Vec<usize>, Vec<_>) = notifications
            .into_iter()
            .map(|(notification, reply)| {
                if let Some(peer) = notification.authenticated {
                    self.surroundings.remember_webhook_peer(peer, Now::read());
                }
                let before = asked.len();
                asked.extend(with_those_cut_off(notification));
                (asked.len() - before, reply)
            })
            .unzip();
        let processed = self.process(asked, None);
        self.metrics.took(Stage::Total, started.elapsed());
        match processed {
            Err(unread) => replies.into_iter().for_each(|reply| drop(reply.send(Err(unread.clone())))),
            Ok((cases, outcome)) => {
                let mut of_all = cases.iter();
                for (count, reply) in counts.into_iter().zip(replies) {
                    // A client that hung up cancels nothing.
                    let _ = reply.send(Ok(Decided::of(of_all.by_ref().take(count), &outcome)));
                }
                self.look_again(&cases, outcome);
            }
        }
    }

    /// Decides, carries out and writes down. A survey is taken if any alert needs one and none is given.
    pub(crate) fn process(
        &mut self,
        asked: Vec<Asked>,
        survey: Option<Survey>,
    ) -> Result<(Vec<Case>, Outcome), Unread> {
        let mut host = self.surroundings.host(Now::read()).map_err(Unread)?;
        let policy = Arc::clone(&self.policy);
        let needs_survey =
            |asked: &Asked| asked.alert.firing && rule_for(&policy, &host, &asked.alert).is_ok();
        let survey = match survey {
            Some(survey) => Some(survey),
            None if asked.iter().any(needs_survey) => Some(self.survey(&host)?),
            None => None,
        };
        let flood = survey.as_ref().and_then(|survey| survey.flood);
        if let Some(survey) = &survey {
            host.spared.called = Arc::clone(&survey.called);
        }
        self.heed_panic_file();
        // After the dump, which can take seconds: bans count from now.
        let now = Now::read();
        self.metrics.expired(self.state.expire(now));
        let budget = self.state.budget(&policy.limits, policy.enforces_anything(), now);
        let table = survey.as_ref().map(|survey| survey.table);
        let mut nominator = survey.as_ref().map(|survey| Nominator::new(&survey.summary));
        let mut cases = Vec::with_capacity(asked.len());
        for asked in asked {
            let scene = table.map(|table| Scene { host: &host, table, flood, now });
            let plan = self.plan(&policy, &host, &asked, nominator.as_mut().zip(scene));
            self.state.apply(&plan, &policy.limits, now);
            cases.push(Case { alert: asked.alert, plan });
        }
        self.store.save(&self.state, now);
        // Decided in time, and perhaps too late to be done.
        self.heed_panic_file();
        let plans: Vec<&Plan> = cases.iter().map(|case| &case.plan).collect();
        // The disk may have taken its time: a ban ends when it was decided to end.
        let moments = Moments { decided: now, carried_out: Now::read() };
        let outcome = enforce::enforce(
            &plans,
            self.wall.as_mut().ok_or_else(|| self.no_wall.as_deref().unwrap_or(NO_FIREWALL)),
            survey.as_ref(),
            &policy.limits,
            &self.switch,
            moments,
        );
        self.withhold(&plans, &outcome);
        self.put_on_trial(&plans, &outcome, now);
        self.count(&outcome);
        let context = Context {
            host: &host,
            policy: &policy,
            budget,
            now,
            table_after: outcome
                .deleted_something()
                .then(|| self.gauge.as_ref()?.read().ok())
                .flatten()
                .map(|fill| fill.entries),
            survey: survey.as_ref(),
        };
        self.write_down(&cases, &outcome, context);
        if outcome.ban_took.is_some() {
            self.reconcile();
        }
        self.keep(Now::read());
        Ok((cases, outcome))
    }

    fn plan(
        &self,
        policy: &Policy,
        host: &Host,
        asked: &Asked,
        live: Option<(&mut Nominator<'_>, Scene<'_>)>,
    ) -> Plan {
        let rule = match rule_for(policy, host, &asked.alert) {
            Ok(rule) => rule,
            Err(refusal) => return Plan::refused(refusal),
        };
        let whole = |decision| Plan::whole(rule, policy.enforces(rule), decision);
        if !asked.alert.firing {
            return whole(Decision::Resolved);
        }
        let Some((nominator, scene)) = live else {
            // Host addresses changed between two reads: refused rather than guessed.
            let unread = "the live table was not read for this alert".to_owned();
            return whole(Decision::Refused(Refusal::EvidenceUnavailable(unread)));
        };
        if rule.sources == Sources::All {
            return decide_all(policy, &self.state, rule, nominator.all(), scene);
        }
        let nominees =
            match (asked.cut_off, &rule.sources) {
                (Some(most), Sources::Label(_)) => Ok(nominator
                    .top(rule, usize::try_from(most).map_or(watch::MOST, |most| most.min(watch::MOST)))),
                // Its other alerts nominate from the live table already.
                (Some(_), Sources::Top(_) | Sources::All) => Ok(Vec::new()),
                (None, _) => nominator.nominate(rule, &asked.alert),
            };
        match nominees {
            Err(refusal) => whole(Decision::Refused(refusal)),
            Ok(nominees) => decide(policy, &self.state, rule, &nominees, scene),
        }
    }

    pub(crate) fn survey(&mut self, host: &Host) -> Result<Survey, Unread> {
        let policy = &self.policy;
        let judging = policy.asks_for_sockets().then(|| Judging {
            grace: policy.socketless_grace,
            setting: "`socketless_grace`",
            procfs: "/proc".into(),
        });
        let ask = Ask {
            judging,
            dead_slots: policy.limits.deletes_per_action,
            key_room: if policy.deletes_all_of_a_source() { KEY_ROOM } else { 0 },
        };
        let losses = self.gauge.as_mut().and_then(Gauge::losses);
        let survey = survey::take(&host.own, &ask).map_err(|error| {
            tracing::error!(%error, "the conntrack table cannot be read: nothing can be decided");
            Unread(format!("the live table cannot be read, so nothing was decided: {error}"))
        })?;
        self.metrics.took(Stage::Survey, survey.dump.elapsed);
        let now = Now::read();
        self.last_dump =
            Some(LastDump { at: now.boot, took: survey.dump.elapsed, entries: survey.table.entries, losses });
        if ask.judging.is_some() && self.told.sockets_changed(survey.dead.is_ok()) {
            match &survey.dead {
                Ok(_) => tracing::info!("entries without a socket can be told again"),
                Err(error) => tracing::error!(
                    %error,
                    "entries without a socket cannot be told: until they can, rules that ask for them do nothing"
                ),
            }
        }
        if self.told.called_changed(survey.called_trouble.is_none())
            && let Some(trouble) = &survey.called_trouble
        {
            tracing::error!("{trouble}");
        }
        self.entries_read = Some(now);
        self.mind_flood(survey.flood);
        self.measure(&survey, now);
        if let Some((count, first)) = survey.dump.malformed {
            tracing::warn!(count, %first, "entries that could not be read were passed over");
        }
        Ok(survey)
    }

    /// A flood is said when it begins and when it ends.
    pub(crate) fn mind_flood(&mut self, flood: Option<Flood>) {
        self.metrics.set_flood(flood.is_some());
        let before = self.flooded.take();
        self.flooded = flood.map(|_| Instant::now());
        match flood {
            Some(Flood { sources, unreplied, entries, liberal }) if before.is_none() => tracing::error!(
                sources,
                unreplied,
                entries,
                liberal,
                "sources are being forged: rules that require less than source.socketless ban nobody until it ends. What helps: SYN cookies \
                 (net.ipv4.tcp_syncookies=1), a higher nf_conntrack_max, shorter nf_conntrack_tcp_timeout_syn_recv and _syn_sent, \
                 nf_conntrack_tcp_loose=0 with SYNPROXY, your provider's filters upstream; keep nf_conntrack_tcp_be_liberal at 0"
            ),
            None if before.is_some() => tracing::info!("the flood of forged sources is over"),
            _ => {}
        }
    }

    fn reload(&mut self, policy: Policy) -> Result<(), String> {
        if self.wall.is_some() && policy.firewall != self.policy.firewall {
            return Err("`firewall` changed: that needs a stop, `conntrack-actioner teardown --keep-bans` with the old policy, and a start, for bans in force would be left behind".to_owned());
        }
        let enforces = policy.enforces_anything();
        if enforces && self.state.panicked().is_none() {
            match &mut self.wall {
                Some(wall) => drop(wall.ensure().map_err(|error| error.to_string())?),
                // What the kernel lacks is no fault of this policy.
                None if self.no_wall.is_some() => {}
                None => self.put_up(&policy).map_err(|error| error.to_string())?,
            }
        }
        if enforces && !self.policy.enforces_anything() {
            self.state.discard_shadows();
        }
        if !enforces {
            self.no_wall = None;
        }
        self.lift_spared(&policy);
        for warning in &policy.warnings {
            tracing::warn!("{warning}");
        }
        self.metrics.know(policy.rules.iter().map(|rule| rule.name.clone()));
        self.metrics.policy_in_force(enforces, Now::read().wall);
        self.told = Told::default();
        self.policy_loaded = rfc3339(Now::read().wall);
        self.policy = Arc::new(policy);
        self.store.forgive();
        self.look();
        Ok(())
    }
}
