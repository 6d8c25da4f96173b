//! What the audit log says of one address: which rule, alert, evidence, verdict, when it ended or why it was refused.

use super::columns::columns;
use super::plain;
use crate::advice::what_would_change_it;
use crate::audit::{self, Recorded};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;

/// So many are shown to people, the latest.
const SHOWN: usize = 20;

/// Something that was decided or done, once or again and again.
#[derive(Debug, Clone)]
pub struct Episode {
    /// The first of them.
    pub first: Recorded,
    /// The last of them.
    pub last: Recorded,
    /// How many.
    pub times: u64,
}

/// The history of an address, the oldest first. Repeats that say the same are one episode.
#[derive(Debug, Default)]
pub struct History {
    /// What happened.
    pub episodes: Vec<Episode>,
    /// Lines that could not be read.
    pub bad_lines: usize,
}

/// Reads it from the log and those set aside. Where there is no log, it is empty.
///
/// # Errors
/// A file cannot be read; a sentence.
pub fn of(address: IpAddr, storage: &Path) -> Result<History, String> {
    let mut history = History::default();
    let bad = audit::read(&audit::files(storage), |line| {
        if line.concerns(address) {
            history.add(line);
        }
    })?;
    history.bad_lines = bad.len();
    Ok(history)
}

impl History {
    fn add(&mut self, line: Recorded) {
        match self.episodes.last_mut() {
            Some(episode) if says_the_same(&episode.last, &line) => {
                episode.times += 1;
                episode.last = line;
            }
            _ => self.episodes.push(Episode { first: line.clone(), last: line, times: 1 }),
        }
    }

    /// For people: the latest, each a line.
    pub fn table(&self) -> String {
        if self.episodes.is_empty() {
            return "the audit log says nothing of it\n".to_owned();
        }
        let from = self.episodes.len().saturating_sub(SHOWN);
        let rows: Vec<Vec<String>> = self.episodes[from..].iter().map(row).collect();
        let mut text =
            columns(&["TIME", "TIMES", "WHAT", "RULE", "ALERT", "EVIDENCE", "TABLE", "BECAUSE"], &rows);
        if from > 0 {
            text += &format!("({from} earlier ones are in --json)\n");
        }
        text
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let episode = |episode: &Episode| {
            let line = &episode.last;
            json!({"first": episode.first.time, "last": line.time, "times": episode.times,
                "event": line.event.as_deref().unwrap_or("decision"), "rule": line.rule, "enforce": line.enforce,
                "alert": line.labels.get("alertname"), "verdict": line.verdict, "reason": line.reason, "why": line.why,
                "evidence": line.evidence, "table": line.table, "actor": line.actor, "net": line.net,
                "expires": line.result.as_ref().and_then(|result| result.expires.as_ref()),
                "entries_deleted": line.result.as_ref().and_then(|result| result.entries_deleted)})
        };
        self.episodes.iter().map(episode).collect()
    }
}

fn says_the_same(a: &Recorded, b: &Recorded) -> bool {
    let said = |line: &Recorded| {
        (
            line.is_decision(),
            line.verdict.clone(),
            line.reason.clone(),
            line.rule.clone(),
            line.enforce,
            line.net,
        )
    };
    a.is_decision() && said(a) == said(b)
}

fn row(episode: &Episode) -> Vec<String> {
    let line = &episode.last;
    let times = if episode.times > 1 { format!("×{}", episode.times) } else { String::new() };
    let (what, because) = if line.is_decision() { decided(line) } else { happened(line) };
    let evidence = line.evidence.map(|evidence| {
        let socketless = evidence.socketless.map(|count| format!(", {count} socketless")).unwrap_or_default();
        format!("{} entries, {} assured{socketless}", evidence.entries, evidence.assured)
    });
    let alert = line.labels.get("alertname").map(|name| plain(name)).unwrap_or_default();
    let table = line.table.filter(|table| table.limit > 0).map(|table| format!("{:.0} %", table.percent()));
    vec![
        episode.first.time.clone(),
        times,
        what,
        line.rule.clone().unwrap_or_default(),
        alert,
        evidence.unwrap_or_default(),
        table.unwrap_or_default(),
        because,
    ]
}

fn decided(line: &Recorded) -> (String, String) {
    let result = line.result.clone().unwrap_or_default();
    let until = result.expires.map(|expires| format!("until {expires}")).unwrap_or_default();
    let mode = if line.enforce { "" } else { " (dry run)" };
    match (line.verdict.as_str(), result.ban.as_deref()) {
        ("refused", _) => {
            let reason = line.reason.clone().unwrap_or_default();
            let because = line.why.as_deref().map(plain).unwrap_or_default();
            let change =
                what_would_change_it(&reason).map(|change| format!("; {change}")).unwrap_or_default();
            (format!("refused: {reason}"), because + &change)
        }
        ("ban", Some("failed")) => {
            ("NOT banned".to_owned(), result.error.as_deref().map(plain).unwrap_or_default())
        }
        ("ban", _) => (format!("banned{mode}"), until),
        ("already_banned", _) => (format!("banned already{mode}"), until),
        ("delete_socketless", _) => {
            let entries =
                result.entries_deleted.map(|entries| format!("{entries} entries")).unwrap_or_default();
            (format!("dead slots deleted{mode}"), entries)
        }
        (word, _) => (plain(word), String::new()),
    }
}

fn happened(line: &Recorded) -> (String, String) {
    let what = line.event.as_deref().map(plain).unwrap_or_default();
    let reason = line.reason.as_deref().map(|reason| format!(": {}", plain(reason))).unwrap_or_default();
    (format!("{what} by {}", plain(&line.actor)), reason.trim_start_matches(": ").to_owned())
}
