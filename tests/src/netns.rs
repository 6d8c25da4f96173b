//! A network namespace of our own.
//!
//! A file descriptor keeps it alive and nothing names it in the file system, so it vanishes with this process,
//! however that ends. Code enters it on a scoped thread, commands and programs are children of such a thread.

use std::{
    fs::{self, File},
    io::Write,
    os::fd::AsRawFd,
    panic,
    process::{self, Command, Output, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Failure, Result, failure::Tried, process::Process};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, with its loopback up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    /// Makes one; `name` is for messages only.
    ///
    /// # Errors
    /// Without root, or where the kernel has no network namespaces.
    pub fn new(name: &str) -> Result<Self> {
        let (made, handle) = mpsc::channel();
        let (jobs, queue) = mpsc::channel::<Job>();
        // The parent-death signal of a child follows the thread that started it, so children need a thread
        // that lives as long as the namespace.
        thread::Builder::new()
            .name(format!("netns {name}"))
            .spawn(move || {
                let opened = unshare(CloneFlags::CLONE_NEWNET)
                    .map_err(Into::into)
                    .and_then(|()| File::open("/proc/thread-self/ns/net"));
                if made.send(opened).is_ok() {
                    queue.into_iter().for_each(|job| job());
                }
            })
            .tried(|| format!("a thread for the namespace {name}"))?;
        let handle = handle
            .recv()
            .expect("the thread answers before it ends")
            .tried(|| format!("unshare(CLONE_NEWNET) for {name}; are you root?"))?;
        let namespace = Self { name: name.into(), handle, jobs };
        namespace.command(&["ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path by which `ip … netns PATH` finds this namespace as long as this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.handle.as_raw_fd())
    }

    /// Runs `inside` on a thread in the namespace and returns its value; a panic goes on here.
    ///
    /// Sockets made inside belong to the namespace wherever they are used later. Children started inside with a
    /// parent-death signal die when `inside` returns: [`Self::spawn`] is for those that shall live.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let entered = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("a namespace we hold can be entered");
                inside()
            });
            inside.join()
        });
        entered.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Starts a thread in the namespace, which it keeps alive. For work that goes on beside the caller's; children
    /// with a parent-death signal die with the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let handle =
            self.handle.try_clone().tried(|| format!("a second handle of the namespace {}", self.name))?;
        thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                setns(handle, CloneFlags::CLONE_NEWNET).expect("a namespace we hold can be entered");
                inside()
            })
            .tried(|| format!("a thread in the namespace {}", self.name))
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be started or fails; the failure has its standard error.
    pub fn command(&self, words: &[&str]) -> Result<Output> {
        self.command_with_input(words, "")
    }

    /// The same, with `input` on its standard input.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn command_with_input(&self, words: &[&str], input: &str) -> Result<Output> {
        let line = words.join(" ");
        let output = self.run(|| {
            let mut child = Command::new(words[0])
                .args(&words[1..])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            // A command that does not read all of its input says why by itself.
            let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
            child.wait_with_output()
        });
        let output = output.tried(|| format!("starting `{line}` in {}", self.name))?;
        if output.status.success() {
            return Ok(output);
        }
        Err(Failure::Command {
            command: if input.is_empty() { line } else { format!("{line} <<< {input}") },
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command to its end and returns what it printed.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn output(&self, words: &[&str]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.command(words)?.stdout).into_owned())
    }

    /// Runs `ip` commands, one a line, without the leading `ip`.
    ///
    /// # Errors
    /// As [`Self::command`]; lines before the failing one have been carried out.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.command_with_input(&["ip", "-batch", "-"], lines).map(drop)
    }

    /// Loads nftables rules, all or none.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.command_with_input(&["nft", "-f", "-"], rules).map(drop)
    }

    /// Turns connection tracking on, for both families.
    ///
    /// The kernel tracks nothing in a namespace until a rule asks for it. The lightest that does is a `ct`
    /// expression in a chain without a hook (`nft_ct_get_init` takes the hooks when the rule is loaded): no packet
    /// ever meets the rule, so it costs nothing beyond the tracking itself.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn track_connections(&self) -> Result<()> {
        self.nft("table inet tracking { chain unhooked { ct state new; }; }")
    }

    /// Writes a sysctl of this namespace, named by its path below `/proc/sys`.
    ///
    /// # Errors
    /// When the kernel has no such sysctl or refuses the value. It also refuses the two that are global in
    /// the kernel itself (`nf_conntrack_max` and `nf_conntrack_buckets` can be written from the first namespace only).
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{path}"), value))
            .tried(|| format!("{}: writing {value:?} to /proc/sys/{path}", self.name))
    }

    /// Reads a sysctl of this namespace.
    ///
    /// # Errors
    /// When the kernel has no such sysctl.
    pub fn read_sysctl(&self, path: &str) -> Result<String> {
        self.run(|| fs::read_to_string(format!("/proc/sys/{path}")))
            .map(|text| text.trim_end().into())
            .tried(|| format!("{}: reading /proc/sys/{path}", self.name))
    }

    /// Starts a program inside; see [`Process`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        let (answer, started) = mpsc::channel();
        self.jobs
            .send(Box::new(move || {
                let _ = answer.send(Process::start(&command));
            }))
            .expect("the namespace's thread lives as long as the namespace");
        started.recv().expect("the namespace's thread answers every job")
    }
}
