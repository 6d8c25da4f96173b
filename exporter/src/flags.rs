//! The command line, in node_exporter's manner.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::advise;
use crate::collector::{Collector, Collectors};

/// Tells Prometheus what this host's connection tracking table holds and who fills it.
#[derive(Debug, Clone, Parser)]
#[command(name = "conntrack-exporter", version, max_term_width = 110)]
#[group(skip)]
pub struct Flags {
    #[command(flatten)]
    pub(crate) web: web::flags::Flags,

    #[command(flatten)]
    pub(crate) log: web::log::Flags,

    #[command(flatten)]
    pub(crate) confine: web::confine::Flags,

    /// Where procfs is mounted
    #[arg(long = "path.procfs", value_name = "PATH", default_value = "/proc", global = true)]
    pub(crate) procfs: PathBuf,

    #[command(flatten)]
    pub(crate) collectors: Enabled,

    #[command(flatten)]
    pub(crate) sources: Sources,

    /// A dump younger than this is served again; 5s suits a pair of Prometheis
    #[arg(long = "collector.flows.max-age", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) max_age: Duration,

    /// An established entry is socketless when it was idle so long and has no socket; whole seconds
    #[arg(long = "collector.sockets.grace", value_name = "DURATION", default_value = "30s", value_parser = grace)]
    pub(crate) grace: Duration,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What the program does instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Prints what this host should change before somebody fills its table, and why, as a file for sysctl.d. Changes nothing
    #[command(after_help = "Exit code: 0, whatever is advised; 1 if the table's sysctls cannot be read.")]
    Advise(advise::Flags),
    /// Shows the table live: how full, when it will be, and who fills it
    #[cfg(feature = "top")]
    Top(crate::top::Flags),
    #[command(flatten)]
    Manual(web::manual::Manual),
}

/// Where it listens unless told otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = ":10048";

impl Flags {
    /// From this process's arguments; ends it where they are wrong, or ask for help.
    pub fn read() -> Flags {
        let matches = Flags::shown().get_matches();
        Flags::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// The command line with all its defaults in its help.
    pub(crate) fn shown() -> clap::Command {
        web::flags::with_default_address(Flags::command(), DEFAULT_ADDRESS)
    }
}

/// What is shown of the sources.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sources {
    /// How many sources to show by entries, by assured, half-open and socketless entries, and how many prefixes
    #[arg(
        id = "sources.top",
        long = "collector.sources.top",
        value_name = "COUNT",
        default_value_t = 10,
        value_parser = RangedI64ValueParser::<u32>::new().range(0..=1000)
    )]
    pub(crate) top: u32,

    /// A source with fewer entries is not shown
    #[arg(
        id = "sources.min-entries",
        long = "collector.sources.min-entries",
        value_name = "COUNT",
        default_value_t = 50
    )]
    pub(crate) min_entries: u32,

    /// Once shown, a source stays so long, so that alerts with "for:" work
    #[arg(
        id = "sources.hold",
        long = "collector.sources.hold",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = duration
    )]
    pub(crate) hold: Duration,

    /// Length of the prefixes that IPv4 sources are summed up by
    #[arg(
        id = "sources.prefix-ipv4",
        long = "collector.sources.prefix-ipv4",
        value_name = "BITS",
        default_value_t = 24,
        value_parser = RangedI64ValueParser::<u8>::new().range(0..=32)
    )]
    pub(crate) prefix_ipv4: u8,

    /// Length of the prefixes that IPv6 sources are summed up by
    #[arg(
        id = "sources.prefix-ipv6",
        long = "collector.sources.prefix-ipv6",
        value_name = "BITS",
        default_value_t = 64,
        value_parser = RangedI64ValueParser::<u8>::new().range(0..=128)
    )]
    pub(crate) prefix_ipv6: u8,
}

/// `5m`, `90s`, `1h30m`; 0 needs no unit.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 5m, 90s or 1h30m"))
}

