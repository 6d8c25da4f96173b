//! A long-running program: its output kept, its end certain.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{Failure, Result, failure::Tried, wait::wait_until};

const GRACE: Duration = Duration::from_secs(5);

/// A running program. Dropping it ends it: SIGTERM, and SIGKILL after five seconds.
///
/// It also dies with the namespace it runs in, and so with this process, by its parent-death signal.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    directory: TempDir,
}

impl Process {
    /// Must be called on a thread that lives as long as the program shall.
    pub(crate) fn start(command: &Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let directory = tempfile::tempdir().tried(|| format!("a directory for the output of {name}"))?;
        let log = File::create(directory.path().join("log")).tried(|| format!("a log file for {name}"))?;
        let errors = log.try_clone().tried(|| format!("a log file for {name}"))?;
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(current) = command.get_current_dir() {
            wrapped.current_dir(current);
        }
        let child = wrapped
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .tried(|| format!("starting {name} through setpriv (util-linux)"))?;
        // Until setpriv has set the signal and become the program, our death would not be noticed.
        let executable = format!("/proc/{}/exe", child.id());
        let mut process = Self { name, child, directory };
        let what = format!("setpriv to become {}", process.name);
        wait_until(&what, GRACE, || match (fs::read_link(&executable), process.child.try_wait()) {
            (Ok(path), Ok(None)) if path.ends_with("setpriv") => Err("still setpriv"),
            _ => Ok(()),
        })?;
        Ok(process)
    }

    /// The program's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its time on CPUs so far, the kernel's work for it included, in nanoseconds' resolution. What its children used is not in it.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        let read = || clock_gettime(clock_getcpuclockid(self.pid())?);
        read().map(Duration::from).tried(|| format!("the CPU time of {}", self.name))
    }

    /// The time on CPUs of those children that have ended, in ticks of 10 ms: fields 16 and 17 of proc_pid_stat(5).
    ///
    /// # Errors
    /// When it has ended.
    pub fn children_cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).tried(|| self.name.clone())?;
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(13)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(10 * ticks))
    }

    /// The most memory it has had resident, in bytes: `VmHWM` of proc_pid_status(5).
    ///
    /// # Errors
    /// When it has ended.
    pub fn peak_memory(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    /// The memory that it has made for itself and that is resident now, in bytes, its code and whatever else of files left out:
    /// `RssAnon` of proc_pid_status(5).
    ///
    /// # Errors
    /// When it has ended.
    pub fn anonymous_memory(&self) -> Result<u64> {
        self.status("RssAnon:")
    }

    /// How many threads it has.
    ///
    /// # Errors
    /// When it has ended.
    pub fn threads(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/task", self.id())).tried(|| self.name.clone())?.count())
    }

    /// A field of proc_pid_status(5) that is in kB, in bytes.
    fn status(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).tried(|| self.name.clone())?;
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.map(|kilobytes| kilobytes << 10).ok_or_else(|| Failure::answer(field, &status))
    }

    /// Whether its thread of that name sleeps, which one that is woken for work does not. None: it has ended, or there is no such
    /// thread.
    ///
    /// # Errors
    /// When procfs cannot be read.
    pub fn sleeps(&self, thread: &str) -> Result<Option<bool>> {
        let tasks = match fs::read_dir(format!("/proc/{}/task", self.id())) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            tasks => tasks.tried(|| self.name.clone())?,
        };
        for task in tasks {
            let task = task.tried(|| self.name.clone())?.path();
            // A thread may end between the listing and the reading.
            let Ok(stat) = fs::read_to_string(task.join("stat")) else { continue };
            // proc_pid_stat(5): the name in parentheses, then the state.
            let Some((before, after)) = stat.rsplit_once(')') else { continue };
            if before.split_once('(').is_some_and(|(_, name)| name == thread) {
                return Ok(Some(after.trim_start().starts_with('S')));
            }
        }
        Ok(None)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Everything it has written so far, both streams in the order written.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The file that [`Self::log`] reads; it goes with the process.
    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// `None` while it runs.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().tried(|| format!("waiting for {}", self.name))
    }

    /// Fails if the program has ended.
    ///
    /// # Errors
    /// [`Failure::Ended`] with its output.
    pub fn running(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(Failure::Ended { program: self.name.clone(), status, log: self.log() }),
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not within `timeout`; the failure has the end of its output.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait_until(&what, timeout, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("still running, its output:\n{}", self.log())),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the system refuses; a program that has already ended is no error.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        // Not reaped yet, so the id still belongs to our child.
        kill(self.pid(), signal).tried(|| format!("{signal} to {}", self.name))
    }

    /// SIGTERM, then SIGKILL after five seconds; returns how it ended.
    ///
    /// # Errors
    /// When the system refuses to signal it.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(GRACE).or_else(|_| {
            self.child.kill().tried(|| format!("SIGKILL to {}", self.name))?;
            self.child.wait().tried(|| format!("waiting for {}", self.name))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error}");
        }
    }
}
