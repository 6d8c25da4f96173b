//! What is kept up whatever happens: sets, rule and bans in the kernel as the state says, and the state on the disk.

use crate::audit::{Event, What};
use crate::effects::{Effects, FLOOD_SHOWN};
use crate::enforce::{Banned, Outcome};
use crate::firewall::{Ban, Element};
use crate::guard::may_be_banned;
use crate::host::Host;
use crate::now::Now;
use crate::panic_file;
use crate::plan::{Plan, enforced_bans};
use crate::policy::Policy;
use crate::reconcile::{Differences, differences};
use crate::refusal::Refusal;
use crate::wall::{NoWall, Wall};
use ipnet::IpNet;
use std::collections::HashSet;

/// Why no port is kept reachable though the policy asks for it.
const DRY: &str = "the policy enforces nothing, so no rule is put in (`enforce: true` does)";
/// So many networks are named in one line; the others are counted.
const NAMED: usize = 20;

impl Effects {
    /// Puts in the kernel what the state says, at the start.
    ///
    /// # Errors
    /// Sets and rule can never be put in place. What the kernel lacks for now is said, and tried again.
    pub fn begin(&mut self) -> Result<(), String> {
        let now = Now::read();
        if let Some(panicked) = panic_file::read(&self.storage) {
            tracing::error!(
                by = panicked.by,
                since = panicked.since,
                "somebody panicked: nothing is done until `conntrack-actioner resume`"
            );
            self.heed(&panicked.by);
        } else if self.policy.enforces_anything() {
            let policy = std::sync::Arc::clone(&self.policy);
            match self.put_up(&policy) {
                Ok(()) => {}
                Err(NoWall::NotYet(why)) => self.mind_no_wall(why),
                Err(NoWall::Never(why)) => return Err(why),
            }
        }
        if self.state.paused(now).is_some() {
            tracing::warn!(
                "actions are paused, as they were when we stopped; `conntrack-actioner resume` ends that"
            );
            self.switch.stop();
        }
        self.look();
        Ok(())
    }

    /// Sets and rule for a policy that enforces, and in them the bans that are known.
    ///
    /// # Errors
    /// Sets or rule could not be put in place, or read.
    pub(crate) fn put_up(&mut self, policy: &Policy) -> Result<(), NoWall> {
        let now = Now::read();
        let mut wall = (self.put_up_wall)(policy)?;
        let found = wall.list()?;
        self.no_wall = None;
        self.adopt(&found, now);
        let (set, found, known) = (&policy.firewall.set, found.len(), self.state.active(now));
        tracing::info!(
            set,
            found,
            known,
            "enforcing; bans that are known and have not ended are put in the kernel"
        );
        self.wall = Some(wall);
        self.lift_spared(policy);
        self.reconcile();
        Ok(())
    }

    /// The same for the policy in force; why not is minded.
    ///
    /// # Errors
    /// As [`Effects::put_up`].
    pub(crate) fn put_up_or_mind(&mut self) -> Result<(), NoWall> {
        let policy = std::sync::Arc::clone(&self.policy);
        self.put_up(&policy).inspect_err(|error| self.mind_no_wall(error.to_string()))
    }

    /// Said when it is new, and shown until there is a wall.
    fn mind_no_wall(&mut self, why: String) {
        if self.no_wall.as_ref() != Some(&why) {
            tracing::error!(
                error = why,
                "the policy enforces, and NOTHING IS ENFORCED: tried again every 5 s"
            );
            self.no_wall = Some(why);
        }
    }

    /// At the first look, what the kernel holds and the store does not know was decided when the store could not be written.
    fn adopt(&mut self, found: &[Element], now: Now) {
        if std::mem::take(&mut self.adopts) {
            for element in found {
                self.state.adopt(element.net, element.remaining, now);
            }
        }
    }

    /// A ban of one who is spared since then ends: by a new policy, or because the address is ours now.
    pub(crate) fn lift_spared(&mut self, policy: &Policy) {
        match self.surroundings.host(Now::read()) {
            Ok(host) => self.lift(policy, &host),
            Err(error) => {
                tracing::error!(error, "whom this host spares cannot be read: bans stay as they are");
            }
        }
    }

    fn lift(&mut self, policy: &Policy, host: &Host) {
        let now = Now::read();
        let spared: Vec<(IpNet, Refusal)> = self
            .state
            .rows(true, now)
            .filter_map(|(net, _)| Some((net, may_be_banned(net, host, policy).err()?)))
            .collect();
        let mut lifted = Vec::new();
        for (net, why) in spared {
            if self.state.unban(&net) {
                lifted.push(net);
                tracing::warn!(%net, %why, "its ban is lifted");
                self.metrics.unbanned("spared", 1);
                self.audit
                    .record_event(&Event::new(What::Unban, "policy").about(net).because(&why.to_string()));
            }
        }
        let Some(wall) = self.wall.as_mut().filter(|_| !lifted.is_empty()) else { return };
        self.store.save(&self.state, now);
        if let Err(error) = wall.unban(&lifted) {
            tracing::error!(%error, "bans that were lifted are still in the kernel: tried again every 5 s");
        }
        self.in_kernel.retain(|net| !lifted.contains(net));
    }

