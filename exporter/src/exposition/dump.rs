//! The metrics of the collectors `flows`, `sources` and `sockets`. All come from one dump.

use std::fmt;
use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use conntrack::summary::{Judged, Mark, SourceCounts};

use super::families::{Families, Shown};
use crate::flows::Flows;
use crate::listing::{Listing, STEPS};
use crate::prefixes::PrefixCounts;
use crate::snapshot::Snapshot;

pub(super) fn timestamp(snapshot: &Snapshot, families: &mut Families<'_>) -> fmt::Result {
    let unix = snapshot.ended_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    families.gauge(
        "nf_conntrack_dump_timestamp_seconds",
        "When the dump ended that the entries by state and by source were counted in, in seconds since 1970.",
        unix.as_secs_f64(),
    )
}

pub(super) fn flows(flows: &Flows, families: &mut Families<'_>) -> fmt::Result {
    families.gauges(
        "nf_conntrack_state_entries",
        "Entries in each state, counted in a dump of the table; each entry is in exactly one.",
        flows.states.iter().map(|row| {
            let labels = [
                ("family", row.family.name()),
                ("protocol", row.protocol.name()),
                ("state", row.state.name()),
            ];
            (labels, row.entries)
        }),
    )?;
    for mark in Mark::ALL {
        families.gauges(
            &format!("nf_conntrack_{}_entries", mark.name()),
            mark_help(mark),
            flows.marks.iter().map(|row| {
                let labels = [("family", row.family.name()), ("protocol", row.protocol.name())];
                (labels, row.entries[mark as usize])
            }),
        )?;
    }
    Ok(())
}

fn mark_help(mark: Mark) -> &'static str {
    match mark {
        Mark::Assured => "Entries that the kernel does not evict when the table is full (status ASSURED).",
        Mark::Unreplied => {
            "Entries of which only one direction was ever seen (status bit SEEN_REPLY missing)."
        }
        Mark::Offload => {
            "Entries whose packets pass through a flow table, in software or hardware (status OFFLOAD)."
        }
        Mark::Snat => "Entries whose source address is rewritten (status SRC_NAT).",
        Mark::Dnat => "Entries whose destination address is rewritten (status DST_NAT).",
        Mark::Expected => "Entries that a helper expected, such as FTP data connections (status EXPECTED).",
    }
}

pub(super) fn sources(listing: &Listing, families: &mut Families<'_>) -> fmt::Result {
    families.gauge(
        "nf_conntrack_local_entries",
        "Entries whose source is an address of this host, so not among its sources.",
        listing.local,
    )?;
    families.gauge(
        "nf_conntrack_sources",
        "Distinct source addresses that are not this host's; within 1 % above 229376 of a family.",
        listing.distinct,
    )?;
    families.gauges(
        "nf_conntrack_sources_over",
        "Sources that are not this host and hold at least so many entries.",
        STEPS.iter().zip(listing.over).map(|(step, count)| ([("entries", *step)], count)),
    )?;
    by_source("entries", "Entries of a source", |counts| counts.entries, listing, families)?;
    by_source(
        "assured_entries",
        "Assured entries of a source, which the kernel does not evict when the table is full",
        |counts| counts.assured,
        listing,
        families,
    )?;
    by_source(
        "half_open_entries",
        "TCP handshakes of a source that are not complete (syn_sent, syn_sent2, syn_recv)",
        |counts| counts.half_open,
        listing,
        families,
    )?;
    families.gauge(
        "nf_conntrack_other_sources_entries",
        "Entries of all sources that are neither shown by address nor this host.",
        listing.other,
    )?;
    by_prefix("entries", "Entries of all sources in a prefix.", |p| p.entries, listing, families)?;
    by_prefix("sources", "Distinct sources in a prefix.", |p| p.sources, listing, families)
}

pub(super) fn sockets(
    judged: &Judged,
    listing: Option<&Listing>,
    families: &mut Families<'_>,
) -> fmt::Result {
    families.gauge(
        "nf_conntrack_socketless_entries",
        "Entries that say ESTABLISHED with this host, though it has no socket for them and they are idle: dead slots.",
        judged.socketless,
    )?;
    families.gauge(
        "nf_conntrack_deferred_entries",
        "Idle entries that say ESTABLISHED, though the listener still waits for the client's first data (TCP_DEFER_ACCEPT).",
        judged.deferred,
    )?;
    let Some(listing) = listing else { return Ok(()) };
    by_source(
        "socketless_entries",
        "Entries of a source that say ESTABLISHED with this host, though it has no socket for them and they are idle",
        |counts| counts.socketless,
        listing,
        families,
    )
}

fn by_source(
    what: &str,
    help: &str,
    count: impl Fn(&SourceCounts) -> u32,
    listing: &Listing,
    families: &mut Families<'_>,
) -> fmt::Result {
    families.gauges(
        &format!("nf_conntrack_source_{what}"),
        &format!("{help}; the largest sources only, and those that were lately among them."),
        listing.sources.iter().map(|(source, counts)| (source_label(source), count(counts))),
    )
}

fn source_label(source: &IpAddr) -> [(&'static str, Shown<&IpAddr>); 1] {
    [("source", Shown(source))]
}

fn by_prefix(
    what: &str,
    help: &str,
    count: impl Fn(&PrefixCounts) -> u64,
    listing: &Listing,
    families: &mut Families<'_>,
) -> fmt::Result {
    families.gauges(
        &format!("nf_conntrack_prefix_{what}"),
        help,
        listing.prefixes.iter().map(|counts| ([("prefix", Shown(&counts.prefix))], count(counts))),
    )
}
