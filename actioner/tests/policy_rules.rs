//! A rule's parts must fit each other: what could ban the wrong one, or everyone, is refused before it is in force.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use conntrack_actioner::policy::{DeleteAction, Policy, Sources};

fn read(rules: &[&str]) -> Result<Policy, Vec<String>> {
    let text = format!("never_ban: [private]\nrules:\n- {}\n", rules.join("\n- "));
    Policy::parse(&text, Path::new("/nonexistent"))
        .map_err(|errors| errors.problems().iter().map(|problem| problem.message.clone()).collect())
}

fn policy(rules: &[&str]) -> Policy {
    read(rules).unwrap_or_else(|errors| panic!("{rules:?}: {errors:#?}"))
}

/// The one error of a rule with this tail.
fn error(tail: &str) -> String {
    let errors = read(&[&rule("r", tail)]).expect_err(tail);
    assert_eq!(errors.len(), 1, "{tail}: {errors:#?}");
    errors[0].clone()
}

fn rule(name: &str, tail: &str) -> String {
    format!("{{name: {name}, matchers: ['alertname=A'], {tail}}}")
}

const BAN: &str = "actions: [ban: {for: 10m}]";

#[test]
fn a_ban_needs_evidence_of_the_source() {
    let reason = "a ban needs a threshold in `require.source`, at least one of entries, assured, socketless";
    assert!(error(BAN).contains(reason));
    assert!(error(&format!("require: {{}}, {BAN}")).contains(reason));
    assert!(error(&format!("require: {{source: {{}}}}, {BAN}")).contains(reason));
    assert!(error(&format!("require: {{table: {{fill_percent: 90}}}}, {BAN}")).contains(reason));
    for threshold in ["entries: 1", "assured: 1", "socketless: 1", "half_open: 5, assured: 1"] {
        policy(&[&rule("r", &format!("require: {{source: {{{threshold}}}}}, {BAN}"))]);
    }
}

#[test]
fn half_open_entries_alone_ban_nobody() {
    let sentence = error(&format!("require: {{source: {{half_open: 500}}}}, {BAN}"));
    assert!(sentence.contains("half-open entries alone"), "{sentence}");
    assert!(sentence.contains("may be forged"), "{sentence}");
}

/// A slip inside `require` must not be reported a second time as missing evidence.
#[test]
fn one_slip_is_one_error() {
    let sentence = error(&format!("require: {{source: {{asured: 300}}}}, {BAN}"));
    assert!(sentence.contains("did you mean `assured`?"), "{sentence}");
    let sentence = error(&format!("requires: {{source: {{assured: 300}}}}, {BAN}"));
    assert!(sentence.contains("did you mean `require`?"), "{sentence}");
}

#[test]
fn delete_all_needs_a_ban() {
    assert!(error("actions: [delete: all]").contains("stands only together with a ban"));
    let both =
        policy(&[&rule("r", "require: {source: {assured: 9}}, actions: [ban: {for: 1m}, delete: all]")]);
    assert_eq!(both.rules[0].delete, Some(DeleteAction::All));
    let one_item =
        policy(&[&rule("r", "require: {source: {assured: 9}}, actions: [{ban: {for: 1m}, delete: all}]")]);
    assert_eq!(one_item.rules, both.rules);
    let alone = policy(&[&rule("r", "actions: [delete: socketless]")]);
    assert_eq!((alone.rules[0].ban, alone.rules[0].delete), (None, Some(DeleteAction::Socketless)));
}

#[test]
fn actions_are_given_once_each() {
    let evidence = "require: {source: {assured: 9}}";
    assert!(
        error(&format!("{evidence}, actions: [ban: {{for: 1m}}, ban: {{for: 2m}}]"))
            .contains("one `ban` at most")
    );
    assert!(error("actions: [delete: socketless, delete: socketless]").contains("one `delete` at most"));
    assert!(error("actions: []").contains("needs at least one action"));
    assert!(error("actions: [{}]").contains("must hold an action, ban or delete"));
    assert!(error("enforce: false").contains("`rules[].actions` is missing"));
    assert!(error("actions: [delete: everything]").contains("must be all or socketless, found `everything`"));
    assert!(
        error("actions: [flush: all]")
            .contains("unknown key `rules[].actions[].flush`; known here: ban, delete")
    );
}

