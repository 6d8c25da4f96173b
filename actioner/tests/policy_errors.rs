//! Everything that is wrong with a policy is said at once, where it stands, with the words that are wrong.

use std::path::{Path, PathBuf};

use conntrack_actioner::policy::{Policy, PolicyErrors};

fn refused(text: &str) -> PolicyErrors {
    Policy::parse(text, Path::new("/nonexistent")).expect_err(text)
}

/// The one problem of a policy that has exactly one, as `line:column: message`.
fn only(text: &str) -> String {
    let errors = refused(text);
    assert_eq!(errors.problems().len(), 1, "{text}\n{errors}");
    let problem = &errors.problems()[0];
    assert_eq!(problem.file, "policy.yaml");
    format!("{}:{}: {}", problem.line, problem.column, problem.message)
}

/// A policy with one more line.
fn with(line: &str) -> String {
    format!("never_ban: [private]\nrules: []\n{line}\n")
}

fn warnings(text: &str) -> Vec<String> {
    Policy::parse(text, Path::new("/nonexistent"))
        .unwrap_or_else(|errors| panic!("{text}\n{errors}"))
        .warnings
}

#[test]
fn one_check_reports_all() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/policies/everything-wrong.yaml");
    let errors = Policy::load(&path).unwrap_err();
    let expected = [
        (1, 10, "`enforce` must be true or false (write true), found `yes`"),
        (2, 1, "unknown key `enforc`; did you mean `enforce`?"),
        (3, 1, "unknown key `never_bann`; did you mean `never_ban`?"),
        (5, 20, "`limits.bans_per_minute` must be a whole number from 1 to 65536, found `0`"),
        (6, 16, "found `many`"),
        (7, 3, "the key `active_bans` stands twice: the first is on line 6"),
        (8, 35, "`limits.widest_prefix.ipv6` must be a whole number from 16 to 128, found `300`"),
        (9, 21, "nftables is not in this version; use ipset"),
        (9, 36, "`firewall.set` must be a name of at most 29 letters"),
        (10, 13, "`privat` is neither an address nor a network"),
        (10, 21, "the network is `192.0.2.0/24`, the single address `192.0.2.10`"),
        (10, 36, "`010.0.0.1` has a leading zero"),
        (12, 13, "`watch.interval` lacks a unit: is `30` 30s, 30m or 30h?"),
        (13, 11, "`watch.alerts` is empty"),
        (14, 19, "found `30 parsecs`"),
        (17, 14, "after the label `alertname` stands more than one operator"),
        (17, 30, "the regular expression `(` is wrong: unclosed group"),
        (17, 40, "after the label `7` one of = != =~ !~ is missing"),
        (18, 12, "holds both label and top: choose one"),
        (19, 38, "unknown key `rules[].require.tabel`; did you mean `table`?"),
        (21, 26, "must be at least as long as `for`, 10m, found `5m`"),
        (21, 43, "a ban of a /8 is too wide: `limits.widest_prefix.ipv4` allows no wider than /24"),
        (26, 25, "must be at most 2147482s"),
        (27, 9, "the rule name `halfopen` stands twice"),
        (29, 12, "`sources: all` is only for `delete: socketless`"),
        (30, 12, "would ban for half-open entries alone"),
        (34, 21, "`delete: all` stands only together with a ban"),
        (35, 10, "found `bad name`"),
        (35, 32, "`rules[].matchers` is empty"),
        (35, 48, "anchors (&name) are not accepted"),
        (35, 48, "`rules[].actions` is empty"),
        (36, 3, "aliases (*name) are not accepted"),
        (37, 3, "`rules[]` must be a mapping of keys to values, found `just text`"),
        (38, 14, "the file `nonexistent.yaml` is not there"),
    ];
    assert_eq!(errors.problems().len(), expected.len(), "{errors}");
    for (problem, (line, column, part)) in errors.problems().iter().zip(expected) {
        assert_eq!((problem.line, problem.column), (line, column), "{problem}");
        assert!(problem.message.contains(part), "{part}: {problem}");
        assert!(
            problem.to_string().starts_with(&format!("{}:{line}:{column}: ", path.display())),
            "{problem}"
        );
    }
}

