//! `explain`: what is, what would be decided about an address now and why, and what was decided before.

use super::ban::query;
use super::bans::listed;
use super::history::{self, History};
use super::{Said, text};
use crate::admin_client::{Client, Trouble};
use crate::advice::what_would_change_it;
use crate::exit::Exit;
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Explains it. Without a running actioner, the history is still told.
///
/// # Errors
/// [`Trouble`], where there is nothing to show at all.
pub fn explain(
    client: &Client,
    address: IpAddr,
    storage: Option<&Path>,
    json: bool,
) -> Result<Said, Trouble> {
    let live = client.get(&format!("/api/v1/explain?source={}", query(address.into())));
    let history =
        history::of(address, &directory(client, storage), if json { usize::MAX } else { history::SHOWN });
    if live.is_err() && history.as_ref().map_or(true, |history| history.episodes.is_empty()) {
        return live.map(|_| Said::done(""));
    }
    let mut said = match (&live, json) {
        (_, true) => {
            let mut answer = live.as_ref().cloned().unwrap_or_else(|_| json!({"source": address}));
            answer["history"] = history.as_ref().map_or(Value::Null, History::json);
            Said::json(&answer)
        }
        (Ok(live), false) => Said::done(page(live) + &told(&history)),
        (Err(_), false) => Said::done(told(&history)),
    };
    if let Err(trouble) = live {
        said.warning = Some(format!("{trouble}; so this is only what the audit log remembers"));
        said.exit = trouble.exit();
    } else if let Err(error) = &history {
        said.warning = Some(format!("no history: {error}"));
        said.exit = Exit::Failed;
    }
    Ok(said)
}

/// Where the running actioner keeps its log, unless it was said.
fn directory(client: &Client, storage: Option<&Path>) -> PathBuf {
    let said = || {
        let status = client.get("/api/v1/status").ok()?;
        Some(Path::new(status["store"]["path"].as_str()?).parent()?.to_owned())
    };
    storage.map(Path::to_owned).or_else(said).unwrap_or_else(|| crate::cli::STORAGE.into())
}

fn told(history: &Result<History, String>) -> String {
    let Ok(history) = history else { return String::new() };
    let bad = match history.bad_lines {
        0 => String::new(),
        bad => format!("({bad} lines of the log cannot be read)\n"),
    };
    format!("\nHISTORY\n{}{bad}", history.table())
}

fn page(live: &Value) -> String {
    let mut page = String::new();
    let mut line = |said: String| {
        let _ = writeln!(page, "{}", said.trim_end());
    };
    let source = text(&live["source"]);
    match live["bans"].as_array().map(Vec::as_slice).unwrap_or_default() {
        [] => line(format!("{source} is not banned")),
        bans => line(format!("{source} is banned:\n{}", listed(bans))),
    }
    match &live["grace"] {
        Value::Null => {}
        Value::String(said) => line(format!("unbanned by hand: {}", super::plain(said))),
        grace => line(format!(
            "unbanned by hand by {}: no rule bans {} before {}",
            text(&grace["by"]),
            text(&grace["net"]),
            text(&grace["until"])
        )),
    }
    line(evidence(&live["evidence"]));
    line("\nIF AN ALERT NAMED IT NOW".to_owned());
    let rules = live["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    if rules.is_empty() {
        line("no rule of the policy names sources".to_owned());
    }
    for rule in rules {
        let mode = if rule["enforce"] == true { "" } else { " (dry run)" };
        line(format!("{}{mode}: {}", text(&rule["rule"]), text(&rule["would"])));
        let reason = rule["reason"].as_str().unwrap_or_default();
        if let Some(change) = what_would_change_it(reason) {
            line(format!("    {reason}. What would change it: {change}"));
        }
    }
    page
}

fn evidence(evidence: &Value) -> String {
    if evidence.is_null() {
        return "the live table could not say what it holds".to_owned();
    }
    let socketless = match evidence["socketless"].as_u64() {
        Some(count) => format!("{count} without a socket"),
        None => "how many without a socket was not measured".to_owned(),
    };
    let count = |name: &str| text(&evidence[name]);
    format!(
        "it holds {} entries: {} assured, {} half open, {socketless}",
        count("entries"),
        count("assured"),
        count("half_open")
    )
}