    /// Looks who is logged in; and an address that became this host's own, its gateway or its resolver is banned no longer.
    fn follow_host(&mut self, now: Now) {
        if self.state.active(now) == 0 {
            return self.surroundings.look_round(now);
        }
        let Ok(host) = self.surroundings.host(now) else { return self.surroundings.look_round(now) };
        if self.host_before.as_ref() != Some(&host) {
            let policy = std::sync::Arc::clone(&self.policy);
            self.lift(&policy, &host);
            self.host_before = Some(host);
        }
    }

    /// Every few seconds: what somebody else changed is put back.
    pub(crate) fn look(&mut self) {
        let now = Now::read();
        self.heed_panic_file();
        let ended = self.state.expire(now);
        if self.was_paused && self.state.may_act(now).is_ok() {
            tracing::info!("the pause is over");
            self.switch.release();
        }
        self.was_paused = self.state.paused(now).is_some();
        if self.state.panicked().is_none() {
            self.stand();
            self.stand_reachable();
            self.reconcile();
        } else if self.wall.is_some()
            && let Err(error) = self.empty_our_sets()
        {
            tracing::error!(error, "the panic is still not complete");
        }
        self.follow_host(now);
        if self.flooded.is_some_and(|seen| seen.elapsed() > FLOOD_SHOWN) {
            self.mind_flood(None);
        }
        self.tell_of_when(now);
        self.keep(now);
        self.metrics.expired(ended);
    }

    /// Since when what is shown of the kernel is true: where its sets or rules cannot be read, or somebody holds the lock of
    /// iptables, that is a while ago.
    fn tell_of_when(&mut self, now: Now) {
        if self.kernel_answers && self.no_wall.is_none() {
            let looked = self.wall.as_ref().map_or(now, Wall::looked);
            self.metrics.looked(looked.wall);
            self.kernel_read = Some(looked);
        }
    }

    /// Somebody panicked whom we did not hear: read before each batch, and at each look.
    pub(crate) fn heed_panic_file(&mut self) {
        if let (None, Some(panicked)) = (self.state.panicked(), panic_file::read(&self.storage)) {
            self.heed(&panicked.by);
        }
    }

    /// Somebody panicked while we did not run, or did not answer.
    fn heed(&mut self, by: &str) {
        if let Err(error) = self.panic(by) {
            tracing::error!(error, "the panic is not complete");
        }
    }

