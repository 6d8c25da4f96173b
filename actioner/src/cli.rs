//! The command line.

use crate::command::ban::target;
use crate::exit::EXPLAINED;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where state and audit log are kept, unless it is said.
pub const STORAGE: &str = "/var/lib/conntrack-guard";
const SOCKET: &str = "/run/conntrack-guard/actioner.sock";
const POLICY: &str = "/etc/conntrack-guard/policy.yaml";

/// Bans sources that exhaust the connection tracking table, as Alertmanager's webhooks or its own watch nominate them and
/// a policy allows.
#[derive(Debug, Parser)]
#[command(name = "conntrack-actioner", version, args_conflicts_with_subcommands = true, after_help = EXPLAINED)]
#[command(max_term_width = 110)]
pub struct Cli {
    /// What to do; without it, run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of run.
    #[command(flatten)]
    pub run: Run,
}

/// Where it listens unless told otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:10049";

impl Cli {
    /// From this process's arguments; ends it where they are wrong, or ask for help.
    pub fn read() -> Cli {
        Cli::from_arg_matches(&Cli::shown().get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// The command with all its defaults in its help.
    pub fn shown() -> clap::Command {
        let named = |command| web::flags::with_default_address(command, DEFAULT_ADDRESS);
        named(Cli::command()).mut_subcommand("run", named)
    }
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
    /// List who is banned, why, for how long, and whether the kernel holds it
    Bans(Asking),
    /// Ban an address or a network by hand
    #[command(after_help = EXPLAINED)]
    Ban(Ban),
    /// End a ban by hand; no rule bans it again for 24 h
    #[command(after_help = EXPLAINED)]
    Unban(Unban),
    /// Say what is known of an address, what each rule would do about it and why, and what was done before
    Explain(Explain),
    /// Show what the running actioner does, and what is wrong with it
    Status(Asking),
    /// Carry out nothing that a rule decides, only write it down, for a time or until resume; bans in force stay, ban and unban go on
    Pause(Pause),
    /// End a pause, a panic, or an open breaker
    #[command(after_help = EXPLAINED)]
    Resume(Resume),
    /// Stop everything: lift every ban, empty our sets, and stay off until resume, whether an actioner runs, hangs or is dead
    #[command(after_help = EXPLAINED)]
    Panic(Panic),
    /// Show what another policy would have decided on what really happened, as the audit log kept it
    Replay(Replay),
    /// Sum up what each rule did in the last days, or in dry run would have done: read it before you enforce
    Report(Report),
    /// Prove in a network namespace of its own, on this very kernel, that bans, deletions and all that we need work here
    Selftest(Selftest),
    /// Remove our drop rules and our sets, end the bans in them, and nothing else
    Teardown(Teardown),
    /// Make our sets, empty, where they are missing, so that a saved ruleset that names them loads at boot; no rule is made
    CreateSets(CreateSets),
    /// Completions and man pages.
    #[command(flatten)]
    Manual(web::manual::Manual),
}

/// Where the running actioner is asked.
#[derive(Debug, Args)]
pub struct Socket {
    /// The running actioner's socket
    #[arg(long = "admin.socket", value_name = "PATH", default_value = SOCKET)]
    pub admin_socket: PathBuf,
}

/// The flags of what only shows.
#[derive(Debug, Args)]
pub struct Asking {
    /// For scripts
    #[arg(long)]
    pub json: bool,

    /// Where.
    #[command(flatten)]
    pub socket: Socket,
}

/// The flags of `ban`.
#[derive(Debug, Args)]
pub struct Ban {
    /// An address, or a network such as 192.0.2.0/24 or 2001:db8::/64
    #[arg(value_name = "ADDR[/PREFIX]", value_parser = target)]
    pub target: IpNet,

    /// How long, such as 30m, 1h or 2days
    #[arg(long = "for", value_name = "DURATION", value_parser = whole_seconds)]
    pub lasts: Duration,

    /// Why: it stands in the audit log beside your name
    #[arg(long, value_name = "TEXT")]
    pub reason: String,

    /// Where.
    #[command(flatten)]
    pub socket: Socket,
}

/// The flags of `unban`.
#[derive(Debug, Args)]
pub struct Unban {
    /// An address, or a network as `bans` lists it
    #[arg(value_name = "ADDR[/PREFIX]", value_parser = target, required_unless_present = "all")]
    pub target: Option<IpNet>,

    /// End every ban
    #[arg(long, conflicts_with = "target")]
    pub all: bool,

    /// Where.
    #[command(flatten)]
    pub socket: Socket,
}

/// The flags of `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The address, also as `bans` shows it
    #[arg(value_name = "ADDR", value_parser = one_address)]
    pub address: IpAddr,

    /// Where the audit log is; without it, where the running actioner says
    #[arg(long = "storage.path", value_name = "DIR")]
    pub storage: Option<PathBuf>,

    /// How it is shown, and where.
    #[command(flatten)]
    pub asking: Asking,
}

/// The flags of `pause`.
#[derive(Debug, Args)]
pub struct Pause {
    /// How long, such as 2h; without it, until resume
    #[arg(long = "for", value_name = "DURATION", value_parser = whole_seconds)]
    pub lasts: Option<Duration>,

    /// Where.
    #[command(flatten)]
    pub socket: Socket,
}

/// The flags of `resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// Where the file that panic left is
    #[arg(long = "storage.path", value_name = "DIR", default_value = STORAGE)]
    pub storage: PathBuf,

