//! `replay` and `report`: from the audit log alone, whether an actioner runs or not.

use super::{Said, plain};
use crate::admin_client::Trouble;
use crate::audit::{self, BadLine};
use crate::cli::{Replay, Report};
use crate::policy::Policy;
use crate::replay::{self, Shown, replay};
use crate::review::{self, review};
use jiff::{SignedDuration, Timestamp};

/// So many bad lines are named.
const NAMED: usize = 5;

/// What another policy would have decided.
///
/// # Errors
/// The policy or the log cannot be read: [`Trouble::Failed`].
pub fn replayed(flags: &Replay) -> Result<Said, Trouble> {
    let policy = Policy::load(&flags.policy).map_err(|errors| Trouble::Failed(errors.to_string()))?;
    let replayed = replay(&policy, &flags.files).map_err(Trouble::Failed)?;
    let mut said = if flags.json {
        Said::json(&replay::json(&replayed))
    } else {
        let shown = if flags.all { Shown::Everything } else { Shown::Differences };
        Said::done(replay::text(&replayed, shown))
    };
    said.warning = unread(&replayed.bad);
    Ok(said)
}

/// What the rules did.
///
/// # Errors
/// There is no log, or it cannot be read: [`Trouble::Failed`].
pub fn report(flags: &Report) -> Result<Said, Trouble> {
    let files = audit::files(&flags.storage);
    if files.is_empty() {
        let directory = flags.storage.display();
        return Err(Trouble::Failed(format!(
            "no {} in {directory}: has the actioner run yet, and with this --storage.path?",
            audit::FILE
        )));
    }
    let since = Timestamp::now() - SignedDuration::from_hours(24 * i64::from(flags.days));
    let review = review(&files, since).map_err(Trouble::Failed)?;
    let mut said =
        if flags.json { Said::json(&review::json(&review)) } else { Said::done(review::text(&review)) };
    said.warning = unread(&review.bad);
    Ok(said)
}

fn unread(bad: &[BadLine]) -> Option<String> {
    let named = |bad: &BadLine| format!("{} line {} ({})", bad.file.display(), bad.line, plain(&bad.error));
    let first: Vec<String> = bad.iter().take(NAMED).map(named).collect();
    let more = if bad.len() > NAMED { ", …" } else { "" };
    (!bad.is_empty())
        .then(|| format!("{} lines cannot be read and are left out: {}{more}", bad.len(), first.join(", ")))
}
