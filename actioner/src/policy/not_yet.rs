//! What a policy may say already though this version does not do it yet: one sentence each, so that nobody relies on
//! it. A sentence leaves this file with the change that makes it untrue.

use super::problem::{Log, Place};
use super::rule::{DeleteAction, Rule};
use super::settings::WatchAlert;

pub(super) const NFTABLES: &str = "nftables is not in this version; use ipset";

pub(super) const SOCKETLESS_GRACE: &str =
    "`socketless_grace` has no effect in this version: it does not measure socketless entries yet";

pub(super) const KEEP_REACHABLE: &str =
    "`keep_reachable` has no effect in this version: no notrack rules are put in yet";

const UNMEASURED: &str = "this version does not measure socketless entries yet";

pub(super) fn rule(rule: &Rule, place: Place, log: &mut Log<'_>) {
    let name = &rule.name;
    if rule.require.source.socketless.is_some() {
        let refused = "each of its alerts is refused with evidence_unavailable";
        log.warn(
            place,
            format!(
                "the rule `{name}` cannot act: it requires socketless entries, and {UNMEASURED}; {refused}"
            ),
        );
    }
    if rule.delete == Some(DeleteAction::Socketless) {
        log.warn(place, format!("the rule `{name}`: `delete: socketless` has no effect: {UNMEASURED}"));
    }
}

pub(super) fn watch_alert(alert: &WatchAlert, place: Place, log: &mut Log<'_>) {
    if alert.source.socketless.is_some() || alert.host.socketless.is_some() {
        log.warn(
            place,
            format!(
                "the watch's alert `{}` cannot fire: it looks for socketless entries, and {UNMEASURED}",
                alert.alert
            ),
        );
    }
}
