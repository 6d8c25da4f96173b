//! `make bench`: what reading, deleting and banning cost beside what a user would otherwise run, on this machine, in one go.
//! Each table leaves its part in `target/bench`; BENCHMARKS.md is put together of them, so that one can be measured again.

mod ban;
mod calls;
mod delete;
mod fail2ban;
mod floor;
mod growth;
mod idle;
mod latency;
mod machine;
mod measure;
mod plot;
mod report;
mod scrape;
mod table;
mod webhooks;

use std::{process::ExitCode, time::Instant};

use clap::{Parser, ValueEnum};
use tests::{Result, limit::Limit, tools};

use report::Part;

/// One table of the report, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Scrape,
    Growth,
    Delete,
    Ban,
    Webhooks,
    Latency,
    Idle,
}

/// How large, how often, how long.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Entries of the large table.
    large: u32,
    /// Rounds of a pair.
    rounds: usize,
    /// The clock of the idle table, in seconds.
    idle: u64,
    short: bool,
}

#[derive(Debug, Parser)]
#[command(about = "Measures, and writes BENCHMARKS.md")]
struct Arguments {
    /// A tenth of the size, in under three minutes; the report goes to target/bench/short/BENCHMARKS.md
    #[arg(long)]
    short: bool,
    /// Seconds that the programs idle for
    #[arg(long)]
    idle: Option<u64>,
    /// Only these tables; the others stay in the report as they were measured before
    tables: Vec<Name>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    tools::require(&tools::Tool::ALL)?;
    let size = if arguments.short {
        Size { large: 100_000, rounds: 3, idle: arguments.idle.unwrap_or(20), short: true }
    } else {
        Size { large: 1_000_000, rounds: 5, idle: arguments.idle.unwrap_or(600), short: false }
    };
    let _limit = Limit::raise(size.large + size.large / 10 + 262_144)?;
    for name in Name::value_variants() {
        if !arguments.tables.is_empty() && !arguments.tables.contains(name) {
            continue;
        }
        let (busy, started) = (machine::busy(), Instant::now());
        let mut part = measured(*name, size)?;
        part.busy = busy;
        part.took = started.elapsed();
        println!("{}", part.markdown());
        part.keep(*name as usize, size.short)?;
    }
    let path = report::assemble(size.short)?;
    println!("bench: {} is written", path.display());
    Ok(())
}

fn measured(name: Name, size: Size) -> Result<Part> {
    eprintln!("bench: {name:?}");
    match name {
        Name::Scrape => scrape::part(size),
        Name::Growth => growth::part(size),
        Name::Delete => delete::part(size),
        Name::Ban => ban::part(size),
        Name::Webhooks => webhooks::part(size),
        Name::Latency => latency::part(size),
        Name::Idle => idle::part(size),
    }
}
