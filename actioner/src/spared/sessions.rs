//! Peers of remote sessions that passed authentication: logind and utmp know a session only once PAM has opened it.

use super::{address, present};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// So many of logind's files are read at most.
const MOST: usize = 4096;

/// `struct utmp` of glibc (utmp(5)): where times are 32 bit for the sake of 32-bit programs, and where not.
const COMPATIBLE: bool =
    !cfg!(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "loongarch64"));
const RECORD: usize = if COMPATIBLE { 384 } else { 400 };
const ADDRESS: usize = if COMPATIBLE { 348 } else { 360 };
const PROCESS: usize = 4;
const HOST: std::ops::Range<usize> = 76..332;
/// `ut_type` of somebody logged in.
const USER_PROCESS: i16 = 7;

/// The peers of the sessions in logind's directory.
pub(super) fn of_logind(directory: &Path, troubles: &mut Vec<String>) -> BTreeSet<IpAddr> {
    let Some(files) = present(directory, std::fs::read_dir(directory), troubles) else {
        return BTreeSet::new();
    };
    // Beside each session's file stand FIFOs with the ending .ref: to read one would wait for ever.
    let files = files.flatten().filter(|file| file.file_type().is_ok_and(|kind| kind.is_file())).take(MOST);
    let texts = files.filter_map(|file| present(&file.path(), std::fs::read(file.path()), troubles));
    texts.filter_map(|text| remote_host(&String::from_utf8_lossy(&text))).collect()
}

/// The peer of one session's file: of a user's, not of a log-in screen that waits for somebody far away.
pub fn remote_host(text: &str) -> Option<IpAddr> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.split_once('=').filter(|(name, _)| *name == key))
            .map(|(_, value)| value)
    };
    let remote =
        value("REMOTE") == Some("1") && value("CLASS").is_some_and(|class| class.starts_with("user"));
    remote.then(|| value("REMOTE_HOST").and_then(address)).flatten()
}

/// Who is logged in from elsewhere, by utmp's records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// Their addresses.
    pub peers: BTreeSet<IpAddr>,
    /// How many records name an address in `ut_host` alone. Any user writes there what he likes (`utempter add`, by which
    /// terminals tell of their windows); `ut_addr_v6` only root's programs fill in.
    pub without_address: usize,
}

/// The peers of those who are logged in by utmp's records. `lives`: whether the process of that id does.
pub fn remote_logins(records: &[u8], lives: impl Fn(i32) -> bool) -> Logins {
    let mut logins = Logins::default();
    for login in records.chunks_exact(RECORD).filter_map(|record| remote_login(record, &lives)) {
        match login {
            Login::From(peer) => drop(logins.peers.insert(peer)),
            Login::SaysOnly => logins.without_address += 1,
        }
    }
    logins
}

/// Whether a process of that id is there, whoever's it is. Not by /proc: a service's may hide those of others (`ProtectProc=`).
pub(super) fn lives(process: i32) -> bool {
    // from_raw panics at negative ones, and utmp may hold any.
    let Some(process) = (process > 0).then(|| Pid::from_raw(process)).flatten() else {
        return false;
    };
    // Not permitted: there is somebody to be spared the signal.
    matches!(test_kill_process(process), Ok(()) | Err(Errno::PERM))
}

enum Login {
    From(IpAddr),
    SaysOnly,
}

fn remote_login(record: &[u8], lives: impl Fn(i32) -> bool) -> Option<Login> {
    let kind = i16::from_ne_bytes(*record.first_chunk()?);
    let process = i32::from_ne_bytes(*record.get(PROCESS..)?.first_chunk()?);
    if kind != USER_PROCESS || !lives(process) {
        return None;
    }
    let octets: [u8; 16] = *record.get(ADDRESS..)?.first_chunk()?;
    let host = record.get(HOST)?.split(|byte| *byte == 0).next()?;
    match octets {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => {
            address(std::str::from_utf8(host).ok()?).map(|_| Login::SaysOnly)
        }
        // An IPv4 address fills the first word alone.
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => {
            Some(Login::From(Ipv4Addr::new(a, b, c, d).into()))
        }
        six => Some(Login::From(IpAddr::V6(Ipv6Addr::from(six)).to_canonical())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: i16, process: i32, host: &str, octets: &[u8]) -> Vec<u8> {
        let mut record = vec![0; RECORD];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[PROCESS..PROCESS + 4].copy_from_slice(&process.to_ne_bytes());
        record[HOST.start..HOST.start + host.len()].copy_from_slice(host.as_bytes());
        record[ADDRESS..ADDRESS + octets.len()].copy_from_slice(octets);
        record
    }

    #[test]
    fn records_of_utmp() {
        let six = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
        let mapped = "::ffff:198.51.100.8".parse::<Ipv6Addr>().unwrap().octets();
        let records = [
            record(USER_PROCESS, 1, "admin.example.org", &[198, 51, 100, 7]),
            record(USER_PROCESS, 1, "2001:db8::7", &six),
            record(USER_PROCESS, 1, "", &mapped),
            // As `utempter add 198.51.100.9` writes it, for whoever asks.
            record(USER_PROCESS, 1, "198.51.100.9", &[]),
            record(USER_PROCESS, 1, "fe80::9%eth0", &[]),
            record(USER_PROCESS, 2, "198.51.100.9", &[]),
            // Not logged in; a process that is gone; a name; a terminal of this host; cut short.
            record(8, 1, "", &[198, 51, 100, 20]),
            record(6, 1, "", &[198, 51, 100, 21]),
            record(USER_PROCESS, 2, "", &[198, 51, 100, 22]),
            record(USER_PROCESS, 1, "attacker.example.org", &[]),
            record(USER_PROCESS, 1, ":0", &[]),
            record(USER_PROCESS, 1, "", &[198, 51, 100, 23])[..RECORD - 1].to_vec(),
        ];
        let found = remote_logins(&records.concat(), |process| process == 1);
        let peers: Vec<String> = found.peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["198.51.100.7", "198.51.100.8", "2001:db8::7"]);
        assert_eq!(found.without_address, 2);
    }

    /// A day's immunity for any address, for whoever may log in: `utempter add 203.0.113.9`.
    #[test]
    fn what_a_user_says_of_himself_spares_nobody_and_that_is_said_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let files =
            crate::spared::Files { resolvers: Vec::new(), sessions: path("sessions"), utmp: path("utmp") };
        let living = std::process::id() as i32;
        let said = record(USER_PROCESS, living, "203.0.113.9", &[]);
        let known = record(USER_PROCESS, living, "", &[198, 51, 100, 7]);
        std::fs::write(&files.utmp, [said.clone(), known, said].concat()).unwrap();
        let mut troubles = Vec::new();
        assert_eq!(files.sessions(&mut troubles), BTreeSet::from([[198, 51, 100, 7].into()]));
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        assert!(troubles[0].contains("ut_host"), "{troubles:?}");
    }

    #[test]
    fn a_process_of_anybody_lives_until_it_is_waited_for() {
        assert!(lives(1), "somebody else's, or root's own");
        assert!(lives(std::process::id() as i32));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = child.id() as i32;
        assert!(lives(process));
        child.wait().unwrap();
        assert!(!lives(process));
        assert!(!lives(0) && !lives(-1), "these would be groups of processes");
    }
}
