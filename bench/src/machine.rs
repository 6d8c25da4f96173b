//! Where it is measured.

use std::{fs, thread};

/// More than this before a run is said in the report: the figures are then of a machine that had other things to do.
pub(crate) const QUIET: f64 = 0.5;

/// Processor, cores, memory, kernel, in one line.
pub(crate) fn described() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("?", |it| it.1);
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let buckets = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_buckets").unwrap_or_default();
    format!(
        "{model}, {cores} cores, {} GiB, Linux {}, nf_conntrack_buckets {}",
        kib.unwrap_or(0) >> 20,
        kernel.trim(),
        buckets.trim()
    )
}

/// The load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}
