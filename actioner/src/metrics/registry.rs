//! Name and help of each metric.

use super::Metrics;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::path::Path;
use web::process::ProcessMetrics;

impl Metrics {
    /// A registry that shows all of it.
    pub fn registry(&self, table_id: &str, version: &'static str) -> Registry {
        let mut registry = Registry::default();
        let mut named =
            |name: &str, help: &str, metric: Box<dyn Shown>| metric.show(&mut registry, name, help);
        named("webhooks", "Webhooks answered, by HTTP status code", Box::new(self.webhooks.clone()));
        named("alerts", "Alerts decided, by rule and outcome", Box::new(self.alerts.clone()));
        named("refusals", "Sources and alerts not acted upon, by reason", Box::new(self.refusals.clone()));
        named("bans", "Bans decided, by rule and result", Box::new(self.bans.clone()));
        named("unbans", "Bans that ended, by cause", Box::new(self.unbans.clone()));
        named("deleted_entries", "Conntrack entries deleted, by rule", Box::new(self.deleted.clone()));
        named(
            "clipped_deletions",
            "Deletions cut short by limits.deletes_per_action",
            Box::new(self.clipped.clone()),
        );
        named("destroyed_sockets", "Sockets of banned peers destroyed", Box::new(self.sockets.clone()));
        named(
            "truncated_alerts",
            "Alerts that Alertmanager cut off (max_alerts)",
            Box::new(self.truncated.clone()),
        );
        named("audit_errors", "Audit lines that could not be written", Box::new(self.audit_errors.clone()));
        named("active_bans", "Bans that should be in force", Box::new(self.active.clone()));
        let at_once =
            "Bans that may be in force at once (limits.active_bans); the sets have room for as many";
        named("active_bans_limit", at_once, Box::new(self.active_limit.clone()));
        let enforced =
            "Bans that the kernel's sets hold and a rule drops; 0 where the kernel cannot be asked";
        named("enforced_bans", enforced, Box::new(self.enforced.clone()));
        let looked = "When sets and rules were last read in the kernel without an error, in seconds since 1970: enforced_bans and keep_reachable_ports are of then";
        named("last_look_timestamp_seconds", looked, Box::new(self.looked.clone()));
        named(
            "enforcing",
            "1 if any rule of the policy is enforced, 0 in dry run",
            Box::new(self.enforcing.clone()),
        );
        let flood = "1 while the table is full of forged sources, so that only rules that require source.socketless ban";
        named("spoofed_flood", flood, Box::new(self.flood.clone()));
        named(
            "paused",
            "1 while no rule acts: paused by hand (orders by hand go on), or panicked (nothing is banned at all)",
            Box::new(self.paused.clone()),
        );
        let open = "1 while no bans are made because those before did not lower the pressure";
        named("breaker_open", open, Box::new(self.breaker_open.clone()));
        let degraded =
            "1 while a restart could lose bans, offences or grace: the state could not be written or read";
        named("store_degraded", degraded, Box::new(self.store_degraded.clone()));
        let drift = "What somebody else changed in our sets and rules, and was put back, by what";
        named("drift", drift, Box::new(self.drift.clone()));
        let reachable =
            "Ports of keep_reachable, by state: they answer while the table is full, or could not be made to";
        named("keep_reachable_ports", reachable, Box::new(self.reachable.clone()));
        named("budget_remaining", "Bans left in the budget, by window", Box::new(self.budget.clone()));
        let reloaded = "1 if the last reading of the policy succeeded";
        named("policy_last_reload_successful", reloaded, Box::new(self.reload_ok.clone()));
        let reloaded_at = "When the policy in force was read, in seconds since 1970";
        named("policy_last_reload_success_timestamp_seconds", reloaded_at, Box::new(self.reload_at.clone()));
        named(
            "action_duration_seconds",
            "How long the stages of an action took",
            Box::new(self.took.clone()),
        );
        let build = Info::new([("version", version)]);
        registry.register("conntrack_actioner_build", "The version of this program", build);
        let table = Info::new([("table_id", table_id.to_owned())]);
        registry.register(
            "nf_conntrack_table",
            "Which table this is: a hash of boot id and network namespace",
            table,
        );
        registry.register_collector(Box::new(ProcessMetrics::new(Path::new("/proc"))));
        registry
    }
}

/// Registration with the program's prefix, over the different kinds of metrics.
trait Shown {
    fn show(self: Box<Self>, registry: &mut Registry, name: &str, help: &str);
}

impl<M: prometheus_client::registry::Metric> Shown for M {
    fn show(self: Box<Self>, registry: &mut Registry, name: &str, help: &str) {
        registry.register(format!("conntrack_actioner_{name}"), help, *self);
    }
}
