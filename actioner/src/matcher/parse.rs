//! The text of matchers, as Alertmanager reads it (pkg/labels/parse.go, matcher/parse): names bare or quoted, values
//! quoted or bare up to the next comma; in values `\n`, `\"` and `\\` are escapes and any other backslash is itself.

use std::iter::Peekable;
use std::str::CharIndices;

use thiserror::Error;

use super::Matcher;
use crate::foreign::shorten;

/// So much of a text is repeated in a message.
const SHOWN: usize = 60;

/// Why a text is not a list of matchers. Texts are shortened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MatcherError {
    /// Nothing that could be a label's name.
    #[error("a label name is missing before `{rest}`; write a matcher as label=\"value\"")]
    Name {
        /// What stands where the name should.
        rest: String,
    },
    /// Neither of the four operators after the name.
    #[error("after the label `{name}` one of = != =~ !~ is missing; write {name}=\"value\"")]
    Operator {
        /// The label's name.
        name: String,
    },
    /// A quotation mark without its partner.
    #[error("the quote opened in `{text}` is never closed")]
    OpenQuote {
        /// The text from the quotation mark on.
        text: String,
    },
    /// A quotation mark inside a bare value.
    #[error("the value `{value}` holds a quotation mark; write it quoted, as \"…\", with \\\" inside")]
    StrayQuote {
        /// The value as it stands.
        value: String,
    },
    /// More text after a quoted value.
    #[error("after the value of `{name}` comes `{rest}`; matchers are separated by commas")]
    Trailing {
        /// The label's name.
        name: String,
        /// The text that does not belong there.
        rest: String,
    },
    /// An operator of programming languages, `==` say.
    #[error(
        "after the label `{name}` stands more than one operator; write one of = != =~ !~, then the value in quotes"
    )]
    DoubledOperator {
        /// The label's name.
        name: String,
    },
    /// One brace of the pair.
    #[error("the braces in `{text}` are not a pair")]
    Brace {
        /// The text with the lone brace.
        text: String,
    },
    /// The regular expression does not compile.
    #[error("the regular expression `{value}` is wrong: {reason}")]
    Regex {
        /// The expression, as written.
        value: String,
        /// What the compiler says.
        reason: String,
    },
}

/// One of the four operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Match,
    NoMatch,
}

pub(super) fn list(text: &str) -> Result<Vec<Matcher>, MatcherError> {
    let inner = text.trim();
    // Only a brace at both ends is the list's: `a=~b{2}` ends in one of its own.
    let inner = match (inner.strip_prefix('{'), inner.ends_with('}')) {
        (Some(rest), true) => &rest[..rest.len() - 1],
        (None, _) => inner,
        (Some(_), false) => return Err(MatcherError::Brace { text: shorten(inner, SHOWN) }),
    };
    let mut reader = Reader::new(inner);
    let mut matchers = Vec::new();
    loop {
        reader.skip_blanks();
        if reader.rest().is_empty() {
            return Ok(matchers);
        }
        matchers.push(reader.matcher()?);
        reader.skip_blanks();
        if !reader.take_if(',') {
            return Ok(matchers);
        }
    }
}

/// A name that needs no quotes: none of the characters that mean something here (matcher/parse/lexer.go).
pub(super) fn is_bare_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_bare)
}

fn is_bare(c: char) -> bool {
    !c.is_whitespace() && !matches!(c, '{' | '}' | '!' | '=' | '~' | ',' | '\\' | '"' | '\'' | '`')
}

/// Writes a text so that the quoted form reads back as it was.
pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Reader<'t> {
    text: &'t str,
    chars: Peekable<CharIndices<'t>>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, chars: text.char_indices().peekable() }
    }

    fn rest(&mut self) -> &'t str {
        let at = self.chars.peek().map_or(self.text.len(), |(at, _)| *at);
        &self.text[at..]
    }

    fn take_if(&mut self, wanted: char) -> bool {
        self.chars.next_if(|(_, c)| *c == wanted).is_some()
    }

    fn skip_blanks(&mut self) {
        while self.chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
    }

    fn matcher(&mut self) -> Result<Matcher, MatcherError> {
        let name = self.name()?;
        self.skip_blanks();
        let Some(operator) = self.operator() else {
            return Err(MatcherError::Operator { name: shorten(&name, SHOWN) });
        };
        self.skip_blanks();
        let value = if self.rest().starts_with('"') {
            let value = self.quoted()?;
            self.skip_blanks();
            let rest = self.rest();
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(MatcherError::Trailing {
                    name: shorten(&name, SHOWN),
                    rest: shorten(rest, SHOWN),
                });
            }
            value
        } else if self.rest().starts_with(['=', '~', '!']) {
            // Alertmanager's older parser takes `a==b` for the value `=b`: in a policy it is a slip.
            return Err(MatcherError::DoubledOperator { name: shorten(&name, SHOWN) });
        } else {
            self.bare_value()?
        };
        Matcher::new(name, operator, value)
    }

    fn name(&mut self) -> Result<String, MatcherError> {
        if self.rest().starts_with('"') {
            let start = self.rest();
            let name = self.quoted()?;
            return if name.is_empty() {
                Err(MatcherError::Name { rest: shorten(start, SHOWN) })
            } else {
                Ok(name)
            };
        }
        let start = self.rest();
        while self.chars.next_if(|(_, c)| is_bare(*c)).is_some() {}
        let name = &start[..start.len() - self.rest().len()];
        if name.is_empty() {
            Err(MatcherError::Name { rest: shorten(start, SHOWN) })
        } else {
            Ok(name.to_owned())
        }
    }

    fn operator(&mut self) -> Option<Operator> {
        if self.take_if('=') {
            Some(if self.take_if('~') { Operator::Match } else { Operator::Equal })
        } else if self.take_if('!') {
            if self.take_if('=') {
                Some(Operator::NotEqual)
            } else {
                self.take_if('~').then_some(Operator::NoMatch)
            }
        } else {
            None
        }
    }

    fn quoted(&mut self) -> Result<String, MatcherError> {
        let start = self.rest();
        self.take_if('"');
        let mut value = String::new();
        while let Some((_, c)) = self.chars.next() {
            match c {
                '"' => return Ok(value),
                '\\' => match self.chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('"' | '\\'))) => value.push(c),
                    Some((_, c)) => value.extend(['\\', c]),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err(MatcherError::OpenQuote { text: shorten(start, SHOWN) })
    }

    fn bare_value(&mut self) -> Result<String, MatcherError> {
        let start = self.rest();
        let mut value = String::new();
        while let Some((_, c)) = self.chars.next_if(|(_, c)| *c != ',') {
            match c {
                '"' => return Err(MatcherError::StrayQuote { value: shorten(start, SHOWN) }),
                '\\' => match self.chars.next_if(|(_, c)| matches!(c, 'n' | '"' | '\\')) {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c)) => value.push(c),
                    None => value.push('\\'),
                },
                c => value.push(c),
            }
        }
        let value = value.trim_end();
        if value.matches('{').count() != value.matches('}').count() {
            return Err(MatcherError::Brace { text: shorten(value, SHOWN) });
        }
        Ok(value.to_owned())
    }
}
