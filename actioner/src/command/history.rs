//! What the audit log says of one address: which rule, alert, evidence, verdict, when it ended or why it was refused.

use super::columns::columns;
use super::plain;
use crate::advice::what_would_change_it;
use crate::audit::{self, Recorded};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;

/// So many are shown to people, the latest.
pub const SHOWN: usize = 20;

/// Something that was decided or done, once or again and again.
#[derive(Debug, Clone)]
pub struct Episode {
    /// When the first of them was, as its line has it.
    pub first: String,
    /// The last of them, of its labels only the alert's name.
    pub last: Recorded,
    /// How many.
    pub times: u64,
}

/// The history of an address, the oldest first. Repeats that say the same are one episode.
#[derive(Debug, Default)]
pub struct History {
    /// What happened, the latest.
    pub episodes: VecDeque<Episode>,
    /// How many there were before those.
    pub earlier: usize,
    /// Lines that could not be read.
    pub bad_lines: usize,
}

/// Reads it from the log and those set aside, and keeps the latest `most` episodes. Where there is no log, it is empty.
///
/// # Errors
/// A file cannot be read; a sentence.
pub fn of(address: IpAddr, storage: &Path, most: usize) -> Result<History, String> {
    let mut history = History::default();
    let bad = audit::read(&audit::files(storage), |line| {
        if line.concerns(address) {
            history.add(line, most);
        }
    })?;
    history.bad_lines = bad.len();
    Ok(history)
}

impl History {
    fn add(&mut self, mut line: Recorded, most: usize) {
        line.labels.retain(|name, _| name == "alertname");
        line.detail.clear();
        match self.episodes.back_mut() {
            Some(episode) if says_the_same(&episode.last, &line) => {
                episode.times += 1;
                episode.last = line;
            }
            _ => self.episodes.push_back(Episode { first: line.time.clone(), last: line, times: 1 }),
        }
        if self.episodes.len() > most {
            self.episodes.pop_front();
            self.earlier += 1;
        }
    }

    /// For people: the latest, each a line.
    pub fn table(&self) -> String {
        if self.episodes.is_empty() {
            return "the audit log says nothing of it\n".to_owned();
        }
        let over = self.episodes.len().saturating_sub(SHOWN);
        let rows: Vec<Vec<String>> = self.episodes.iter().skip(over).map(row).collect();
        let mut text =
            columns(&["TIME", "TIMES", "WHAT", "RULE", "ALERT", "EVIDENCE", "TABLE", "BECAUSE"], &rows);
        let earlier = self.earlier + over;
        if earlier > 0 {
            text += &format!("({earlier} earlier ones are in --json)\n");
        }
        text
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let episode = |episode: &Episode| {
            let line = &episode.last;
            json!({"first": episode.first, "last": line.time, "times": episode.times,
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
        episode.first.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    /// A log of so many decisions about 192.0.2.7, each by another rule, whose text was chosen by somebody who means ill.
    fn log(decisions: usize) -> TempDir {
        let directory = TempDir::new().unwrap();
        let line = |number: usize| {
            let evil = "\u{1b}[2J\u{202e}";
            json!({"schema": 1, "event": "decision", "time": format!("{number}{evil}"), "rule": format!("r{number}{evil}"),
                "labels": {"alertname": evil, "filler": "x"}, "source": "192.0.2.7", "verdict": "refused", "reason": evil,
                "why": evil, "detail": {"more": evil}})
            .to_string()
                + "\n"
        };
        fs::write(directory.path().join(audit::FILE), (0..decisions).map(line).collect::<String>()).unwrap();
        directory
    }

    #[test]
    fn people_see_the_latest_and_scripts_all_and_only_what_is_shown_is_kept() {
        let (address, log) = ("192.0.2.7".parse().unwrap(), log(SHOWN + 5));
        let latest = of(address, log.path(), SHOWN).unwrap();
        let all = of(address, log.path(), usize::MAX).unwrap();
        assert_eq!((latest.episodes.len(), latest.earlier), (SHOWN, 5));
        assert_eq!(latest.table(), all.table());
        assert!(latest.table().contains("(5 earlier ones are in --json)"), "{}", latest.table());
        assert_eq!(all.json().as_array().map(Vec::len), Some(SHOWN + 5));
        for Episode { last, .. } in &all.episodes {
            assert!(last.detail.is_empty() && last.labels.keys().eq(["alertname"]), "{last:?}");
        }
    }

    #[test]
    fn what_others_wrote_does_not_reach_for_the_terminal() {
        let table = of("192.0.2.7".parse().unwrap(), log(2).path(), SHOWN).unwrap().table();
        assert!(table.contains("refused: \u{fffd}[2J\u{fffd}"), "{table}");
        assert!(!table.contains(['\u{1b}', '\u{202e}']), "{table:?}");
    }
}
