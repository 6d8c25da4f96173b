//! The file that says somebody panicked: made with the actioner dead or alive, it keeps it off until `resume`.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panicked {
    /// When, RFC 3339.
    pub since: String,
    /// Who.
    pub by: String,
}

/// Where it is, in the storage directory.
pub fn path(storage: &Path) -> PathBuf {
    storage.join("panic")
}

/// Who panicked, if somebody did. A file that is there counts, whatever is in it. A disk that does not say whether it is there,
/// or too many open files, are no panic: nobody may lift all bans with them.
pub fn read(storage: &Path) -> Option<Panicked> {
    let path = path(storage);
    path.symlink_metadata().ok()?;
    let read = fs::read(path).ok();
    Some(read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(unknown))
}

fn unknown() -> Panicked {
    Panicked { since: String::new(), by: "somebody".to_owned() }
}

/// Makes it.
///
/// # Errors
/// What the file system says.
pub fn write(storage: &Path, panicked: &Panicked) -> io::Result<()> {
    fs::create_dir_all(storage)?;
    let mut file = File::create(path(storage))?;
    file.write_all(&serde_json::to_vec(panicked)?)?;
    // It must outlive a power cut, too.
    file.sync_all()?;
    File::open(storage)?.sync_all()
}

/// Removes it; absent is fine, on a disk that is read-only, too: a pause must end there.
///
/// # Errors
/// What the file system says.
pub fn remove(storage: &Path) -> io::Result<()> {
    let path = path(storage);
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_until_it_is_removed_and_counts_even_if_it_is_garbage() {
        let storage = tempfile::tempdir().unwrap();
        assert_eq!(read(storage.path()), None);
        let panicked = Panicked { since: "2026-11-22T21:00:00.000Z".into(), by: "root".into() };
        write(storage.path(), &panicked).unwrap();
        assert_eq!(read(storage.path()), Some(panicked));
        fs::write(path(storage.path()), "").unwrap();
        assert_eq!(read(storage.path()).unwrap().by, "somebody");
        fs::remove_file(path(storage.path())).unwrap();
        fs::create_dir(path(storage.path())).unwrap();
        assert_eq!(read(storage.path()).unwrap().by, "somebody", "what cannot be read is there");
        fs::remove_dir(path(storage.path())).unwrap();
        remove(storage.path()).unwrap();
        remove(storage.path()).unwrap();
        assert_eq!(read(&storage.path().join("no/such/disk")), None);
        fs::write(storage.path().join("file"), "").unwrap();
        assert_eq!(read(&storage.path().join("file")), None, "ENOTDIR: nobody can tell, and nobody panicked");
        assert_eq!(read(storage.path()), None);
    }
}
