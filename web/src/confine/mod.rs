//! What a program gives up once it has started, and never gets back: capabilities, system calls, paths.
//!
//! All three hold for the calling thread and the threads and programs that it starts later, so they are given up when the
//! sockets are bound and before any thread is started. They do not rest on a unit or a profile of somebody else's.

mod calls;
mod metrics;
mod paths;
mod privileges;

pub use caps::Capability;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// The flag that leaves a program as it was started.
#[derive(Debug, Clone, Copy, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Keep every right that the program was started with: no capability, system call or path is given up
    #[arg(long = "no-confine")]
    pub no_confine: bool,
}

/// Whether programs may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// These directories' programs, which inherit what is kept.
    ProgramsIn(&'static [&'static str]),
    /// None, nor another process.
    Nothing,
}

/// What a program keeps.
#[derive(Debug, Clone)]
pub struct Confinement {
    /// Capabilities that stay, as far as the program has them.
    pub capabilities: Vec<Capability>,
    /// Files and directories that may be read, with all below them.
    pub reads: Vec<PathBuf>,
    /// Files and directories that may be read and written, with all below them.
    pub writes: Vec<PathBuf>,
    /// Directories out of which an empty directory may be removed.
    pub removes: Vec<PathBuf>,
    /// What may be started.
    pub starts: Starts,
}

/// What holds from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Confined {
    /// The thread has no capability but those that stay, and no program it starts can gain one.
    pub capabilities: bool,
    /// No path can be opened but those that stay.
    pub landlock: bool,
    /// System calls that neither program has a use for end it.
    pub seccomp: bool,
    /// What does not hold, and why.
    pub why_not: Vec<String>,
}

impl Confinement {
    /// Gives up all that is not kept. What the system refuses is in the answer: a program that cannot be confined still
    /// protects its host.
    pub fn apply(&self) -> Confined {
        let mut why_not = Vec::new();
        let mut holds = |what: &str, result: Result<(), String>| {
            result.map_err(|why| why_not.push(format!("{what}: {why}"))).is_ok()
        };
        // In this order: each one forbids what those before it need.
        let capabilities = holds("capabilities", privileges::keep_only(&self.capabilities));
        let landlock = holds("landlock", paths::keep_only(self));
        let seccomp = holds("seccomp", calls::forbid(self.starts));
        Confined { capabilities, landlock, seccomp, why_not }
    }
}

impl Confined {
    /// The same, asked for by a flag: nothing is given up.
    pub fn not_at_all() -> Confined {
        Confined { why_not: vec!["--no-confine".to_owned()], ..Confined::default() }
    }

    /// By name, in the order of the metric.
    pub fn by_name(&self) -> [(&'static str, bool); 3] {
        [("capabilities", self.capabilities), ("landlock", self.landlock), ("seccomp", self.seccomp)]
    }

    /// Tells the log, once.
    pub fn tell(&self) {
        let why_not = self.why_not.join("; ");
        match self.why_not.is_empty() {
            true => tracing::info!("confined: {self}"),
            false => tracing::warn!(why_not, "confined: {self}"),
        }
    }
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |holds| if holds { "yes" } else { "no" };
        let words = self.by_name().map(|(name, holds)| format!("{name} {}", word(holds)));
        f.write_str(&words.join(", "))
    }
}

/// The directories of these files, of what a link of them leads to as well: whoever replaces a file does so in there.
pub fn beside(files: &[PathBuf]) -> Vec<PathBuf> {
    let directory = |file: &Path| match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => file.to_owned(),
    };
    let leads_to = files.iter().filter_map(|file| file.canonicalize().ok());
    files.iter().cloned().chain(leads_to).map(|file| directory(&file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_a_link_and_beside_its_file_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let (live, archive) = (root.join("live"), root.join("archive"));
        for made in [&live, &archive] {
            std::fs::create_dir(made).unwrap();
        }
        std::fs::write(archive.join("cert1.pem"), "").unwrap();
        std::os::unix::fs::symlink("../archive/cert1.pem", live.join("cert.pem")).unwrap();
        assert_eq!(beside(&[live.join("cert.pem")]), [live, archive]);
        assert_eq!(
            beside(&["nowhere.yml".into(), "/".into()])[..2],
            [PathBuf::from("."), PathBuf::from("/")]
        );
    }

    #[test]
    fn what_does_not_hold_is_said() {
        let confined = Confined { capabilities: true, seccomp: true, ..Confined::default() };
        assert_eq!(confined.to_string(), "capabilities yes, landlock no, seccomp yes");
        assert_eq!(Confined::not_at_all().to_string(), "capabilities no, landlock no, seccomp no");
    }
}
