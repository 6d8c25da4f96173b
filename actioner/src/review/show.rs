//! The page, for people and for scripts.

use super::{Account, Review, Target};
use crate::command::plain;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

/// So many targets are named to people.
const NAMED: usize = 10;

/// For people.
pub fn text(review: &Review) -> String {
    let mut text = String::new();
    let mut line = |said: String| {
        let _ = writeln!(text, "{}", said.trim_end());
    };
    let Some(first) = review.first else {
        return format!("the audit log has nothing since {:.0}\n", review.since);
    };
    line(format!("{} decisions since {:.0}", review.decisions, first.max(review.since)));
    for ((rule, enforced), account) in &review.rules {
        line(format!(
            "\nRULE {}{}",
            plain(rule),
            if *enforced { "" } else { " (dry run: nothing was done)" }
        ));
        told(account, *enforced, &mut line);
    }
    if !review.without_rule.is_empty() {
        line(format!("\nNO RULE\n  refused       {}", by_reason(&review.without_rule)));
    }
    if !review.events.is_empty() {
        line(format!("\nBESIDE THE RULES\n  {}", by_reason(&review.events)));
    }
    if !review.unbanned.is_empty() {
        let unbanned: Vec<&str> = review.unbanned.iter().map(String::as_str).take(NAMED).collect();
        line(format!("  unbanned by hand, so look whether a rule was wrong: {}", unbanned.join(", ")));
    }
    text
}

fn told(account: &Account, enforced: bool, line: &mut impl FnMut(String)) {
    let would = |did: &str, would: &str| if enforced { did.to_owned() } else { would.to_owned() };
    let sources = account.targets.len();
    if account.bans > 0 {
        line(format!("  {:<13} {} times, {sources} sources", would("banned", "would ban"), account.bans));
    }
    if account.failed > 0 {
        line(format!("  NOT banned    {} times: the kernel did not take it", account.failed));
    }
    if account.burials > 0 {
        let dead = if enforced { String::new() } else { format!(", {} at most at once", account.dead) };
        line(format!(
            "  {:<13} {} times{dead}",
            would("dead slots", "would delete dead slots"),
            account.burials
        ));
    }
    if enforced && account.bans + account.burials > 0 {
        line(format!("  entries freed {}", account.freed));
    }
    if !enforced && account.bans > 0 {
        let held: u64 = account.targets.values().filter_map(|target| target.entries).sum();
        line(format!("  they held     {held} entries"));
    }
    if let Some(before) = median(account.before.iter().copied()) {
        let before_and_after = match (
            median(account.change.iter().map(|(before, _)| *before)),
            median(account.change.iter().map(|(_, after)| *after)),
        ) {
            (Some(before), Some(after)) => format!("{before:.1} % full before, {after:.1} % after (medians)"),
            _ => format!("{before:.1} % full (median)"),
        };
        line(format!("  table         {before_and_after}"));
    }
    if sources > 0 {
        line(format!("  live sockets  {}", alive(account)));
    }
    if !account.refused.is_empty() {
        line(format!("  refused       {}", by_reason(&account.refused)));
    }
}

/// Whom a ban cuts off, or would.
fn alive(account: &Account) -> String {
    let (with, unknown) = account.alive();
    let mut said = format!("{with} of {} sources had some", account.targets.len());
    if unknown > 0 {
        let _ = write!(said, ", of {unknown} it was not counted");
    }
    let mut most: Vec<(u64, &IpAddr)> = account
        .targets
        .iter()
        .filter_map(|(source, target)| Some((target.live_sockets.filter(|live| *live > 0)?, source)))
        .collect();
    most.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let named: Vec<String> =
        most.iter().take(NAMED).map(|(live, source)| format!("{source} ({live})")).collect();
    if !named.is_empty() {
        let more = if most.len() > NAMED { ", …" } else { "" };
        let _ = write!(said, ": {}{more}", named.join(", "));
    }
    said
}

fn by_reason(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by(|a, b| b.1.cmp(a.1));
    counts.iter().map(|(reason, count)| format!("{count} {}", plain(reason))).collect::<Vec<_>>().join(", ")
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// For scripts.
pub fn json(review: &Review) -> Value {
    let target = |(source, target): (&IpAddr, &Target)| json!({"source": source, "bans": target.bans, "entries": target.entries, "live_sockets": target.live_sockets});
    let rule = |((rule, enforced), account): (&(String, bool), &Account)| {
        let (with, unknown) = account.alive();
        json!({"rule": rule, "enforce": enforced, "bans": account.bans, "failed": account.failed,
            "burials": account.burials, "entries_freed": account.freed, "dead_slots_most": account.dead,
            "fill_percent_before": median(account.before.iter().copied()),
            "fill_percent_before_measured": median(account.change.iter().map(|(before, _)| *before)),
            "fill_percent_after_measured": median(account.change.iter().map(|(_, after)| *after)),
            "sources_with_live_sockets": with, "sources_not_counted": unknown, "refused": account.refused,
            "targets": account.targets.iter().map(target).collect::<Vec<_>>()})
    };
    json!({"since": review.since.to_string(), "decisions": review.decisions,
        "rules": review.rules.iter().map(rule).collect::<Vec<_>>(), "without_rule": review.without_rule,
        "events": review.events, "unbanned": review.unbanned, "bad_lines": review.bad.len()})
}
