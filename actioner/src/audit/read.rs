//! The log read back: by `explain`, `report` and `replay`. Lines of older versions lack fields; that is known, not guessed.

use super::SCHEMA;
use super::files::{FILE, old};
use crate::evidence::{Evidence, TableFill};
use crate::spared::Flood;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A line is of one alert, and the webhook takes 8 MiB for all of a message's; what is longer was not written by us.
const LONGEST: u64 = 16 << 20;

/// One line, of whatever kind. What a line does not say is None or empty.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Recorded {
    /// The format's number.
    pub schema: u32,
    /// When, RFC 3339.
    pub time: String,
    /// `decision`, or what else happened; lines of the first version are decisions.
    pub event: Option<String>,
    /// Of the line.
    pub id: String,
    /// Whose table.
    pub table_id: String,
    /// The policy's hash.
    pub policy: String,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Whether it was carried out.
    pub enforce: bool,
    /// Through which door the alert came.
    pub origin: String,
    /// Who did it.
    pub actor: String,
    /// The alert's labels.
    pub labels: BTreeMap<String, String>,
    /// The nominated address.
    pub source: Option<IpAddr>,
    /// What a ban was, or would have been, of.
    pub net: Option<IpNet>,
    /// What the live table showed of it.
    pub evidence: Option<Evidence>,
    /// How full the table was.
    pub table: Option<TableFill>,
    /// What of the host spares it. Outer None: not recorded.
    #[serde(deserialize_with = "present")]
    pub spared: Option<Option<Spared>>,
    /// Established sockets it had.
    pub live_sockets: Option<u64>,
    /// A flood of forged sources. Outer None: not recorded.
    #[serde(deserialize_with = "present")]
    pub flood: Option<Option<Flood>>,
    /// The decision's word.
    pub verdict: String,
    /// The refusal's word, or why a human did it.
    pub reason: Option<String>,
    /// The refusal as a sentence.
    pub why: Option<String>,
    /// What became of it.
    pub result: Option<Became>,
    /// Of an event.
    pub detail: Map<String, Value>,
}

/// A refusal by what was true of the host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Spared {
    /// The word.
    pub reason: String,
    /// The sentence.
    pub why: String,
}

/// What became of a decision in the kernel.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Became {
    /// What was banned.
    pub net: Option<IpNet>,
    /// `in_force`, `dry_run`, `failed`.
    pub ban: Option<String>,
    /// The how-manieth.
    pub offence: Option<u32>,
    /// When it ends, RFC 3339.
    pub expires: Option<String>,
    /// Entries that were deleted.
    pub entries_deleted: Option<u64>,
    /// What failed.
    pub error: Option<String>,
    /// Entries afterwards.
    pub table_after: Option<u64>,
}

/// Null is something else than absent.
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

impl Recorded {
    /// Whether it is a decision.
    pub fn is_decision(&self) -> bool {
        matches!(self.event.as_deref(), None | Some("decision"))
    }

    /// When it was.
    pub fn at(&self) -> Option<jiff::Timestamp> {
        self.time.parse().ok()
    }

    /// Whether it is about this address, or a network that holds it.
    pub fn concerns(&self, address: IpAddr) -> bool {
        let nets = [self.net, self.result.as_ref().and_then(|result| result.net)];
        self.source == Some(address) || nets.into_iter().flatten().any(|net| net.contains(&address))
    }
}

/// A line that is none, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// The file.
    pub file: PathBuf,
    /// Its number there, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub error: String,
}

/// The files of the log in a storage directory, the oldest first.
pub fn files(storage: &Path) -> Vec<PathBuf> {
    let log = storage.join(FILE);
    // --audit.keep allows a thousand, and a gap ends nothing.
    let mut files: Vec<PathBuf> = (1..=1000).rev().map(|number| old(&log, number)).collect();
    files.push(log);
    files.retain(|file| file.exists());
    files
}

/// Reads these files in turn and shows each line. Returns those that are none.
///
/// # Errors
/// A file cannot be read; the text names it.
pub fn read(files: &[PathBuf], mut each: impl FnMut(Recorded)) -> Result<Vec<BadLine>, String> {
    let failed = |file: &Path, error: io::Error| format!("cannot read {}: {error}", file.display());
    // All are opened before the first is read, so that one set aside meanwhile is neither read twice nor missed.
    let open = |file: &PathBuf| File::open(file).map_err(|error| failed(file, error));
    let opened: Vec<File> = files.iter().map(open).collect::<Result<_, _>>()?;
    let mut bad = Vec::new();
    for (file, open) in files.iter().zip(opened) {
        let reader = BufReader::with_capacity(1 << 20, open);
        read_from(reader, file, &mut bad, &mut each).map_err(|error| failed(file, error))?;
    }
    Ok(bad)
}

/// Reads one log, which `file` names among the bad lines.
pub(crate) fn read_from(
    mut reader: impl BufRead,
    file: &Path,
    bad: &mut Vec<BadLine>,
    each: &mut impl FnMut(Recorded),
) -> io::Result<()> {
    let (mut line, mut number) = (Vec::new(), 0);
    while next(&mut reader, &mut line, LONGEST)? {
        number += 1;
        if line.len() as u64 > LONGEST {
            let error = format!("it is longer than {} MiB", LONGEST >> 20);
            bad.push(BadLine { file: file.to_owned(), line: number, error });
        } else if !line.trim_ascii().is_empty() {
            match line_of(&line) {
                Ok(recorded) => each(recorded),
                Err(error) => bad.push(BadLine { file: file.to_owned(), line: number, error }),
            }
        }
    }
    Ok(())
}

/// Reads one line, of which it keeps `longest` bytes and one that tells that there are more. Whether there was one.
fn next(reader: &mut impl BufRead, line: &mut Vec<u8>, longest: u64) -> io::Result<bool> {
    line.clear();
    reader.take(longest + 1).read_until(b'\n', line)?;
    if line.len() as u64 > longest && !line.ends_with(b"\n") {
        reader.skip_until(b'\n')?;
    }
    Ok(!line.is_empty())
}

fn line_of(text: &[u8]) -> Result<Recorded, String> {
    let line: Recorded = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match line.schema {
        1..=SCHEMA => Ok(line),
        0 => Err("no line of ours: it has no schema".to_owned()),
        newer => Err(format!("its schema is {newer}, and this version reads {SCHEMA}")),
    }
}
