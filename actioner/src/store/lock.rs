//! `state.lock`: one actioner a storage directory.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The lock, held as long as the file is open, so until the process ends, however it ends.
///
/// # Errors
/// Another actioner holds it, or it cannot be opened.
pub(super) fn held(directory: &Path) -> Result<File, String> {
    let path = directory.join("state.lock");
    let failed = |error: io::Error| format!("cannot open {}: {error}", path.display());
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = match opened {
        Ok(file) => file,
        // A disk that became read-only is no reason not to protect: the directory can be locked as well.
        Err(error) if is_disk(&error) => {
            File::open(&path).or_else(|_| File::open(directory)).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let who =
                if pid.trim().is_empty() { String::new() } else { format!(" (process {})", pid.trim()) };
            return Err(format!(
                "another conntrack-actioner{who} uses {}: two would undo each other's bans. Stop it, or give this one a --storage.path and a firewall.set of its own",
                directory.display()
            ));
        }
        Err(error) => return Err(failed(error.into())),
    }
    // For the sentence above; without it the lock holds all the same.
    let _ = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    Ok(file)
}

/// Errors of the disk, not of the one who named the directory.
fn is_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), ReadOnlyFilesystem | StorageFull | QuotaExceeded)
        || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}
