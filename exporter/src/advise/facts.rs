//! What is read of the host, all at the edge: a judgement needs nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use conntrack::STATS;
use procfs::FromRead;

use crate::stat::Stat;
use crate::sysctl::{Size, Sysctls, Unknown};

use super::listeners::Listeners;
use super::persisted::Persisted;

/// `sizeof(struct nf_conn)` with its slab's alignment, where slabinfo cannot be read: 256 on 6.18 with few options, 320 on distributions'
/// kernels.
const ASSUMED_ENTRY: u64 = 320;
/// Two pointers' worth of hash chain are not needed: `struct hlist_nulls_head` is one pointer.
pub(super) const BUCKET: u64 = 8;

/// The size of one entry in memory, less its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct EntryBytes {
    pub(super) bytes: u64,
    /// Read in slabinfo; else assumed.
    pub(super) measured: bool,
}

/// The kernel's counters that tell whether the table was full, since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub(super) struct Counters {
    /// Packets dropped: no room, or a race for one entry lost.
    pub(super) drop: u64,
    /// Entries evicted to make room. They are only when the limit is reached.
    pub(super) early_drop: u64,
    /// Races lost: counted in `drop` too.
    pub(super) insert_failed: u64,
    /// Packets dropped because their hash chain was too long.
    pub(super) chain_too_long: u64,
}

/// How long entries are remembered, in seconds; None: this kernel has no such sysctl.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub(super) struct Timeouts {
    pub(super) tcp_established: Option<u64>,
    pub(super) tcp_syn_recv: Option<u64>,
    pub(super) tcp_syn_sent: Option<u64>,
    pub(super) tcp_fin_wait: Option<u64>,
    pub(super) tcp_close_wait: Option<u64>,
    pub(super) tcp_last_ack: Option<u64>,
    pub(super) tcp_time_wait: Option<u64>,
    pub(super) tcp_close: Option<u64>,
    pub(super) tcp_max_retrans: Option<u64>,
    pub(super) tcp_unacknowledged: Option<u64>,
    pub(super) udp: Option<u64>,
    pub(super) udp_stream: Option<u64>,
    pub(super) icmp: Option<u64>,
    pub(super) icmpv6: Option<u64>,
    pub(super) generic: Option<u64>,
}

/// All that is known of the host.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) size: Size,
    pub(super) entry: EntryBytes,
    /// Memory of the machine, bytes.
    pub(super) memory: Option<u64>,
    /// Limit and buckets can be written here; else only in the first network namespace.
    pub(super) sizes_are_ours: bool,
    /// None: neither netlink nor procfs tells.
    pub(super) counters: Option<Counters>,
    pub(super) timeouts: Timeouts,
    pub(super) tcp_loose: Option<u64>,
    pub(super) tcp_be_liberal: Option<u64>,
    pub(super) acct: Option<u64>,
    pub(super) timestamp: Option<u64>,
    pub(super) synack_retries: Option<u64>,
    /// Seconds until the kernel asks whether a silent peer lives, for sockets with SO_KEEPALIVE.
    pub(super) keepalive_time: Option<u64>,
    pub(super) listeners: Listeners,
    pub(super) persisted: Persisted,
}

impl Facts {
    /// Reads them, in the calling thread's network namespace. Fails only without the table's own sysctls.
    pub(super) fn read(procfs: &Path, rootfs: &Path, set: &str) -> Result<Facts, Unknown> {
        let size = Sysctls::below(procfs).size()?;
        let netfilter = procfs.join("sys/net/netfilter");
        let conntrack = |name: &str| number(&netfilter.join(format!("nf_conntrack_{name}")));
        let ipv4 = |name: &str| number(&procfs.join("sys/net/ipv4").join(name));
        Ok(Facts {
            size,
            entry: entry_bytes(procfs),
            memory: memory(procfs),
            sizes_are_ours: writable(&netfilter.join("nf_conntrack_max")),
            counters: counters(procfs),
            timeouts: timeouts(conntrack),
            tcp_loose: conntrack("tcp_loose"),
            tcp_be_liberal: conntrack("tcp_be_liberal"),
            acct: conntrack("acct"),
            timestamp: conntrack("timestamp"),
            synack_retries: ipv4("tcp_synack_retries"),
            keepalive_time: ipv4("tcp_keepalive_time"),
            listeners: Listeners::read(procfs),
            persisted: Persisted::read(rootfs, set),
        })
    }
}