    /// Sets and rule are there.
    fn stand(&mut self) {
        if self.wall.is_none() && self.policy.enforces_anything() {
            // The kernel lacked something at the start, or when a panic was ended.
            return drop(self.put_up_or_mind());
        }
        let Some(wall) = &mut self.wall else { return self.look_on() };
        match wall.keep_standing() {
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, "sets or drop rule cannot be put in place: nothing may drop");
            }
        }
        for what in wall.take_drifts() {
            self.metrics.drifted(what, 1);
            self.audit.record_event(&Event::new(What::Drift, "kernel").with("what", what));
        }
    }

    /// Dry run keeps nothing up; bans of an earlier run that are in force all the same are known and shown.
    fn look_on(&mut self) {
        let found = crate::run::configured_firewall(&self.policy).and_then(|mut firewall| firewall.list());
        // A kernel without ipset has no bans.
        let Ok(found) = found else { return };
        let now = Now::read();
        self.adopt(&found, now);
        let known: HashSet<IpNet> = self.state.rows(true, now).map(|(net, _)| net).collect();
        self.in_kernel = found.iter().map(|element| element.net).filter(|net| known.contains(net)).collect();
    }

    /// A pause came between decision and kernel: bans that it caught wait for its end.
    pub(crate) fn withhold(&mut self, plans: &[&Plan], outcome: &Outcome) {
        if self.switch.may_act() {
            return;
        }
        self.withheld.extend(enforced_bans(plans).filter(|net| outcome.failure(net).is_some()));
    }

    /// The ports of `keep_reachable` answer, whatever the table holds. In dry run the firewall is not touched.
    fn stand_reachable(&mut self) {
        let policy = std::sync::Arc::clone(&self.policy);
        let (asked, set) = (policy.keep_reachable.as_ref(), &policy.firewall.set);
        match asked {
            None if self.wall.is_none() => self.reach.idle(None),
            Some(_) if self.wall.is_none() => self.reach.idle(Some(DRY)),
            Some(wanted) if policy.enforces_anything() => match self.surroundings.host(Now::read()) {
                Ok(host) => {
                    let mended = self.reach.keep(wanted, set, &host.own);
                    if mended > 0 {
                        tracing::error!(
                            chains = mended,
                            "our rules that keep ports reachable were gone or changed: put back"
                        );
                        self.metrics.drifted("keep_reachable", mended);
                        self.audit.record_event(
                            &Event::new(What::Drift, "kernel")
                                .with("what", "keep_reachable")
                                .with("count", mended),
                        );
                    }
                }
                Err(error) => self.reach.idle(Some(&error)),
            },
            _ => match self.reach.remove(set) {
                Ok(removed) => {
                    if removed {
                        tracing::warn!(
                            "the rules that kept ports reachable are taken out: the policy does not ask for them any more"
                        );
                    }
                    self.reach.idle(asked.map(|_| DRY));
                }
                Err(error) => {
                    tracing::error!(error, "the rules that kept ports reachable cannot be taken out");
                }
            },
        }
        self.metrics.set_reachable(self.reach.counts());
    }

    /// The sets hold what the state says.
    pub(crate) fn reconcile(&mut self) {
        let Some(wall) = &mut self.wall else { return };
        // Its own look at the clock: deleting, or a tool's lock, may have taken seconds since the batch began.
        let now = Now::read();
        let elements = match wall.list() {
            Ok(elements) => elements,
            Err(error) => {
                self.kernel_answers = false;
                tracing::error!(%error, "the kernel's sets cannot be read: whether bans are in force is not known, so none is called so");
                return;
            }
        };
        self.kernel_answers = true;
        let there: HashSet<IpNet> = elements.iter().map(|element| element.net).collect();
        self.state.forget_permanent(|net| there.contains(net));
        let state = &self.state;
        let found = differences(state.enforced(now), |net| state.is_permanent(net), &elements);
        let before = std::mem::replace(&mut self.in_kernel, there);
        if !found.is_empty() {
            self.repair(&found, &before);
        }
    }

    fn repair(&mut self, found: &Differences, before: &HashSet<IpNet>) {
        let Some(wall) = &mut self.wall else { return };
        if self.switch.may_act() {
            self.withheld.clear();
        }
        // What was never in the kernel is no drift: a ban that it did not take, or the first look after a start.
        let (lost, never): (Vec<Ban>, Vec<Ban>) =
            found.missing.iter().partition(|ban| before.contains(&ban.net));
        let longer: Vec<IpNet> = found.longer.iter().map(|ban| ban.net).collect();
        let out: Vec<IpNet> = found.foreign.iter().chain(&longer).copied().collect();
        // Ended by the boot clock, which goes on while a machine is suspended; the kernel's timers do not.
        let (ended, foreign): (Vec<IpNet>, Vec<IpNet>) =
            found.foreign.iter().partition(|net| before.contains(net));
        if !ended.is_empty() {
            tracing::info!(count = ended.len(), "bans that have ended are taken out of the kernel");
        }
        if let Err(error) = wall.unban(&out) {
            tracing::error!(%error, "what should not be in our sets cannot be taken out");
        }
        let mut write: Vec<Ban> =
            [&lost, &found.shorter, &found.longer].into_iter().flatten().copied().collect();
        write.extend(never.iter().filter(|ban| !self.withheld.contains(&ban.net)));
        let mut failed = Vec::new();
        for (net, banned) in wall.ban(&write) {
            match banned {
                Banned::InForce { .. } => drop(self.in_kernel.insert(net)),
                Banned::Failed(why) => failed.push((net, why)),
            }
        }
        self.in_kernel.retain(|net| !found.foreign.contains(net));
        self.complain(&failed);
        let nets = |bans: &[Ban]| bans.iter().map(|ban| ban.net).collect::<Vec<_>>();
        let drifts = [
            ("ban_missing", nets(&lost), "bans were gone from the kernel: put back"),
            ("ban_shortened", nets(&found.shorter), "bans would have ended too early in the kernel: mended"),
            ("ban_lengthened", longer, "bans would have ended too late in the kernel: mended"),
            (
                "ban_foreign",
                foreign,
                "our sets held what nobody decided: taken out (`conntrack-actioner ban` bans by hand)",
            ),
        ];
        for (what, nets, sentence) in drifts {
            if !nets.is_empty() {
                self.drifted(what, &nets, sentence);
            }
        }
    }

    fn drifted(&mut self, what: &'static str, nets: &[IpNet], sentence: &'static str) {
        let named: Vec<String> = nets.iter().take(NAMED).map(ToString::to_string).collect();
        tracing::error!(what, count = nets.len(), nets = named.join(" "), "{sentence}");
        self.metrics.drifted(what, nets.len() as u64);
        let event = Event::new(What::Drift, "kernel").because(sentence);
        self.audit.record_event(&event.with("what", what).with("count", nets.len()).with("nets", named));
    }

    /// A ban that the kernel does not take is said when that is new.
    fn complain(&mut self, failed: &[(IpNet, String)]) {
        let now_failing: HashSet<IpNet> = failed.iter().map(|(net, _)| *net).collect();
        for (net, why) in failed.iter().filter(|(net, _)| !self.failing.contains(net)).take(NAMED) {
            tracing::error!(%net, why, "a ban that should be in force is not: it is tried again every 5 s");
        }
        self.failing = now_failing;
    }

    /// Writes down what changed, and shows it.
    pub(crate) fn keep(&mut self, now: Now) {
        if let Some(peers) = self.surroundings.to_store(now) {
            self.state.remember(peers);
        }
        self.store.save(&self.state, now);
        self.show(now);
    }
}
