//! What is wrong with a policy, and where: collected while reading, reported all at once.

use std::fmt;

use thiserror::Error;

/// More than this many problems are counted, not listed: the file is then most likely no policy at all.
const LISTED: usize = 100;
/// Of a longer line only so many characters are shown, around the offending words.
const EXCERPT: usize = 120;
/// So many of them before the offending words.
const BEFORE: usize = 60;

/// Where something stands in a file. Line 0: the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) line: usize,
    /// In characters, from 1.
    pub(super) column: usize,
    /// In characters, on its first line.
    pub(super) width: usize,
}

/// One thing wrong, or surprising, at one place of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// From 1; 0 means the file as a whole.
    pub line: usize,
    /// In characters, from 1; 0 where the line is 0.
    pub column: usize,
    /// What is wrong, with the offending words, and what to write instead.
    pub message: String,
    excerpt: Option<Excerpt>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    line: String,
    /// Characters of `line` before the offending words.
    indent: usize,
    width: usize,
}

impl Excerpt {
    fn new(line: &str, place: Place) -> Self {
        let before = place.column.saturating_sub(1);
        let skipped =
            if before + place.width.min(BEFORE) <= EXCERPT { 0 } else { before.saturating_sub(BEFORE) };
        let mut shown: String = if skipped > 0 { "…".to_owned() } else { String::new() };
        let indent = before - skipped + shown.chars().count();
        let mut rest = line.chars().skip(skipped).map(visible);
        shown.extend(rest.by_ref().take(EXCERPT));
        if rest.next().is_some() {
            shown.push('…');
        }
        Self { line: shown, indent, width: place.width }
    }
}

/// `FILE:LINE:COLUMN: message`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}", self.file, self.message);
        }
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl Problem {
    /// The message, then the line it is about with carets below the offending words.
    pub fn with_excerpt(&self) -> String {
        let Some(excerpt) = &self.excerpt else { return self.to_string() };
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs are kept in the margin, so that the carets stand below the words whatever a tab's width.
        let indent: String =
            excerpt.line.chars().take(excerpt.indent).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let room = excerpt.line.chars().count().saturating_sub(excerpt.indent).max(1);
        let carets = "^".repeat(excerpt.width.clamp(1, room));
        format!("{self}\n {number} | {}\n {margin} | {indent}{carets}", excerpt.line)
    }
}

/// All that is wrong with a policy. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct PolicyErrors {
    problems: Vec<Problem>,
    unlisted: usize,
}

impl PolicyErrors {
    /// What is wrong, in the order of the files and their lines; at most the first hundred.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// One thing wrong with a file as a whole.
    pub(super) fn whole(file: &str, message: &str) -> Self {
        let message = message.to_owned();
        let problem = Problem { file: file.to_owned(), line: 0, column: 0, message, excerpt: None };
        Self { problems: vec![problem], unlisted: 0 }
    }

    /// How many more there are.
    pub fn unlisted(&self) -> usize {
        self.unlisted
    }
}

/// Each problem on a line of its own.
impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        if self.unlisted > 0 {
            write!(f, "\nand {} more problems", self.unlisted)?;
        }
        Ok(())
    }
}

/// What was found so far in one file.
#[derive(Debug)]
pub(super) struct Log<'t> {
    file: String,
    lines: Vec<&'t str>,
    /// At most [`LISTED`].
    errors: Vec<Problem>,
    /// How many more there were: a hostile file must not cost more than its reading.
    unlisted: usize,
    warnings: Vec<Problem>,
}

impl<'t> Log<'t> {
    pub(super) fn new(file: &str, text: &'t str) -> Self {
        let lines = text.lines().collect();
        Self { file: file.to_owned(), lines, errors: Vec::new(), unlisted: 0, warnings: Vec::new() }
    }

    pub(super) fn error(&mut self, place: Place, message: impl Into<String>) {
        if self.errors.len() == LISTED {
            self.unlisted += 1;
        } else {
            self.errors.push(self.problem(place, message.into()));
        }
    }

    pub(super) fn warn(&mut self, place: Place, message: impl Into<String>) {
        if self.warnings.len() < LISTED {
            self.warnings.push(self.problem(place, message.into()));
        }
    }

    /// How many errors there are: to tell whether a part was read without any.
    pub(super) fn errors(&self) -> usize {
        self.errors.len() + self.unlisted
    }

    /// `FILE:LINE`.
    pub(super) fn position(&self, place: Place) -> String {
        format!("{}:{}", self.file, place.line)
    }

    fn problem(&self, place: Place, message: String) -> Problem {
        let line = place.line.checked_sub(1).and_then(|index| self.lines.get(index));
        let excerpt = line.map(|line| Excerpt::new(line, place));
        Problem { file: self.file.clone(), line: place.line, column: place.column, message, excerpt }
    }
}

/// A terminal must not be steered by a file under inspection.
fn visible(c: char) -> char {
    if c.is_control() && c != '\t' { '\u{fffd}' } else { c }
}

/// What was found in all files.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<Problem>,
    unlisted: usize,
    warnings: Vec<Problem>,
}

impl Findings {
    /// Adds a file's, in the order of its lines.
    pub(super) fn absorb(&mut self, mut log: Log<'_>) {
        log.errors.sort_by_key(|problem| (problem.line, problem.column));
        log.warnings.sort_by_key(|problem| (problem.line, problem.column));
        self.errors.append(&mut log.errors);
        self.unlisted += log.unlisted;
        self.warnings.append(&mut log.warnings);
    }

    /// Adds another's behind these.
    pub(super) fn append(&mut self, mut other: Self) {
        self.errors.append(&mut other.errors);
        self.unlisted += other.unlisted;
        self.warnings.append(&mut other.warnings);
    }

    /// The warnings, if nothing is wrong.
    pub(super) fn conclude(mut self) -> Result<Vec<String>, PolicyErrors> {
        if self.errors.is_empty() {
            return Ok(self.warnings.iter().map(ToString::to_string).collect());
        }
        let unlisted = self.unlisted + self.errors.len().saturating_sub(LISTED);
        self.errors.truncate(LISTED);
        Err(PolicyErrors { problems: self.errors, unlisted })
    }
}
