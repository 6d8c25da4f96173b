//! `audit.jsonl`: one line a decision, enough to decide it again.

use crate::alert::Alert;
use crate::enforce::{Banned, Burial, Outcome};
use crate::evidence::{Evidence, TableFill};
use crate::now::Now;
use crate::plan::{Decision, Plan, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The format's number: raised when a field changes its meaning.
const SCHEMA: u32 = 1;

/// The audit log, open for appending.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
    decisions: u64,
    run: String,
    /// A write failed half way: the next line must not continue what it left.
    torn: bool,
}

/// One line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    schema: u32,
    time: String,
    id: String,
    table_id: &'a str,
    policy: &'a str,
    rule: Option<&'a str>,
    enforce: bool,
    origin: &'static str,
    actor: &'static str,
    receiver: &'a str,
    group_key: &'a str,
    fingerprint: &'a str,
    labels: &'a BTreeMap<String, String>,
    source: Option<String>,
    evidence: Option<&'a Evidence>,
    table: Option<&'a TableFill>,
    budget: Budget,
    verdict: &'static str,
    reason: Option<&'static str>,
    why: Option<String>,
    result: Option<Result_<'a>>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Budget {
    minute: f64,
    hour: f64,
}

/// What became of it in the kernel.
#[derive(Debug, Default, Serialize)]
#[serde(rename = "Result")]
struct Result_<'a> {
    net: Option<String>,
    ban: Option<&'static str>,
    offence: Option<u32>,
    expires: Option<String>,
    entries_deleted: Option<u64>,
    entries_revived: Option<u64>,
    deletion_clipped: Option<bool>,
    error: Option<&'a str>,
    table_after: Option<u64>,
}

/// What all lines of one batch share.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Whose table.
    pub table_id: &'a str,
    /// [`crate::policy::Policy::hash`].
    pub policy: &'a str,
    /// Bans left in the budget before the batch: this minute, this hour.
    pub budget: [f64; 2],
    /// When it was decided.
    pub now: Now,
    /// Entries after the batch.
    pub table_after: Option<u64>,
}

impl Audit {
    /// Opens, or makes, `audit.jsonl` in the storage directory, which is made too (0750).
    ///
    /// # Errors
    /// What the file system says; the text names the path.
    pub fn open(storage: &Path, now: Now) -> io::Result<Audit> {
        let path = storage.join("audit.jsonl");
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        fs::DirBuilder::new().recursive(true).mode(0o750).create(storage).map_err(named)?;
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path).map_err(named)?;
        let torn = ends_torn(&path).map_err(named)?;
        Ok(Audit { path, file, decisions: 0, run: format!("{:x}", now.boot.as_micros()), torn })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line for each verdict of a plan, in one write.
    ///
    /// # Errors
    /// What the file system says. The decision stands all the same.
    pub fn record(
        &mut self,
        alert: &Alert,
        plan: &Plan,
        outcome: &Outcome,
        context: Context<'_>,
    ) -> io::Result<()> {
        let mut lines = if self.torn { vec![b'\n'] } else { Vec::new() };
        for verdict in &plan.verdicts {
            self.decisions += 1;
            let id = format!("{}-{}", self.run, self.decisions);
            let line = line(id, alert, plan, verdict, outcome, context);
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        let written = self.file.write_all(&lines);
        self.torn = written.is_err();
        written
    }
}

/// Whether the last line lacks its end: the host lost power, or the disk was full.
fn ends_torn(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

fn line<'a>(
    id: String,
    alert: &'a Alert,
    plan: &'a Plan,
    verdict: &'a Verdict,
    outcome: &'a Outcome,
    context: Context<'a>,
) -> Line<'a> {
    let (reason, why) = match &verdict.decision {
        Decision::Refused(refusal) => (Some(refusal.reason()), Some(refusal.to_string())),
        _ => (None, None),
    };
    Line {
        schema: SCHEMA,
        time: rfc3339(context.now.wall),
        id,
        table_id: context.table_id,
        policy: context.policy,
        rule: plan.rule.as_deref(),
        enforce: plan.enforce,
        origin: alert.origin.as_str(),
        actor: "policy",
        receiver: &alert.receiver,
        group_key: &alert.group_key,
        fingerprint: &alert.fingerprint,
        labels: &alert.labels,
        source: verdict.source.map(|source| source.to_string()),
        evidence: verdict.evidence.as_ref(),
        table: plan.table.as_ref(),
        budget: Budget { minute: rounded(context.budget[0]), hour: rounded(context.budget[1]) },
        verdict: verdict.decision.word(),
        reason,
        why,
        result: result(plan, &verdict.decision, outcome, context),
    }
}

