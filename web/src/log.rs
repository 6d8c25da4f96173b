//! The `--log.*` flags, as node_exporter has them, and where lines go: standard error.

use std::io::{self, Write};

use tracing::level_filters::LevelFilter;

/// The `--log.*` flags; a program flattens them into its own.
#[derive(Debug, Clone, Copy, clap::Args)]
#[group(skip)] // clap names the group after the struct: flags::Flags has the same name
pub struct Flags {
    /// Only log messages of this severity or above
    #[arg(long = "log.level", value_name = "LEVEL", value_enum, default_value_t = Level::Info)]
    pub level: Level,

    /// Output format of log messages
    #[arg(long = "log.format", value_name = "FORMAT", value_enum, default_value_t = Format::Logfmt)]
    pub format: Format,
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Also what is done for each request.
    Debug,
    /// What an operator may want to read later.
    Info,
    /// Something is wrong, and work goes on.
    Warn,
    /// Something asked for was not done.
    Error,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `ts=… level=info target=… message="…" key=value`
    Logfmt,
    /// One JSON object a line, with the same fields.
    Json,
}

/// Standard error, whose own errors nobody hears: what cannot be written would be told there again, by a macro that panics when that
/// fails as well, and a full disk under the log would end the program.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _lost_or_not = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Flags {
    /// Sends this process's log lines to standard error from here on.
    ///
    /// # Panics
    /// When called a second time.
    pub fn init(&self) {
        let level = match self.level {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error => LevelFilter::ERROR,
        };
        match self.format {
            Format::Logfmt => {
                let lines = tracing_logfmt::builder().subscriber_builder();
                lines.with_max_level(level).with_writer(|| Lines).init();
            }
            Format::Json => {
                let lines = tracing_subscriber::fmt().json().flatten_event(true);
                lines.with_max_level(level).with_writer(|| Lines).init();
            }
        }
    }
}
