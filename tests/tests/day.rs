//! A quiet day and a day of the article's attack, judged by the shipped rules through a real Prometheus. `make day` has all hosts.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use tests::{
    Result,
    day::{
        at,
        host::{HOSTS, Host},
        openmetrics::{FAMILIES, Job},
        replay::Replay,
        rules::{self, Severity},
        scrapes::{Seen, full_at, scrapes},
        verdict::Verdict,
    },
    programs::workspace,
};

const INTERVAL: u32 = 60;
const TABLE: &str = "docs/metrics.md";

#[test]
fn the_quiet_day_is_quiet_and_the_attack_is_called_ten_hours_ahead() -> Result<()> {
    let file = workspace().join("alerts/conntrack-guard.rules.yml");
    let mut judged = rules::read(&file)?;
    judged.extend(rules::neighbours());
    let hosts = ["quiet-small", "endless"].map(|name| Host::named(name).unwrap());
    let outcomes = Replay::prepare(&hosts, INTERVAL, &file)?.judge(&judged)?;
    let [quiet, endless] = hosts.map(|host| Verdict::new(host, full_at(host), &judged, &outcomes));
    assert_eq!((quiet.faults(), endless.faults()), (vec![], vec![]));
    assert!(quiet.rows.is_empty(), "{quiet:?}");

    let first = |alert: &str, severity| {
        let row = endless.rows.iter().find(|row| row.alert == alert && row.severity == severity);
        row.unwrap_or_else(|| panic!("{alert} did not fire: {endless:?}")).first
    };
    let ahead = |second| endless.hours_ahead(second).unwrap();
    assert!(ahead(first("ConntrackSocketlessEntries", Severity::Info)) > 12.0, "{endless:?}");
    assert!(ahead(first("ConntrackTableFillsSoon", Severity::Warning)) > 11.0, "{endless:?}");
    // Nobody acts, so it pages before it is too late, and the neighbours' gauges have said so for hours less.
    let page = first("ConntrackPressureStaysHigh", Severity::Critical);
    assert!((1.0..4.0).contains(&ahead(page)) && page > at(2, 0), "{endless:?}");
    assert!((1.0..4.0).contains(&ahead(first("node-mixin", Severity::Warning))), "{endless:?}");
    Ok(())
}

/// The rows of docs/metrics.md, which a test of its own holds against the programs: name → sets of labels, for each program.
fn exposed() -> BTreeMap<(Job, String), BTreeSet<String>> {
    let text = fs::read_to_string(workspace().join(TABLE)).unwrap();
    let mut job = Job::Exporter;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with("## ") {
            job = if line.ends_with("exporter") { Job::Exporter } else { Job::Actioner };
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["", name, _, labels, ..] = cells[..]
            && let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'))
        {
            let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned);
            found.insert((job, name.to_owned()), labels.collect());
        }
    }
    assert!(found.len() > 60, "{found:?}");
    found
}

#[test]
fn what_the_day_writes_has_the_names_and_labels_that_are_exposed() {
    let exposed = exposed();
    let mut looked_at = 0;
    for host in HOSTS {
        let seen = scrapes(host, 600);
        let scrape = seen.iter().rev().find_map(|seen| match seen {
            Seen::Scraped(scrape) if !scrape.listed.is_empty() => Some(scrape),
            _ => None,
        });
        let Some(scrape) = scrape else { continue };
        for family in FAMILIES.iter().filter(|family| family.job != Job::Node) {
            let name = (family.job, family.name.to_owned());
            let labels = exposed.get(&name).unwrap_or_else(|| panic!("{} is not in {TABLE}", family.name));
            for (written, _) in (family.samples)(host, scrape) {
                let written: BTreeSet<_> = written.into_iter().map(|(label, _)| label.to_owned()).collect();
                assert_eq!(&written, labels, "{}", family.name);
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 500, "{looked_at}");
}
