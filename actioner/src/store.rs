//! The store: `state.json` in the storage directory, replaced whole, and `state.lock`, held while we run.
//!
//! What the kernel would forget at a reboot is written here *before* it is done. A write that fails costs durability and is
//! loud, and never protection: enforcement goes on, and the next batch tries again.

use crate::now::Now;
use crate::state::State;
use crate::state::saved::{Clock, FORMAT, Head, Saved, VERSION};
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod disk;
mod lock;

use disk::Disk;

/// So long a batch waits for the disk: then it goes on, for a disk that hangs must not keep anybody from being banned.
const PATIENCE: Duration = Duration::from_millis(500);
/// So long the end of the program waits.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The store, ours alone.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    machine: String,
    boot_id: String,
    /// The state's revision on the disk; None: nothing of ours yet.
    stored: Option<u64>,
    /// How far the wall clock was ahead of the boot clock then, in milliseconds: after a reboot it tells what has passed.
    ahead: i128,
    /// Why a restart could lose something.
    failing: Option<String>,
    /// What was wrong with the file we found.
    set_aside: Option<String>,
    /// Revision and [`Store::ahead`] of what the disk was last given.
    writing: (u64, i128),
    disk: Disk,
    _lock: File,
}

/// What the store held.
#[derive(Debug)]
pub enum Loaded {
    /// No file: a first start. Bans in the kernel are adopted.
    Nothing,
    /// What an earlier run left, less what has ended since.
    State {
        /// It.
        state: Box<State>,
        /// Whether it was written since this boot.
        same_boot: bool,
    },
    /// A file that cannot be used, and why. Bans in the kernel are adopted.
    SetAside(String),
}

/// Makes the store's directory if it is absent (0750).
///
/// # Errors
/// It cannot be made.
pub fn make(directory: &Path) -> Result<(), String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .map_err(|error| format!("cannot make {}: {error}", directory.display()))
}

impl Store {
    /// Opens the store, which is made if it is absent (0750), and locks it.
    ///
    /// # Errors
    /// Another actioner has it; or the directory cannot be made or locked. What is wrong with the file is in [`Loaded`].
    pub fn open(directory: &Path, now: Now) -> Result<(Store, Loaded), String> {
        make(directory)?;
        let lock = lock::held(directory)?;
        let mut store = Store {
            directory: directory.to_owned(),
            machine: machine(Path::new("/etc/machine-id")),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            stored: None,
            ahead: 0,
            failing: None,
            set_aside: None,
            writing: (0, 0),
            disk: Disk::of(directory).map_err(|error| format!("cannot start a thread: {error}"))?,
            _lock: lock,
        };
        let loaded = store.load(now);
        Ok((store, loaded))
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    fn clock(&self, now: Now) -> Clock {
        Clock { machine: self.machine.clone(), boot_id: self.boot_id.clone(), now }
    }

    fn load(&mut self, now: Now) -> Loaded {
        let path = self.path();
        let mut bytes = Vec::new();
        let found = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
        let why = match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Loaded::Nothing,
            Err(error) => error.to_string(),
            Ok(_) => match read(&bytes, &self.clock(now)) {
                Ok(loaded) => return loaded,
                Err(why) => why,
            },
        };
        let seconds = now.milliseconds() / 1000;
        let aside = self.directory.join(format!("state.json.set-aside-{seconds}"));
        let kept = match fs::rename(&path, &aside) {
            Ok(()) => format!("it is kept as {}", aside.display()),
            Err(error) => format!("it could not be moved aside ({error})"),
        };
        let why = format!("{} cannot be used: {why}; {kept}", path.display());
        self.set_aside = Some(why.clone());
        Loaded::SetAside(why)
    }

