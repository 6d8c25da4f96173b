//! `ban`: the last word of a person counts, also where it shortens what he said before. A rule's longer ban stays.

use crate::admin::{Answer, Denied};
use crate::audit::{Event, What, rfc3339};
use crate::effects::Effects;
use crate::enforce::Banned;
use crate::firewall::Ban;
use crate::guard::may_be_banned;
use crate::now::Now;
use crate::policy::BanAction;
use crate::removal;
use crate::state::Standing;
use ipnet::IpNet;
use serde_json::json;
use std::time::Duration;

impl Effects {
    pub(super) fn ban_by_hand(&mut self, net: IpNet, lasts: Duration, reason: &str, by: &str) -> Answer {
        let refused = |why: String| Err(Denied::Refused(why));
        self.heed_panic_file();
        if let Some(who) = self.state.panicked() {
            return refused(format!("{who} panicked: `conntrack-actioner resume` first"));
        }
        if self.wall.is_none() && self.no_wall.is_none() {
            return refused("the policy enforces nothing, so no set and no rule is in place: set `enforce: true` and reload".to_owned());
        }
        if lasts < Duration::from_secs(1) || lasts > BanAction::LONGEST {
            let longest = humantime::format_duration(BanAction::LONGEST);
            return refused(format!("a ban lasts 1s at least and {longest} at most (ipset's limit)"));
        }
        let (host, survey) = self.look_at_table()?;
        // After the dump, which can take seconds: the ban lasts from now.
        let now = Now::read();
        may_be_banned(net, &host, &self.policy)
            .and_then(|()| self.state.has_room(&self.policy.limits, now))
            .map_err(|refusal| Denied::Refused(refusal.to_string()))?;
        let before = self.state.banned_until(&net, now);
        self.state.ban_by_hand(net, lasts, by, reason, now);
        self.store.save(&self.state, now);
        let ends = self.state.banned_until(&net, now).and_then(|standing| standing.until);
        let failed = match ends {
            Some(until) => self.put_in_kernel(net, until.saturating_sub(now.boot), before),
            // Somebody's own element, for ever: there is nothing to write.
            None => None,
        };
        let at = |until: Duration| rfc3339(now.wall_at(until));
        let ordered = at(now.boot + lasts);
        let mut event = Event::new(What::Ban, by).about(net).because(reason).with("until", ordered.as_str());
        if let Some(why) = failed {
            self.audit.record_event(&event.with("error", why.as_str()));
            return Err(Denied::Failed(format!(
                "{net} is not banned yet: {why} (it is tried again every 5 s)"
            )));
        }
        self.in_kernel.insert(net);
        let most = self.policy.limits.deletes_per_action;
        // A person waits for the count.
        let removal = removal::remove_whole(std::iter::once(net), most, Some(&survey));
        let (deleted, trouble) = match &removal {
            Ok(removal) => (removal.deleted.deleted, removal.troubles().join("; ")),
            Err(error) => (0, format!("its entries could not be deleted: {error}")),
        };
        event = event.with("entries_deleted", deleted);
        self.audit.record_event(&event);
        tracing::warn!(%net, by, reason, until = ordered, deleted, "banned by hand");
        Ok(json!({
            "net": net,
            "until": ends.map(at),
            "ordered_until": ordered,
            "until_before": before.and_then(|standing| standing.until).map(at),
            "in_kernel": true,
            "entries_deleted": deleted,
            "trouble": (!trouble.is_empty()).then_some(trouble),
        }))
    }

    /// Says why it is not, if it is not. The firewall never shortens an element, so one that lasted longer is taken out first.
    fn put_in_kernel(&mut self, net: IpNet, timeout: Duration, before: Option<Standing>) -> Option<String> {
        let Some(wall) = &mut self.wall else { return self.no_wall.clone() };
        let shortens =
            before.is_some_and(|before| before.until.is_none_or(|until| until > Now::read().boot + timeout));
        if shortens && let Err(error) = wall.unban(&[net]) {
            return Some(format!("what it was before cannot be taken out: {error}"));
        }
        match wall.ban(&[Ban { net, timeout }]).remove(&net) {
            Some(Banned::InForce { .. }) => None,
            Some(Banned::Failed(why)) => Some(why),
            None => Some("it was not tried".to_owned()),
        }
    }
}
