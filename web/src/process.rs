//! What this process costs, under the names that every Prometheus client uses.

use std::fmt;
use std::path::{Path, PathBuf};

use procfs::process::{LimitValue, Process};
use procfs::{FromReadSI, KernelStats, ProcResult, current_system_info};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// `process_*`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// User and system time.
    pub cpu_seconds: f64,
    /// File descriptors that are open.
    pub open_fds: u64,
    /// File descriptors that may be open. None: unlimited.
    pub max_fds: Option<u64>,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Memory in use, in bytes.
    pub resident_bytes: u64,
    /// When the process started, in seconds since 1970.
    pub started_unix_seconds: f64,
    /// Its threads.
    pub threads: i64,
}

/// Shows [`Usage`], read anew at each scrape; nothing where procfs does not show it.
#[derive(Debug)]
pub struct ProcessMetrics {
    procfs: PathBuf,
}

impl ProcessMetrics {
    /// Below this mount of procfs.
    pub fn new(procfs: &Path) -> ProcessMetrics {
        ProcessMetrics { procfs: procfs.to_owned() }
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        read(&self.procfs).map_or(Ok(()), |usage| usage.encode(&mut encoder))
    }
}

impl Usage {
    /// Writes it as metric families.
    ///
    /// # Errors
    /// The text cannot be written to.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "User and system CPU time of this process in seconds.";
        let cpu = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        counter(cpu, self.cpu_seconds)?;
        let mut show = |name: &str, help: &str, value: Value| {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            match value {
                Value::Whole(value) => gauge(encoder, value),
                Value::Fraction(value) => gauge(encoder, value),
            }
        };
        let whole = Value::Whole;
        show("process_open_fds", "File descriptors that this process holds open.", whole(self.open_fds))?;
        if let Some(max) = self.max_fds {
            show("process_max_fds", "File descriptors that this process may hold open.", whole(max))?;
        }
        let help = "Virtual memory of this process in bytes.";
        show("process_virtual_memory_bytes", help, whole(self.virtual_bytes))?;
        let help = "Resident memory of this process in bytes.";
        show("process_resident_memory_bytes", help, whole(self.resident_bytes))?;
        let help = "When this process started, in seconds since 1970.";
        show("process_start_time_seconds", help, Value::Fraction(self.started_unix_seconds))?;
        show("process_threads", "Threads of this process.", whole(self.threads.unsigned_abs()))
    }
}

enum Value {
    Whole(u64),
    Fraction(f64),
}

fn counter(encoder: MetricEncoder<'_>, value: impl EncodeCounterValue) -> fmt::Result {
    ConstCounter::new(value).encode(encoder)
}

fn gauge(encoder: MetricEncoder<'_>, value: impl EncodeGaugeValue) -> fmt::Result {
    ConstGauge::new(value).encode(encoder)
}

/// Reads it below this mount of procfs.
///
/// # Errors
/// procfs is not mounted there, or does not show this process.
pub fn read(procfs: &Path) -> ProcResult<Usage> {
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

    #[test]
    fn each_of_them_is_shown_once_and_none_where_procfs_is_not() {
        use prometheus_client::{encoding::text::encode_registry, registry::Registry};
        let shown = |procfs: &str| {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(ProcessMetrics::new(Path::new(procfs))));
            let mut text = String::new();
            encode_registry(&mut text, &registry).unwrap();
            text
        };
        let text = shown("/proc");
        for name in [
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_max_fds",
            "process_virtual_memory_bytes",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
            "process_threads",
        ] {
            let samples = text.lines().filter(|line| line.starts_with(&format!("{name} ")));
            assert_eq!(samples.count(), 1, "{name} in\n{text}");
        }
        assert_eq!(shown("/nowhere"), "");
    }
}
