//! The program conntrack-exporter.

use std::process::ExitCode;

use clap::Parser;
use conntrack_exporter::Flags;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match conntrack_exporter::run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conntrack-exporter: {error}");
            ExitCode::FAILURE
        }
    }
}
