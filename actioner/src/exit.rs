//! What the program's exit status means: the same for every command, so that a script may rely on it.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done, or shown.
    Done,
    /// It was tried and did not work.
    Failed,
    /// Not a command line of ours.
    Usage,
    /// The actioner will not do it: the guard, a limit, a panic.
    Refused,
    /// No actioner answers on the socket.
    NoActioner,
    /// There is no such ban.
    NotFound,
    /// It is done, and the disk did not take it: the end of the program would undo it.
    NotStored,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::NoActioner => 4,
            Exit::NotFound => 5,
            Exit::NotStored => 6,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// For `--help` and the man page.
pub const EXPLAINED: &str = "Exit status:
  0  done
  1  failed: it was tried and did not work
  2  usage: the command line is wrong
  3  refused: the guard, a limit or a panic forbids it
  4  no actioner answers on the socket
  5  not found: there is no such ban
  6  done, but not written down: a restart would undo it";
