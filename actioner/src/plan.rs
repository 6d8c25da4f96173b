//! What was decided about one alert: what to do, and what was refused, each with its reason.

use crate::evidence::{Evidence, TableFill};
use crate::policy::{DeleteAction, Rule};
use crate::refusal::Refusal;
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// The decision on one alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The rule that decided; None before a rule was found.
    pub rule: Option<String>,
    /// Whether it is carried out or only written down.
    pub enforce: bool,
    /// The table when it was decided; None where no dump was needed to decide.
    pub table: Option<TableFill>,
    /// One for each nominated source; one without a source where the alert as a whole was decided.
    pub verdicts: Vec<Verdict>,
}

/// The decision on one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The nominated address, canonical.
    pub source: Option<IpAddr>,
    /// What the live table showed of it.
    pub evidence: Option<Evidence>,
    /// The decision.
    pub decision: Decision,
}

/// What is to be done about a source.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Ban it, and then perhaps delete its entries.
    Ban(PlannedBan),
    /// The same offence is banned already: repeats change nothing.
    AlreadyBanned {
        /// What is banned.
        net: IpNet,
        /// Until when, on the boot clock; None: for ever, which is somebody else's doing.
        until: Option<Duration>,
        /// Entries that are still there, for instance because a deletion was clipped.
        delete: Option<DeleteAction>,
    },
    /// Delete entries that no socket stands behind, and nothing else: it harms nobody, so nobody is spared it.
    DeleteSocketless(Whose),
    /// The alert is resolved. Bans never end because of that.
    Resolved,
    /// Not done.
    Refused(Refusal),
}

/// Whose dead slots are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whose {
    /// Every source's.
    Everybodys,
    /// Those of the sources in a network.
    Of(IpNet),
}

/// A ban that was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedBan {
    /// What is banned: the source, or the prefix it is in.
    pub net: IpNet,
    /// For how long from now.
    pub lasts: Duration,
    /// The how-manieth offence of this source under this rule it is, from 1.
    pub offence: u32,
    /// What is deleted once the ban is in force.
    pub delete: Option<DeleteAction>,
}

/// What these plans newly ban, those of dry run left out.
pub fn enforced_bans<'p>(plans: &'p [&Plan]) -> impl Iterator<Item = IpNet> + 'p {
    let verdicts = plans.iter().filter(|plan| plan.enforce).flat_map(|plan| &plan.verdicts);
    verdicts.filter_map(|verdict| match &verdict.decision {
        Decision::Ban(ban) => Some(ban.net),
        _ => None,
    })
}

impl Plan {
    /// A plan that refuses the alert before a rule was found.
    pub fn refused(refusal: Refusal) -> Plan {
        let verdict = Verdict { source: None, evidence: None, decision: Decision::Refused(refusal) };
        Plan { rule: None, enforce: false, table: None, verdicts: vec![verdict] }
    }

    /// A plan with one decision of this rule's on the alert as a whole.
    pub fn whole(rule: &Rule, enforce: bool, decision: Decision) -> Plan {
        let verdict = Verdict { source: None, evidence: None, decision };
        Plan { rule: Some(rule.name.clone()), enforce, table: None, verdicts: vec![verdict] }
    }
}

impl Decision {
    /// What is, or was, banned by it.
    pub fn net(&self) -> Option<IpNet> {
        match self {
            Decision::Ban(ban) => Some(ban.net),
            Decision::AlreadyBanned { net, .. } => Some(*net),
            Decision::DeleteSocketless(_) | Decision::Resolved | Decision::Refused(_) => None,
        }
    }

    /// Whose dead slots are deleted by it, beside a ban or alone.
    pub fn socketless_of(&self) -> Option<Whose> {
        match self {
            Decision::DeleteSocketless(whose) => Some(*whose),
            Decision::Ban(PlannedBan { net, delete: Some(DeleteAction::Socketless), .. })
            | Decision::AlreadyBanned { net, delete: Some(DeleteAction::Socketless), .. } => {
                Some(Whose::Of(*net))
            }
            _ => None,
        }
    }

    /// The word for it in the audit line.
    pub fn word(&self) -> &'static str {
        match self {
            Decision::Ban(_) => "ban",
            Decision::AlreadyBanned { .. } => "already_banned",
            Decision::DeleteSocketless(_) => "delete_socketless",
            Decision::Resolved => "resolved",
            Decision::Refused(_) => "refused",
        }
    }
}