    /// Writes the state down, if it changed since the last time, or if the wall clock was set. Waits half a second for the disk, and
    /// not at all for one that has not yet answered the last time. Whether it worked is in [`Store::degraded`].
    pub fn save(&mut self, state: &State, now: Now) {
        if self.disk.is_busy() && !self.heard(Duration::ZERO) {
            return;
        }
        let ahead = ahead(now);
        if self.stored == Some(state.revision()) && self.ahead.abs_diff(ahead) < SET {
            return;
        }
        match serde_json::to_vec(&state.save(&self.clock(now))) {
            Ok(bytes) => {
                self.writing = (state.revision(), ahead);
                self.disk.write(bytes);
                if !self.heard(PATIENCE) {
                    self.failed(format!(
                        "{} takes longer than half a second to be written",
                        self.path().display()
                    ));
                }
            }
            Err(error) => self.failed(error.to_string()),
        }
    }

    /// Whether the disk has answered within this time.
    fn heard(&mut self, patience: Duration) -> bool {
        match self.disk.answer(patience) {
            None => return false,
            Some(Ok(())) => {
                (self.stored, self.ahead) = (Some(self.writing.0), self.writing.1);
                if self.failing.take().is_some() {
                    tracing::info!(path = %self.path().display(), "the state can be written down again");
                }
            }
            Some(Err(error)) => self.failed(format!("cannot write {}: {error}", self.path().display())),
        }
        true
    }

    fn failed(&mut self, why: String) {
        if self.failing.as_ref() != Some(&why) {
            tracing::error!(
                error = why,
                "what is decided from now on would not survive a reboot; bans are enforced all the same"
            );
        }
        self.failing = Some(why);
    }

    /// Why a restart could lose something; None while all is well.
    pub fn degraded(&self) -> Option<&str> {
        self.failing.as_deref().or(self.set_aside.as_deref())
    }

    /// Why the latest change is not on the disk; None: it is.
    pub fn failing(&self) -> Option<&str> {
        self.failing.as_deref()
    }

    /// Somebody has read that a file was set aside.
    pub fn forgive(&mut self) {
        self.set_aside = None;
    }
}

/// What the bytes of a store say to whom this clock belongs. Pure.
pub(crate) fn read(bytes: &[u8], clock: &Clock) -> Result<Loaded, String> {
    let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if head.format != FORMAT {
        return Err(format!("it is {:?}, not {FORMAT:?}", head.format));
    }
    if head.version > VERSION {
        return Err(format!("a newer version wrote it (format {}, this one knows {VERSION})", head.version));
    }
    if !head.machine.is_empty() && !clock.machine.is_empty() && head.machine != clock.machine {
        return Err(
            "another machine wrote it (its /etc/machine-id differs): its bans are not ours".to_owned()
        );
    }
    let saved: Saved<'_> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let same_boot = saved.is_of(clock);
    let state = Box::new(State::restore(saved, clock));
    Ok(Loaded::State { state, same_boot })
}

/// A wall clock that differs by so many milliseconds was set, not slewed.
const SET: u128 = 60_000;

fn ahead(now: Now) -> i128 {
    i128::from(now.milliseconds()) - now.boot.as_millis().cast_signed()
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.disk.is_busy() && !self.heard(LAST_WORDS) {
            tracing::error!(path = %self.path().display(), "stopped before the disk had taken the last change");
        }
    }
}

