//! A value that was read from files, and is read again when one of them changed.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// No file of ours is larger: certificates with their chain take some KiB.
const MAX_FILE: u64 = 1 << 20;

/// A file that changed so shortly before it was read may change again without its times showing it: the kernel's clock
/// for files ticks every 1 to 10 ms.
const TICK: Duration = Duration::from_millis(100);

/// What tells whether a file is still the same.
type Stamp = [i128; 6];

fn stamp(file: &std::fs::Metadata) -> Stamp {
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    [
        file.dev().into(),
        file.ino().into(),
        file.size().into(),
        time(file.mtime(), file.mtime_nsec()),
        time(file.ctime(), file.ctime_nsec()),
        file.mode().into(),
    ]
}

/// The files that one reading has opened, as they were then.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// With what it was, or none where there was none.
    seen: Vec<(PathBuf, Option<Stamp>)>,
    /// One of them was changed within the [`TICK`] before.
    young: bool,
    hash: Sha256,
}

impl Files {
    /// The text of a file; it is remembered that it counts, even if it cannot be read.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<String> {
        let text = self.open(path);
        let told = text.as_ref().map_or_else(ToString::to_string, Clone::clone);
        for part in [path.as_os_str().as_bytes(), told.as_bytes()] {
            self.hash.update(part.len().to_le_bytes());
            self.hash.update(part);
        }
        text
    }

    fn open(&mut self, path: &Path) -> io::Result<String> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        self.seen.push((path.to_owned(), opened.as_ref().ok().map(|(about, _)| stamp(about))));
        let (about, file) = opened?;
        if !about.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        self.young |= about.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age < TICK));
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(io::Error::other(format!("it is larger than {MAX_FILE} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
    }

    fn digest(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    fn changed(&self) -> bool {
        let now = |path: &Path| std::fs::metadata(path).ok().map(|about| stamp(&about));
        self.seen.iter().any(|(path, then)| now(path) != *then)
    }
}

/// How a value is read; all files that it depends on go through [`Files::read`].
pub(super) type Reader<T> = fn(&Path, &mut Files) -> Result<T, String>;

/// The last value that could be read.
#[derive(Debug)]
pub(super) struct Watched<T> {
    path: PathBuf,
    reader: Reader<T>,
    state: RefCell<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    value: Rc<T>,
    files: Files,
    read_at: Instant,
}

/// What came of a look at the files.
pub(super) enum News {
    /// They are as they were.
    Same,
    /// A new value was read and is in force.
    New,
    /// They changed and were refused: the value before stays in force.
    Refused(String),
}

impl<T> Watched<T> {
    /// Reads it for the first time.
    pub(super) fn open(path: &Path, reader: Reader<T>) -> Result<Self, String> {
        let mut files = Files::default();
        let read_at = Instant::now();
        let value = Rc::new(reader(path, &mut files)?);
        Ok(Self { path: path.to_owned(), reader, state: RefCell::new(State { value, files, read_at }) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All files that the value in force was read from.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.state.borrow().files.seen.iter().map(|(path, _)| path.clone()).collect()
    }

    /// The value in force, without a look at the files.
    pub(super) fn value(&self) -> Rc<T> {
        Rc::clone(&self.state.borrow().value)
    }

    /// Looks at the files, which costs a stat(2) each, and reads them again if one of them changed. `accept` may refuse
    /// the new value in favour of the old one, which it gets first.
    pub(super) fn look(&self, accept: impl FnOnce(&T, &T) -> Result<(), String>) -> News {
        let mut state = self.state.borrow_mut();
        let unsure = state.files.young && state.read_at.elapsed() >= TICK;
        if !unsure && !state.files.changed() {
            return News::Same;
        }
        let mut files = Files::default();
        state.read_at = Instant::now();
        let read = (self.reader)(&self.path, &mut files);
        // What was refused is remembered as well: the same text is not refused at each request anew.
        let same = files.digest() == state.files.digest();
        state.files = files;
        if same {
            return News::Same;
        }
        match read.and_then(|value| accept(&state.value, &value).map(|()| Rc::new(value))) {
            Ok(value) => {
                state.value = value;
                News::New
            }
            Err(error) => News::Refused(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn number(path: &Path, files: &mut Files) -> Result<u32, String> {
        let text = files.read(path).map_err(|error| error.to_string())?;
        text.trim().parse().map_err(|_| format!("{text:?} is no number"))
    }

    fn look(watched: &Watched<u32>) -> String {
        match watched.look(|_, new| if *new == 13 { Err("13 is refused".to_owned()) } else { Ok(()) }) {
            News::Same => "same".to_owned(),
            News::New => format!("new {}", watched.value()),
            News::Refused(why) => why,
        }
    }

    #[test]
    fn what_changed_is_read_again_and_what_is_refused_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        let write = |text: &str| {
            // As a careful administrator replaces a file.
            let new = directory.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        write("1");
        let watched = Watched::open(&path, number).unwrap();
        assert_eq!((look(&watched), *watched.value()), ("same".to_owned(), 1));
        write("2");
        assert_eq!(look(&watched), "new 2");
        assert_eq!(look(&watched), "same");
        for (text, why) in [("two", "\"two\" is no number"), ("13", "13 is refused")] {
            write(text);
            assert_eq!(look(&watched), why);
            assert_eq!((look(&watched), *watched.value()), ("same".to_owned(), 2));
        }
        fs::remove_file(&path).unwrap();
        assert!(look(&watched).contains("No such file"));
        assert_eq!(look(&watched), "same");
        write("3");
        assert_eq!((look(&watched), *watched.value()), ("new 3".to_owned(), 3));
    }

    #[test]
    fn a_change_within_one_tick_of_the_clock_is_found_a_moment_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        fs::write(&path, "1").unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        let watched = Watched::open(&path, number).unwrap();
        // The same length, inode and time: nothing that stat(2) shows but the change time, which this test takes out too.
        fs::write(&path, "2").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
        let about = fs::metadata(&path).unwrap();
        watched.state.borrow_mut().files.seen[0].1 = Some(stamp(&about));
        assert_eq!((look(&watched), *watched.value()), ("same".to_owned(), 1));
        let deadline = Instant::now() + Duration::from_secs(10);
        while *watched.value() != 2 {
            assert!(Instant::now() < deadline, "never read again");
            look(&watched);
        }
    }
}