#[test]
fn who_must_not_be_banned_must_be_said() {
    let sentence = only("rules: []\n");
    assert!(sentence.starts_with("1:1: `never_ban` is missing: say who must never be banned"), "{sentence}");
    let policy = Policy::parse("never_ban: []\n", Path::new("")).unwrap();
    assert!(!policy.never_ban.private && policy.never_ban.networks.is_empty());
}

#[test]
fn a_file_that_is_no_policy_says_so() {
    for text in ["", "\n\n", "# a comment\n", "---\n"] {
        let errors = refused(text).to_string();
        assert!(errors.contains("empty") || errors.contains("found nothing"), "{text:?}: {errors}");
    }
    assert_eq!(only("[never_ban]"), "1:1: the file must be a mapping of keys to values, found a list");
    assert_eq!(only("never_ban"), "1:1: the file must be a mapping of keys to values, found `never_ban`");
    assert!(only("never_ban: [private").starts_with("1:12: not valid YAML: "));
    assert!(only("never_ban: []\n---\nrules: []\n").starts_with("2:1: a second document"));
}

#[test]
fn switches_are_true_or_false() {
    for (word, advice) in [
        ("yes", "(write true), found `yes`"),
        ("On", "(write true), found `On`"),
        ("True", "(write true), found `True`"),
        ("no", "(write false), found `no`"),
        ("0", "(write false), found `0`"),
        ("maybe", "without quotes, found `maybe`"),
        ("'true'", "without quotes, found the quoted text \"true\""),
        ("", "found nothing"),
        ("[true]", "found a list"),
    ] {
        let sentence = only(&with(&format!("enforce: {word}")));
        assert!(sentence.contains(advice), "{word}: {sentence}");
    }
}

#[test]
fn numbers_are_whole_and_above_nothing() {
    for value in ["0", "-1", "1.5", "1e3", "0x10", "1_000", "'10'", "ten", "99999999999999999999", "[1]", "~"]
    {
        let sentence = only(&with(&format!("limits: {{bans_per_hour: {value}}}")));
        assert!(
            sentence.contains("`limits.bans_per_hour` must be a whole number from 1 to 65536"),
            "{sentence}"
        );
    }
    for value in ["0", "-5", "101", "50%", "nan", "'50'"] {
        let watch = format!("watch: {{alerts: [{{alert: A, table: {{fill_percent: {value}}}}}]}}");
        assert!(only(&with(&watch)).contains("above 0 and at most 100"), "{value}");
    }
}

#[test]
fn durations_carry_their_unit() {
    for (value, part) in [
        ("30", "is `30` 30s, 30m or 30h?"),
        ("0s", "at least 1s"),
        ("999ms", "at least 1s"),
        ("-5s", "a length of time with its unit"),
        ("soon", "a length of time with its unit"),
        ("1y", "at most 2147482s"),
        ("2147483s", "at most 2147482s"),
    ] {
        let sentence = only(&with(&format!("socketless_grace: {value}")));
        assert!(sentence.contains(part), "{value}: {sentence}");
    }
    for value in ["30s", "1m 30s", "1m30s", "2147482s", "'10m'", "1day"] {
        Policy::parse(&with(&format!("socketless_grace: {value}")), Path::new(".")).unwrap();
    }
}

#[test]
fn unknown_keys_are_found_at_every_level() {
    for (line, part) in [
        ("Enforce: true", "did you mean `enforce`?"),
        ("never-ban-files: []", "did you mean `never_ban_files`?"),
        ("webhook: {}", "known here: enforce, this_host, never_ban"),
        ("<<: {enforce: true}", "unknown key `<<`"),
        ("limits: {bans_per_min: 3}", "unknown key `limits.bans_per_min`; known here: bans_per_minute"),
        (
            "limits: {widest_prefix: {ipv5: 3}}",
            "unknown key `limits.widest_prefix.ipv5`; did you mean `ipv4`?",
        ),
        ("firewall: {table: raw}", "known here: backend, set, manage_rule"),
        ("watch: {evry: 3s, alerts: [{alert: A, host: {entries: 1}}]}", "did you mean `every`?"),
        ("watch: {alerts: [{alert: A, host: {assurd: 1, entries: 1}}]}", "did you mean `assured`?"),
    ] {
        let sentence = only(&with(line));
        assert!(sentence.contains(part), "{line}: {sentence}");
    }
}

