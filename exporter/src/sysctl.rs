//! What procfs says of the table: its sysctls, which need no privilege, and in them the timeouts.
//!
//! `/proc/sys/net` shows the network namespace of the reading thread: ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const COUNT: &str = "nf_conntrack_count";
const MAX: &str = "nf_conntrack_max";
const BUCKETS: &str = "nf_conntrack_buckets";

/// The directory of the sysctls.
#[derive(Debug, Clone)]
pub(crate) struct Sysctls(PathBuf);

/// Why a sysctl is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unknown {
    /// The files come with the module.
    #[error(
        "{} does not exist: nf_conntrack is not loaded (the first rule that tracks connections loads it, or \
         `modprobe nf_conntrack`), or procfs is not mounted there (--path.procfs)", .0.display()
    )]
    NotLoaded(PathBuf),
    /// It exists and cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    /// It holds something else than a number.
    #[error("{} holds {:?}, which is not a number", .0.display(), .1)]
    NotANumber(PathBuf, String),
}

/// How full the table is and may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Entries of this namespace, those expired but not yet removed included.
    pub(crate) entries: u64,
    /// 0: unlimited.
    pub(crate) limit: u64,
    /// Of the hash, which all namespaces share. Not shown by kernels before 5.8 outside the first namespace.
    pub(crate) buckets: Option<u64>,
}

/// How long the kernel remembers an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timeout {
    /// As in `nf_conntrack_state_entries`.
    pub(crate) protocol: String,
    /// The kernel's word, or `any` where a protocol has one timeout.
    pub(crate) state: String,
    /// Without a packet.
    pub(crate) seconds: u64,
}

impl Sysctls {
    /// Below this mount of procfs.
    pub(crate) fn below(procfs: &Path) -> Sysctls {
        Sysctls(procfs.join("sys/net/netfilter"))
    }

    /// Reads count, maximum and buckets.
    pub(crate) fn size(&self) -> Result<Size, Unknown> {
        let buckets = match self.number(BUCKETS) {
            Err(Unknown::NotLoaded(_)) => None,
            known => Some(known?),
        };
        Ok(Size { entries: self.number(COUNT)?, limit: self.number(MAX)?, buckets })
    }

    /// Reads every timeout that this kernel has, in the order of protocol and state.
    pub(crate) fn timeouts(&self) -> Result<Vec<Timeout>, Unknown> {
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Unknown::NotLoaded(self.0.clone()),
            _ => Unknown::Unreadable(self.0.clone(), error),
        };
        let mut timeouts = Vec::new();
        for file in fs::read_dir(&self.0).map_err(unreadable)? {
            let name = file.map_err(unreadable)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some((protocol, state)) = what_times_out(name) {
                let seconds = self.number(name)?;
                timeouts.push(Timeout { protocol: protocol.to_owned(), state: state.to_owned(), seconds });
            }
        }
        if timeouts.is_empty() {
            return Err(Unknown::NotLoaded(self.0.join("nf_conntrack_generic_timeout")));
        }
        timeouts.sort();
        Ok(timeouts)
    }

    fn number(&self, name: &str) -> Result<u64, Unknown> {
        let path = self.0.join(name);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unknown::NotLoaded(path)),
            Err(error) => return Err(Unknown::Unreadable(path, error)),
            Ok(text) => text,
        };
        text.trim().parse().map_err(|_| Unknown::NotANumber(path, text.trim().to_owned()))
    }
}

/// Protocol and state of `nf_conntrack_PROTOCOL_timeout[_STATE]`. The kernel calls the two timeouts of UDP and GRE
/// `UNREPLIED` and `REPLIED` (`enum udp_conntrack`); the second is for streams, which last longer than two seconds.
fn what_times_out(sysctl: &str) -> Option<(&str, &str)> {
    let (protocol, state) = sysctl.strip_prefix("nf_conntrack_")?.split_once("_timeout")?;
    Some(match (protocol, state) {
        // The reassembly of fragments: not an entry.
        ("frag6", _) => return None,
        ("generic", "") => ("other", "any"),
        ("udp" | "udplite" | "gre", "") => (protocol, "unreplied"),
        ("udp" | "udplite" | "gre", "_stream") => (protocol, "replied"),
        (protocol, "") => (protocol, "any"),
        (protocol, state) => (protocol, state.strip_prefix('_')?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn procfs(files: &[(&str, &str)]) -> (tempfile::TempDir, Sysctls) {
        let procfs = tempfile::tempdir().unwrap();
        let sysctls = Sysctls::below(procfs.path());
        fs::create_dir_all(&sysctls.0).unwrap();
        files.iter().for_each(|(name, text)| fs::write(sysctls.0.join(name), text).unwrap());
        (procfs, sysctls)
    }

    #[test]
    fn timeouts_have_the_kernels_words() {
        let (_procfs, sysctls) = procfs(&[
            ("nf_conntrack_tcp_timeout_established", "432000\n"),
            ("nf_conntrack_udp_timeout", "30\n"),
            ("nf_conntrack_udp_timeout_stream", "120\n"),
            ("nf_conntrack_generic_timeout", "600\n"),
            ("nf_conntrack_frag6_timeout", "60\n"),
            ("nf_conntrack_count", "3\n"),
            ("nf_conntrack_icmpv6_timeout", "30\n"),
        ]);
        let timeouts = sysctls.timeouts().unwrap();
        let timeouts: Vec<_> =
            timeouts.iter().map(|t| (t.protocol.as_str(), t.state.as_str(), t.seconds)).collect();
        let expected = [
            ("icmpv6", "any", 30),
            ("other", "any", 600),
            ("tcp", "established", 432_000),
            ("udp", "replied", 120),
            ("udp", "unreplied", 30),
        ];
        assert_eq!(timeouts, expected);
    }

    #[test]
    fn a_kernel_without_the_module_is_told_from_a_broken_file() {
        let (_procfs, sysctls) = procfs(&[]);
        let error = sysctls.size().unwrap_err().to_string();
        assert!(error.contains("nf_conntrack_count does not exist: nf_conntrack is not loaded"), "{error}");
        assert!(matches!(sysctls.timeouts(), Err(Unknown::NotLoaded(_))));
        assert!(matches!(Sysctls::below(Path::new("/nowhere")).timeouts(), Err(Unknown::NotLoaded(_))));
        let (_procfs, sysctls) = procfs(&[("nf_conntrack_count", "many\n")]);
        let error = sysctls.size().unwrap_err().to_string();
        assert!(error.contains("nf_conntrack_count holds \"many\""), "{error}");
    }

    #[test]
    fn buckets_may_be_missing() {
        let (_procfs, sysctls) = procfs(&[("nf_conntrack_count", "3\n"), ("nf_conntrack_max", "0\n")]);
        assert_eq!(sysctls.size().unwrap(), Size { entries: 3, limit: 0, buckets: None });
    }
}