/// Not the id itself, which machine-id(5) asks to keep to oneself.
fn machine(path: &Path) -> String {
    let Ok(id) = fs::read_to_string(path) else { return String::new() };
    let id = id.trim();
    if id.is_empty() || id == "uninitialized" {
        return String::new();
    }
    let hash = Sha256::new().chain_update("conntrack-guard").chain_update(id).finalize();
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NET: &str = "192.0.2.7/32";

    fn banned() -> State {
        let mut state = State::new();
        state.ban_by_hand(NET.parse().unwrap(), Duration::from_secs(3600), "root", "because", Now::read());
        state
    }

    fn open(directory: &Path) -> (Store, Loaded) {
        Store::open(directory, Now::read()).unwrap()
    }

    /// A directory with one ban in its store.
    fn with_a_ban() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, loaded) = open(directory.path());
        assert!(matches!(loaded, Loaded::Nothing), "{loaded:?}");
        store.save(&banned(), Now::read());
        assert_eq!(store.degraded(), None);
        directory
    }

    /// Changes the file's text, opens the store and says why the file was set aside.
    fn set_aside(change: impl Fn(String) -> String) -> String {
        let directory = with_a_ban();
        let file = directory.path().join("state.json");
        fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
        let (mut store, loaded) = open(directory.path());
        let Loaded::SetAside(why) = loaded else { panic!("{loaded:?}") };
        assert!(store.degraded().is_some());
        let kept = fs::read_dir(directory.path()).unwrap().flatten();
        assert!(kept.filter(|f| f.file_name().to_string_lossy().contains("set-aside")).count() == 1, "{why}");
        store.save(&banned(), Now::read());
        drop(store);
        assert!(matches!(open(directory.path()).1, Loaded::State { .. }), "the next one is good");
        why
    }

    #[test]
    fn a_ban_is_there_after_a_restart() {
        let directory = with_a_ban();
        let Loaded::State { state, .. } = open(directory.path()).1 else { panic!("not loaded") };
        let ban = state.enforced(Now::read()).next().unwrap();
        assert_eq!(ban.net, NET.parse().unwrap());
        assert!(ban.timeout > Duration::from_secs(3590) && ban.timeout <= Duration::from_secs(3600));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_set_aside_and_said() {
        assert!(set_aside(|text| text[..text.len() / 2].to_owned()).contains("EOF"));
        assert!(set_aside(|_| String::new()).contains("EOF"));
        assert!(set_aside(|_| "\0\0\0\0".to_owned()).contains("expected value"));
        assert!(set_aside(|_| "{\"format\":\"mine\",\"version\":1}".to_owned()).contains("mine"));
        assert!(set_aside(|text| text.replace("\"version\":1", "\"version\":99")).contains("newer"));
        let machine = machine(Path::new("/etc/machine-id"));
        assert!(!machine.is_empty(), "this test needs /etc/machine-id (systemd-machine-id-setup)");
        assert!(set_aside(|text| text.replace(&machine, "0000000000000000")).contains("another machine"));
    }

    #[test]
    fn a_second_actioner_is_refused_in_a_sentence() {
        let directory = with_a_ban();
        let (_first, _) = open(directory.path());
        let error = Store::open(directory.path(), Now::read()).unwrap_err();
        assert!(error.contains("another conntrack-actioner"), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
    }

    #[test]
    fn what_did_not_change_is_not_written() {
        let directory = with_a_ban();
        let (mut store, _) = open(directory.path());
        let state = banned();
        store.save(&state, Now::read());
        fs::remove_file(store.path()).unwrap();
        store.save(&state, Now::read());
        assert!(!store.path().exists());
    }

    #[test]
    fn a_wall_clock_that_was_set_is_written_down_for_the_next_boot_counts_with_it() {
        let directory = with_a_ban();
        let (mut store, _) = open(directory.path());
        let (state, now) = (banned(), Now::read());
        store.save(&state, now);
        fs::remove_file(store.path()).unwrap();
        let later = Duration::from_secs(30);
        store.save(&state, Now { boot: now.boot + later, wall: now.wall + later });
        assert!(!store.path().exists(), "it only went on");
        let year = Duration::from_secs(365 * 86_400);
        store.save(&state, Now { boot: now.boot + later, wall: now.wall + year });
        assert!(store.path().exists());
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_is_said_until_one_works() {
        let directory = with_a_ban();
        let (mut store, _) = open(directory.path());
        // A directory of that name: no file can be opened there, not even by root.
        let blocked = directory.path().join("state.json.new");
        fs::create_dir(&blocked).unwrap();
        let mut state = banned();
        store.save(&state, Now::read());
        assert!(store.degraded().unwrap().contains("state.json"), "{:?}", store.degraded());
        assert!(store.path().exists());
        fs::remove_dir(&blocked).unwrap();
        state.unban(&NET.parse().unwrap());
        store.save(&state, Now::read());
        assert_eq!(store.degraded(), None);
    }
}
