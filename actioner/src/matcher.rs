//! Alertmanager's matchers: `severity=~"info|warning"` and what else its `labels.ParseMatchers` takes.

mod parse;

use std::collections::BTreeMap;
use std::fmt;

use regex::{Regex, RegexBuilder};

pub use parse::MatcherError;

use crate::foreign::shorten;

/// A regular expression may compile to this many bytes at most: a policy is read by root.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// One condition on one label. Built only by [`Matcher::parse`], so its regular expression compiles.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    value: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Equal,
    NotEqual,
    Match(Regex),
    NoMatch(Regex),
}

impl Matcher {
    /// Reads one string of matchers: one (`a="b"`), or several in Alertmanager's list form
    /// (`{a="b", c=~"d|e"}`, braces optional). An empty list is no error here: it matches everything.
    ///
    /// # Errors
    /// [`MatcherError`] names the part that is not a matcher.
    pub fn parse(text: &str) -> Result<Vec<Self>, MatcherError> {
        parse::list(text)
    }

    /// Whether the labels satisfy it. A missing label is the empty string, so `a!="b"` holds without `a`.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.name).map_or("", String::as_str);
        match &self.test {
            Test::Equal => value == self.value,
            Test::NotEqual => value != self.value,
            Test::Match(regex) => regex.is_match(value),
            Test::NoMatch(regex) => !regex.is_match(value),
        }
    }

    /// The label it looks at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the label is compared with: a text, or an anchored regular expression.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The operator between the two: `=`, `!=`, `=~` or `!~`.
    pub fn operator(&self) -> &'static str {
        match self.test {
            Test::Equal => "=",
            Test::NotEqual => "!=",
            Test::Match(_) => "=~",
            Test::NoMatch(_) => "!~",
        }
    }

    fn new(name: String, operator: parse::Operator, value: String) -> Result<Self, MatcherError> {
        let test = match operator {
            parse::Operator::Equal => Test::Equal,
            parse::Operator::NotEqual => Test::NotEqual,
            parse::Operator::Match => Test::Match(anchored(&value)?),
            parse::Operator::NoMatch => Test::NoMatch(anchored(&value)?),
        };
        Ok(Self { name, value, test })
    }
}

/// Alertmanager anchors with `^(?:…)$` (pkg/labels/matcher.go).
fn anchored(value: &str) -> Result<Regex, MatcherError> {
    RegexBuilder::new(&format!("^(?:{value})$")).size_limit(REGEX_SIZE_LIMIT).build().map_err(|error| {
        let reason = match error {
            regex::Error::CompiledTooBig(_) => "it compiles to more than 1 MiB".to_owned(),
            // The crate's message draws the expression and ends in the one line that says what is wrong.
            other => last_line(&other.to_string()),
        };
        MatcherError::Regex { value: shorten(value, 60), reason: shorten(&reason, 120) }
    })
}

fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.operator() == other.operator() && self.value == other.value
    }
}

impl Eq for Matcher {}

/// In Alertmanager's syntax, the value always quoted; [`Matcher::parse`] reads it back.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if parse::is_bare_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write!(f, "\"{}\"", parse::escape(&self.name))?;
        }
        write!(f, "{}\"{}\"", self.operator(), parse::escape(&self.value))
    }
}

#[cfg(test)]
mod tests;
