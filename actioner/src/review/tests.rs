use super::*;
use serde_json::{Value, json};

fn ban(minute: u32, source: &str, more: &Value) -> Recorded {
    let mut line = json!({"event": "decision", "time": format!("2026-11-22T21:{minute:02}:00.000Z"), "rule": "hoarder",
        "enforce": true, "source": source, "net": format!("{source}/32"), "verdict": "ban",
        "evidence": {"entries": 400, "assured": 400, "half_open": 0, "socketless": null},
        "table": {"entries": 900, "limit": 1000}, "live_sockets": 0,
        "result": {"net": format!("{source}/32"), "ban": "in_force", "entries_deleted": 400, "table_after": 500}});
    line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(line).unwrap()
}

fn of(lines: &[Recorded]) -> Review {
    let mut review = Review::default();
    lines.iter().for_each(|line| review.add(line));
    review
}

fn has(text: &str, words: &[&str]) {
    for words in words {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
}

#[test]
fn what_a_rule_did() {
    let again = json!({"rule": "tier", "verdict": "already_banned"});
    let refused = json!({"verdict": "refused", "reason": "never_ban", "result": null});
    let by_hand = |event: &str, net: &str| -> Recorded {
        serde_json::from_value(
            json!({"event": event, "time": "2026-11-22T21:30:00.000Z", "net": net, "actor": "root"}),
        )
        .unwrap()
    };
    let review = of(&[
        ban(0, "198.51.100.7", &json!({})),
        ban(0, "198.51.100.7", &again),
        ban(1, "198.51.100.8", &json!({"live_sockets": 50})),
        ban(20, "198.51.100.8", &json!({"live_sockets": null})),
        ban(21, "198.51.100.9", &json!({"live_sockets": null})),
        ban(22, "198.51.100.10", &refused),
        by_hand("unban", "198.51.100.8/32"),
        // A person's own second thoughts.
        by_hand("ban", "198.51.100.99/32"),
        by_hand("unban", "198.51.100.99/32"),
    ]);
    has(
        &text(&review),
        &[
            "RULE hoarder\n",
            "banned        4 times, 3 sources",
            "entries freed 1600",
            "90.0 % full before, 50.0 % after",
            "1 of 3 sources had some, of 1 it was not counted: 198.51.100.8 (50)",
            "refused       1 never_ban",
            "look whether a rule was wrong: 198.51.100.8/32\n",
        ],
    );
}

#[test]
fn what_a_rule_would_have_done() {
    let dry =
        json!({"enforce": false, "live_sockets": 3, "result": {"net": "198.51.100.7/32", "ban": "dry_run"}});
    let dead = json!({"enforce": false, "rule": "dead-slots", "verdict": "delete_socketless", "source": null, "net": null,
        "evidence": {"entries": 900, "assured": 900, "half_open": 0, "socketless": 600}, "result": null});
    let text = text(&of(&[ban(0, "198.51.100.7", &dry), ban(1, "0.0.0.0", &dead)]));
    has(
        &text,
        &[
            "RULE hoarder (dry run: nothing was done)",
            "would ban     1 times, 1 sources",
            "they held     400 entries",
            "90.0 % full (median)",
            "1 of 1 sources had some: 198.51.100.7 (3)",
            "would delete dead slots 1 times, 600 at most at once",
        ],
    );
    assert!(!text.contains("entries freed"), "{text}");
}

#[test]
fn one_deletion_that_answers_two_alerts_is_counted_once() {
    let review = of(&[
        ban(0, "198.51.100.7", &json!({})),
        ban(0, "198.51.100.7", &json!({"verdict": "already_banned"})),
    ]);
    assert_eq!(review.rules[&("hoarder".to_owned(), true)].freed, 400);
}

#[test]
fn only_the_days_that_were_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    let line = |time: &str| {
        json!({"schema": 1, "event": "decision", "time": time, "verdict": "refused", "reason": "no_rule"})
            .to_string()
    };
    let lines =
        [line("2026-11-01T00:00:00.000Z"), line("2026-11-20T00:00:00.000Z"), "{".to_owned()].join("\n");
    std::fs::write(&file, lines).unwrap();
    let review = review(&[file], "2026-11-15T00:00:00Z".parse().unwrap()).unwrap();
    assert_eq!((review.decisions, review.bad.len()), (1, 1));
    has(&text(&review), &["1 decisions since 2026-11-20T00:00:00Z", "1 no_rule"]);
    has(&text(&Review::default()), &["has nothing since"]);
}
