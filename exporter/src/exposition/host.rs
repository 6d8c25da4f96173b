//! The metrics of the collectors `table`, `stat` and `timeouts`.

use std::fmt;

use conntrack::{STATS, Stat};

use super::families::Families;
use crate::cheap::Readings;
use crate::stat::Totals;
use crate::sysctl::{Size, Timeout};

/// What each counter of [`STATS`] counts, as `nf_conntrack_core.c` does.
const STAT_HELP: [&str; STATS.len()] = [
    "Clashes found while NAT looked for a free tuple; not look-ups, despite the kernel's name for it.",
    "Packets that belong to no entry and may not make one.",
    "Entries inserted by ctnetlink; not new connections, which the kernel does not count.",
    "Entries that could not be inserted, because another packet made the same one first or its bucket was full.",
    "Packets dropped because the table was full or an entry could not be inserted: connections are being lost.",
    "Entries evicted before their time to make room in a full table; only such that are not assured.",
    "ICMP packets that conntrack refused, because they are malformed or answer nothing it knows.",
    "Look-ups begun again because a bucket's chain changed under them.",
    "Clashes of two packets of one new flow that the kernel could resolve.",
    "Entries refused because too many hash to the same bucket.",
];

pub(super) fn encode(
    readings: &Readings,
    table_id: Option<&str>,
    families: &mut Families<'_>,
) -> fmt::Result {
    if let Some(size) = &readings.size {
        encode_size(size, families)?;
    }
    if let Some(table_id) = table_id {
        families.info(
            "nf_conntrack_table",
            "Which table this is: a hash of the boot and the network namespace, the same in conntrack-actioner.",
            &[("table_id", table_id)],
        )?;
    }
    if let Some(totals) = &readings.totals {
        encode_totals(totals, families)?;
    }
    match &readings.timeouts {
        Some(timeouts) => encode_timeouts(timeouts, families),
        None => Ok(()),
    }
}

fn encode_size(size: &Size, families: &mut Families<'_>) -> fmt::Result {
    families.gauge(
        "nf_conntrack_entries",
        "Entries in the table of this network namespace, expired ones that are not yet removed included (nf_conntrack_count).",
        size.entries,
    )?;
    families.gauge(
        "nf_conntrack_entries_limit",
        "Entries that the table may hold before new connections are dropped (nf_conntrack_max); 0 is unlimited.",
        size.limit,
    )?;
    match size.buckets {
        Some(buckets) => families.gauge(
            "nf_conntrack_buckets",
            "Buckets of the hash, which all network namespaces share (nf_conntrack_buckets).",
            buckets,
        ),
        None => Ok(()),
    }
}

fn encode_totals(totals: &Totals, families: &mut Families<'_>) -> fmt::Result {
    for ((Stat { name, .. }, help), total) in STATS.iter().zip(STAT_HELP).zip(totals) {
        if let Some(total) = total {
            families.counter(&format!("nf_conntrack_stat_{name}"), help, *total)?;
        }
    }
    Ok(())
}

fn encode_timeouts(timeouts: &[Timeout], families: &mut Families<'_>) -> fmt::Result {
    families.gauges(
        "nf_conntrack_timeout_seconds",
        "Seconds without a packet after which the kernel forgets an entry in that state (nf_conntrack_*_timeout_*).",
        timeouts.iter().map(|timeout| {
            let labels = [("protocol", timeout.protocol.as_str()), ("state", timeout.state.as_str())];
            (labels, timeout.seconds)
        }),
    )
}
