//! What the effects thread shows of itself: `status` and `bans` are answered from it, without waiting for a dump.

use crate::admin::BanRow;
use crate::audit::rfc3339;
use crate::evidence::TableFill;
use crate::now::Now;
use crate::reach::Reachable;
use crate::state::{Cause, Row, State};
use ipnet::IpNet;
use serde::Serialize;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use web::confine::Confined;

/// The latest snapshot, shared.
#[derive(Debug, Clone, Default)]
pub struct Published(Arc<Mutex<Arc<Snapshot>>>);

impl Published {
    /// Shows another.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    /// The latest.
    pub fn latest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A moment of the effects thread.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What `status` says.
    pub status: Status,
    /// What `bans` lists.
    pub bans: Vec<Banned>,
}

/// What `status` says.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Of this program.
    pub version: &'static str,
    /// Whether any rule of the policy is enforced.
    pub enforcing: bool,
    /// Why nothing is enforced though the policy enforces: what the kernel lacks, or what `iptables` says.
    pub no_firewall: Option<String>,
    /// Who paused, until when.
    pub paused: Option<Stopped>,
    /// Who panicked.
    pub panicked: Option<Stopped>,
    /// Why the breaker is open, until when.
    pub breaker: Option<Stopped>,
    /// How full the table was at the last look.
    pub table: Option<TableFill>,
    /// When what is shown was last looked at.
    pub looked: Looked,
    /// Bans that should be in force.
    pub active_bans: usize,
    /// Bans that the kernel holds.
    pub enforced_bans: usize,
    /// Bans left.
    pub budget: Windows<f64>,
    /// Of so many.
    pub budget_limits: Windows<u32>,
    /// Where the state is kept.
    pub store: StoreStatus,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// Whose table it is.
    pub table_id: String,
    /// Which ports answer whatever the table holds; None: the policy asks for none.
    pub keep_reachable: Option<Reachable>,
    /// What this program has given up of its rights.
    pub confined: Confined,
    /// What is not as it should be; each a sentence.
    pub warnings: Vec<String>,
}

/// Something that keeps actions from being done.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stopped {
    /// Since when, RFC 3339, where known.
    pub since: Option<String>,
    /// Until when; None: until somebody resumes.
    pub until: Option<String>,
    /// Who did it, or what happened.
    pub by: String,
}

/// When what is shown was last looked at, RFC 3339; None: not yet, or it cannot be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Looked {
    /// How full the table is.
    pub table: Option<String>,
    /// The table's entries: by the watch, for an alert, or for a person.
    pub entries: Option<String>,
    /// Sets and rules, and with them which bans the kernel holds.
    pub bans: Option<String>,
}

/// By window of the budget.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Windows<T> {
    /// In this minute.
    pub minute: T,
    /// In this hour.
    pub hour: T,
}

/// The store.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StoreStatus {
    /// The file.
    pub path: String,
    /// Why a restart could lose something.
    pub degraded: Option<String>,
}

/// The policy in force.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PolicyStatus {
    /// Where it is read from.
    pub file: String,
    /// [`crate::policy::Policy::hash`].
    pub hash: String,
    /// When it came into force, RFC 3339.
    pub loaded: String,
    /// Why the file, read again since, did not come into force.
    pub last_reload_error: Option<String>,
}

/// A ban.
#[derive(Debug, Clone)]
pub struct Banned {
    net: IpNet,
    row: Row,
    in_kernel: bool,
    dry_run: bool,
}

/// Every ban, those that end first at the head.
pub fn bans(state: &State, in_kernel: &HashSet<IpNet>, now: Now) -> Vec<Banned> {
    let mut bans: Vec<Banned> = [true, false]
        .into_iter()
        .flat_map(|enforced| {
            state.rows(enforced, now).map(move |(net, row)| Banned {
                net,
                row: row.clone(),
                in_kernel: enforced && in_kernel.contains(&net),
                dry_run: !enforced,
            })
        })
        .collect();
    bans.sort_by_key(|ban| (ban.dry_run, ban.row.until.unwrap_or(Duration::MAX), ban.net));
    bans
}

/// Milliseconds since 1970 as people read them.
pub(crate) fn wall(since: u64) -> String {
    rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(since))
}

impl Banned {
    /// What is banned.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// As it is listed.
    pub fn listed(&self, now: Now) -> BanRow {
        let (rule, offence, by, reason) = match &self.row.cause {
            Cause::Rule { name, offence } => (Some(name.clone()), Some(*offence), "policy".to_owned(), None),
            Cause::Hand { by, reason } => (None, None, format!("hand: {by}"), Some(reason.clone())),
            Cause::Adopted => (None, None, "adopted".to_owned(), None),
        };
        BanRow {
            net: self.net,
            rule,
            by,
            reason,
            offence,
            since: wall(self.row.since),
            until: self.row.until.map(|until| rfc3339(now.wall_at(until))),
            remaining_seconds: self.row.until.map(|until| until.saturating_sub(now.boot).as_secs()),
            in_kernel: self.in_kernel,
            dry_run: self.dry_run,
        }
    }
}
