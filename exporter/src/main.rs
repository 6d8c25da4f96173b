//! The program conntrack-exporter.

use std::process::ExitCode;

use conntrack_exporter::Flags;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match conntrack_exporter::run(Flags::read()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conntrack-exporter: {error}");
            ExitCode::FAILURE
        }
    }
}
