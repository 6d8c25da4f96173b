//! `conntrack-actioner check-policy FILE`: reads a policy as the daemon would, opens no socket, and says either
//! everything that is wrong or, shortly, what it will do.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::policy::{
    BanAction, DeleteAction, Policy, PolicyErrors, Rule, Sources, TableThresholds, ThisHost, Thresholds,
    Watch,
};

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The daemon would take this policy, perhaps with warnings.
    Valid,
    /// It would not.
    Invalid,
}

/// 0 and 1.
impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Valid => Self::SUCCESS,
            Outcome::Invalid => Self::FAILURE,
        }
    }
}

/// The command: as [`check`], and 1 as well if the answer cannot be written.
pub fn check_policy(path: &Path, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    check(path, out, err).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Checks the policy in this file; writes what it will do to `out`, errors and warnings to `err`.
///
/// # Errors
/// Only if the answer cannot be written; what is wrong with the policy is the answer.
pub fn check(path: &Path, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Outcome> {
    match Policy::load(path) {
        Ok(policy) => {
            summarize(&path.display().to_string(), &policy, out)?;
            for warning in &policy.warnings {
                writeln!(err, "warning: {warning}")?;
            }
            Ok(Outcome::Valid)
        }
        Err(errors) => {
            complain(&errors, err)?;
            Ok(Outcome::Invalid)
        }
    }
}

fn complain(errors: &PolicyErrors, out: &mut dyn Write) -> io::Result<()> {
    for problem in errors.problems() {
        writeln!(out, "{}", problem.with_excerpt())?;
    }
    if errors.unlisted() > 0 {
        writeln!(out, "and {} more", errors.unlisted())?;
    }
    let count = errors.problems().len() + errors.unlisted();
    writeln!(out, "\nnot valid: {}", counted(count, "error"))
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn summarize(file: &str, policy: &Policy, out: &mut dyn Write) -> io::Result<()> {
    let rules = counted(policy.rules.len(), "rule");
    writeln!(out, "{file}: valid ({rules}, hash {})", policy.hash)?;
    let mode = if policy.enforce { "enforce" } else { "dry run" };
    writeln!(out, "  mode       {mode}, where a rule does not say otherwise")?;
    match &policy.this_host {
        ThisHost::Auto => writeln!(out, "  this host  by table_id, else by instance")?,
        ThisHost::Matchers(matchers) => writeln!(out, "  this host  {}", Joined(matchers, ", "))?,
    }
    let never = &policy.never_ban;
    let private = if never.private { "private networks, " } else { "" };
    writeln!(
        out,
        "  never ban  {private}{} listed networks, and what the guard always spares",
        never.networks.len()
    )?;
    let limits = &policy.limits;
    write!(out, "  limits     {} bans a minute, {} an hour, ", limits.bans_per_minute, limits.bans_per_hour)?;
    write!(out, "{} at once; widest /{} ", limits.active_bans, limits.widest_prefix.ipv4)?;
    writeln!(out, "and /{}; {} deletes an action", limits.widest_prefix.ipv6, limits.deletes_per_action)?;
    let firewall = &policy.firewall;
    let rule = if firewall.manage_rule { "drop rule managed" } else { "drop rule left to you" };
    writeln!(out, "  firewall   {}, sets {1}-4 and {1}-6, {rule}", firewall.backend.as_str(), firewall.set)?;
    if let Some(reachable) = &policy.keep_reachable {
        let (ports, from) = (Joined(&reachable.ports, ", "), Joined(&reachable.from, ", "));
        writeln!(
            out,
            "  reachable  ports {ports} for {from}, even when the table is full (once a rule is enforced)"
        )?;
    }
    match &policy.watch {
        Some(watch) => watched(watch, out)?,
        None => writeln!(out, "  watch      off")?,
    }
    for rule in &policy.rules {
        let mode = if policy.enforces(rule) { "enforce" } else { "dry run" };
        writeln!(out, "  rule       {}: {} [{mode}]", rule.name, Told(rule))?;
    }
    Ok(())
}

fn watched(watch: &Watch, out: &mut dyn Write) -> io::Result<()> {
    let (interval, every) =
        (humantime::format_duration(watch.interval), humantime::format_duration(watch.every));
    writeln!(out, "  watch      a look every {interval}, a dump at least every {every}")?;
    for alert in &watch.alerts {
        let mut conditions = of_source("source", &alert.source);
        conditions.extend(of_source("host", &alert.host));
        conditions.extend(of_table(&alert.table));
        writeln!(out, "             {} when {}", alert.alert, Joined(&conditions, " and "))?;
    }
    Ok(())
}

/// A rule in one line: what must match, what is required, what is done.
struct Told<'p>(&'p Rule);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        write!(f, "on {}", Joined(&rule.matchers, ", "))?;
        match &rule.sources {
            Sources::Label(label) => write!(f, ", the source in label {label}")?,
            Sources::Top(most) => write!(f, ", the largest {most} sources")?,
            Sources::All => write!(f, ", all sources")?,
        }
        let mut conditions = of_source("source", &rule.require.source);
        conditions.extend(of_table(&rule.require.table));
        if !conditions.is_empty() {
            write!(f, "; if {}", Joined(&conditions, " and "))?;
        }
        f.write_str("; then ")?;
        if let Some(ban) = &rule.ban {
            ban_told(ban, f)?;
        }
        match (rule.delete, rule.ban.is_some()) {
            (Some(DeleteAction::All), _) => f.write_str(" and delete all its entries"),
            (Some(DeleteAction::Socketless), true) => f.write_str(" and delete its socketless entries"),
            (Some(DeleteAction::Socketless), false) => f.write_str("delete socketless entries"),
            (None, _) => Ok(()),
        }
    }
}

fn ban_told(ban: &BanAction, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "ban /{} or /{} for {}",
        ban.ipv4_prefix,
        ban.ipv6_prefix,
        humantime::format_duration(ban.for_)
    )?;
    if ban.factor > 1 {
        write!(f, " (×{} each time, to {})", ban.factor, humantime::format_duration(ban.max))?;
    }
    Ok(())
}

fn of_source(whose: &str, thresholds: &Thresholds) -> Vec<String> {
    let counts = [
        ("entries", thresholds.entries),
        ("assured", thresholds.assured),
        ("half_open", thresholds.half_open),
        ("socketless", thresholds.socketless),
    ];
    counts.into_iter().filter_map(|(what, count)| Some(format!("{whose} {what} ≥ {}", count?))).collect()
}

fn of_table(thresholds: &TableThresholds) -> Vec<String> {
    let fill = thresholds.fill_percent.map(|percent| format!("table ≥ {percent} % full"));
    let entries = thresholds.entries.map(|entries| format!("table entries ≥ {entries}"));
    fill.into_iter().chain(entries).collect()
}

struct Joined<'p, T>(&'p [T], &'p str);

impl<T: fmt::Display> fmt::Display for Joined<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(self.1)?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}
