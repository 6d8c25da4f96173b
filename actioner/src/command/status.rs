//! `status`: one page, the worst first.

use super::{Said, plain, text};
use crate::admin_client::{Client, Trouble};
use serde_json::Value;
use std::fmt::Write;

/// Shows it.
///
/// # Errors
/// [`Trouble`].
pub fn status(client: &Client, json: bool) -> Result<Said, Trouble> {
    let answer = client.get("/api/v1/status")?;
    Ok(if json { Said::json(&answer) } else { Said::done(page(&answer)) })
}

fn page(status: &Value) -> String {
    let mut page = String::new();
    let mut line = |what: &str, said: String| {
        let _ = writeln!(page, "{}", format!("{what:<9} {said}").trim_end());
    };
    line("mode", mode(status));
    for (what, stopped) in [("paused", &status["paused"]), ("breaker", &status["breaker"])] {
        if !stopped.is_null() {
            line(what, told(stopped));
        }
    }
    line("table", table(&status["table"]));
    let (active, enforced) = (&status["active_bans"], &status["enforced_bans"]);
    let missing = if active == enforced { "" } else { " (they should be as many)" };
    line("bans", format!("{} in force, {} in the kernel{missing}", text(active), text(enforced)));
    line("looked", looked(&status["looked"]));
    let left = |window: &str| {
        format!(
            "{} of {} left this {window}",
            number(&status["budget"][window]),
            number(&status["budget_limits"][window])
        )
    };
    line("budget", format!("{}, {}", left("minute"), left("hour")));
    for said in reachable(&status["keep_reachable"]) {
        line("reachable", said);
    }
    let store = &status["store"];
    line(
        "store",
        match &store["degraded"] {
            Value::Null => text(&store["path"]),
            why => format!("{}: DEGRADED: {}", text(&store["path"]), text(why)),
        },
    );
    let policy = &status["policy"];
    line(
        "policy",
        format!("{} {}, since {}", text(&policy["file"]), text(&policy["hash"]), text(&policy["loaded"]))
            .trim_start()
            .to_owned(),
    );
    if let Some(error) = policy["last_reload_error"].as_str() {
        line("", format!("NOT RELOADED: {}", plain(error)));
    }
    line("confined", confined(&status["confined"]));
    line("table id", text(&status["table_id"]));
    line("version", text(&status["version"]));
    for warning in status["warnings"].as_array().into_iter().flatten() {
        line("warning", text(warning));
    }
    page
}

/// How old it may be.
fn looked(looked: &Value) -> String {
    let when = |what: &str| looked[what].as_str().map(plain);
    let table = when("table").map(|at| format!("table counted {at}"));
    let entries = when("entries").map_or_else(
        || "its entries not read yet: nobody asked".to_owned(),
        |at| format!("its entries read {at}"),
    );
    let bans =
        when("bans").map_or_else(|| "bans NOT read back".to_owned(), |at| format!("bans read back {at}"));
    table.into_iter().chain([entries, bans]).collect::<Vec<_>>().join(", ")
}

fn mode(status: &Value) -> String {
    if !status["panicked"].is_null() {
        return format!(
            "PANIC: nothing is banned and nothing is done until `conntrack-actioner resume`; {}",
            told(&status["panicked"])
        );
    }
    if let (true, Some(why)) = (status["paused"].is_null(), status["no_firewall"].as_str()) {
        return format!(
            "NOTHING IS ENFORCED, though the policy asks for it; tried again every 5 s: {}",
            plain(why)
        );
    }
    let enforcing = status["enforcing"] == true;
    match (status["paused"].is_null(), enforcing) {
        (false, _) => {
            "PAUSED: what rules decide is written down and not carried out; `ban` and `unban` go on"
                .to_owned()
        }
        (true, true) => "enforcing".to_owned(),
        (true, false) => "dry run: decisions are written down and not carried out".to_owned(),
    }
}

