//! Files that are no policy but an attack, an accident or another file: answered soon, shortly and in print.

use std::path::Path;

use conntrack_actioner::policy::{Policy, PolicyErrors};
use proptest::prelude::*;

fn refused(text: &str) -> PolicyErrors {
    Policy::parse(text, Path::new("/nonexistent")).expect_err(text)
}

/// The message of a policy that has exactly one problem.
fn only(text: &str) -> String {
    let errors = refused(text);
    assert_eq!(errors.problems().len(), 1, "{errors}");
    errors.problems()[0].message.clone()
}

/// A policy with more lines.
fn with(lines: &str) -> String {
    format!("never_ban: [private]\nrules: []\n{lines}\n")
}

/// YAML's ways to make a small file large, or a reader confused.
#[test]
fn anchors_aliases_and_tags_are_not_for_policies() {
    assert!(
        refused(&with("limits: &l {active_bans: 3}"))
            .to_string()
            .contains("anchors (&name) are not accepted")
    );
    assert!(
        refused(&with("limits: !x {active_bans: 3}")).to_string().contains("tags (!name) are not accepted")
    );
    assert!(refused(&with("? [a]\n: b")).to_string().contains("a key must be a word"));
    let mut bomb = with("a0: &a0 [x, x, x, x, x, x, x, x, x, x]");
    for level in 1..20 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let errors = refused(&bomb);
    assert!(errors.to_string().contains("aliases (*name) are not accepted"), "{errors}");
}

#[test]
fn large_and_deep_files_end_early() {
    assert!(only(&format!("never_ban: {}", "[".repeat(3000))).contains("not valid YAML"));
    assert!(
        only(&format!("a: {}1{}", "{a: ".repeat(40), "}".repeat(40))).contains("nested more than 32 deep")
    );
    let many = format!("never_ban: [{}]", "192.0.2.1, ".repeat(100_000));
    assert!(only(&many).contains("more than 100000 keys and values"));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.yaml");
    std::fs::write(&path, "# x\n".repeat(2_500_000)).unwrap();
    let errors = Policy::load(&path).unwrap_err().to_string();
    assert!(errors.contains("the policy is larger than 1048576 bytes"), "{errors}");
    std::fs::write(&path, b"never_ban: []\n# caf\xe9\n").unwrap();
    let errors = Policy::load(&path).unwrap_err().to_string();
    assert!(errors.contains("is not UTF-8 text: byte 0xe9 on line 2"), "{errors}");
    let errors = Policy::load(directory.path()).unwrap_err().to_string();
    assert!(errors.contains("is not a plain file"), "{errors}");
    let errors = Policy::load(&directory.path().join("absent")).unwrap_err().to_string();
    assert!(errors.contains("cannot be read: No such file"), "{errors}");
}

#[test]
fn a_flood_of_errors_is_counted_not_listed() {
    let keys: String = (0..500).map(|n| format!("key{n}: 1\n")).collect();
    let errors = refused(&with(&keys));
    assert_eq!((errors.problems().len(), errors.unlisted()), (100, 400));
    assert!(errors.to_string().ends_with("and 400 more problems"));
}

/// Neither a terminal nor a log is steered by the file under inspection, and a long line does not fill them.
#[test]
fn messages_are_short_and_printable() {
    let long = "x".repeat(100_000);
    for text in [
        with(&format!("enforce: \"\\e[31m\\n{long}\"")),
        with(&format!("{long}: 1")),
        with(&format!("firewall: {{set: {long}, backend: {long}}}")),
        with(&format!("this_host: ['{long}', 'a=~\"({long}\"', 'a=\"{long}']")),
        format!("never_ban: [{long}, {long}/24]\n"),
    ] {
        for problem in refused(&text).problems() {
            let shown = problem.with_excerpt();
            assert!(shown.chars().count() < 1200, "{} characters", shown.chars().count());
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        }
    }
}

/// Whatever is refused is refused for a reason, at a place that the text has.
fn is_answered(text: &str) -> Result<(), TestCaseError> {
    if let Err(errors) = Policy::parse(text, Path::new("/nonexistent")) {
        prop_assert!(!errors.problems().is_empty());
        for problem in errors.problems() {
            // A parser may point behind the last line, where it missed something.
            prop_assert!(problem.line <= text.lines().count() + 1, "{problem}");
            prop_assert!(!problem.with_excerpt().is_empty());
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn gets_an_answer(text: String) {
        is_answered(&text)?;
    }

    /// A valid policy with a slip of the finger in it.
    #[test]
    fn close_to_a_policy_gets_an_answer(at: prop::sample::Index, cut in 0usize..20, put in "[-a-z0-9:,{}\\[\\]\"'#&*!|>%@` \n\t]{0,6}") {
        let design = include_str!("policies/design.yaml");
        let mut chars: Vec<char> = design.chars().collect();
        let at = at.index(chars.len());
        let end = (at + cut).min(chars.len());
        chars.splice(at..end, put.chars());
        is_answered(&chars.into_iter().collect::<String>())?;
    }
}
