//! The commands that speak to a running actioner, or look at what it left behind. Tables for people, JSON for scripts.

pub mod ban;
pub mod bans;
pub mod columns;
pub mod explain;
pub mod history;
pub mod panic;
pub mod past;
pub mod pause;
pub mod status;

use crate::admin_client::Trouble;
use crate::exit::Exit;
use serde_json::Value;
use std::io::{self, Write};

/// What a command has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// For standard output, its last line ended.
    pub text: String,
    /// For standard error: what is not as it should be.
    pub warning: Option<String>,
    /// The exit status.
    pub exit: Exit,
}

impl Said {
    /// What was asked for.
    pub fn done(text: impl Into<String>) -> Said {
        let mut text = text.into();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Said { text, warning: None, exit: Exit::Done }
    }

    /// The same as JSON.
    pub fn json(value: &Value) -> Said {
        Said::done(serde_json::to_string_pretty(value).unwrap_or_default())
    }

    /// The same, with a warning where the order is in force and not on the disk.
    pub fn unless_stored(mut self, answer: &Value) -> Said {
        if let Some(why) = answer["not_stored"].as_str() {
            let before =
                self.warning.take().map(|warning| warning + "\nconntrack-actioner: ").unwrap_or_default();
            self.warning = Some(before + &plain(why));
            self.exit = Exit::NotStored;
        }
        self
    }

    /// Says it.
    pub fn say(self) -> Exit {
        let written = io::stdout().lock().write_all(self.text.as_bytes());
        if let Some(warning) = &self.warning {
            eprintln!("conntrack-actioner: {warning}");
        }
        match written {
            // Whoever read along has seen enough (`| head`).
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                eprintln!("conntrack-actioner: the answer cannot be written: {error}");
                Exit::Failed
            }
            _ => self.exit,
        }
    }
}

/// Says what came of a command.
pub fn say(said: Result<Said, Trouble>) -> Exit {
    match said {
        Ok(said) => said.say(),
        Err(trouble) => {
            eprintln!("conntrack-actioner: {trouble}");
            trouble.exit()
        }
    }
}

/// The text of a field, safe for a terminal: alerts and reasons are other people's words. Empty where there is none.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        other => other.to_string(),
    }
}

/// Without control characters, and without those that turn the direction of what follows or break a line.
pub(crate) fn plain(text: &str) -> String {
    let turns = |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

/// `9m 12s`.
pub(crate) fn seconds(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}
