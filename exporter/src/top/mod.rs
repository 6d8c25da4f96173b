//! `conntrack-exporter top`: the live table as people know `top`.
//!
//! ```text
//! look (reads, on a thread of its own) → view (what is asked for) → screen (pure) → terminal
//! ```

mod bans;
mod growth;
mod json;
mod keys;
mod live;
mod look;
mod rows;
mod screen;
mod table;
mod terminal;
mod view;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use growth::Growth;
use look::{Looking, Reader};
use rows::Sort;
use view::View;

/// The flags of `top`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Flags {
    /// Looks once, prints and ends
    #[arg(long)]
    once: bool,

    /// For scripts: an object a line, for each look
    #[arg(long)]
    json: bool,

    /// The pause between two looks
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    interval: Duration,

    /// What sources are sorted by
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t = Sort::Entries)]
    sort: Sort,

    /// Only sources in this network, or with this text in their address
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,

    /// How many sources are printed where there is no terminal
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    rows: usize,

    /// The actioner's socket, for the bans in force
    #[arg(long = "admin.socket", value_name = "PATH", default_value = "/run/conntrack-guard/actioner.sock")]
    socket: PathBuf,
}

/// A dump of a large table takes a second; faster looks would only burn a CPU.
fn interval(text: &str) -> Result<Duration, String> {
    let interval =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 2s or 500ms"))?;
    if interval < Duration::from_millis(100) {
        return Err("100ms at least: each look dumps the whole table".to_owned());
    }
    Ok(interval)
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The table or its sysctls.
    #[error("the table cannot be read: {0}")]
    Look(String),
    /// The terminal, or the pipe.
    #[error("cannot write to the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Shows the table until it is told to quit, or once.
pub(crate) async fn run(procfs: &Path, grace: Duration, flags: &Flags) -> Result<(), TopError> {
    let looking = Looking::start(Reader::new(procfs, grace, &flags.socket))?;
    let view = View::new(flags.sort, &flags.filter);
    let interactive = !flags.once && !flags.json && io::stdout().is_terminal() && io::stdin().is_terminal();
    if interactive {
        return live::run(looking, view, flags.interval).await;
    }
    match print(looking, &view, flags).await {
        // Somebody read enough: `top --json | head -1`.
        Err(TopError::Terminal(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// A look after the other, without escape sequences.
async fn print(mut looking: Looking, view: &View, flags: &Flags) -> Result<(), TopError> {
    let mut growth = Growth::default();
    loop {
        growth.add(looking.next().await.map_err(TopError::Look)?);
        let Some(look) = growth.latest() else { continue };
        let mut out = io::stdout().lock();
        if flags.json {
            writeln!(out, "{}", json::object(look, &growth, view, flags.rows))?;
        } else {
            for line in screen::report(look, &growth, view, flags.rows) {
                writeln!(out, "{}", line.text)?;
            }
            if !flags.once {
                writeln!(out)?;
            }
        }
        out.flush()?;
        drop(out);
        if flags.once {
            return Ok(());
        }
        tokio::time::sleep(flags.interval).await;
        looking.ask();
    }
}
