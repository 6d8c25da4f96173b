//! What this process costs, under the names that every Prometheus client uses.

use std::path::Path;

use procfs::process::{LimitValue, Process};
use procfs::{FromReadSI, KernelStats, ProcResult, current_system_info};

/// `process_*`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) open_fds: u64,
    /// None: unlimited.
    pub(crate) max_fds: Option<u64>,
    pub(crate) virtual_bytes: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) started_unix_seconds: f64,
    pub(crate) threads: i64,
}

/// Reads it below this mount of procfs.
pub(crate) fn read(procfs: &Path) -> ProcResult<Usage> {
    // The crate reads our id from the path or from one link.
    let process = Process::new_with_root(procfs.join("self").canonicalize()?)?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    let booted = KernelStats::from_file(procfs.join("stat"), current_system_info())?.btime;
    let max_fds = match process.limits()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => Some(limit),
        LimitValue::Unlimited => None,
    };
    Ok(Usage {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        open_fds: process.fd_count()? as u64,
        max_fds,
        virtual_bytes: stat.vsize,
        resident_bytes: stat.rss * procfs::page_size(),
        started_unix_seconds: booted as f64 + stat.starttime as f64 / ticks,
        threads: stat.num_threads,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn this_process_is_seen() {
        let usage = read(Path::new("/proc")).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 3600.0..now + 2.0).contains(&usage.started_unix_seconds), "{usage:?}");
        assert!(usage.resident_bytes > 1 << 20 && usage.virtual_bytes > usage.resident_bytes, "{usage:?}");
        assert!(usage.open_fds >= 3 && usage.threads >= 1, "{usage:?}");
        assert!(read(Path::new("/nowhere")).is_err());
    }
}
