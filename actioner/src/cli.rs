//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Bans sources that exhaust the connection tracking table, as Alertmanager's webhooks or its own watch nominate them and
/// a policy allows.
#[derive(Debug, Parser)]
#[command(name = "conntrack-actioner", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without it, run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of run.
    #[command(flatten)]
    pub run: Run,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the webhook and act by the policy (the default)
    Run(Box<Run>),
    /// Read a policy, report every error at once, and summarize what it does; opens no socket
    CheckPolicy {
        /// The policy
        file: PathBuf,
    },
    /// Remove our drop rules and our sets, with the bans in them, and nothing else
    Teardown(Teardown),
}

/// The flags of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The policy: what may be done to whom, on which evidence
    #[arg(long = "policy.file", value_name = "FILE", default_value = "/etc/conntrack-guard/policy.yaml")]
    pub policy_file: PathBuf,

    /// Where the audit log is kept
    #[arg(long = "storage.path", value_name = "DIR", default_value = "/var/lib/conntrack-guard")]
    pub storage: PathBuf,

    /// Set the audit log aside (audit.jsonl.1, .2, …) when it would grow beyond this; 0 leaves that to logrotate
    #[arg(long = "audit.max-size", value_name = "SIZE", default_value = "64MiB")]
    pub audit_max_size: bytesize::ByteSize,

    /// So many audit logs that were set aside are kept
    #[arg(long = "audit.keep", value_name = "FILES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub audit_keep: u32,

    /// Unix socket that takes the same webhook: it answers even when the table is full
    #[arg(long = "admin.socket", value_name = "PATH", default_value = "/run/conntrack-guard/actioner.sock")]
    pub admin_socket: PathBuf,

    /// Let POST /-/reload read the policy again (SIGHUP always does)
    #[arg(long = "web.enable-lifecycle")]
    pub lifecycle: bool,

    /// The --web.* flags.
    #[command(flatten)]
    pub web: web::flags::Flags,

    /// The --log.* flags.
    #[command(flatten)]
    pub log: web::log::Flags,
}

/// The flags of `teardown`.
#[derive(Debug, Args)]
pub struct Teardown {
    /// The policy that names the sets; without one, the sets are called conntrack-guard
    #[arg(long = "policy.file", value_name = "FILE", default_value = "/etc/conntrack-guard/policy.yaml")]
    pub policy_file: PathBuf,

    /// The running actioner's socket: teardown refuses while it answers, for it would put everything back
    #[arg(long = "admin.socket", value_name = "PATH", default_value = "/run/conntrack-guard/actioner.sock")]
    pub admin_socket: PathBuf,
}
