//! The file is replaced by a thread of its own: a disk can hang for minutes, and bans do not wait for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Takes one file at a time.
#[derive(Debug)]
pub(super) struct Disk {
    jobs: SyncSender<Vec<u8>>,
    done: Receiver<io::Result<()>>,
    busy: bool,
}

impl Disk {
    /// For `state.json` of this directory.
    pub(super) fn of(directory: &Path) -> io::Result<Disk> {
        let directory: PathBuf = directory.to_owned();
        let (jobs, files) = sync_channel::<Vec<u8>>(1);
        let (tell, done) = sync_channel(1);
        thread::Builder::new().name("store".to_owned()).spawn(move || {
            for bytes in files {
                if tell.send(replace(&directory, &bytes)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Disk { jobs, done, busy: false })
    }

    /// Whether an answer is due.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Gives it another file. Only while it is not busy.
    pub(super) fn write(&mut self, bytes: Vec<u8>) {
        self.busy = self.jobs.try_send(bytes).is_ok();
    }

    /// What became of it, if that is known within this time.
    pub(super) fn answer(&mut self, patience: Duration) -> Option<io::Result<()>> {
        let answer = self.done.recv_timeout(patience).ok();
        self.busy &= answer.is_none();
        answer
    }
}

/// The old file or the new one is there, whatever happens.
fn replace(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = directory.join("state.json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // On a full disk it would take the room that the audit log needs.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    fs::rename(&new, directory.join("state.json"))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_hangs_is_waited_for_no_longer_than_asked() {
        let directory = tempfile::tempdir().unwrap();
        // A pipe that nobody reads: opening it for writing never returns.
        let made = std::process::Command::new("mkfifo").arg(directory.path().join("state.json.new")).status();
        assert!(made.unwrap().success());
        let mut disk = Disk::of(directory.path()).unwrap();
        disk.write(b"{}".to_vec());
        assert!(disk.answer(Duration::from_millis(50)).is_none() && disk.is_busy());
        let pipe = directory.path().join("state.json.new");
        let reader = thread::spawn(move || fs::read(pipe).unwrap());
        assert!(disk.answer(Duration::from_secs(20)).is_some() && !disk.is_busy());
        assert_eq!(reader.join().unwrap(), b"{}");
    }
}
