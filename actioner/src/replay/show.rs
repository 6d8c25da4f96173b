//! The difference, for people and for scripts.

use super::{Compared, Replayed, Then, Verdict};
use crate::command::columns::columns;
use crate::command::{plain, seconds};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What is shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Decisions that would have been others, or that nobody can say.
    Differences,
    /// Every decision.
    Everything,
}

/// The kernel's clock and ours differ by so much when a ban's end is read back.
const ROUNDING: u64 = 2;

impl Compared {
    /// Whether the new policy decides something else; None: nobody can say.
    pub fn differs(&self) -> Option<bool> {
        let Then::Decided(new) = &self.new else { return None };
        let old = &self.old;
        let acts = |verdict: &Verdict| verdict.word == "ban" || verdict.word == "delete_socketless";
        let lasts = match (old.lasts, new.lasts) {
            (Some(old), Some(new)) => old.abs_diff(new) <= ROUNDING,
            _ => true,
        };
        let same = (&old.word, &old.reason, &old.rule) == (&new.word, &new.reason, &new.rule);
        Some(!(same && lasts && (old.enforce == new.enforce || !acts(old))))
    }
}

/// A table of decisions, then what it comes to.
pub fn text(replayed: &Replayed, shown: Shown) -> String {
    let mut rows: Vec<(u64, Vec<String>)> = Vec::new();
    for compared in &replayed.decisions {
        if shown == Shown::Differences && compared.differs() == Some(false) {
            continue;
        }
        let row = row(compared);
        match rows.last_mut() {
            // The same again and again, as repeats of an alert are.
            Some((times, last)) if last[1..] == row[1..] => *times += 1,
            _ => rows.push((1, row)),
        }
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(times, mut row)| {
            if times > 1 {
                row[0] += &format!(" ×{times}");
            }
            row
        })
        .collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text += &columns(&["TIME", "SOURCE", "ALERT", "DECIDED", "", "WOULD DECIDE", "BECAUSE"], &rows);
        text.push('\n');
    }
    text + &summary(replayed)
}

fn row(compared: &Compared) -> Vec<String> {
    let (arrow, new, because) = match &compared.new {
        Then::Unknown(why) => ("→", "not known".to_owned(), plain(why)),
        Then::Decided(new) => {
            let arrow = if compared.differs() == Some(true) { "→" } else { "=" };
            (arrow, words(new), new.why.as_deref().map(plain).unwrap_or_default())
        }
    };
    vec![
        compared.time.clone(),
        compared.source.map(|source| source.to_string()).unwrap_or_default(),
        compared.alert.clone().unwrap_or_default(),
        words(&compared.old),
        arrow.to_owned(),
        new,
        because,
    ]
}

/// `ban 10m by hoarder (dry run)`, `refused: budget_exhausted by hoarder`.
fn words(verdict: &Verdict) -> String {
    let mut words = plain(&verdict.word);
    if let Some(reason) = &verdict.reason {
        let _ = write!(words, ": {}", plain(reason));
    }
    if let Some(lasts) = verdict.lasts {
        let _ = write!(words, " {}", seconds(lasts));
    }
    if let Some(rule) = &verdict.rule {
        let _ = write!(words, " by {}", plain(rule));
    }
    if !verdict.enforce && verdict.reason.is_none() && verdict.word != "resolved" {
        words += " (dry run)";
    }
    words
}

#[derive(Debug, Default)]
struct Counts {
    same: u64,
    different: u64,
    unknown: BTreeMap<String, u64>,
    /// From and to, with how often.
    changes: BTreeMap<(String, String), u64>,
    banned: BTreeSet<String>,
    would_be_banned: BTreeSet<String>,
    cannot_say: BTreeSet<String>,
}

fn counts(replayed: &Replayed) -> Counts {
    let mut counts = Counts::default();
    let kind = |verdict: &Verdict| match &verdict.reason {
        Some(reason) => format!("{}: {reason}", verdict.word),
        None => verdict.word.clone(),
    };
    for compared in &replayed.decisions {
        let source = compared.source.map(|source| source.to_string());
        if ["ban", "already_banned"].contains(&compared.old.word.as_str()) {
            counts.banned.extend(source.clone());
        }
        match (&compared.new, compared.differs()) {
            (Then::Unknown(why), _) => {
                *counts.unknown.entry(generally(why)).or_default() += 1;
                counts.cannot_say.extend(source);
            }
            (Then::Decided(new), differs) => {
                if ["ban", "already_banned"].contains(&new.word.as_str()) {
                    counts.would_be_banned.extend(source);
                }
                if differs == Some(true) {
                    counts.different += 1;
                    *counts.changes.entry((kind(&compared.old), kind(new))).or_default() += 1;
                } else {
                    counts.same += 1;
                }
            }
        }
    }
    counts
}