#[test]
fn a_doubled_key_is_an_error_wherever_it_stands() {
    assert_eq!(only(&with("rules: []")), "3:1: the key `rules` stands twice: the first is on line 2");
    let deep = with("watch:\n  alerts:\n  - {alert: A, host: {entries: 1}, 'alert': B}");
    assert_eq!(only(&deep), "5:36: the key `alert` stands twice: the first is on line 5");
}

#[test]
fn firewalls() {
    for set in ["a", "conntrack-guard", "x_1.y", "a2345678901234567890123456789"] {
        assert_eq!(
            Policy::parse(&with(&format!("firewall: {{set: {set}}}")), Path::new("")).unwrap().firewall.set,
            set
        );
    }
    for set in ["''", "-x", "a b", "a;b", "'a\"'", "é", "a23456789012345678901234567890", "[a]", "~"] {
        let sentence = only(&with(&format!("firewall: {{set: {set}}}")));
        assert!(sentence.contains("at most 29 letters, digits"), "{set}: {sentence}");
    }
    assert!(
        only(&with("firewall: {backend: iptables}")).contains("must be ipset or libipset, found `iptables`")
    );
    let libipset = Policy::parse(&with("firewall: {backend: libipset}"), Path::new(""));
    if cfg!(feature = "libipset") {
        assert_eq!(libipset.unwrap().firewall.backend.as_str(), "libipset");
    } else {
        assert!(libipset.unwrap_err().to_string().contains("built without libipset; use ipset"));
    }
}

#[test]
fn this_host_is_auto_or_matchers() {
    assert!(only(&with("this_host: web1")).contains("must be auto, found `web1`"));
    assert!(only(&with("this_host: []")).contains("is empty"));
    assert!(only(&with("this_host: ['{}']")).contains("holds no matcher"));
    assert!(only(&with("this_host: ['instance']")).contains("is missing; write instance=\"value\""));
    warnings(&with("this_host: ['instance=~\"web1(:.*)?\"', \"job=x\"]"));
}

#[test]
fn the_watch_looks_for_something_some_rule_hears() {
    let watch = |alert: &str| {
        format!(
            "never_ban: []\nrules:\n- {{name: r, matchers: [alertname=A, severity=info], require: {{source: {{socketless: 9}}}}, \
             actions: [ban: {{for: 1m}}]}}\nwatch: {{alerts: [{alert}]}}\n"
        )
    };
    assert!(only(&watch("{alert: A}")).contains("has no threshold, so it would always fire"));
    assert!(only(&watch("{host: {entries: 3}}")).contains("`watch.alerts[].alert` is missing"));
    for label in ["alertname", "source", "instance", "table_id"] {
        let alert = format!("{{alert: A, host: {{entries: 3}}, labels: {{{label}: x}}}}");
        assert!(only(&watch(&alert)).contains("is written by the watch itself"), "{label}");
    }
    let unheard = warnings(&watch("{alert: B, host: {entries: 3}, labels: {severity: info}}"));
    assert!(unheard[0].contains("no rule matches the watch's alert `B`"), "{unheard:?}");
    assert_eq!(warnings(&watch("{alert: A, host: {entries: 3}}")).len(), 1);
    assert!(warnings(&watch("{alert: A, source: {entries: 3}, labels: {severity: info}}")).is_empty());
    let slow = with("watch: {interval: 1m, alerts: [{alert: A, host: {entries: 3}}]}");
    assert!(only(&slow).contains("`watch.every` must be at least `watch.interval`, 1m"));
}

#[test]
fn what_must_stay_reachable() {
    assert!(only(&with("keep_reachable: {ports: [], from: [private]}")).contains("needs at least one port"));
    assert!(only(&with("keep_reachable: {ports: [0], from: [private]}")).contains("from 1 to 65535"));
    assert!(only(&with("keep_reachable: {ports: [80], from: [0.0.0.0/0]}")).contains("is everybody"));
    let long =
        "keep_reachable: {ports: [80], from: [private]}\nfirewall: {set: a-name-of-more-than-24-bytes}";
    assert!(only(&with(long)).contains("longer than 24 characters"));
    assert!(only(&with("keep_reachable: {ports: [80]}")).contains("`keep_reachable.from` is missing"));
    assert!(
        only(&with("keep_reachable: {ports: [80], from: [localhost]}")).contains("names are never looked up")
    );
}