fn result<'a>(
    plan: &Plan,
    decision: &Decision,
    outcome: &'a Outcome,
    context: Context<'_>,
) -> Option<Result_<'a>> {
    if let Decision::DeleteSocketless(whose) = decision {
        return burial(plan, outcome.buried(*whose), context);
    }
    let (net, until, offence) = match decision {
        Decision::Ban(ban) => (ban.net, Some(context.now.boot + ban.lasts), Some(ban.offence)),
        Decision::AlreadyBanned { net, until, .. } => (*net, *until, None),
        Decision::DeleteSocketless(_) | Decision::Resolved | Decision::Refused(_) => return None,
    };
    let expires = |until: Duration| rfc3339(context.now.wall_at(until));
    let mut result = Result_ { net: Some(net.to_string()), offence, ..Result_::default() };
    if !plan.enforce {
        result.ban = Some("dry_run");
        result.expires = until.map(expires);
        return Some(result);
    }
    (result.ban, result.expires) = match outcome.ban(&net) {
        Some(Banned::InForce { remaining, .. }) => {
            (Some("in_force"), remaining.map(|remaining| expires(context.now.boot + remaining)))
        }
        Some(Banned::Failed(error)) => {
            result.error = Some(error);
            (Some("failed"), None)
        }
        None => (Some("in_force"), until.map(expires)),
    };
    match &outcome.removal {
        Some(Ok(removal)) => {
            let removed = removal.by_net.get(&net).copied().unwrap_or_default();
            result.entries_deleted = Some(removed.deleted);
            result.deletion_clipped = Some(removed.clipped);
        }
        Some(Err(error)) => result.error = Some(error),
        None => {}
    }
    if let Some(buried) = decision.socketless_of().and_then(|whose| outcome.buried(whose)) {
        fill_in(&mut result, buried);
    }
    result.table_after = context.table_after;
    Some(result)
}

fn burial<'a>(
    plan: &Plan,
    buried: Option<&'a Result<Burial, String>>,
    context: Context<'_>,
) -> Option<Result_<'a>> {
    if !plan.enforce {
        return None;
    }
    let mut result = Result_ { table_after: context.table_after, ..Result_::default() };
    if let Some(buried) = buried {
        fill_in(&mut result, buried);
    }
    Some(result)
}

fn fill_in<'a>(result: &mut Result_<'a>, buried: &'a Result<Burial, String>) {
    match buried {
        Ok(burial) => {
            result.entries_deleted = Some(burial.slots.deleted);
            result.entries_revived = Some(burial.slots.revived);
            result.deletion_clipped = Some(burial.clipped);
        }
        Err(error) => result.error = Some(error),
    }
}

fn rounded(tokens: f64) -> f64 {
    (tokens * 100.0).round() / 100.0
}

/// A moment as people read it, UTC.
pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(
        |_| "unknown".to_owned(),
        |time| time.round(jiff::Unit::Millisecond).unwrap_or(time).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Origin;
    use crate::refusal::Refusal;

    #[test]
    fn a_torn_line_costs_itself_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let now = Now::read();
        let alert = Alert {
            labels: [("alertname".to_owned(), "A\n\"".to_owned())].into(),
            annotations: BTreeMap::new(),
            fingerprint: String::new(),
            starts_at: String::new(),
            firing: true,
            origin: Origin::Webhook,
            receiver: "r".into(),
            group_key: "k".into(),
        };
        let record = || {
            let mut audit = Audit::open(directory.path(), now).unwrap();
            let context =
                Context { table_id: "feed", policy: "cafe", budget: [1.0, 2.0], now, table_after: None };
            audit.record(&alert, &Plan::refused(Refusal::NoRule), &Outcome::default(), context).unwrap();
        };
        record();
        let file = directory.path().join("audit.jsonl");
        let mut text = fs::read_to_string(&file).unwrap();
        text.push_str("{\"schema\":1,\"tim");
        fs::write(&file, text).unwrap();
        record();
        record();
        let lines = fs::read_to_string(&file).unwrap();
        let read: Vec<_> = lines.lines().map(serde_json::from_str::<serde_json::Value>).collect();
        assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, true], "{lines}");
        let line = read[3].as_ref().unwrap();
        assert_eq!((&line["reason"], &line["labels"]["alertname"]), (&"no_rule".into(), &"A\n\"".into()));
    }
}
