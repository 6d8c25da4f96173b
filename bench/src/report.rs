//! What was measured, as Markdown.

use std::{fmt::Write, fs, path::PathBuf, time::Duration};

use jiff::Timestamp;
use tests::{Result, programs::workspace};

use crate::machine;

/// A line of a table.
#[derive(Debug)]
pub(crate) struct Row {
    /// What, against what, ours, the other's, their ratio and the target, in words.
    pub(crate) cells: [String; 6],
    /// None: no target.
    pub(crate) met: Option<bool>,
}

/// One table with what is to be known of it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) title: &'static str,
    /// Sentences above the table.
    pub(crate) before: Vec<String>,
    pub(crate) rows: Vec<Row>,
    /// Markdown below it.
    pub(crate) after: Vec<String>,
    /// CPUs that were busy before it began.
    pub(crate) busy: f64,
    pub(crate) took: Duration,
}

impl Part {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, before: vec![], rows: vec![], after: vec![], busy: 0.0, took: Duration::ZERO }
    }

    /// Adds a line, and shows it.
    pub(crate) fn row(&mut self, cells: [&str; 6], met: Option<bool>) {
        let row = Row { cells: cells.map(str::to_owned), met };
        eprintln!("  {}", row.markdown());
        self.rows.push(row);
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        for sentence in &self.before {
            let _ = writeln!(text, "{sentence}\n");
        }
        text += "| what | against | ours | theirs | ratio | target | met |\n|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            text += &row.markdown();
            text.push('\n');
        }
        for paragraph in &self.after {
            let _ = write!(text, "\n{paragraph}\n");
        }
        let noisy = if self.busy > machine::QUIET { ": **not a quiet machine**" } else { "" };
        let _ = write!(
            text,
            "\n*Measured {}, until {}; {:.2} CPUs busy before it{noisy}.*\n",
            format_args!("in {:.0} s", self.took.as_secs_f64()),
            Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
            self.busy
        );
        text
    }

    /// Leaves it for [`assemble`].
    pub(crate) fn keep(&self, place: usize, short: bool) -> Result<()> {
        let directory = directory(short);
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join(format!("{place}.md")), self.markdown()))
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        Ok(())
    }
}

impl Row {
    fn markdown(&self) -> String {
        let met = match self.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        format!("| {} | {met} |", self.cells.join(" | "))
    }
}

/// Where parts lie.
pub(crate) fn directory(short: bool) -> PathBuf {
    workspace().join(if short { "target/bench/short" } else { "target/bench" })
}

/// Puts all parts that there are into one file.
pub(crate) fn assemble(short: bool) -> Result<PathBuf> {
    let mut text = format!(
        "# Benchmarks\n\nWritten by `make bench` (`BENCH=short make bench`: a tenth of the size). Do not edit: run it.\n\n\
         Machine: {}.\n\nMedians of rounds in which both sides run in turn (A B A B …), after one that is not counted; ratios are medians of the \
         pairs' own. Tables are filled over ctnetlink in network namespaces made for it; `nf_conntrack_max` is raised meanwhile and put back.\n\
         The programs are the release build, exporter with its default flags. ms are wall time unless they say CPU.\n\n",
        machine::described()
    );
    if short {
        text += "**The short form, a tenth of the size: its figures are for a first look.**\n\n";
    }
    for place in 0..16 {
        if let Ok(part) = fs::read_to_string(directory(short).join(format!("{place}.md"))) {
            text += &part;
            text.push('\n');
        }
    }
    let path = if short { directory(short).join("BENCHMARKS.md") } else { workspace().join("BENCHMARKS.md") };
    fs::write(&path, text.trim_end().to_owned() + "\n")
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Ok(path)
}