#[test]
fn everyone_is_only_nominated_for_dead_slots() {
    let evidence = "require: {source: {assured: 9}}";
    let sentence = error(&format!("sources: all, {evidence}, {BAN}"));
    assert!(sentence.contains("names everyone, the innocent too"), "{sentence}");
    let policy = policy(&[&rule("r", "sources: all, actions: [delete: socketless]")]);
    assert_eq!(policy.rules[0].sources, Sources::All);
}

#[test]
fn the_largest_are_ranked_by_something() {
    let top = |value: &str| format!("sources: {{top: {value}}}, require: {{source: {{entries: 9}}}}, {BAN}");
    assert_eq!(policy(&[&rule("r", &top("10"))]).rules[0].sources, Sources::Top(10));
    assert!(error(&top("0")).contains("from 1 to 65536, found `0`"));
    let unranked = error("sources: {top: 3}, actions: [delete: socketless]");
    assert!(unranked.contains("ranks sources by what `require.source` asks"), "{unranked}");
}

#[test]
fn sources_are_one_thing() {
    let tail = |sources: &str| format!("sources: {sources}, require: {{source: {{entries: 9}}}}, {BAN}");
    let label = |tail: &str| policy(&[&rule("r", tail)]).rules[0].sources.clone();
    assert_eq!(label(&tail("{label: attacker}")), Sources::Label("attacker".to_owned()));
    assert_eq!(
        label(&tail("{label: source}").replace("sources: {label: source}, ", "")),
        Sources::Label("source".to_owned())
    );
    assert!(error(&tail("{label: a, top: 3}")).contains("both label and top"));
    assert!(error(&tail("{}")).contains("must be {label: source}, {top: 10} or all"));
    assert!(error(&tail("everyone")).contains("must be {label: source}, {top: 10} or all, found `everyone`"));
    assert!(error(&tail("{labels: source}")).contains("did you mean `label`?"));
}

#[test]
fn bans_last_and_reach_as_far_as_allowed() {
    let ban = |ban: &str| format!("require: {{source: {{entries: 9}}}}, actions: [ban: {{{ban}}}]");
    let defaults = policy(&[&rule("r", &ban("for: 10m"))]).rules[0].ban.unwrap();
    assert_eq!((defaults.for_, defaults.factor), (Duration::from_secs(600), 1));
    assert_eq!(defaults.max, Duration::from_secs(86_400));
    assert_eq!((defaults.ipv4_prefix, defaults.ipv6_prefix), (32, 128));
    let long = policy(&[&rule("r", &ban("for: 48h"))]).rules[0].ban.unwrap();
    assert_eq!(long.max, long.for_);
    assert_eq!(policy(&[&rule("r", &ban("for: 1s, ipv6_prefix: 64"))]).rules[0].ban.unwrap().ipv6_prefix, 64);

    assert!(error(&ban("factor: 2")).contains("`rules[].actions[].ban.for` is missing"));
    assert!(error(&ban("for: 10m, max: 9m")).contains("at least as long as `for`, 10m"));
    assert!(error(&ban("for: 0s")).contains("at least 1s"));
    assert!(error(&ban("for: 10m, max: 25d")).contains("the longest timeout ipset can hold"));
    assert!(error(&ban("for: 10m, factor: 0")).contains("from 1 to 1000"));
    assert!(error(&ban("for: 10m, factor: 1.5")).contains("whole number"));
    assert!(
        error(&ban("for: 10m, ipv4_prefix: 24"))
            .contains("`limits.widest_prefix.ipv4` allows no wider than /32")
    );
    assert!(
        error(&ban("for: 10m, ipv6_prefix: 48"))
            .contains("`limits.widest_prefix.ipv6` allows no wider than /64")
    );
    assert!(error(&ban("for: 10m, ipv4_prefix: 33")).contains("from 1 to 32"));
}

#[test]
fn the_widest_prefix_is_known_wherever_it_stands() {
    let text = "never_ban: []\nrules:\n- name: r\n  matchers: [a=b]\n  require: {source: {entries: 9}}\n  \
                actions: [ban: {for: 1m, ipv4_prefix: 24}]\nlimits: {widest_prefix: {ipv4: 24}}\n";
    assert_eq!(Policy::parse(text, Path::new("")).unwrap().rules[0].ban.unwrap().ipv4_prefix, 24);
}