    /// Where.
    #[command(flatten)]
    pub socket: Socket,
}

/// The flags of `panic`.
#[derive(Debug, Args)]
pub struct Panic {
    /// The policy that names the sets; one that cannot be read is not in the way
    #[arg(long = "policy.file", value_name = "FILE", default_value = POLICY)]
    pub policy_file: PathBuf,

    /// Where the file is put that keeps an actioner off, also over a restart: the actioner's own
    #[arg(long = "storage.path", value_name = "DIR", default_value = STORAGE)]
    pub storage: PathBuf,

    /// Where.
    #[command(flatten)]
    pub socket: Socket,
}

/// The flags of `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// The policy to try
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,

    /// Audit logs, the oldest first: audit.jsonl.1 audit.jsonl
    #[arg(value_name = "AUDIT.jsonl", required = true)]
    pub files: Vec<PathBuf>,

    /// Decisions that stay the same, too
    #[arg(long)]
    pub all: bool,

    /// For scripts: every decision and the counts
    #[arg(long)]
    pub json: bool,
}

/// The flags of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// So many days back
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3660))]
    pub days: u32,

    /// Where the audit log is kept
    #[arg(long = "storage.path", value_name = "DIR", default_value = STORAGE)]
    pub storage: PathBuf,

    /// For scripts
    #[arg(long)]
    pub json: bool,
}

/// What `explain` is asked about.
fn one_address(text: &str) -> Result<IpAddr, String> {
    let net = target(text)?;
    match net.prefix_len() == net.max_prefix_len() {
        true => Ok(net.addr().to_canonical()),
        false => Err(format!(
            "{net} is a network, and each of its addresses is judged by itself: name one of them"
        )),
    }
}

fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}: write 30m, 1h or 2days"))?;
    if duration.subsec_nanos() > 0 || duration.is_zero() {
        return Err("whole seconds, one at least".to_owned());
    }
    Ok(duration)
}

/// The flags of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The policy: what may be done to whom, on which evidence
    #[arg(long = "policy.file", value_name = "FILE", default_value = POLICY)]
    pub policy_file: PathBuf,

    /// Where the audit log is kept
    #[arg(long = "storage.path", value_name = "DIR", default_value = STORAGE)]
    pub storage: PathBuf,

    /// Set the audit log aside (audit.jsonl.1, .2, …) when it would grow beyond this; 0 leaves that to logrotate
    #[arg(long = "audit.max-size", value_name = "SIZE", default_value = "64MiB")]
    pub audit_max_size: bytesize::ByteSize,

    /// So many audit logs that were set aside are kept
    #[arg(long = "audit.keep", value_name = "FILES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub audit_keep: u32,

    /// Unix socket that takes the same webhook: it answers even when the table is full
    #[arg(long = "admin.socket", value_name = "PATH", default_value = SOCKET)]
    pub admin_socket: PathBuf,

    /// Let POST /-/reload read the policy again (SIGHUP always does)
    #[arg(long = "web.enable-lifecycle")]
    pub lifecycle: bool,

    /// File with a token that lets a client in: `Authorization: Bearer`, Alertmanager's `authorization: {credentials_file}`;
    /// read again when it changes
    #[arg(long = "web.bearer-token-file", value_name = "FILE")]
    pub bearer_token_file: Option<PathBuf>,

    /// Enforce even though anybody who reaches an address that is not loopback may send webhooks
    #[arg(long = "web.allow-unauthenticated-webhooks")]
    pub allow_unauthenticated_webhooks: bool,

    /// The --web.* flags.
    #[command(flatten)]
    pub web: web::flags::Flags,

    /// The --log.* flags.
    #[command(flatten)]
    pub log: web::log::Flags,

    /// --no-confine.
    #[command(flatten)]
    pub confine: web::confine::Flags,
}

/// The flags of `selftest`.
#[derive(Debug, Args)]
pub struct Selftest {
    /// For scripts
    #[arg(long)]
    pub json: bool,

    /// Where the webhook's unix socket shall be: whether one can be made beside it is tried, too
    #[arg(long = "admin.socket", value_name = "PATH", default_value = SOCKET)]
    pub admin_socket: PathBuf,
}

/// The flags of `teardown`.
#[derive(Debug, Args)]
pub struct Teardown {
    /// The policy that names the sets; without one, the sets are called conntrack-guard
    #[arg(long = "policy.file", value_name = "FILE", default_value = POLICY)]
    pub policy_file: PathBuf,

    /// Where the bans are kept: they end there, too, or the next start would put them in the kernel again
    #[arg(long = "storage.path", value_name = "DIR", default_value = STORAGE)]
    pub storage: PathBuf,

    /// Leave the bans to the next start: for another `firewall` in the policy, or another backend
    #[arg(long = "keep-bans")]
    pub keep_bans: bool,

    /// The running actioner's socket: teardown refuses while it answers, for it would put everything back
    #[arg(long = "admin.socket", value_name = "PATH", default_value = SOCKET)]
    pub admin_socket: PathBuf,
}

/// The flags of `create-sets`.
#[derive(Debug, Args)]
pub struct CreateSets {
    /// The policy that names the sets; without one, the sets are called conntrack-guard
    #[arg(long = "policy.file", value_name = "FILE", default_value = POLICY)]
    pub policy_file: PathBuf,
}