/// The kernel shows the time an entry has left in whole seconds.
fn grace(text: &str) -> Result<Duration, String> {
    let grace = duration(text)?;
    if grace < Duration::from_secs(1) || grace.subsec_nanos() != 0 {
        return Err(
            "it must be whole seconds, one at least: the kernel counts timeouts in seconds".to_owned()
        );
    }
    Ok(grace)
}

/// `--collector.NAME` and `--no-collector.NAME` of each collector; the last one given wins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enabled(pub(crate) Collectors);

fn on(collector: Collector) -> String {
    format!("collector.{}", collector.name())
}

fn off(collector: Collector) -> String {
    format!("no-collector.{}", collector.name())
}

impl Args for Enabled {
    fn augment_args(command: clap::Command) -> clap::Command {
        Collector::ALL.into_iter().fold(command, |command, collector| {
            let flag = |own: String, other: String| {
                Arg::new(own.clone())
                    .long(own.clone())
                    .action(ArgAction::SetTrue)
                    .overrides_with_all([own, other])
            };
            let about = collector.about();
            command
                .arg(flag(on(collector), off(collector)).help(format!("Collect {about} (the default)")))
                .arg(flag(off(collector), on(collector)).help(format!("Leave out {about}")))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Enabled::augment_args(command)
    }
}

impl FromArgMatches for Enabled {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Enabled, clap::Error> {
        let enabled = Collector::ALL.into_iter().filter(|collector| !matches.get_flag(&off(*collector)));
        Ok(Enabled(enabled.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Enabled::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Flags, clap::Error> {
        Flags::try_parse_from([&["conntrack-exporter"], flags].concat())
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let flags = parse(&[]).unwrap();
        assert_eq!(flags.collectors.0, Collector::ALL.into_iter().collect());
        let sources = flags.sources;
        assert_eq!((sources.top, sources.min_entries, sources.hold), (10, 50, Duration::from_secs(300)));
        assert_eq!((sources.prefix_ipv4, sources.prefix_ipv6), (24, 64));
        assert_eq!((flags.max_age, flags.grace), (Duration::ZERO, Duration::from_secs(30)));
        assert_eq!(flags.procfs, PathBuf::from("/proc"));
    }

    #[test]
    fn the_last_word_on_a_collector_counts() {
        let off = parse(&["--collector.flows", "--no-collector.flows", "--no-collector.stat"]).unwrap();
        assert!(!off.collectors.0.has(Collector::Flows) && !off.collectors.0.has(Collector::Stat));
        assert!(off.collectors.0.has(Collector::Sources));
        let on = parse(&["--no-collector.flows", "--collector.flows", "--collector.flows"]).unwrap();
        assert!(on.collectors.0.has(Collector::Flows));
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused() {
        assert!(parse(&["--collector.hosts"]).is_err(), "there is none, so not accepted and ignored");
        for grace in ["0", "0s", "500ms", "1500ms"] {
            let error = parse(&[&format!("--collector.sockets.grace={grace}")]).unwrap_err().to_string();
            assert!(error.contains("whole seconds"), "{error}");
        }
        assert_eq!(parse(&["--collector.sockets.grace=2m"]).unwrap().grace, Duration::from_secs(120));
        assert!(parse(&["--collector.sources.prefix-ipv4=33"]).is_err());
        let error = parse(&["--collector.sources.hold=5"]).unwrap_err().to_string();
        assert!(error.contains("collector.sources.hold") && error.contains("5m"), "{error}");
        assert_eq!(parse(&["--collector.flows.max-age=0"]).unwrap().max_age, Duration::ZERO);
    }

    #[test]
    fn a_command_takes_the_mount_of_procfs_on_either_side() {
        for words in [["--path.procfs=/host/proc", "advise"], ["advise", "--path.procfs=/host/proc"]] {
            let flags = parse(&words).unwrap();
            assert!(matches!(flags.command, Some(Command::Advise(_))));
            assert_eq!(flags.procfs, PathBuf::from("/host/proc"));
        }
    }

    #[test]
    fn the_command_is_well_formed() {
        Flags::command().debug_assert();
    }
}
