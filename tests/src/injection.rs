//! Errors that the kernel seldom gives, put into the system calls of a running program by strace(1).

use std::{fs, process::Command, time::Duration};

use crate::{Result, failure::Tried, netns::Namespace, process::Process, wait::wait_until};

const SOON: Duration = Duration::from_secs(10);

/// Whose calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'n> {
    /// Those of the thread of that name.
    Thread(&'n str),
    /// Those of every thread that there is, and of each that it starts; `when=` counts for each of them by itself.
    Threads,
}

/// Calls that fail, until it is dropped.
#[derive(Debug)]
pub struct Injection {
    strace: Process,
}

impl Injection {
    /// From now on: `what` is an expression of strace's, such as `recvfrom:error=ENOBUFS:when=1..3`.
    ///
    /// # Errors
    /// When the program has no such thread, or strace cannot be tied to it.
    pub fn start(namespace: &Namespace, program: &Process, whose: Whose<'_>, what: &str) -> Result<Self> {
        let (id, follow) = match whose {
            Whose::Thread(name) => (thread(program.id(), name)?, None),
            Whose::Threads => (program.id(), Some("-f")),
        };
        let mut command = Command::new("strace");
        let calls = what.split(':').next().unwrap_or_default();
        command.args(["-qq", "-e", &format!("trace={calls}"), "-e", &format!("inject={what}")]);
        command.args(follow).args(["-p", &id.to_string()]);
        let strace = namespace.spawn(command)?;
        let tied = || {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            tracer.is_some_and(|tracer| tracer.trim() == strace.id().to_string())
        };
        wait_until("strace to be tied to the program", SOON, || match tied() {
            true => Ok(()),
            false => Err(strace.log()),
        })?;
        Ok(Self { strace })
    }

    /// How many calls failed by it so far.
    pub fn count(&self) -> usize {
        self.strace.log().matches("(INJECTED)").count()
    }

    /// Lets the program go; how many calls failed by it.
    ///
    /// # Errors
    /// When strace does not end.
    pub fn end(mut self) -> Result<usize> {
        self.strace.stop()?;
        Ok(self.count())
    }
}

/// The id of a program's thread.
fn thread(process: u32, name: &str) -> Result<u32> {
    let named = |id: &u32| {
        let comm = fs::read_to_string(format!("/proc/{process}/task/{id}/comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    };
    let tasks = fs::read_dir(format!("/proc/{process}/task")).tried(|| format!("threads of {process}"))?;
    let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    let found = ids.into_iter().find(named);
    Ok(found.unwrap_or_else(|| panic!("{process} has no thread {name}")))
}
