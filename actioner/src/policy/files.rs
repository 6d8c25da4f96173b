//! The one place of the policy that touches the disk: the policy's file, and the files its globs name.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A policy, or a file of rules, is written by hand.
pub(super) const MAX_POLICY: u64 = 1 << 20;
/// Lists of networks come from programs: this is about a million of them.
pub(super) const MAX_NETWORKS: u64 = 16 << 20;

/// Why a file cannot be read.
#[derive(Debug, Error)]
pub(super) enum FileError {
    #[error("cannot be read: {0}{hint}", hint = hint(.0))]
    Io(#[from] std::io::Error),
    #[error("is not a plain file")]
    NotAFile,
    #[error("is larger than {limit} bytes, more than is accepted here")]
    TooLarge { limit: u64 },
    #[error("is not UTF-8 text: byte {byte:#04x} on line {line}")]
    NotText { line: usize, byte: u8 },
}

/// A confined program reads where the policy's files were when it started, and as root what root owns.
fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            " (a running actioner reads only the directories that its policy named when it started: restart it if this one is new)"
        }
        _ => "",
    }
}

/// Reads a text of at most `limit` bytes; of an endless file not a byte more.
pub(super) fn read(path: &Path, limit: u64) -> Result<String, FileError> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(FileError::NotAFile);
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { limit });
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
        FileError::NotText { line, byte: bytes[at] }
    })
}

/// The files a pattern names, in name order. A pattern that is not absolute starts at `base`. A named file is not
/// opened here, so that a list can be reported as a whole.
pub(super) fn matching(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    // The directory's own name may hold wildcards; only the pattern's are meant.
    let rooted = match Path::new(pattern).is_absolute() {
        true => pattern.to_owned(),
        false => Path::new(&glob::Pattern::escape(&base.to_string_lossy()))
            .join(pattern)
            .to_string_lossy()
            .into_owned(),
    };
    let paths = glob::glob(&rooted).map_err(|error| format!("is not a pattern: {error}"))?;
    paths.collect::<Result<_, _>>().map_err(|error| format!("cannot be looked up: {error}"))
}

/// The directories that the files of a pattern are in, now and when there are more of them; all that may have to be read.
pub(super) fn directories(base: &Path, pattern: &str, found: &[PathBuf]) -> Vec<PathBuf> {
    let fixed = |part: &std::path::Component<'_>| is_literal(&part.as_os_str().to_string_lossy());
    let before: PathBuf = Path::new(pattern).components().take_while(fixed).collect();
    let named = if is_literal(pattern) { before.parent().unwrap_or(&before) } else { &before };
    let mut directories = vec![base.join(named)];
    directories.extend(web::confine::beside(found));
    directories
}

/// Whether the pattern names one file and no other: then it must be there.
pub(super) fn is_literal(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patterns_directory_is_all_before_its_first_wildcard() {
        let of = |pattern| directories(Path::new("/etc/guard"), pattern, &[]);
        for (pattern, directory) in [
            ("list", "/etc/guard"),
            ("lists/*.txt", "/etc/guard/lists"),
            ("/srv/*/list", "/srv"),
            ("/srv/lists/one.txt", "/srv/lists"),
            ("*", "/etc/guard"),
        ] {
            assert_eq!(of(pattern), [PathBuf::from(directory)], "{pattern}");
        }
    }
}
