//! An actioner at work, with files of its own.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Failure, Result,
    failure::Tried,
    netns::Namespace,
    programs::{Program, Running},
};

/// A running `conntrack-actioner`. Dropping it ends it; its files go with it.
#[derive(Debug)]
pub struct Guard {
    /// The program.
    pub running: Running,
    home: TempDir,
}

impl Guard {
    /// Starts one with this policy, and waits until it says that it is ready.
    ///
    /// # Errors
    /// As [`Program::start`].
    pub fn start(namespace: &Namespace, policy: &str) -> Result<Self> {
        let home = Self::home(policy)?;
        let flags = Self::flags(&home);
        let flags = flags.each_ref().map(String::as_str);
        let running = Program::Actioner.start(namespace, Program::Actioner.default_address(), &flags)?;
        Ok(Self { running, home })
    }

    /// The same behind a shell script in a mount namespace of its own, so that the script may mount what it likes.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_behind(namespace: &Namespace, policy: &str, script: &str) -> Result<Self> {
        let home = Self::home(policy)?;
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")]);
        command.arg(Program::Actioner.path()?).args(Self::flags(&home));
        let running = Running::start(namespace, command, Program::Actioner.default_address().into())?;
        Ok(Self { running, home })
    }

    fn home(policy: &str) -> Result<TempDir> {
        let home = tempfile::tempdir().tried(|| "a directory for an actioner")?;
        fs::write(home.path().join("policy.yaml"), policy).tried(|| "the actioner's policy")?;
        Ok(home)
    }

    fn flags(home: &TempDir) -> [String; 6] {
        let path = |name: &str| home.path().join(name).display().to_string();
        let [file, storage, socket] = [path("policy.yaml"), path("storage"), path("admin.sock")];
        ["--policy.file".into(), file, "--storage.path".into(), storage, "--admin.socket".into(), socket]
    }

    /// The value of a sample, named with its labels and without the prefix `conntrack_actioner_`. Asked for over the
    /// unix socket, so that the question leaves no entry in the table.
    ///
    /// # Errors
    /// When it does not answer, or has no such sample.
    pub fn metric(&self, sample: &str) -> Result<f64> {
        let server = crate::http::Server::Unix(self.home.path().join("admin.sock"));
        let text = crate::http::get(&server, "/metrics", &[])?.text();
        let value = |line: &str| {
            line.strip_prefix("conntrack_actioner_")?.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok()
        };
        text.lines().find_map(value).ok_or_else(|| Failure::answer(sample, &text))
    }

    /// Dumps taken for decisions so far.
    ///
    /// # Errors
    /// As [`Self::metric`].
    pub fn dumps(&self) -> Result<f64> {
        self.metric("action_duration_seconds_count{action=\"survey\"}")
    }

    /// What it has written down so far, a decision a line.
    ///
    /// # Errors
    /// When a line is no JSON.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.audit_path()).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|error| Failure::answer("the audit log", &error)))
            .collect()
    }

    fn audit_path(&self) -> PathBuf {
        self.home.path().join("storage/audit.jsonl")
    }
}