/// Without the addresses, so that like reasons are counted together.
fn generally(why: &str) -> String {
    let is_address = |word: &str| {
        let word = word.trim_end_matches([',', ';', ':']);
        word.parse::<std::net::IpAddr>().is_ok() || word.parse::<ipnet::IpNet>().is_ok()
    };
    why.split(' ').map(|word| if is_address(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
}

fn summary(replayed: &Replayed) -> String {
    let counts = counts(replayed);
    let mut text = String::new();
    let mut line = |said: String| {
        let _ = writeln!(text, "{said}");
    };
    let unknown: u64 = counts.unknown.values().sum();
    line(format!(
        "{} decisions: {} the same, {} different, {unknown} not known",
        replayed.decisions.len(),
        counts.same,
        counts.different
    ));
    for ((old, new), times) in &counts.changes {
        line(format!("  {times:>6}  {} → {}", plain(old), plain(new)));
    }
    for (why, times) in &counts.unknown {
        line(format!("  {times:>6}  not known: {}", plain(why)));
    }
    let known = |source: &&String| !counts.cannot_say.contains(*source);
    line(listed("sources banned now and not then", counts.would_be_banned.difference(&counts.banned)));
    line(listed(
        "sources banned then and not now",
        counts.banned.difference(&counts.would_be_banned).filter(known),
    ));
    if replayed.from_before > 0 {
        line(format!("{} bans are older than the log and were taken for granted", replayed.from_before));
    }
    line("What a source would have done afterwards, had it been treated otherwise, is in no log.".to_owned());
    text
}

fn listed<'s>(what: &str, sources: impl Iterator<Item = &'s String>) -> String {
    let sources: Vec<&str> = sources.map(String::as_str).collect();
    match sources.len() {
        0 => format!("{what}: none"),
        many @ 1..=20 => format!("{what}: {many}: {}", sources.join(", ")),
        many => format!("{what}: {many}: {}, … (all in --json)", sources[..20].join(", ")),
    }
}

/// Every decision, and the counts.
pub fn json(replayed: &Replayed) -> Value {
    let told = |verdict: &Verdict| {
        json!({"verdict": verdict.word, "rule": verdict.rule, "reason": verdict.reason, "why": verdict.why,
            "net": verdict.net, "lasts_seconds": verdict.lasts, "enforce": verdict.enforce})
    };
    let decision = |compared: &Compared| {
        let (new, unknown) = match &compared.new {
            Then::Decided(new) => (told(new), Value::Null),
            Then::Unknown(why) => (Value::Null, why.as_str().into()),
        };
        json!({"time": compared.time, "id": compared.id, "source": compared.source, "alert": compared.alert,
            "old": told(&compared.old), "new": new, "unknown": unknown, "differs": compared.differs()})
    };
    let counts = counts(replayed);
    let changes: Vec<Value> = counts
        .changes
        .iter()
        .map(|((old, new), times)| json!({"old": old, "new": new, "times": times}))
        .collect();
    let bad = |bad: &crate::audit::BadLine| json!({"file": bad.file, "line": bad.line, "error": bad.error});
    json!({
        "decisions": replayed.decisions.iter().map(decision).collect::<Vec<_>>(),
        "summary": {"same": counts.same, "different": counts.different, "unknown": counts.unknown, "changes": changes,
            "banned_only_now": counts.would_be_banned.difference(&counts.banned).collect::<Vec<_>>(),
            "banned_only_then": counts.banned.difference(&counts.would_be_banned)
                .filter(|source| !counts.cannot_say.contains(*source)).collect::<Vec<_>>(),
            "bans_from_before": replayed.from_before},
        "bad_lines": replayed.bad.iter().map(bad).collect::<Vec<_>>(),
    })
}