fn timeouts(conntrack: impl Fn(&str) -> Option<u64>) -> Timeouts {
    let tcp = |state: &str| conntrack(&format!("tcp_timeout_{state}"));
    Timeouts {
        tcp_established: tcp("established"),
        tcp_syn_recv: tcp("syn_recv"),
        tcp_syn_sent: tcp("syn_sent"),
        tcp_fin_wait: tcp("fin_wait"),
        tcp_close_wait: tcp("close_wait"),
        tcp_last_ack: tcp("last_ack"),
        tcp_time_wait: tcp("time_wait"),
        tcp_close: tcp("close"),
        tcp_max_retrans: tcp("max_retrans"),
        tcp_unacknowledged: tcp("unacknowledged"),
        udp: conntrack("udp_timeout"),
        udp_stream: conntrack("udp_timeout_stream"),
        icmp: conntrack("icmp_timeout"),
        icmpv6: conntrack("icmpv6_timeout"),
        generic: conntrack("generic_timeout"),
    }
}

/// Sysctls come and go with kernels: one that is not there is not judged.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The kernel shows what is global read-only outside the first network namespace (`nf_conntrack_standalone_init_sysctl`).
fn writable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o200 != 0)
}

fn counters(procfs: &Path) -> Option<Counters> {
    let totals = Stat::below(procfs).read().ok()?;
    let total = |name: &str| {
        let place = STATS.iter().position(|stat| stat.name == name);
        place.and_then(|place| totals[place]).unwrap_or(0)
    };
    Some(Counters {
        drop: total("drop"),
        early_drop: total("early_drop"),
        insert_failed: total("insert_failed"),
        chain_too_long: total("chain_too_long"),
    })
}

fn memory(procfs: &Path) -> Option<u64> {
    procfs::Meminfo::from_file(procfs.join("meminfo")).ok().map(|memory| memory.mem_total)
}

/// slabinfo is for root alone. The cache is never merged with another: it is SLAB_TYPESAFE_BY_RCU.
fn entry_bytes(procfs: &Path) -> EntryBytes {
    match fs::read_to_string(procfs.join("slabinfo")).ok().and_then(|text| slab_object(&text)) {
        Some(bytes) => EntryBytes { bytes, measured: true },
        None => EntryBytes { bytes: ASSUMED_ENTRY, measured: false },
    }
}

/// `name active_objs num_objs objsize …`, as slabinfo 2.1 has it.
fn slab_object(slabinfo: &str) -> Option<u64> {
    let line = slabinfo.lines().find(|line| line.split_whitespace().next() == Some("nf_conntrack"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A host as Linux comes, on a machine of 8 GiB, with nothing to say against it but the five days.
    pub(in crate::advise) fn as_it_comes() -> Facts {
        Facts {
            size: Size { entries: 83, limit: 262_144, buckets: Some(262_144) },
            entry: EntryBytes { bytes: 256, measured: true },
            memory: Some(8 << 30),
            sizes_are_ours: true,
            counters: Some(Counters::default()),
            timeouts: Timeouts {
                tcp_established: Some(432_000),
                tcp_syn_recv: Some(60),
                tcp_syn_sent: Some(120),
                tcp_fin_wait: Some(120),
                tcp_close_wait: Some(60),
                tcp_last_ack: Some(30),
                tcp_time_wait: Some(120),
                tcp_close: Some(10),
                tcp_max_retrans: Some(300),
                tcp_unacknowledged: Some(300),
                udp: Some(30),
                udp_stream: Some(120),
                icmp: Some(30),
                icmpv6: Some(30),
                generic: Some(600),
            },
            tcp_loose: Some(1),
            tcp_be_liberal: Some(0),
            acct: Some(0),
            timestamp: Some(0),
            synack_retries: Some(5),
            keepalive_time: Some(7200),
            listeners: Listeners::default(),
            persisted: Persisted { loaded_at_boot: true, ..Persisted::default() },
        }
    }

    #[test]
    fn an_entrys_size_is_the_slabs_object() {
        let slabinfo = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n\
                        nf_conntrack_expect 0 0 208 19 1 : tunables\nnf_conntrack 144 208 256 16 1 : tunables 0 0 0\n";
        assert_eq!(slab_object(slabinfo), Some(256));
        assert_eq!(slab_object("slabinfo - version: 2.1\n"), None);
        assert_eq!(slab_object("nf_conntrack 1"), None);
    }

    #[test]
    fn a_host_without_the_module_gets_no_advice() {
        let error = Facts::read(Path::new("/nowhere"), Path::new("/nowhere"), "conntrack-guard").unwrap_err();
        assert!(error.to_string().contains("nf_conntrack is not loaded"), "{error}");
    }
}
