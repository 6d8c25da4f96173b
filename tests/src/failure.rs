//! What can go wrong in the laboratory, said so that the reader need not open the code.

use std::{fmt, io, process::ExitStatus, time::Duration};

/// A failed step. `Debug` prints the sentence too, because that is what a test that returns an error shows.
#[derive(thiserror::Error)]
pub enum Failure {
    /// A program outside the workspace is not installed.
    #[error(
        "{program} is not installed, and this test is worth nothing without it: apt-get install {package}"
    )]
    ToolMissing {
        /// The program's name.
        program: &'static str,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// A command ended with a failure.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line, and what was written to its standard input.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with its object.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A condition was not reached.
    #[error("waited {waited:?} for {what}; last seen: {last}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// The last state seen.
        last: String,
    },
    /// A long-running program ended although it should run.
    #[error("{program} ended by itself ({status}); its output:\n{log}")]
    Ended {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        log: String,
    },
    /// An answer was not what its protocol promises.
    #[error("{what}: {detail}")]
    Answer {
        /// Who answered what.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// The result of a step in the laboratory.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Failure {
    pub(crate) fn answer(what: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::Answer { what: what.into(), detail: detail.to_string() }
    }
}

/// Says what was tried when the system refuses it.
pub(crate) trait Tried<T> {
    /// Wraps the system's error; `what` is only called on failure.
    fn tried<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> Tried<T> for std::result::Result<T, E> {
    fn tried<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Failure::Io { what: what().into(), source: source.into() })
    }
}
