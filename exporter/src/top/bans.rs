//! The bans in force, as the actioner on this host tells them on its unix socket.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

/// The actioner answers from memory.
const PATIENCE: Duration = Duration::from_secs(2);
/// Ten thousand bans with a reason each; more is not shown anyway.
const MOST: u64 = 8 << 20;

/// A ban that the actioner wants in force. What it does not say is left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub(super) struct Ban {
    pub(super) net: IpNet,
    #[serde(default)]
    pub(super) rule: Option<String>,
    #[serde(default)]
    pub(super) remaining_seconds: Option<u64>,
    #[serde(default)]
    pub(super) in_kernel: bool,
    #[serde(default)]
    pub(super) dry_run: bool,
}

impl Ban {
    /// The address, or the network where it is more than one.
    pub(super) fn whom(&self) -> String {
        if self.net.prefix_len() == self.net.max_prefix_len() {
            self.net.addr().to_string()
        } else {
            self.net.to_string()
        }
    }

    pub(super) fn holds(&self, source: IpAddr) -> bool {
        self.net.contains(&source)
    }
}

#[derive(Deserialize)]
struct Answer {
    bans: Vec<Ban>,
}

/// Asks. The error is a sentence.
pub(super) fn in_force(socket: &Path) -> Result<Vec<Ban>, String> {
    let answer = ask(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("no actioner runs here ({} does not exist)", socket.display()),
        io::ErrorKind::ConnectionRefused => {
            format!("no actioner runs here (nobody listens at {})", socket.display())
        }
        io::ErrorKind::PermissionDenied => {
            format!("not permitted to ask the actioner at {}: run top as root", socket.display())
        }
        _ => format!("the actioner at {} does not answer: {error}", socket.display()),
    })?;
    read(&answer)
}

/// HTTP/1.0, so that the answer ends with the connection and is never chunked.
fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /api/v1/bans HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Reads the answer, head and body.
fn read(answer: &[u8]) -> Result<Vec<Ban>, String> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) =
        end.map(|end| (&answer[..end], &answer[end + 4..])).ok_or("the actioner's answer is cut short")?;
    let head = String::from_utf8_lossy(head);
    let status = head.split_whitespace().nth(1).unwrap_or("none");
    if status != "200" {
        return Err(format!(
            "the actioner answers {} to a question for its bans: it may be older than this program",
            plain(status)
        ));
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("the actioner's list of bans cannot be read: {error}"))?;
    Ok(answer.bans.into_iter().map(|ban| Ban { rule: ban.rule.map(|rule| plain(&rule)), ..ban }).collect())
}

/// A terminal obeys what it is shown.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_a_terminal_is_safe_from_it() {
        let body = r#"{"bans":[{"net":"198.51.100.7/32","rule":"hoar\u001b[2Jder","remaining_seconds":540,"in_kernel":true,
                      "dry_run":false,"reason":"x","until":"y"},{"net":"2001:db8::/64"}]}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{body}");
        let bans = read(answer.as_bytes()).unwrap();
        assert_eq!((bans[0].rule.as_deref(), bans[0].remaining_seconds), (Some("hoar[2Jder"), Some(540)));
        assert!(bans[0].in_kernel && bans[0].holds("198.51.100.7".parse().unwrap()));
        assert!(bans[1].holds("2001:db8::9".parse().unwrap()) && !bans[1].in_kernel);
    }

    #[test]
    fn whatever_else_it_says_is_a_sentence() {
        for (answer, said) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "answers 404"),
            ("HTTP/1.1 200 OK\r\n\r\n{\"bans\":3}", "cannot be read"),
            ("HTTP/1.1 200", "cut short"),
            ("", "cut short"),
        ] {
            let error = read(answer.as_bytes()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let error = in_force(Path::new("/nowhere/actioner.sock")).unwrap_err();
        assert_eq!(error, "no actioner runs here (/nowhere/actioner.sock does not exist)");
    }
}
