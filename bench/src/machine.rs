//! Where it is measured.

use std::{fs, thread, time::Duration};

/// More than this in the second before a run is said in the report: the figures are then of a machine that had other things to do.
pub(crate) const QUIET: f64 = 0.1;

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

/// How many CPUs were busy over one second, `/proc/stat`: the load average still remembers the build before.
pub(crate) fn busy() -> f64 {
    let [idle, all] = ticks();
    thread::sleep(Duration::from_secs(1));
    let [idle, all] = [ticks()[0] - idle, ticks()[1] - all];
    let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
    cores * (1.0 - idle / all)
}

/// Idle ones, waiting for a disk included, and all.
fn ticks() -> [f64; 2] {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = text
        .lines()
        .next()
        .map(|line| line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect())
        .unwrap_or_default();
    [fields.iter().skip(3).take(2).sum(), fields.iter().sum()]
}
