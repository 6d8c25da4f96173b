//! Completions and man pages, from the same definitions as the command line.

use crate::cli::Cli;
use crate::command::Said;
use clap_complete::Shell;
use std::fs;
use std::path::Path;

/// The completions of a shell.
pub fn completions(shell: Shell) -> Said {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::shown(), "conntrack-actioner", &mut text);
    Said::done(String::from_utf8_lossy(&text))
}

/// A page for the program and one for each command.
///
/// # Errors
/// A page cannot be written; a sentence.
pub fn pages(directory: &Path) -> Result<(), String> {
    let failed = |error| format!("cannot write man pages to {}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::shown(), directory).map_err(failed)
}
