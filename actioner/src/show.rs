//! What the program shows of itself: gauges, and the snapshot that `status` and `bans` are answered from.

use crate::audit::rfc3339;
use crate::effects::Effects;
use crate::now::Now;
use crate::panic_file;
use crate::snapshot::{self, Looked, PolicyStatus, Snapshot, Status, Stopped, StoreStatus, Windows};
use ipnet::IpNet;
use std::collections::HashSet;

impl Effects {
    /// In metrics and in the snapshot.
    pub(crate) fn show(&mut self, now: Now) {
        let enforces = self.policy.enforces_anything();
        // What is in a set that no rule asks is not in force.
        let drops =
            |net: &&IpNet| self.kernel_answers && self.wall.as_ref().is_none_or(|wall| wall.drops(net));
        let in_force: HashSet<IpNet> = self.in_kernel.iter().filter(drops).copied().collect();
        let asked = self.wall.is_some() || self.no_wall.is_some();
        let active = if asked { self.state.active(now) } else { in_force.len() };
        let budget = self.state.budget(&self.policy.limits, enforces, now);
        self.metrics.set_bans(active, self.policy.limits.active_bans, in_force.len());
        self.metrics.set_budget(budget);
        let stopped = self.state.may_act(now).is_err();
        self.metrics.set_health(
            stopped,
            self.state.breaker().open(now).is_some(),
            self.store.degraded().is_some(),
        );
        let status = self.status([active, in_force.len()], budget, now);
        self.published.publish(Snapshot { status, bans: snapshot::bans(&self.state, &in_force, now) });
    }

    fn status(&self, [active, in_force]: [usize; 2], [minute, hour]: [f64; 2], now: Now) -> Status {
        let at = |boot| rfc3339(now.wall_at(boot));
        let limits = &self.policy.limits;
        let breaker = self.state.breaker().open(now).map(|open| Stopped {
            since: None,
            until: Some(at(open.until)),
            by: format!(
                "{} bans did not lower the pressure: the banned held {} entries before, {} after",
                open.bans, open.before, open.after
            ),
        });
        let paused = self.state.paused(now).map(|pause| Stopped {
            since: Some(snapshot::wall(pause.since)),
            until: pause.until.map(at),
            by: pause.by.clone(),
        });
        let panicked = panic_file::read(&self.storage).map(|file| Stopped {
            since: Some(file.since),
            until: None,
            by: file.by,
        });
        let by_memory =
            || self.state.panicked().map(|by| Stopped { by: by.to_owned(), ..Stopped::default() });
        let table = self.gauge.as_ref().and_then(|gauge| gauge.read().ok());
        let when = |read: Option<Now>| read.map(|read| rfc3339(read.wall));
        let looked = Looked {
            table: when(table.map(|_| now)),
            entries: when(self.entries_read),
            bans: when(self.kernel_read),
        };
        Status {
            version: env!("CARGO_PKG_VERSION"),
            enforcing: self.policy.enforces_anything(),
            paused,
            panicked: panicked.or_else(by_memory),
            no_firewall: self.no_wall.clone(),
            breaker,
            table,
            looked,
            active_bans: active,
            enforced_bans: in_force,
            budget: Windows { minute, hour },
            budget_limits: Windows { minute: limits.bans_per_minute, hour: limits.bans_per_hour },
            store: StoreStatus {
                path: self.store.path().display().to_string(),
                degraded: self.store.degraded().map(str::to_owned),
            },
            policy: PolicyStatus {
                hash: self.policy.hash.clone(),
                loaded: self.policy_loaded.clone(),
                ..PolicyStatus::default()
            },
            table_id: self.table_id.clone(),
            keep_reachable: self.reach.status().cloned(),
            warnings: self.policy.warnings.clone(),
            ..Status::default()
        }
    }
}
