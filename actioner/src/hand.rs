//! Orders by hand, carried out by the effects thread like everything else.

use crate::admin::{Answer, ByHand, Denied, Explained, ExplainedRule};
use crate::audit::{Event, What, rfc3339};
use crate::decide::{Scene, decide};
use crate::effects::Effects;
use crate::host::Host;
use crate::nominate::Nominator;
use crate::now::Now;
use crate::panic_file::{self, Panicked};
use crate::plan::Decision;
use crate::policy::Sources;
use crate::state::GRACE;
use crate::survey::Survey;
use ipnet::IpNet;
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

mod ban;

impl Effects {
    /// Carries out one order, by a person whose name is `by`.
    pub(crate) fn by_hand(&mut self, order: ByHand, by: &str) -> Answer {
        let undone = undone_by_a_restart(&order);
        let answer = match order {
            ByHand::Ban { net, lasts, reason } => self.ban_by_hand(net, lasts, &reason, by),
            ByHand::Unban(Some(net)) => self.unban_by_hand(net, by),
            ByHand::Unban(None) => self.unban_all(by),
            ByHand::Explain(source) => self.explain(source),
            ByHand::Pause(lasts) => Ok(self.pause(lasts, by)),
            ByHand::Resume => self.resume(by),
            ByHand::Panic => self.panic_by_hand(by),
        };
        self.keep(Now::read());
        match (answer, undone, self.store.failing()) {
            (Ok(mut done), Some(undone), Some(why)) => {
                done["not_stored"] = format!("in force, but not written down, so {undone}: {why}").into();
                Ok(done)
            }
            (answer, ..) => answer,
        }
    }

    fn unban_by_hand(&mut self, net: IpNet, by: &str) -> Answer {
        let now = Now::read();
        if !self.state.nets(now).any(|banned| banned == net) && !self.in_kernel.contains(&net) {
            let mut around =
                self.state.rows(true, now).map(|(wider, _)| wider).filter(|wider| wider.contains(&net));
            return Err(Denied::NotFound(match around.next() {
                Some(wider) => {
                    format!("{net} is not banned by itself: it is inside {wider}, which is. Unban {wider}")
                }
                None => format!("{net} is not banned (`conntrack-actioner bans` lists what is)"),
            }));
        }
        self.unban(&[net], by)
    }

    fn unban_all(&mut self, by: &str) -> Answer {
        let now = Now::read();
        let mut nets: Vec<IpNet> = self.state.nets(now).collect();
        nets.extend(&self.in_kernel);
        nets.sort();
        nets.dedup();
        self.unban(&nets, by)
    }

    fn unban(&mut self, nets: &[IpNet], by: &str) -> Answer {
        let now = Now::read();
        for net in nets {
            self.state.unban_by_hand(*net, by, now);
        }
        // Before the kernel: a crash in between leaves an element that the reconciler takes out.
        self.store.save(&self.state, now);
        let lifted = match &mut self.wall {
            Some(wall) => wall.unban(nets),
            None => {
                crate::run::configured_firewall(&self.policy).and_then(|mut firewall| firewall.unban(nets))
            }
        };
        for net in nets {
            self.in_kernel.remove(net);
            self.audit.record_event(&Event::new(What::Unban, by).about(*net));
        }
        self.metrics.unbanned("by_hand", nets.len() as u64);
        tracing::warn!(count = nets.len(), by, "unbanned by hand");
        match lifted {
            Err(error) => {
                Err(Denied::Failed(format!("the kernel still has it: {error} (it is tried again every 5 s)")))
            }
            Ok(_) => Ok(json!({"unbanned": nets, "grace_until": rfc3339(now.wall_at(now.boot + GRACE))})),
        }
    }

    fn pause(&mut self, lasts: Option<Duration>, by: &str) -> serde_json::Value {
        let now = Now::read();
        self.switch.stop();
        self.state.set_pause(lasts, by, now);
        self.was_paused = true;
        let until = lasts.map(|lasts| rfc3339(now.wall_at(now.boot + lasts)));
        let ends = until
            .as_ref()
            .map_or_else(|| "until `conntrack-actioner resume`".to_owned(), |until| format!("until {until}"));
        tracing::warn!(
            by,
            ends,
            "paused: no rule bans or deletes anything; bans in force stay, orders by hand go on"
        );
        self.audit.record_event(&Event::new(What::Pause, by).with("until", until));
        json!({"done": format!("paused {ends}: no rule bans or deletes anything; bans in force stay, and `ban` and `unban` go on")})
    }

    fn resume(&mut self, by: &str) -> Answer {
        let now = Now::read();
        // What a panic that we have not heeded yet was to lift does not come back with its end.
        self.heed_panic_file();
        panic_file::remove(&self.storage).map_err(|error| {
            Denied::Failed(format!(
                "cannot remove {}: {error}; nothing is resumed",
                panic_file::path(&self.storage).display()
            ))
        })?;
        let over = self.state.resume(now);
        self.switch.release();
        self.was_paused = false;
        self.audit.record_event(&Event::new(What::Resume, by));
        if self.wall.is_none() && self.policy.enforces_anything() {
            self.put_up_or_mind().map_err(|error| Denied::Failed(error.to_string()))?;
        }
        let done = if over.is_empty() { "there was nothing to resume".to_owned() } else { over.join(", ") };
        tracing::warn!(by, done, "resumed by hand");
        Ok(json!({"done": done}))
    }

