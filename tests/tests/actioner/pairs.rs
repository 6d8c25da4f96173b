//! Two Prometheis that each tell two Alertmanagers, three severities of one alert, and the watch beside them: one offence.
//!
//! The Alertmanagers do not know of each other, and the Prometheis keep their `replica` label: whatever could be told twice is, which
//! a cluster and `alert_relabel_configs` make less of.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{
    Result,
    netns::Namespace,
    programs::Program,
    servers::{Alertmanager, Prometheus, Release},
    wait::wait_until,
};

use crate::lab::{Actioner, HIM, Home, fill, members, quiet};

const SOON: Duration = Duration::from_secs(60);
const FIRST: Duration = Duration::from_secs(6);
const SECOND: Duration = Duration::from_secs(24);
/// The kernel shows whole seconds, and a busy machine takes its time to show them.
const TOLERANCE: Duration = Duration::from_secs(3);

const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];

/// The entries stay, so the alerts go on while he is banned.
const POLICY: &str = "\
enforce: true
never_ban: []
watch:
  interval: 500ms
  every: 1s
  alerts:
  - {alert: ConntrackSourceHoardsEntries, source: {assured: 20}, labels: {severity: info}}
rules:
- name: hoarder
  matchers: ['alertname=\"ConntrackSourceHoardsEntries\"', 'severity=~\"info|warning|critical\"']
  sources: {label: source}
  require: {source: {assured: 20}}
  actions: [{ban: {for: 6s, factor: 4, max: 24h}}]
";

fn rules() -> String {
    let tier = |severity: &str| {
        json!({"alert": "ConntrackSourceHoardsEntries", "labels": {"severity": severity, "remediation": "conntrack-guard"},
            "expr": "(nf_conntrack_source_assured_entries >= 20) * on (job, instance) group_left (table_id) nf_conntrack_table_info"})
    };
    json!({"groups": [{"name": "pairs", "rules": SEVERITIES.map(tier)}]}).to_string()
}

fn prometheus(replica: &str) -> String {
    json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s", "external_labels": {"replica": replica}},
        "rule_files": ["pairs.rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:9093", "127.0.0.1:9094"]}]}]},
        "scrape_configs": [{"job_name": "conntrack-exporter", "static_configs": [{"targets": ["127.0.0.1:10048"]}]}],
    })
    .to_string()
}

fn alertmanager(receiver: &str) -> String {
    json!({
        "route": {"receiver": receiver, "group_by": ["alertname", "instance", "source"], "group_wait": "0s", "group_interval": "1s",
            "repeat_interval": "1s"},
        "receivers": [{"name": receiver, "webhook_configs": [{"url": "http://127.0.0.1:10049/webhook", "send_resolved": false}]}],
    })
    .to_string()
}

/// Who tells the actioner: Alertmanager, Prometheus, severity.
type Teller = (String, String, String);

fn every_teller() -> BTreeSet<Teller> {
    let pairs = [("am-a", "a"), ("am-a", "b"), ("am-b", "a"), ("am-b", "b")];
    let all = pairs.iter().flat_map(|(by, from)| SEVERITIES.map(|severity| (*by, *from, severity)));
    all.map(|(by, from, severity)| (by.to_owned(), from.to_owned(), severity.to_owned())).collect()
}

fn teller(line: &Value) -> Option<Teller> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = &line["labels"];
    (line["origin"] == "webhook")
        .then(|| (text(&line["receiver"]), text(&labels["replica"]), text(&labels["severity"])))
}

/// The decisions about him, in the order in which they were made.
fn decisions(actioner: &Actioner<'_>) -> Vec<Value> {
    actioner.audit().into_iter().filter(|line| line["event"] == "decision" && line["source"] == HIM).collect()
}

/// What was decided after his ban of that number, once everybody has told of him.
fn told_by_all(actioner: &Actioner<'_>, offence: u64) -> Result<()> {
    wait_until("both Alertmanagers to have told what both Prometheis found", SOON, || {
        let decisions = decisions(actioner);
        let banned = decisions.iter().position(|line| line["result"]["offence"] == offence);
        let told: BTreeSet<Teller> =
            decisions.iter().skip(banned.unwrap_or(usize::MAX)).filter_map(teller).collect();
        if told == every_teller() { Ok(()) } else { Err(format!("{told:?}\n{}", actioner.log())) }
    })
}

