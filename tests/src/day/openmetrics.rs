//! What an exporter and an actioner would have said, and node_exporter beside them, as OpenMetrics for
//! `promtool tsdb create-blocks-from openmetrics`.

use std::{
    fmt::Display,
    io::{self, Write},
};

use super::{
    EPOCH,
    host::{Actioner, Host},
    scrapes::{Scrape, Seen, address, whole},
    table::{Counts, Kind},
};

/// A host, and what each scrape saw of it.
pub type Walked = (&'static Host, Vec<Seen>);

/// Whose metric it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// conntrack-exporter's.
    Exporter,
    /// conntrack-actioner's, which is absent where there is none.
    Actioner,
    /// node_exporter's, for the neighbours' rules.
    Node,
}

impl Job {
    /// The label `job`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exporter => "conntrack-exporter",
            Self::Actioner => "conntrack-actioner",
            Self::Node => "node",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Exporter => 10_048,
            Self::Actioner => 10_049,
            Self::Node => 9100,
        }
    }
}

/// The labels beside `job` and `instance`, and a value.
pub type Sample = (Vec<(&'static str, String)>, f64);

/// A metric that is written.
pub struct Family {
    /// Its name; a counter's ends in `_total`.
    pub name: &'static str,
    /// Whose it is.
    pub job: Job,
    /// What a scrape found.
    pub samples: fn(&Host, &Scrape) -> Vec<Sample>,
}

fn one(value: f64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

fn labelled(name: &'static str, value: impl Display, number: f64) -> Sample {
    (vec![(name, value.to_string())], number)
}

fn sum(counts: &Counts, of: impl Fn(Kind) -> bool) -> f64 {
    Kind::ALL.into_iter().filter(|kind| of(*kind)).map(|kind| whole(counts[kind as usize])).sum()
}

fn by_source(scrape: &Scrape, of: fn(Kind) -> bool) -> Vec<Sample> {
    scrape.listed.iter().map(|(owner, counts)| labelled("source", address(*owner), sum(counts, of))).collect()
}

fn by_protocol(scrape: &Scrape, of: fn(Kind) -> bool) -> Vec<Sample> {
    let count = |protocol: &str| sum(&scrape.held, |kind| kind.labels().0 == protocol && of(kind));
    let sample = |protocol: &str| {
        (vec![("family", "ipv4".to_owned()), ("protocol", protocol.to_owned())], count(protocol))
    };
    vec![sample("tcp"), sample("udp")]
}

fn by_state(scrape: &Scrape) -> Vec<Sample> {
    let mut states: Vec<_> = Kind::ALL.iter().map(|kind| kind.labels()).collect();
    states.dedup();
    let sample = |(protocol, state): (&str, &str)| {
        let labels = vec![
            ("family", "ipv4".to_owned()),
            ("protocol", protocol.to_owned()),
            ("state", state.to_owned()),
        ];
        (labels, sum(&scrape.held, |kind| kind.labels() == (protocol, state)))
    };
    states.into_iter().map(sample).collect()
}

fn by_prefix(scrape: &Scrape, value: fn(&Counts) -> f64) -> Vec<Sample> {
    let prefix =
        |owner| address(owner).rsplit_once('.').map_or_else(String::new, |(net, _)| format!("{net}.0/24"));
    scrape.listed.iter().map(|(owner, counts)| labelled("prefix", prefix(*owner), value(counts))).collect()
}

fn half_open(kind: Kind) -> bool {
    kind == Kind::HalfOpen
}

fn dead(kind: Kind) -> bool {
    kind == Kind::Dead
}

fn table_id(host: &Host, scrape: &Scrape) -> Vec<Sample> {
    vec![labelled("table_id", format_args!("{}-{}", host.name, scrape.boots), 1.0)]
}

/// A million entries take two seconds to read.
fn dump_seconds(scrape: &Scrape) -> Vec<Sample> {
    let seconds = 0.002 + scrape.entries() * 2.2e-6;
    ["table", "stat"]
        .map(|name| labelled("collector", name, 0.001))
        .into_iter()
        .chain(["flows", "sources", "sockets", "timeouts"].map(|name| labelled("collector", name, seconds)))
        .collect()
}

fn collectors() -> Vec<Sample> {
    ["table", "stat", "flows", "sources", "sockets", "timeouts"]
        .map(|name| labelled("collector", name, 1.0))
        .into()
}

fn enforcing(host: &Host) -> f64 {
    f64::from(u8::from(host.actioner == Actioner::Enforcing))
}

const fn exporter(name: &'static str, samples: fn(&Host, &Scrape) -> Vec<Sample>) -> Family {
    Family { name, job: Job::Exporter, samples }
}

const fn actioner(name: &'static str, samples: fn(&Host, &Scrape) -> Vec<Sample>) -> Family {
    Family { name, job: Job::Actioner, samples }
}

/// What the rules read, and what makes the picture whole; [`UP`] is written beside them.
pub const FAMILIES: &[Family] = &[
    exporter("nf_conntrack_entries", |_, scrape| one(scrape.entries())),
    exporter("nf_conntrack_entries_limit", |host, _| one(host.limit as f64)),
    exporter("nf_conntrack_buckets", |host, _| one(host.limit as f64)),
    exporter("nf_conntrack_state_entries", |_, scrape| by_state(scrape)),
    exporter("nf_conntrack_assured_entries", |_, scrape| by_protocol(scrape, Kind::assured)),
    exporter("nf_conntrack_unreplied_entries", |_, scrape| {
        by_protocol(scrape, |kind| kind == Kind::Unreplied)
    }),
    exporter("nf_conntrack_socketless_entries", |_, scrape| one(sum(&scrape.held, dead))),
    exporter("nf_conntrack_deferred_entries", |_, scrape| {
        one(sum(&scrape.held, |kind| kind == Kind::Deferred))
    }),
    exporter("nf_conntrack_sources", |_, scrape| one(whole(scrape.sources))),
    exporter("nf_conntrack_source_entries", |_, scrape| by_source(scrape, |_| true)),
    exporter("nf_conntrack_source_assured_entries", |_, scrape| by_source(scrape, Kind::assured)),
    exporter("nf_conntrack_source_half_open_entries", |_, scrape| by_source(scrape, half_open)),
    exporter("nf_conntrack_source_socketless_entries", |_, scrape| by_source(scrape, dead)),
    exporter("nf_conntrack_prefix_entries", |_, scrape| by_prefix(scrape, |counts| sum(counts, |_| true))),
    exporter("nf_conntrack_prefix_sources", |_, scrape| by_prefix(scrape, |_| 1.0)),
    exporter("nf_conntrack_stat_drop_total", |_, scrape| one(whole(scrape.drop))),
    exporter("nf_conntrack_stat_early_drop_total", |_, scrape| one(whole(scrape.early_drop))),
    exporter("nf_conntrack_stat_insert_failed_total", |_, scrape| one(whole(scrape.insert_failed))),
    exporter("nf_conntrack_stat_chain_too_long_total", |_, _| one(0.0)),
    exporter("nf_conntrack_table_info", table_id),
    exporter("nf_conntrack_scrape_collector_success", |_, _| collectors()),
    exporter("nf_conntrack_scrape_collector_duration_seconds", |_, scrape| dump_seconds(scrape)),
    exporter("conntrack_exporter_web_config_last_reload_successful", |_, _| one(1.0)),
    exporter("conntrack_exporter_web_refused_total", |_, _| vec![labelled("reason", "no_credentials", 0.0)]),
    actioner("conntrack_actioner_enforcing", |host, _| one(enforcing(host))),
    actioner("conntrack_actioner_paused", |_, _| one(0.0)),
    actioner("conntrack_actioner_breaker_open", |_, _| one(0.0)),
    actioner("conntrack_actioner_spoofed_flood", |host, scrape| {
        let forged = scrape.sources > 1000.0 && scrape.entries() > 0.9 * host.limit as f64 && {
            sum(&scrape.held, |kind| matches!(kind, Kind::HalfOpen | Kind::Unreplied))
                > 0.8 * scrape.entries()
        };
        one(f64::from(u8::from(forged)))
    }),
    actioner("conntrack_actioner_store_degraded", |_, _| one(0.0)),
    actioner("conntrack_actioner_active_bans", |_, _| one(0.0)),
    actioner("conntrack_actioner_active_bans_limit", |_, _| one(1000.0)),
    actioner("conntrack_actioner_enforced_bans", |_, _| one(0.0)),
    actioner("conntrack_actioner_budget_remaining", |_, _| {
        vec![labelled("window", "hour", 50.0), labelled("window", "minute", 10.0)]
    }),
    actioner("conntrack_actioner_deleted_entries_total", |_, scrape| {
        vec![labelled("rule", "dead-slots", whole(scrape.deleted))]
    }),
    actioner("conntrack_actioner_webhooks_total", |_, scrape| vec![labelled("code", 200, scrape.webhooks)]),
    actioner("conntrack_actioner_policy_last_reload_successful", |_, _| one(1.0)),
    actioner("conntrack_actioner_web_config_last_reload_successful", |_, _| one(1.0)),
    actioner("nf_conntrack_table_info", table_id),
    Family { name: "node_nf_conntrack_entries", job: Job::Node, samples: |_, scrape| one(scrape.entries()) },
    Family {
        name: "node_nf_conntrack_entries_limit",
        job: Job::Node,
        samples: |host, _| one(host.limit as f64),
    },
];

/// Prometheus' own word about a scrape.
pub const UP: &str = "up";

/// Writes all of it, a family after the other.
///
/// # Errors
/// When it cannot be written.
pub fn write(out: &mut impl Write, walked: &[Walked], interval: u32) -> io::Result<()> {
    let mut names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (family, kind) = match name.strip_suffix("_total") {
            Some(family) => (family, "counter"),
            None => (name, "gauge"),
        };
        writeln!(out, "# TYPE {family} {kind}")?;
        for family in FAMILIES.iter().filter(|family| family.name == name) {
            for (host, seen) in walked.iter().filter(|(host, _)| present(host, family.job)) {
                for (at, seen) in times(seen, interval) {
                    let Seen::Scraped(scrape) = seen else { continue };
                    for (labels, value) in (family.samples)(host, scrape) {
                        line(out, name, (host, family.job), &labels, value, at)?;
                    }
                }
            }
        }
    }
    writeln!(out, "# TYPE {UP} gauge")?;
    for (host, seen) in walked {
        for job in [Job::Exporter, Job::Actioner].into_iter().filter(|job| present(host, *job)) {
            for (at, seen) in times(seen, interval) {
                let up = match seen {
                    Seen::Absent => continue,
                    Seen::Failed => 0.0,
                    Seen::Scraped(_) => 1.0,
                };
                line(out, UP, (host, job), &[], up, at)?;
            }
        }
    }
    writeln!(out, "# EOF")
}

fn present(host: &Host, job: Job) -> bool {
    job != Job::Actioner || host.actioner != Actioner::None
}

fn times(seen: &[Seen], interval: u32) -> impl Iterator<Item = (i64, &Seen)> {
    (EPOCH..).step_by(interval as usize).zip(seen)
}

fn line(
    out: &mut impl Write,
    name: &str,
    (host, job): (&Host, Job),
    labels: &[(&str, String)],
    value: f64,
    at: i64,
) -> io::Result<()> {
    write!(out, "{name}{{job=\"{}\",instance=\"{}:{}\"", job.name(), host.name, job.port())?;
    for (label, of) in labels {
        write!(out, ",{label}=\"{of}\"")?;
    }
    writeln!(out, "}} {value} {at}")
}
