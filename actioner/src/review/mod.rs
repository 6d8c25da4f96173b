//! `report`: what each rule did in the last days, or in dry run would have done. The page one reads before turning
//! `enforce` on.

mod show;

pub use show::{json, text};

use crate::audit::{self, BadLine, Recorded};
use ipnet::IpNet;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What happened in a while.
#[derive(Debug, Default)]
pub struct Review {
    /// From when on.
    pub since: Timestamp,
    /// When the first line of it was written; None: there is none.
    pub first: Option<Timestamp>,
    /// Decisions.
    pub decisions: u64,
    /// By rule and by whether it was enforced.
    pub rules: BTreeMap<(String, bool), Account>,
    /// Alerts that no rule took up, by reason.
    pub without_rule: BTreeMap<String, u64>,
    /// What else happened, by its word.
    pub events: BTreeMap<String, u64>,
    /// Whom people unbanned and had not banned themselves: each may have been a mistake of a rule.
    pub unbanned: BTreeSet<String>,
    /// Whom people banned, and no rule since.
    by_hand: BTreeSet<IpNet>,
    /// Lines that cannot be read.
    pub bad: Vec<BadLine>,
}

/// What one rule did.
#[derive(Debug, Default)]
pub struct Account {
    /// Bans, or bans that would have been.
    pub bans: u64,
    /// Bans that the kernel did not take.
    pub failed: u64,
    /// Whom it banned, with the entries they held and the live sockets they had, at most; None: nobody counted.
    pub targets: BTreeMap<IpAddr, Target>,
    /// Decisions to delete dead slots.
    pub burials: u64,
    /// Entries deleted.
    pub freed: u64,
    /// Dead slots that were seen where nothing was deleted, at the largest sighting.
    pub dead: u64,
    /// How full the table was when it acted, in per cent.
    pub before: Vec<f64>,
    /// And afterwards, where that was measured, both.
    pub change: Vec<(f64, f64)>,
    /// Refusals by reason.
    pub refused: BTreeMap<String, u64>,
    seen: HashSet<(String, Option<IpNet>)>,
}

/// Somebody who was banned, or would have been.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// How often.
    pub bans: u64,
    /// Entries it held, at most.
    pub entries: Option<u64>,
    /// Live sockets it had, at most.
    pub live_sockets: Option<u64>,
}

/// Reads these files, the oldest first.
///
/// # Errors
/// A file cannot be read; a sentence.
pub fn review(files: &[PathBuf], since: Timestamp) -> Result<Review, String> {
    let mut review = Review { since, ..Review::default() };
    review.bad = audit::read(files, |line| {
        if line.at().is_some_and(|at| at >= since) {
            review.add(&line);
        }
    })?;
    Ok(review)
}

/// Reads a log in memory, all of it.
pub(crate) fn review_from(log: &[u8]) -> Review {
    let mut review = Review { since: Timestamp::MIN, ..Review::default() };
    let mut bad = Vec::new();
    let read = audit::read_from(log, Path::new(audit::FILE), &mut bad, &mut |line| review.add(&line));
    read.expect("memory can be read");
    Review { bad, ..review }
}

impl Review {
    fn add(&mut self, line: &Recorded) {
        self.first = self.first.or(line.at());
        if !line.is_decision() {
            let what = line.event.clone().unwrap_or_default();
            if let Some(net) = line.net {
                self.person(&what, net, &line.actor);
            }
            *self.events.entry(what).or_default() += 1;
            return;
        }
        self.decisions += 1;
        if let ("ban", Some(net)) = (line.verdict.as_str(), line.net) {
            self.by_hand.remove(&net);
        }
        match &line.rule {
            Some(rule) => self.rules.entry((rule.clone(), line.enforce)).or_default().add(line),
            None => *self.without_rule.entry(line.reason.clone().unwrap_or_default()).or_default() += 1,
        }
    }
}

impl Review {
    /// A rule's mistake is unbanned by hand; what was banned by hand is none.
    fn person(&mut self, what: &str, net: IpNet, actor: &str) {
        match what {
            "ban" => drop(self.by_hand.insert(net)),
            "unban" if self.by_hand.remove(&net) || actor == "policy" => {}
            "unban" => drop(self.unbanned.insert(net.to_string())),
            _ => {}
        }
    }
}

impl Account {
    fn add(&mut self, line: &Recorded) {
        let result = line.result.clone().unwrap_or_default();
        match line.verdict.as_str() {
            "ban" if result.ban.as_deref() == Some("failed") => self.failed += 1,
            "ban" => self.ban(line),
            "delete_socketless" => {
                self.burials += 1;
                if !line.enforce {
                    let dead = line.evidence.and_then(|evidence| evidence.socketless).unwrap_or(0);
                    self.dead = self.dead.max(dead);
                }
            }
            "refused" => *self.refused.entry(line.reason.clone().unwrap_or_default()).or_default() += 1,
            _ => {}
        }
        // One deletion can answer several alerts; each of its lines has its whole result.
        let deletion = (line.time.clone(), result.net.or(line.net));
        if let Some(deleted) = result.entries_deleted
            && self.seen.insert(deletion)
        {
            self.freed += deleted;
        }
        if !["ban", "delete_socketless"].contains(&line.verdict.as_str()) {
            return;
        }
        if let Some(table) = line.table.filter(|table| table.limit > 0) {
            self.before.push(table.percent());
            let after = result.table_after.map(|after| after as f64 * 100.0 / table.limit as f64);
            self.change.extend(after.map(|after| (table.percent(), after)));
        }
    }

    fn ban(&mut self, line: &Recorded) {
        self.bans += 1;
        let Some(source) = line.source else { return };
        let target = self.targets.entry(source).or_default();
        target.bans += 1;
        target.entries = target.entries.max(line.evidence.map(|evidence| evidence.entries));
        target.live_sockets = target.live_sockets.max(line.live_sockets);
    }

    /// How many of its targets had live sockets, and of how many nobody knows.
    pub fn alive(&self) -> (usize, usize) {
        let with = self.targets.values().filter(|target| target.live_sockets.is_some_and(|live| live > 0));
        let unknown = self.targets.values().filter(|target| target.live_sockets.is_none());
        (with.count(), unknown.count())
    }
}

#[cfg(test)]
mod tests;