    fn panic_by_hand(&mut self, by: &str) -> Answer {
        let panicked = Panicked { since: rfc3339(Now::read().wall), by: by.to_owned() };
        let written = match panic_file::read(&self.storage) {
            Some(_) => Ok(()),
            None => panic_file::write(&self.storage, &panicked),
        };
        let left = self.panic(by);
        let lasting = written.map_or_else(
            |error| format!("; but that could not be written down ({error}), so a restart would end it"),
            |()| String::new(),
        );
        match left {
            Ok(lifted) => Ok(
                json!({"done": format!("{lifted} bans were lifted; nothing is done until `conntrack-actioner resume`{lasting}")}),
            ),
            Err(why) => Err(Denied::Failed(format!("{why}{lasting}"))),
        }
    }

    /// Everything off: no ban, no deletion, no reconciling. Says how many bans the kernel had.
    pub(crate) fn panic(&mut self, by: &str) -> Result<usize, String> {
        self.switch.stop();
        let known = self.state.panic(by);
        self.store.save(&self.state, Now::read());
        tracing::error!(
            by,
            known,
            "panic: all bans are lifted, and nothing is done until `conntrack-actioner resume`"
        );
        self.audit.record_event(&Event::new(What::Panic, by).with("bans", known));
        self.metrics.unbanned("panic", known as u64);
        self.empty_our_sets()
    }

    /// Says how many bans the kernel had.
    pub(crate) fn empty_our_sets(&mut self) -> Result<usize, String> {
        let mut firewall =
            crate::run::configured_firewall(&self.policy).map_err(|error| error.to_string())?;
        let mut empty = || {
            let nets: Vec<IpNet> = firewall.list()?.iter().map(|element| element.net).collect();
            firewall.unban(&nets)?;
            Ok((nets.len(), firewall.list()?.len()))
        };
        let (had, left) = empty().map_err(|error: crate::firewall::FirewallError| {
            format!(
                "our sets could not be emptied: {error}. By hand: ipset flush {0}-4; ipset flush {0}-6",
                self.policy.firewall.set
            )
        })?;
        self.wall = None;
        self.in_kernel.clear();
        if left > 0 {
            return Err(format!(
                "{left} elements are still in our sets. By hand: ipset flush {0}-4; ipset flush {0}-6",
                self.policy.firewall.set
            ));
        }
        Ok(had)
    }

    /// The live table, and this host with those whom it called.
    fn look_at_table(&mut self) -> Result<(Host, Survey), Denied> {
        let mut host = self.surroundings.host(Now::read()).map_err(Denied::Failed)?;
        let survey = self.survey(&host).map_err(|unread| Denied::Failed(unread.0))?;
        host.spared.called = std::sync::Arc::clone(&survey.called);
        Ok((host, survey))
    }

    fn explain(&mut self, source: IpAddr) -> Answer {
        let source = source.to_canonical();
        let (host, survey) = self.look_at_table()?;
        let now = Now::read();
        let policy = std::sync::Arc::clone(&self.policy);
        let mut nominator = Nominator::new(&survey.summary);
        let scene = Scene { host: &host, table: survey.table, flood: survey.flood, now };
        let named = policy.rules.iter().filter(|rule| rule.sources != Sources::All);
        let rules = named
            .map(|rule| {
                let nominee = (source, nominator.evidence(rule, source));
                let plan = decide(&policy, &self.state, rule, &[nominee], scene);
                let decision = plan.verdicts.into_iter().next().map(|verdict| verdict.decision);
                explained(&rule.name, plan.enforce, &decision.unwrap_or(Decision::Resolved))
            })
            .collect();
        let rows = crate::snapshot::bans(&self.state, &self.in_kernel, now);
        let holds = rows.iter().filter(|ban| ban.net().contains(&source));
        let explained = Explained {
            source,
            bans: holds.map(|ban| ban.listed(now)).collect(),
            grace: self.state.grace(&source.into(), now).err().map(|refusal| refusal.to_string()),
            evidence: nominator.of_source(source),
            table: survey.table,
            rules,
        };
        serde_json::to_value(explained).map_err(|error| Denied::Failed(error.to_string()))
    }
}

/// What becomes of an order that the disk did not take, when the program ends; of a panic its own file says it.
fn undone_by_a_restart(order: &ByHand) -> Option<&'static str> {
    match order {
        ByHand::Ban { .. } => Some("a reboot would end it, and a restart would forget who gave it and why"),
        ByHand::Unban(_) => Some("after a crash or a restart it would be banned again"),
        ByHand::Pause(_) => Some("a crash or a restart would end it"),
        ByHand::Resume => Some("after a crash or a restart what it ended would be back"),
        ByHand::Explain(_) | ByHand::Panic => None,
    }
}

fn explained(rule: &str, enforce: bool, decision: &Decision) -> ExplainedRule {
    let dry = if enforce { "" } else { " (dry run: nothing would be done)" };
    let (reason, why) = match decision {
        Decision::Refused(refusal) => (Some(refusal.reason()), Some(refusal.to_string())),
        _ => (None, None),
    };
    let would = match decision {
        Decision::Ban(ban) => {
            let lasts = humantime::format_duration(ban.lasts);
            format!("would ban {} for {lasts}, as offence {}{dry}", ban.net, ban.offence)
        }
        Decision::AlreadyBanned { net, .. } => format!("would change nothing: {net} is banned{dry}"),
        Decision::DeleteSocketless(_) => format!("would delete its dead slots{dry}"),
        Decision::Refused(refusal) => format!("would refuse: {refusal}"),
        Decision::Resolved => "would do nothing".to_owned(),
    };
    ExplainedRule { rule: rule.to_owned(), enforce, verdict: decision.word(), reason, why, would }
}
