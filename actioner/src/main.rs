//! conntrack-actioner: see the crate's library for the line from a webhook to the kernel.

use clap::Parser;
use conntrack_actioner::check_policy::check_policy;
use conntrack_actioner::cli::{Cli, Command};
use conntrack_actioner::{run, teardown};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => start(&cli.run),
        Some(Command::Run(flags)) => start(&flags),
        Some(Command::CheckPolicy { file }) => {
            check_policy(&file, &mut std::io::stdout(), &mut std::io::stderr())
        }
        Some(Command::Teardown(flags)) => match teardown::teardown(&flags) {
            Ok(done) => {
                println!("{done}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        },
    }
}

fn start(flags: &conntrack_actioner::cli::Run) -> ExitCode {
    flags.log.init();
    match run::run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("conntrack-actioner: {error}");
    ExitCode::FAILURE
}
