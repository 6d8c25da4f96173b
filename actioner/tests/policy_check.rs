//! `check-policy`: what it prints is what an administrator acts on.

use std::fs;
use std::path::{Path, PathBuf};

use conntrack_actioner::check_policy::{Outcome, check};

fn checked(path: &Path) -> (Outcome, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = check(path, &mut out, &mut err).expect("a vector takes every byte");
    let text = |bytes| String::from_utf8(bytes).expect("the answer is text");
    (outcome, text(out), text(err))
}

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_packaged_policy_is_valid_without_a_warning_and_changes_nothing() {
    let (outcome, out, err) = checked(&repository("../packaging/policy.yaml"));
    assert_eq!(outcome, Outcome::Valid, "{err}");
    assert_eq!(err, "");
    assert!(out.contains("mode       dry run"), "{out}");
    assert!(!out.contains("[enforce]"), "{out}");
    assert!(out.contains("never ban  private networks"), "{out}");
    let rule = "rule       hoarder: on alertname=\"ConntrackSourceHoardsEntries\", severity=~\"info|warning|critical\", the source in \
                label source; if source socketless ≥ 300 and table ≥ 50 % full; then ban /32 or /128 for 10m (×4 each time, to 1day) and delete \
                all its entries [dry run]";
    assert!(out.contains(rule), "{out}");
}

#[test]
fn the_designs_example_is_valid_without_a_warning() {
    let (outcome, out, err) = checked(&repository("tests/policies/design.yaml"));
    assert_eq!(outcome, Outcome::Valid, "{err}");
    assert!(out.contains("valid (2 rules, hash "), "{out}");
    assert!(out.contains(
        "dead-slots: on alertname=\"ConntrackSocketlessEntries\", all sources; then delete socketless"
    ));
    assert!(out.contains("reachable  ports 10048, 10049 for "), "{out}");
    assert_eq!(err, "");
}

#[test]
fn an_error_shows_its_line_and_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.yaml");
    fs::write(&path, "never_ban: [private]\nlimits:\n\n  active_bans: many # é\nenforc: true\n").unwrap();
    let (outcome, out, err) = checked(&path);
    assert_eq!((outcome, out.as_str()), (Outcome::Invalid, ""));
    let file = path.display();
    let expected = format!(
        "{file}:4:16: `limits.active_bans` must be a whole number from 1 to 65536, found `many`\n \
         4 |   active_bans: many # é\n   |                ^^^^\n\
         {file}:5:1: unknown key `enforc`; did you mean `enforce`?\n \
         5 | enforc: true\n   | ^^^^^^\n\
         \nnot valid: 2 errors\n"
    );
    assert_eq!(err, expected);
}

#[test]
fn a_file_that_is_not_there_is_an_error_of_one_line() {
    let (outcome, out, err) = checked(Path::new("/nonexistent/policy.yaml"));
    assert_eq!((outcome, out.as_str()), (Outcome::Invalid, ""));
    assert!(err.starts_with("/nonexistent/policy.yaml: the policy cannot be read: No such file"), "{err}");
}

/// The carets stand below the words they mean, beyond the edge of a long line as well.
#[test]
fn a_long_line_is_shown_around_the_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.yaml");
    let entries: Vec<String> =
        (0..60).map(|n| if n == 50 { "nonsense".to_owned() } else { format!("192.0.2.{n}") }).collect();
    fs::write(&path, format!("never_ban: [{}]\n", entries.join(", "))).unwrap();
    let (_, _, err) = checked(&path);
    let lines: Vec<&str> = err.lines().collect();
    let at = lines[2].chars().position(|c| c == '^').unwrap();
    let marked: String = lines[1].chars().skip(at).take(lines[2].matches('^').count()).collect();
    assert_eq!(marked, "nonsense", "{err}");
    assert!(lines[1].chars().count() < 140, "{err}");
}
