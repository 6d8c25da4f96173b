//! The one line that `systemctl status` shows.

use crate::http::Routes;
use crate::snapshot::{Status, Stopped};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use web::systemd;

/// systemd is told not more often, for it tells everybody who listens on the bus.
const EVERY: Duration = Duration::from_secs(5);

/// The line, and what systemd was told last.
pub(crate) struct StatusLine {
    routes: Rc<Routes>,
    told: RefCell<String>,
}

impl StatusLine {
    pub(crate) fn of(routes: Rc<Routes>) -> StatusLine {
        StatusLine { routes, told: RefCell::default() }
    }

    /// Started, or a reload is at its end.
    pub(crate) fn ready(&self) {
        let line = line(&self.routes.status());
        systemd::ready(&line);
        self.told.replace(line);
    }

    /// Keeps systemd told. Never ends.
    pub(crate) async fn keep(&self) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            let line = line(&self.routes.status());
            if *self.told.borrow() != line {
                systemd::status(&line);
                self.told.replace(line);
            }
        }
    }
}

/// What is in force, how it stands, what is wrong.
fn line(status: &Status) -> String {
    let bans = match status.active_bans {
        1 => "1 ban".to_owned(),
        bans => format!("{bans} bans"),
    };
    let table = match status.table {
        None => "the table cannot be read".to_owned(),
        Some(table) if table.limit == 0 => format!("{} entries, unlimited", table.entries),
        Some(table) => format!("{} of {} entries", table.entries, table.limit),
    };
    let wrong = [
        (status.enforced_bans < status.active_bans)
            .then(|| format!("only {} of them in the kernel", status.enforced_bans)),
        status.store.degraded.as_ref().map(|_| "the state is not on the disk".to_owned()),
        status
            .policy
            .last_reload_error
            .as_ref()
            .map(|_| "the policy's file was NOT reloaded, the one before stays in force".to_owned()),
    ];
    [mode(status), bans, table].into_iter().chain(wrong.into_iter().flatten()).collect::<Vec<_>>().join("; ")
}

fn mode(status: &Status) -> String {
    let until = |stopped: &Stopped| match &stopped.until {
        Some(until) => format!("until {until}"),
        None => "until `conntrack-actioner resume`".to_owned(),
    };
    match (&status.panicked, &status.paused, &status.breaker) {
        (Some(panicked), _, _) => format!("PANIC by {}: nothing is done {}", panicked.by, until(panicked)),
        (None, Some(paused), _) => format!("PAUSED by {}: no rule acts {}", paused.by, until(paused)),
        (None, None, Some(breaker)) => format!("BREAKER OPEN: nobody is banned {}", until(breaker)),
        (None, None, None) if status.enforcing => match status.no_firewall {
            Some(_) => "NOTHING IS ENFORCED (`conntrack-actioner status` says why)".to_owned(),
            None => "enforcing".to_owned(),
        },
        (None, None, None) => "dry run: nothing is changed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::TableFill;

    fn calm() -> Status {
        let table = Some(TableFill { entries: 500, limit: 1000 });
        Status { enforcing: true, table, active_bans: 2, enforced_bans: 2, ..Status::default() }
    }

    #[test]
    fn what_is_in_force_stands_first_and_what_is_wrong_last() {
        assert_eq!(line(&calm()), "enforcing; 2 bans; 500 of 1000 entries");
        let mut status = Status { enforcing: false, active_bans: 1, enforced_bans: 0, table: None, ..calm() };
        status.store.degraded = Some("disk full".to_owned());
        status.policy.last_reload_error = Some("line 3".to_owned());
        assert_eq!(
            line(&status),
            "dry run: nothing is changed; 1 ban; the table cannot be read; only 0 of them in the kernel; \
             the state is not on the disk; the policy's file was NOT reloaded, the one before stays in force"
        );
    }

    #[test]
    fn who_stopped_it_goes_before_that_it_enforces() {
        let barred = Status { no_firewall: Some("no ipset".to_owned()), enforced_bans: 0, ..calm() };
        assert_eq!(
            line(&barred),
            "NOTHING IS ENFORCED (`conntrack-actioner status` says why); 2 bans; 500 of 1000 entries; only 0 of them in the kernel"
        );
        let by = |by: &str, until: Option<&str>| {
            Some(Stopped { since: None, until: until.map(str::to_owned), by: by.to_owned() })
        };
        let mut status = Status { breaker: by("3 bans did not help", Some("U")), ..calm() };
        assert!(line(&status).starts_with("BREAKER OPEN: nobody is banned until U; 2 bans"));
        status.paused = by("root", Some("V"));
        assert!(line(&status).starts_with("PAUSED by root: no rule acts until V; 2 bans"));
        status.panicked = by("alice", None);
        let panicked = "PANIC by alice: nothing is done until `conntrack-actioner resume`; 2 bans";
        assert!(line(&status).starts_with(panicked));
    }
}
