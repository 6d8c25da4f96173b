//! `bans`: who is banned, why, for how long, and whether the kernel holds it.

use super::columns::columns;
use super::{Said, seconds, text};
use crate::admin_client::{Client, Trouble};
use serde_json::Value;

/// Lists them.
///
/// # Errors
/// [`Trouble`].
pub fn bans(client: &Client, json: bool) -> Result<Said, Trouble> {
    let answer = client.get("/api/v1/bans")?;
    if json {
        return Ok(Said::json(&answer));
    }
    let bans = answer["bans"].as_array().map(Vec::as_slice).unwrap_or_default();
    if bans.is_empty() {
        return Ok(Said::done("no bans"));
    }
    let mut said = Said::done(listed(bans));
    let missing = bans.iter().filter(|ban| ban["in_kernel"] == false && ban["dry_run"] == false).count();
    if missing > 0 {
        said.warning = Some(format!(
            "{missing} of these should be in the kernel and are not: the actioner tries again every 5 s, and its log says why it fails"
        ));
    }
    Ok(said)
}

/// A table of them.
pub(super) fn listed(bans: &[Value]) -> String {
    let rows: Vec<Vec<String>> = bans.iter().map(row).collect();
    columns(&["NET", "RULE", "BY", "OFFENCE", "LEFT", "UNTIL", "KERNEL", "REASON"], &rows)
}

fn row(ban: &Value) -> Vec<String> {
    let left = ban["remaining_seconds"].as_u64().map_or_else(|| "for ever".to_owned(), seconds);
    let kernel = match (ban["dry_run"] == true, ban["in_kernel"] == true) {
        (true, _) => "dry run",
        (false, true) => "yes",
        (false, false) => "MISSING",
    };
    vec![
        text(&ban["net"]),
        text(&ban["rule"]),
        text(&ban["by"]),
        text(&ban["offence"]),
        left,
        text(&ban["until"]),
        kernel.to_owned(),
        text(&ban["reason"]),
    ]
}