/// When his ban ends, as the kernel has it. None: he is not banned.
fn kernels_end(lab: &Namespace) -> Result<Option<Instant>> {
    let asked = Instant::now();
    let left = members(lab, "conntrack-guard-4")?.into_iter().find(|(net, _)| net == HIM);
    Ok(left.map(|(_, left)| asked + Duration::from_secs(left.into())))
}

#[test]
fn two_prometheis_two_alertmanagers_three_severities_and_the_watch_are_one_offence() -> Result<()> {
    let lab = quiet("pairs")?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let _exporter = Program::Exporter.start(&lab, at(10_048), &["--collector.sources.min-entries", "20"])?;
    let _alertmanagers = [
        Alertmanager::start(&lab, at(9093), &alertmanager("am-a"))?,
        Alertmanager::start(&lab, at(9094), &alertmanager("am-b"))?,
    ];
    let start = |replica, port| {
        let files = [("prometheus.yml", &*prometheus(replica)), ("pairs.rules.yml", &*rules())];
        Prometheus::configured(&lab, at(port), Release::Debian12, &files)
    };
    let prometheis = [start("a", 9090)?, start("b", 9091)?];
    for prometheus in &prometheis {
        wait_until("Prometheus to scrape and to know both Alertmanagers", SOON, || {
            let scraped =
                prometheus.query(&lab, "nf_conntrack_table_info").map_err(|error| error.to_string())?;
            let known = prometheus.api(&lab, "/api/v1/alertmanagers").map_err(|error| error.to_string())?;
            let known = known["data"]["activeAlertmanagers"].as_array().map_or(0, Vec::len);
            if scraped.len() == 1 && known == 2 { Ok(()) } else { Err(format!("{scraped:?} {known}")) }
        })?;
    }

    fill(&lab, HIM, 60)?;
    let first =
        wait_until("his first ban", SOON, || kernels_end(&lab).ok().flatten().ok_or_else(|| actioner.log()))?;
    assert!(first <= Instant::now() + FIRST + TOLERANCE, "six seconds");
    let (latest, earliest) = (first + TOLERANCE, first - TOLERANCE);
    // Somebody may tell of him in the very moment it ends: the second ban then stands before anybody saw the first one gone.
    while let Some(end) = kernels_end(&lab)? {
        if end > latest {
            assert!(Instant::now() >= earliest, "a repeat lengthened his ban by {:?}", end - latest);
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let second =
        wait_until("his second", SOON, || kernels_end(&lab).ok().flatten().ok_or_else(|| actioner.log()))?;
    assert!(second > Instant::now() + FIRST, "a new offence after the ban's end escalates");
    let latest = Instant::now() + SECOND + TOLERANCE;
    told_by_all(&actioner, 2)?;
    assert!(kernels_end(&lab)?.is_some_and(|end| end <= latest), "and no repeat lengthens it");

    let decisions = decisions(&actioner);
    let bans: Vec<&Value> = decisions.iter().filter(|line| line["verdict"] == "ban").collect();
    let offences: Vec<u64> = bans.iter().filter_map(|line| line["result"]["offence"].as_u64()).collect();
    assert_eq!(offences, [1, 2], "one ban an offence, whoever tells of it: {bans:#?}");
    assert_eq!(actioner.metric("bans_total{rule=\"hoarder\",result=\"enforced\"}")?, 2.0);
    assert_eq!(actioner.metric("active_bans")?, 1.0);
    let others = decisions.iter().filter(|line| line["verdict"] != "ban");
    assert!(others.clone().all(|line| line["verdict"] == "already_banned"), "{decisions:#?}");
    assert!(others.clone().count() >= every_teller().len(), "{decisions:#?}");
    assert!(
        decisions.iter().any(|line| line["origin"] == "watch"),
        "the watch saw him as well: {decisions:#?}"
    );
    Ok(())
}
