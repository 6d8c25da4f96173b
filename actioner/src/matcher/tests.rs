use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Matcher, MatcherError};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn one(text: &str) -> Matcher {
    let mut matchers = Matcher::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(matchers.len(), 1, "{text}");
    matchers.remove(0)
}

fn holds(text: &str, pairs: &[(&str, &str)]) -> bool {
    one(text).matches(&labels(pairs))
}

#[test]
fn the_four_operators() {
    let info = [("severity", "info")];
    for (text, expected) in [
        ("severity=\"info\"", true),
        ("severity=\"inf\"", false),
        ("severity!=\"info\"", false),
        ("severity!=\"page\"", true),
        ("severity=~\"info|warning\"", true),
        ("severity=~\"i.*\"", true),
        ("severity!~\"info|warning\"", false),
        ("severity!~\"page\"", true),
    ] {
        assert_eq!(holds(text, &info), expected, "{text}");
    }
}

#[test]
fn a_regular_expression_matches_the_whole_value() {
    assert!(!holds("a=~\"b\"", &[("a", "abc")]));
    assert!(!holds("a=~\"b|c\"", &[("a", "bc")]));
    assert!(!holds("a=~\"b\"", &[("a", "b\n")]));
    assert!(holds("a=~\"(?i)B\"", &[("a", "b")]));
}

#[test]
fn a_missing_label_is_the_empty_text() {
    assert!(holds("a=\"\"", &[]));
    assert!(holds("a!=\"b\"", &[]));
    assert!(holds("a=~\".*\"", &[]));
    assert!(!holds("a=~\".+\"", &[]));
    assert!(!holds("a=\"b\"", &[]));
}

#[test]
fn alertmanagers_ways_of_writing() {
    for (text, canonical) in [
        ("foo=bar", "foo=\"bar\""),
        ("foo = bar", "foo=\"bar\""),
        ("  foo =~ \"b.*\"  ", "foo=~\"b.*\""),
        ("{foo=\"bar\"}", "foo=\"bar\""),
        ("{ foo=\"bar\" , }", "foo=\"bar\""),
        ("foo=bar baz", "foo=\"bar baz\""),
        ("foo=", "foo=\"\""),
        ("foo=\"a,b}\"", "foo=\"a,b}\""),
        ("foo=~a{2}", "foo=~\"a{2}\""),
        ("foo=~\"a\\.b\"", "foo=~\"a\\\\.b\""),
        ("foo=\"say \\\"hi\\\"\\n\"", "foo=\"say \\\"hi\\\"\\n\""),
        ("\"résumé of\"!=\"x\"", "\"résumé of\"!=\"x\""),
        ("résumé=x", "résumé=\"x\""),
        ("foo:bar_1=~x", "foo:bar_1=~\"x\""),
    ] {
        assert_eq!(one(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn several_in_one_text() {
    for text in ["a=b,c!=\"d,e\",f=~\"g|h\"", "{a=b, c!=\"d,e\" , f=~\"g|h\"}"] {
        let matchers: Vec<String> = Matcher::parse(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(matchers, ["a=\"b\"", "c!=\"d,e\"", "f=~\"g|h\""], "{text}");
    }
    for text in ["", "{}", "  { } "] {
        assert!(Matcher::parse(text).unwrap().is_empty());
    }
}

#[test]
fn what_is_no_matcher_says_why() {
    let sentence = |text: &str| Matcher::parse(text).expect_err(text).to_string();
    for (text, part) in [
        ("severity", "after the label `severity` one of = != =~ !~ is missing"),
        ("severity \"info\"", "one of = != =~ !~ is missing"),
        ("severity!info", "one of = != =~ !~ is missing"),
        ("severity==info", "more than one operator"),
        ("severity=!info", "more than one operator"),
        ("=info", "a label name is missing before `=info`"),
        ("a=b,,c=d", "a label name is missing before `,c=d`"),
        ("\"\"=x", "a label name is missing before `\"\"=x`"),
        ("a=\"b", "the quote opened in `\"b` is never closed"),
        ("a=b\"c\"", "holds a quotation mark"),
        ("a=\"b\"c", "after the value of `a` comes `c`"),
        ("{a=b", "the braces in `{a=b` are not a pair"),
        ("a=b}", "the braces in `b}` are not a pair"),
        ("a=~\"(b\"", "the regular expression `(b` is wrong: unclosed group"),
        ("a=~\"b**(?=c)\"", "look-around"),
        ("a=~\"(((x{99}){99}){99}){99}\"", "compiles to more than 1 MiB"),
    ] {
        assert!(sentence(text).contains(part), "{text}: {}", sentence(text));
    }
}

/// RE2 and this crate differ in few things; a policy that uses one of them is refused, not silently read otherwise.
#[test]
fn re2_syntax_is_taken() {
    for expression in
        [r"(?i)a", r"(?P<n>x)", r"\d+\.\d+", r"[[:alpha:]]+", r"\pL+", r"a{2,3}?", r"^a$", r"\Qa.b\E"]
    {
        let text = format!("a=~\"{}\"", expression.replace('\\', "\\\\"));
        match Matcher::parse(&text) {
            Ok(_) => {}
            Err(MatcherError::Regex { .. }) => assert_eq!(expression, r"\Qa.b\E"),
            Err(other) => panic!("{other}"),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(name in "\\PC{1,12}", value: String, negated: bool) {
        prop_assume!(!name.is_empty());
        let quoted = |text: &str| super::parse::escape(text);
        let operator = if negated { "!=" } else { "=" };
        let text = format!("\"{}\"{operator}\"{}\"", quoted(&name), quoted(&value));
        let matcher = one(&text);
        prop_assert_eq!(matcher.name(), &name);
        prop_assert_eq!(matcher.value(), &value);
        prop_assert_eq!(one(&matcher.to_string()), matcher.clone());
        let labels = BTreeMap::from([(name, value)]);
        prop_assert_eq!(matcher.matches(&labels), !negated);
    }

    /// A literal as a regular expression matches exactly itself, and `!~` is always the other answer.
    #[test]
    fn a_quoted_literal_matches_only_itself(value: String, other: String) {
        let text = super::parse::escape(&regex::escape(&value));
        let (matches, differs) = (one(&format!("a=~\"{text}\"")), one(&format!("a!~\"{text}\"")));
        for candidate in [&value, &other] {
            let labels = BTreeMap::from([("a".to_owned(), candidate.clone())]);
            prop_assert_eq!(matches.matches(&labels), candidate == &value);
            prop_assert_eq!(differs.matches(&labels), candidate != &value);
        }
    }

    #[test]
    fn no_text_is_too_strange(text: String) {
        let _ = Matcher::parse(&text);
    }
}
