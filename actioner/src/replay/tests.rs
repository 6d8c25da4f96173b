use super::*;
use crate::audit::Recorded;
use serde_json::json;
use std::path::Path;

const RULE: &str = "
- name: hoarder
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {assured: 300}}
  actions: [{ban: {for: 10m, factor: 4, max: 24h}}]
";

fn policy(rule: &str) -> Policy {
    with("never_ban: []\n", rule)
}

fn with(head: &str, rule: &str) -> Policy {
    let text = format!("enforce: true\n{head}rules:{rule}");
    Policy::parse(&text, Path::new(".")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// 500 assured entries of 198.51.100.7, refused for being too few, on a table half full; `more` goes over it.
fn line(minute: u32, more: &serde_json::Value) -> Recorded {
    let mut line = json!({"schema": 1, "event": "decision", "time": format!("2026-11-22T21:{minute:02}:00.000Z"),
        "table_id": "feed", "policy": "old", "rule": "hoarder", "enforce": true,
        "labels": {"alertname": "Hoarder", "source": "198.51.100.7", "table_id": "feed"},
        "source": "198.51.100.7", "net": "198.51.100.7/32",
        "evidence": {"entries": 500, "assured": 500, "half_open": 0, "socketless": null},
        "table": {"entries": 500, "limit": 1000}, "spared": null, "flood": null,
        "verdict": "refused", "reason": "require_not_met", "why": "too few"});
    line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(line).unwrap()
}

fn many(policy: &Policy, lines: impl IntoIterator<Item = Recorded>) -> Vec<Then> {
    let mut fold = Fold::new(policy);
    let mut all = Vec::new();
    for line in lines {
        match line.is_decision() {
            true => all.push(fold.compare(line).new),
            false => fold.happened(&line),
        }
    }
    all
}

fn one(policy: &Policy, line: Recorded) -> Then {
    many(policy, [line]).remove(0)
}

fn word(then: &Then) -> String {
    match then {
        Then::Unknown(why) => format!("unknown: {why}"),
        Then::Decided(verdict) => verdict.reason.clone().unwrap_or_else(|| verdict.word.clone()),
    }
}

#[test]
fn a_lower_threshold_bans_what_was_refused_and_a_higher_refuses_what_was_banned() {
    assert_eq!(word(&one(&policy(RULE), line(0, &json!({})))), "ban");
    let higher = policy(&RULE.replace("300", "501"));
    let banned = line(0, &json!({"verdict": "ban", "reason": null}));
    assert_eq!(word(&one(&higher, banned)), "require_not_met");
}

#[test]
fn the_state_is_that_of_the_new_policy() {
    let minutes = [0, 5, 11, 12].map(|minute| line(minute, &json!({})));
    let words = many(&policy(RULE), minutes);
    assert_eq!(
        words.iter().map(word).collect::<Vec<_>>(),
        ["ban", "already_banned", "ban", "already_banned"]
    );
    let Then::Decided(second) = &words[2] else { panic!() };
    assert_eq!(second.lasts, Some(2400), "the second offence");
    let tight = with("never_ban: []\nlimits: {bans_per_minute: 1, bans_per_hour: 1}\n", RULE);
    let other = json!({"source": "198.51.100.8", "net": "198.51.100.8/32",
        "labels": {"alertname": "Hoarder", "source": "198.51.100.8", "table_id": "feed"}});
    let words = many(&tight, [line(0, &json!({})), line(0, &other)]);
    assert_eq!(words.iter().map(word).collect::<Vec<_>>(), ["ban", "budget_exhausted"]);
}

#[test]
fn facts_of_the_host_are_kept_and_the_policys_list_is_the_new_one() {
    let spared = line(0, &json!({"spared": {"reason": "gateway", "why": "it is a gateway"}}));
    let then = one(&policy(RULE), spared.clone());
    let Then::Decided(verdict) = &then else { panic!("{then:?}") };
    assert_eq!(
        (verdict.reason.as_deref(), verdict.why.as_deref()),
        (Some("gateway"), Some("it is a gateway"))
    );
    let higher = policy(&RULE.replace("300", "501"));
    assert_eq!(word(&one(&higher, spared)), "require_not_met", "which comes first");
    let own = line(0, &json!({"spared": {"reason": "own_address", "why": "ours"}}));
    assert_eq!(word(&one(&higher, own)), "own_address", "which is known before any evidence");
    let listed = with("never_ban: [198.51.100.0/24]\n", RULE);
    assert_eq!(word(&one(&listed, line(0, &json!({})))), "never_ban");
    let was_listed = line(0, &json!({"reason": "never_ban"}));
    assert_eq!(word(&one(&policy(RULE), was_listed)), "ban");
}

#[test]
fn forged_sources_are_forged_for_any_policy() {
    let flood = json!({"flood": {"sources": 5000, "unreplied": 9000, "entries": 10000, "liberal": false}});
    assert_eq!(word(&one(&policy(RULE), line(0, &flood))), "spoofed_flood");
}

#[test]
fn another_hosts_alert_stays_another_hosts() {
    let labels = json!({"labels": {"alertname": "Hoarder", "source": "198.51.100.7", "table_id": "beef"}});
    assert_eq!(word(&one(&policy(RULE), line(0, &labels))), "other_host");
    let labels = json!({"labels": {"alertname": "Other", "table_id": "feed"}});
    assert_eq!(word(&one(&policy(RULE), line(0, &labels))), "no_rule");
    let labels = json!({"labels": {"alertname": "Hoarder", "source": "web1", "table_id": "feed"}});
    assert_eq!(word(&one(&policy(RULE), line(0, &labels))), "not_a_source");
}

#[test]
fn what_the_log_cannot_tell_is_said() {
    let unknown = |policy: &Policy, more, words: &str| {
        let said = word(&one(policy, line(0, &more)));
        assert!(said.starts_with("unknown: ") & said.contains(words), "{said:?} without {words:?}");
    };
    let rule = policy(RULE);
    let wide = "limits: {widest_prefix: {ipv4: 24, ipv6: 64}}\nnever_ban: []\n";
    let wide = with(wide, &RULE.replace("max: 24h", "max: 24h, ipv4_prefix: 24"));
    unknown(&wide, json!({}), "198.51.100.0/24");
    unknown(&rule, json!({"net": null}), "older line");
    unknown(
        &rule,
        json!({"source": null, "net": null, "evidence": null, "rule": null, "reason": "no_rule"}),
        "no rule had named",
    );
    unknown(&rule, json!({"table": null}), "table was not read");
    let socketless = policy(&RULE.replace("assured: 300", "socketless: 300"));
    unknown(&socketless, json!({}), "not counted then");
    unknown(&policy(&RULE.replace("{label: source}", "{top: 5}")), json!({}), "largest sources");
    unknown(
        &rule,
        json!({"labels": {"alertname": "Hoarder", "source": "198.51.100.7", "instance": "web1"}}),
        "table_id",
    );
    unknown(&rule, json!({"reason": "breaker_open"}), "breaker");
    unknown(&rule, json!({"time": "yesterday"}), "yesterday");
    // A line of a version that did not write `spared`.
    let mut old = serde_json::to_value(json!({"schema": 1, "time": "2026-11-22T21:00:00Z", "table_id": "feed", "rule": "hoarder",
        "labels": {"alertname": "Hoarder", "source": "198.51.100.7", "table_id": "feed"}, "source": "198.51.100.7",
        "net": "198.51.100.7/32", "evidence": {"entries": 500, "assured": 500, "half_open": 0, "socketless": null},
        "table": {"entries": 500, "limit": 1000}, "verdict": "refused", "reason": "require_not_met"})).unwrap();
    let said = word(&one(&rule, serde_json::from_value(old.clone()).unwrap()));
    assert!(said.contains("spares 198.51.100.7/32"), "{said}");
    old["verdict"] = "ban".into();
    assert_eq!(
        word(&one(&rule, serde_json::from_value(old).unwrap())),
        "ban",
        "which could not have been, had anything spared it"
    );
}

#[test]
fn a_ban_older_than_the_log_is_taken_for_granted() {
    let standing = json!({"verdict": "already_banned", "reason": null,
        "result": {"net": "198.51.100.7/32", "ban": "in_force", "expires": "2026-11-22T21:07:00.000Z"}});
    let words = many(&policy(RULE), [line(0, &standing), line(6, &json!({})), line(8, &json!({}))]);
    assert_eq!(words.iter().map(word).collect::<Vec<_>>(), ["already_banned", "already_banned", "ban"]);
}

#[test]
fn the_same_policy_changes_nothing() {
    let rule = policy(RULE);
    let hash = json!({"policy": rule.hash, "verdict": "ban", "reason": null,
        "result": {"net": "198.51.100.7/32", "ban": "in_force", "expires": "2026-11-22T21:10:01.000Z"}});
    let compared = Fold::new(&rule).compare(line(0, &hash));
    assert_eq!(compared.differs(), Some(false), "{compared:?}");
}

#[test]
fn bad_lines_are_counted_with_their_numbers_and_a_file_without_decisions_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    let good = json!({"schema": 1, "time": "2026-11-22T21:00:00.000Z", "table_id": "feed", "verdict": "refused",
        "labels": {"alertname": "A", "table_id": "feed"}, "reason": "no_rule"});
    std::fs::write(&file, format!("{good}\n{{\"schema\": 1, \"tim\n\n{good}\n[]\n")).unwrap();
    let replayed = replay(&policy(RULE), std::slice::from_ref(&file)).unwrap();
    assert_eq!(replayed.decisions.len(), 2);
    assert_eq!(replayed.bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 5]);
    let text = text(&replayed, Shown::Differences);
    assert!(text.contains("2 decisions: 2 the same, 0 different, 0 not known"), "{text}");
    std::fs::write(&file, "not a log\n").unwrap();
    let error = replay(&policy(RULE), &[file]).unwrap_err();
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn the_difference_is_shown_and_summed_up() {
    let mut fold = Fold::new(Box::leak(Box::new(policy(RULE))));
    let lines = [line(0, &json!({})), line(1, &json!({"table": null})), line(1, &json!({"table": null}))];
    let decisions = lines.into_iter().map(|line| fold.compare(line)).collect();
    let replayed = Replayed { decisions, ..Replayed::default() };
    let text = text(&replayed, Shown::Differences);
    for words in [
        "refused: require_not_met by hoarder  →  ban 10m by hoarder",
        "3 decisions: 0 the same, 1 different, 2 not known",
        "1  refused: require_not_met → ban",
        "2  not known: the table was not read",
        "sources banned now and not then: 1: 198.51.100.7",
        "×2",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    assert_eq!(json(&replayed)["summary"]["banned_only_now"], json!(["198.51.100.7"]));
}

#[test]
fn what_others_wrote_does_not_reach_for_the_terminal() {
    let mut fold = Fold::new(Box::leak(Box::new(policy(RULE))));
    let evil = "\u{1b}[2J\u{202e}";
    let lines =
        [line(0, &json!({"reason": evil, "why": evil})), line(1, &json!({"time": evil, "verdict": evil}))];
    let decisions = lines.into_iter().map(|line| fold.compare(line)).collect();
    let text = text(&Replayed { decisions, ..Replayed::default() }, Shown::Everything);
    assert!(text.contains("refused: \u{fffd}[2J\u{fffd}"), "{text:?}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
}

fn event(minute: u32, more: &serde_json::Value) -> Recorded {
    let mut line =
        json!({"schema": 1, "time": format!("2026-11-22T21:{minute:02}:00.000Z"), "actor": "root"});
    line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(line).unwrap()
}

#[test]
fn what_people_ordered_they_would_have_ordered() {
    let unban = |actor| event(1, &json!({"event": "unban", "net": "198.51.100.7/32", "actor": actor}));
    let pause = event(1, &json!({"event": "pause", "detail": {"until": "2026-11-22T21:05:00.000Z"}}));
    let ban = event(
        1,
        &json!({"event": "ban", "net": "198.51.100.7/32", "detail": {"until": "2026-11-22T22:00:00.000Z"}}),
    );
    let after = |event: Recorded| -> Vec<String> {
        let lines = [
            line(0, &json!({"verdict": "refused", "labels": {}})),
            event,
            line(2, &json!({})),
            line(6, &json!({})),
        ];
        many(&policy(RULE), lines)[1..].iter().map(word).collect()
    };
    assert_eq!(after(unban("root")), ["unbanned_by_hand", "unbanned_by_hand"]);
    assert_eq!(after(unban("policy")), ["ban", "already_banned"], "that was the old policy's");
    assert_eq!(after(pause), ["paused", "ban"]);
    assert_eq!(after(ban), ["already_banned", "already_banned"]);
    assert_eq!(after(event(1, &json!({"event": "panic"}))), ["panicked", "panicked"]);
}
