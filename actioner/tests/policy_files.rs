//! Files that a policy names: read in name order, reported under their own names, part of its hash.

use std::fs;
use std::path::Path;

use conntrack_actioner::policy::Policy;
use ipnet::IpNet;
use tempfile::TempDir;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory to write to");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    directory
}

fn load(directory: &TempDir) -> Policy {
    Policy::load(&directory.path().join("policy.yaml")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The errors, with the directory's name cut off.
fn errors(directory: &TempDir) -> Vec<String> {
    let errors = Policy::load(&directory.path().join("policy.yaml")).expect_err("should be refused");
    let prefix = format!("{}/", directory.path().display());
    errors.problems().iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

fn names(policy: &Policy) -> Vec<&str> {
    policy.rules.iter().map(|rule| rule.name.as_str()).collect()
}

fn rule(name: &str) -> String {
    format!("- {{name: {name}, matchers: [alertname={name}], actions: [delete: socketless]}}\n")
}

#[test]
fn rules_come_in_name_order_behind_the_policys_own() {
    let policy = format!("never_ban: []\nrule_files: ['rules.d/*.yaml', more.yaml]\nrules:\n{}", rule("own"));
    let directory = directory(&[
        ("policy.yaml", &policy),
        ("rules.d/20-b.yaml", &rule("b")),
        ("rules.d/10-a.yaml", &format!("rules:\n{}{}", rule("a1"), rule("a2"))),
        ("rules.d/README", "not a rule"),
        ("more.yaml", &rule("more")),
    ]);
    assert_eq!(names(&load(&directory)), ["own", "a1", "a2", "b", "more"]);
}

#[test]
fn a_file_named_twice_is_read_once() {
    let directory = directory(&[
        ("policy.yaml", "never_ban: []\nrule_files: ['*.rules', a.rules]\n"),
        ("a.rules", &rule("a")),
    ]);
    assert_eq!(names(&load(&directory)), ["a"]);
}

#[test]
fn errors_name_the_file_they_are_in() {
    let directory = directory(&[
        ("policy.yaml", "never_ban: []\nenforce: yes\nrule_files: ['*.rules']\nnever_ban_files: ['*.txt']\n"),
        ("a.rules", "rules:\n- {name: a, matchers: [alertname=a], actions: [delete: al]}\nrule: 3\n"),
        ("b.rules", "{name: b}\n"),
        ("c.rules", "- [\n"),
        ("d.rules", &rule("d")),
        ("e.rules", &rule("d")),
        ("nets.txt", "# ours\n192.0.2.0/24\n  192.0.2.1/24  # wrong\nexample.org\n"),
    ]);
    let expected = [
        "policy.yaml:2:10: `enforce` must be true or false (write true)",
        "nets.txt:3:3: `192.0.2.1/24` has bits set",
        "nets.txt:4:1: `example.org` is neither",
        "a.rules:2:56: `rules[].actions[].delete` must be all or socketless, found `al`",
        "a.rules:3:1: unknown key `rule`; did you mean `rules`?",
        "b.rules:1:2: unknown key `name`; known here: rules",
        "c.rules:1:3: not valid YAML",
        "e.rules:1:10: the rule name `d` stands twice: the first is at ",
    ];
    let mut found = errors(&directory);
    found.retain(|error| !error.contains("`rules` is missing"));
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (error, part) in found.iter().zip(expected) {
        assert!(error.starts_with(part), "{part}\n{error}");
    }
}

#[test]
fn lists_of_networks_are_added() {
    let directory = directory(&[
        ("policy.yaml", "never_ban: [203.0.113.7]\nnever_ban_files: ['nets/*']\nrules: []\n"),
        ("nets/b", "private\r\n2001:db8::/32\r\n\r\n"),
        ("nets/a", "# partners\n192.0.2.0/24 # office\n\n   ::ffff:198.51.100.9\n"),
    ]);
    let never = load(&directory).never_ban;
    assert!(never.private);
    let networks: Vec<String> = never.networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["203.0.113.7/32", "192.0.2.0/24", "198.51.100.9/32", "2001:db8::/32"]);
}

/// A ban of a prefix is refused when it holds a listed address as well as when it lies within a listed network.
#[test]
fn overlap_is_found_both_ways() {
    let text = "never_ban: [private, 203.0.113.0/24, '2001:db8:1::1']\nrules: []\n";
    let never = Policy::parse(text, Path::new("")).unwrap().never_ban;
    let overlap = |net: &str| never.overlap(&net.parse::<IpNet>().unwrap()).map(|net| net.to_string());
    assert_eq!(overlap("203.0.113.9/32").as_deref(), Some("203.0.113.0/24"));
    assert_eq!(overlap("203.0.0.0/16").as_deref(), Some("203.0.113.0/24"));
    assert_eq!(overlap("2001:db8:1::/48").as_deref(), Some("2001:db8:1::1/128"));
    assert_eq!(overlap("100.64.1.1/32").as_deref(), Some("100.64.0.0/10"));
    assert_eq!(overlap("fd12::1/128").as_deref(), Some("fc00::/7"));
    assert_eq!(overlap("172.32.0.1/32"), None);
    assert_eq!(overlap("198.51.100.1/32"), None);
    assert_eq!(overlap("2001:db8:2::/48"), None);
    let bare = Policy::parse("never_ban: []\nrules: []\n", Path::new("")).unwrap().never_ban;
    assert_eq!(bare.overlap(&"10.0.0.1/32".parse().unwrap()), None);
}

#[test]
fn a_pattern_without_files_warns_and_a_named_file_must_be_there() {
    let text = "never_ban: []\nrule_files: ['rules.d/*.yaml']\nnever_ban_files: ['/etc/conntrack-guard/absent.d/*']\nrules: []\n";
    let warnings = Policy::parse(text, Path::new("/nonexistent")).unwrap().warnings;
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("policy.yaml:2:14: `rule_files[]`: no file matches `rules.d/*.yaml`"))
    );
    assert!(
        warnings.iter().any(|w| w.contains("no file matches `/etc/conntrack-guard/absent.d/*`")),
        "{warnings:?}"
    );

    let missing = "never_ban: []\nnever_ban_files: [office.txt]\nrules: []\n";
    let errors = Policy::parse(missing, Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(
        errors.contains("policy.yaml:2:19: `never_ban_files[]`: the file `office.txt` is not there"),
        "{errors}"
    );

    let pattern = "never_ban: []\nnever_ban_files: ['a/**b']\nrules: []\n";
    let errors = Policy::parse(pattern, Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(errors.contains("is not a pattern"), "{errors}");
}

#[test]
fn a_directory_with_wildcards_in_its_name_is_one_directory() {
    let outer = directory(&[
        ("[a]/policy.yaml", "never_ban: []\nrule_files: ['*.rules']\n"),
        ("[a]/x.rules", &rule("inside")),
        ("a/x.rules", &rule("elsewhere")),
    ]);
    let policy = Policy::load(&outer.path().join("[a]/policy.yaml")).unwrap();
    assert_eq!(names(&policy), ["inside"]);
}

#[test]
fn the_hash_covers_what_is_included() {
    let directory = directory(&[
        ("policy.yaml", "never_ban: []\nnever_ban_files: ['*.txt']\nrule_files: ['*.rules']\nrules: []\n"),
        ("a.txt", "192.0.2.1\n"),
        ("a.rules", &rule("a")),
    ]);
    let first = load(&directory).hash;
    assert_eq!(load(&directory).hash, first);
    fs::write(directory.path().join("a.txt"), "192.0.2.2\n").unwrap();
    let second = load(&directory).hash;
    fs::write(directory.path().join("a.rules"), rule("b")).unwrap();
    let third = load(&directory).hash;
    assert!(first != second && second != third, "{first} {second} {third}");
}

#[test]
fn an_included_file_has_its_bounds_too() {
    let directory = directory(&[
        ("policy.yaml", "never_ban: []\nrule_files: ['*.rules']\nrules: []\n"),
        ("large.rules", &"# x\n".repeat(300_000)),
        ("latin.rules", "x"),
    ]);
    fs::write(directory.path().join("latin.rules"), b"# caf\xe9").unwrap();
    let found = errors(&directory);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].contains("policy.yaml:2:14: `rule_files[]`: large.rules is larger than 1048576 bytes"),
        "{found:?}"
    );
    assert!(found[1].contains("latin.rules is not UTF-8 text: byte 0xe9 on line 1"), "{found:?}");
}
