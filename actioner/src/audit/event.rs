//! What is written down beside decisions: what a human ordered, and what was found changed.

use super::SCHEMA;
use super::line::rfc3339;
use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Map, Value};
use std::time::SystemTime;

/// Something that is no decision of the policy's.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What it is.
    pub what: What,
    /// Whom it is about, if anybody.
    pub net: Option<IpNet>,
    /// Who did it: `root (sudo: alice)`, or `actioner` for what it did by itself.
    pub actor: String,
    /// Why, in words.
    pub reason: Option<String>,
    /// More of it: `until`, `offence`, what was missing in the kernel.
    pub detail: Map<String, Value>,
}

/// The word in the line's `event`. Decisions have `decision` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The kernel did not hold what it should, or held what it should not.
    Drift,
    /// Entries of a banned network that were made between the dump and its ban, deleted after the answer.
    Deletion,
    /// A ban by hand.
    Ban,
    /// A ban was ended by hand.
    Unban,
    /// Decisions are no longer carried out, by hand.
    Pause,
    /// They are again.
    Resume,
    /// Everything was stopped and emptied by hand.
    Panic,
    /// The breaker opened or closed.
    Breaker,
    /// The store was lost, set aside, or works again.
    Store,
}

impl Event {
    /// Something that `actor` did.
    pub fn new(what: What, actor: &str) -> Event {
        Event { what, net: None, actor: actor.to_owned(), reason: None, detail: Map::new() }
    }

    /// Whom it is about.
    pub fn about(mut self, net: IpNet) -> Event {
        self.net = Some(net);
        self
    }

    /// Why.
    pub fn because(mut self, reason: &str) -> Event {
        self.reason = Some(reason.to_owned());
        self
    }

    /// More of it.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Event {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    schema: u32,
    time: String,
    event: What,
    id: String,
    table_id: Option<&'a str>,
    net: Option<IpNet>,
    actor: &'a str,
    reason: Option<&'a str>,
    detail: &'a Map<String, Value>,
}

pub(super) fn line<'a>(event: &'a Event, id: String, table_id: Option<&'a str>, at: SystemTime) -> Line<'a> {
    Line {
        schema: SCHEMA,
        time: rfc3339(at),
        event: event.what,
        id,
        table_id,
        net: event.net,
        actor: &event.actor,
        reason: event.reason.as_deref(),
        detail: &event.detail,
    }
}
