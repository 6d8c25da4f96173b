//! `conntrack-exporter advise`: what this host should change before somebody fills its table, and why. It changes nothing.
//!
//! ```text
//! facts (reads) → judgement (pure) → print (pure)
//! ```

mod boot;
mod facts;
mod judgement;
mod listeners;
mod persisted;
mod print;
mod sizing;
mod timeouts;
mod weaknesses;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::sysctl::Unknown;

/// The flags of `advise`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Flags {
    /// For scripts: what was read and what is advised, as JSON
    #[arg(long)]
    json: bool,

    /// Where the host's root is mounted: rulesets and module options are read below its /etc
    #[arg(long = "path.rootfs", value_name = "PATH", default_value = "/")]
    rootfs: PathBuf,

    /// The set of the actioner's policy (firewall.set), looked for in rulesets that are loaded at boot
    #[arg(long = "firewall.set", value_name = "NAME", default_value = "conntrack-guard")]
    set: String,
}

/// Why no advice can be given.
#[derive(Debug, thiserror::Error)]
pub enum AdviseError {
    /// Without the table's sysctls there is nothing to judge.
    #[error("no advice can be given: {0}")]
    Sysctl(String),
    /// Standard output is closed or full.
    #[error("cannot write the advice: {0}")]
    Write(#[from] io::Error),
}

impl From<Unknown> for AdviseError {
    fn from(unknown: Unknown) -> AdviseError {
        AdviseError::Sysctl(unknown.to_string())
    }
}

/// Prints the advice on standard output.
pub(crate) fn run(procfs: &Path, flags: &Flags) -> Result<(), AdviseError> {
    let facts = facts::Facts::read(procfs, &flags.rootfs, &flags.set)?;
    let advice = judgement::judge(&facts);
    let text = if flags.json { print::json(&facts, &advice)? } else { print::sysctl_d(&facts, &advice) };
    match io::stdout().write_all(text.as_bytes()) {
        // Somebody read enough: `advise | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
