//! What the exporter says of itself.

use std::fmt;

use conntrack::REASONS;

use super::Exposition;
use super::families::Families;

pub(super) fn encode(exposition: &Exposition, families: &mut Families<'_>) -> fmt::Result {
    let outcomes = &exposition.outcomes;
    families.gauges(
        "nf_conntrack_scrape_collector_success",
        "Whether a collector gave its metrics to this scrape (1) or failed, as the log says (0).",
        outcomes.iter().map(|outcome| (collector(outcome.collector), u32::from(outcome.result.is_ok()))),
    )?;
    families.gauges(
        "nf_conntrack_scrape_collector_duration_seconds",
        "Seconds that a collector took; for flows, sources and sockets those of the dump, which scrapes share, or those waited in vain.",
        outcomes.iter().map(|outcome| (collector(outcome.collector), outcome.took.as_secs_f64())),
    )?;
    families.counters(
        "conntrack_exporter_dump_errors",
        "Dumps of the table that failed or were not whole, by reason.",
        REASONS.iter().zip(exposition.dump_errors).map(|(reason, count)| ([("reason", *reason)], count)),
    )?;
    families.gauge(
        "conntrack_exporter_dump_raise_refused",
        "Whether the kernel ever refused to raise a dump's priority that got too little CPU (1): LimitNICE=+0 permits it.",
        u32::from(exposition.raise_refused),
    )?;
    families.info(
        "conntrack_exporter_build",
        "The version of this program.",
        &[("version", env!("CARGO_PKG_VERSION"))],
    )?;
    match &exposition.process {
        Some(usage) => usage.encode(families.encoder()),
        None => Ok(()),
    }
}

fn collector(collector: crate::collector::Collector) -> [(&'static str, &'static str); 1] {
    [("collector", collector.name())]
}
