//! Shell completions and man pages, from the same definitions as the command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::{fmt, fs};

use clap::{Command, Subcommand};
use clap_complete::Shell;

/// The commands that print what is known of the command line; a program flattens them into its own.
#[derive(Debug, Clone, Subcommand)]
pub enum Manual {
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages, one for the program and one for each command
    #[command(hide = true)]
    Man {
        /// Where to, a directory, which is made
        directory: PathBuf,
    },
}

/// It could not be written.
#[derive(Debug)]
pub struct Unwritten {
    /// Where to.
    place: String,
    /// Why.
    error: io::Error,
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to {}: {}", self.place, self.error)
    }
}

impl std::error::Error for Unwritten {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Manual {
    /// Prints or writes it, for this command line.
    ///
    /// # Errors
    /// The output, or a page, cannot be written. A reader who went away is none.
    pub fn run(&self, mut command: Command) -> Result<(), Unwritten> {
        match self {
            Self::Completions { shell } => {
                let name = command.get_name().to_owned();
                let mut text = Vec::new();
                clap_complete::generate(*shell, &mut command, name, &mut text);
                match io::stdout().lock().write_all(&text) {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                        Err(Unwritten { place: "standard output".to_owned(), error })
                    }
                    _ => Ok(()),
                }
            }
            Self::Man { directory } => fs::create_dir_all(directory)
                .and_then(|()| clap_mangen::generate_to(command, directory))
                .map_err(|error| Unwritten { place: directory.display().to_string(), error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    #[test]
    fn a_page_for_the_program_and_for_each_command() {
        let directory = tempfile::tempdir().unwrap();
        let command = || Manual::augment_subcommands(Command::new("p")).about("Does it.");
        let into = directory.path().join("man").display().to_string();
        let matches = command().get_matches_from(["p", "man", &into]);
        Manual::from_arg_matches(&matches).unwrap().run(command()).unwrap();
        let page = |name: &str| fs::read_to_string(directory.path().join("man").join(name)).unwrap();
        assert!(page("p.1").contains("Does it.") && page("p-completions.1").contains("The shell"));
    }
}
