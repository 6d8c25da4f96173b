//! Alerts raised on this host, with no Prometheus: the same type as a webhook's, through the same rules.

use crate::alert::{Alert, Origin};
use crate::evidence::{Evidence, TableFill};
use crate::host::Host;
use crate::policy::{Thresholds, Watch, WatchAlert};
use conntrack::Summary;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Of one alert, at most so many sources are raised in one look: the largest.
pub const MOST: usize = 1000;

/// What was said of the sources that the watch raised at its last dump. A source that it does not raise any more is news
/// when it comes back.
#[derive(Debug, Default)]
pub struct Told {
    before: Words,
    now: Words,
    sockets_untold: bool,
    called_untold: bool,
}

type Words = HashMap<(String, Option<IpAddr>), &'static str>;

impl Told {
    /// Another dump begins.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Whether it is news that sockets cannot, or again can, be told from dead slots.
    pub fn sockets_changed(&mut self, told_apart: bool) -> bool {
        std::mem::replace(&mut self.sockets_untold, !told_apart) == told_apart
    }

    /// Whether it is news that peers whom this host called cannot, or again can, be told.
    pub fn called_changed(&mut self, told: bool) -> bool {
        std::mem::replace(&mut self.called_untold, !told) == told
    }

    /// Whether the word for this source under this alert is another than at the last dump.
    pub fn is_news(&mut self, alert: &str, source: Option<IpAddr>, word: &'static str) -> bool {
        let key = (alert.to_owned(), source);
        let before = self.before.get(&key).copied();
        self.now.insert(key, word);
        // "banned" and then "already banned" are one story.
        before != Some(word) && !(word == "already_banned" && before == Some("ban"))
    }
}

/// The alerts that the live table raises.
pub fn raise(watch: &Watch, summary: &Summary, table: TableFill, host: &Host) -> Vec<Alert> {
    let mut alerts = Vec::new();
    for wanted in &watch.alerts {
        if table.meets(&wanted.table).is_err() || Evidence::of_all(summary).meets(&wanted.host).is_err() {
            continue;
        }
        if wanted.source.is_empty() {
            alerts.push(alert(wanted, host, None));
        } else {
            let sources = sources_over(&wanted.source, summary);
            alerts.extend(sources.into_iter().map(|source| alert(wanted, host, Some(source))));
        }
    }
    alerts
}

fn sources_over(thresholds: &Thresholds, summary: &Summary) -> Vec<IpAddr> {
    let mut over: Vec<(u64, IpAddr)> = summary
        .sources
        .iter()
        .map(|(source, counts)| (Evidence::of(counts, summary.judged.is_some()), source))
        .filter(|(evidence, _)| evidence.meets(thresholds).is_ok())
        .map(|(evidence, source)| (evidence.rank(thresholds), source))
        .collect();
    over.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    over.truncate(MOST);
    over.into_iter().map(|(_, source)| source.to_canonical()).collect()
}

fn alert(wanted: &WatchAlert, host: &Host, source: Option<IpAddr>) -> Alert {
    let mut labels: BTreeMap<String, String> = wanted.labels.clone();
    labels.insert("alertname".to_owned(), wanted.alert.clone());
    labels.insert("table_id".to_owned(), host.table_id.clone());
    labels.insert("instance".to_owned(), host.name.clone());
    if let Some(source) = source {
        labels.insert("source".to_owned(), source.to_string());
    }
    let fingerprint = fingerprint(&labels);
    Alert {
        labels,
        annotations: BTreeMap::new(),
        fingerprint,
        starts_at: String::new(),
        firing: true,
        origin: Origin::Watch,
        receiver: "watch".into(),
        group_key: "watch".into(),
    }
}

fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for (name, value) in labels {
        hash.update(name);
        hash.update([0xff]);
        hash.update(value);
        hash.update([0xff]);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