/// Who stopped it, since when, until when, and why.
fn told(stopped: &Value) -> String {
    let part = |before: &str, field: &str| {
        let said = text(&stopped[field]);
        if said.is_empty() { said } else { format!("{before}{said}") }
    };
    let since = [part("since ", "since"), part("since ", "opened")].concat();
    let until = match part("until ", "until") {
        until if until.is_empty() => "until resumed".to_owned(),
        until => until,
    };
    let parts = [part("by ", "by"), since, until, part("", "why")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// Who reaches what while the table is full, and what could not be made so.
fn reachable(status: &Value) -> Vec<String> {
    let list = |value: &Value, between: &str| {
        value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(between)
    };
    let each = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let covered = each("covered").into_iter().map(|covered| {
        format!(
            "ports {} for {}, even when the table is full",
            list(&covered["ports"], " "),
            list(&covered["from"], " ")
        )
    });
    let refused = each("refused")
        .into_iter()
        .map(|refused| format!("NOT over {}: {}", text(&refused["family"]), text(&refused["why"])));
    let trouble = each("trouble").into_iter().map(|trouble| format!("NOT: {}", text(&trouble)));
    covered.chain(refused).chain(trouble).collect()
}

/// What the program has given up its rights by, and what it could not.
fn confined(confined: &Value) -> String {
    let holds = confined.as_object().into_iter().flatten().filter(|(_, holds)| **holds == true);
    let by: Vec<_> = holds.map(|(by, _)| by.as_str()).collect();
    let why_not: Vec<_> = confined["why_not"].as_array().into_iter().flatten().map(text).collect();
    let by = (!by.is_empty()).then(|| format!("by {}", by.join(", ")));
    let why_not = (!why_not.is_empty()).then(|| format!("NOT: {}", why_not.join("; ")));
    by.into_iter().chain(why_not).collect::<Vec<_>>().join("; ")
}

fn table(table: &Value) -> String {
    match (table["entries"].as_u64(), table["limit"].as_u64()) {
        (Some(entries), Some(limit)) if limit > 0 => {
            format!("{entries} of {limit} entries ({:.1} % full)", entries as f64 * 100.0 / limit as f64)
        }
        (Some(entries), _) => format!("{entries} entries, unlimited"),
        _ => "not known: this kernel does not show its table".to_owned(),
    }
}

/// Whole, where it is.
fn number(value: &Value) -> String {
    let number = value.as_f64().unwrap_or(0.0);
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn calm() -> Value {
        json!({"version": "0.1.0", "enforcing": true, "paused": null, "panicked": null, "breaker": null,
            "table": {"entries": 500, "limit": 1000}, "active_bans": 2, "enforced_bans": 2,
            "looked": {"table": "T1", "entries": "T2", "bans": "T3"},
            "budget": {"minute": 9.5, "hour": 49.0}, "budget_limits": {"minute": 10, "hour": 50},
            "store": {"path": "/s/state.json", "degraded": null},
            "policy": {"file": "/p.yaml", "hash": "cafe", "loaded": "T", "last_reload_error": null},
            "confined": {"capabilities": true, "landlock": true, "seccomp": true, "why_not": []},
            "table_id": "feed", "warnings": []})
    }

    #[test]
    fn a_calm_page() {
        let page = page(&calm());
        for words in [
            "mode      enforcing\n",
            "500 of 1000 entries (50.0 % full)",
            "looked    table counted T1, its entries read T2, bans read back T3\n",
            "9.5 of 10 left this minute, 49 of 50 left this hour",
            "policy    /p.yaml cafe, since T\n",
            "confined  by capabilities, landlock, seccomp\n",
        ] {
            assert!(page.contains(words), "no {words:?} in\n{page}");
        }
        assert!(!page.contains("breaker") && !page.contains("(they should"), "{page}");
    }

    #[test]
    fn a_firewall_that_is_missing_goes_before_everything_but_a_pause() {
        let mut status = calm();
        status["no_firewall"] =
            json!("ipset create conntrack-guard-4: this kernel has no hash:net sets\u{1b}[31m");
        let page = page(&status);
        assert!(page.starts_with("mode      NOTHING IS ENFORCED, though the policy asks for it"), "{page}");
        assert!(page.contains("this kernel has no hash:net sets") && !page.contains('\u{1b}'), "{page}");
        status["paused"] = json!({"by": "root", "since": "S"});
        assert!(super::page(&status).starts_with("mode      PAUSED"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut status = calm();
        status["panicked"] = json!({"since": "S", "by": "root (sudo: alice)"});
        status["breaker"] = json!({"opened": "O", "until": "U", "why": "3 bans did not help"});
        status["store"]["degraded"] = json!("disk full\u{1b}[31m");
        status["enforced_bans"] = json!(1);
        status["policy"]["last_reload_error"] = json!("line 3");
        status["confined"] = json!({"capabilities": true, "landlock": false, "seccomp": true, "why_not": ["landlock: switched off"]});
        status["table"] = Value::Null;
        status["looked"] = json!({"table": null, "entries": null, "bans": null});
        let page = page(&status);
        for words in [
            "PANIC",
            "by root (sudo: alice), since S, until resumed",
            "since O, until U, 3 bans did not help",
            "DEGRADED: disk full",
            "(they should be as many)",
            "not known",
            "NOT RELOADED: line 3",
            "looked    its entries not read yet: nobody asked, bans NOT read back\n",
            "by capabilities, seccomp; NOT: landlock: switched off",
        ] {
            assert!(page.contains(words), "no {words:?} in\n{page}");
        }
        assert!(!page.contains('\u{1b}'), "other people's words do not command the terminal");
    }
}