#[test]
fn names_are_unique_and_fit_a_metric() {
    let tail = "actions: [delete: socketless]";
    for name in ["r", "hoarder-2", "A.b_c", "7"] {
        assert_eq!(policy(&[&rule(name, tail)]).rules[0].name, name);
    }
    for name in ["''", "'a b'", "'a\"b'", "-a", "é", "[a]", "~"] {
        let errors = read(&[&rule(name, tail)]).unwrap_err();
        assert!(errors[0].contains("at most 64 letters, digits"), "{name}: {errors:?}");
    }
    let errors = read(&[&rule("r", tail), &rule("q", tail), &rule("r", tail)]).unwrap_err();
    assert_eq!(errors, ["the rule name `r` stands twice: the first is at policy.yaml:3"]);
    let unnamed = read(&["{matchers: [a=b], actions: [delete: socketless]}"]).unwrap_err();
    assert!(unnamed[0].contains("`rules[].name` is missing"), "{unnamed:?}");
}

fn of(policy: &Policy, pairs: &[(&str, &str)]) -> Option<String> {
    let labels: BTreeMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    policy.rule_for(&labels).map(|rule| rule.name.clone())
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = policy(&[
        "{name: page, matchers: [alertname=A, severity=page], actions: [delete: socketless]}",
        "{name: rest, matchers: ['{alertname=\"A\", severity!=\"none\"}'], actions: [delete: socketless]}",
    ]);
    assert_eq!(of(&policy, &[("alertname", "A"), ("severity", "page")]).as_deref(), Some("page"));
    assert_eq!(of(&policy, &[("alertname", "A"), ("severity", "info")]).as_deref(), Some("rest"));
    assert_eq!(of(&policy, &[("alertname", "A")]).as_deref(), Some("rest"));
    assert_eq!(of(&policy, &[("alertname", "A"), ("severity", "none")]), None);
    assert_eq!(of(&policy, &[]), None);
}

#[test]
fn a_rule_that_never_decides_is_pointed_out() {
    let unreachable = |first: &str, second: &str| {
        let rule =
            |name: &str, m: &str| format!("{{name: {name}, matchers: [{m}], actions: [delete: socketless]}}");
        let warnings = policy(&[&rule("one", first), &rule("two", second)]).warnings;
        warnings
            .iter()
            .any(|warning| warning.contains("the rule `two` never decides: `one` stands before it"))
    };
    assert!(unreachable("a=b, c=d", "a=b, c=d"));
    assert!(unreachable("a=b, c=d", "c=d, a=b"));
    assert!(unreachable("a=b", "a=b, c=d"));
    assert!(unreachable("'{a=b,c=d}'", "c=d, 'a=\"b\"', e=f"));
    assert!(!unreachable("a=b, c=d", "a=b"));
    assert!(!unreachable("a=b", "a=~b"));
    assert!(!unreachable("a=b", "a!=b"));
}

#[test]
fn a_rules_own_enforce_goes_first() {
    let tail = "actions: [delete: socketless]";
    let rules = format!(
        "- {}\n- {}\n- {}\n",
        rule("a", tail),
        rule("b", &format!("enforce: true, {tail}")),
        rule("c", &format!("enforce: false, {tail}"))
    );
    for (enforce, expected) in [(false, [false, true, false]), (true, [true, true, false])] {
        let policy =
            Policy::parse(&format!("enforce: {enforce}\nnever_ban: []\nrules:\n{rules}"), Path::new(""))
                .unwrap();
        let enforced: Vec<bool> = policy.rules.iter().map(|rule| policy.enforces(rule)).collect();
        assert_eq!(enforced, expected);
    }
}

#[test]
fn no_rules_is_a_warning() {
    for text in ["never_ban: []\n", "never_ban: []\nrules: []\n"] {
        let warnings = Policy::parse(text, Path::new("")).unwrap().warnings;
        assert_eq!(warnings, ["policy.yaml:1:1: there are no rules: every alert is refused"]);
    }
}
