//! The log's files: `audit.jsonl`, and what it was before, `audit.jsonl.1` the youngest of them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The name of the log in the storage directory.
pub const FILE: &str = "audit.jsonl";

/// When a file is set aside, and how many of those are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A file does not grow beyond this, in bytes, save for one write that is longer. 0: never set aside, which is logrotate's work then.
    pub max_size: u64,
    /// So many files are kept beside the one that is written, at least 1.
    pub keep: u32,
}

impl Rotation {
    /// 64 MiB.
    pub const MAX_SIZE: u64 = 64 << 20;
    /// Five old files.
    pub const KEEP: u32 = 5;
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation { max_size: Self::MAX_SIZE, keep: Self::KEEP }
    }
}

/// The file's `number`-th predecessor.
pub(super) fn old(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Sets the file aside as the youngest of its predecessors; the oldest is dropped.
///
/// # Errors
/// A file could not be renamed. Those before it are in their new places, and none is lost: the next try goes on there.
pub(super) fn set_aside(path: &Path, keep: u32) -> io::Result<()> {
    // Only up to the first gap: a try that failed half way left one.
    let gap = (1..keep).find(|number| !old(path, *number).exists()).unwrap_or(keep);
    for number in (1..gap).rev() {
        fs::rename(old(path, number), old(path, number + 1))?;
    }
    fs::rename(path, old(path, 1))
}
