//! A namespace with a table of known entries, and the exporter in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use tests::http::{self, Response};
use tests::netns::Namespace;
use tests::programs::Running;
use tests::tools::{self, Tool};

const PORT: u16 = 10048;
const BINARY: &str = env!("CARGO_BIN_EXE_conntrack-exporter");

/// Its own connections are not tracked, so that scrapes do not change what they show.
pub(crate) struct Lab {
    pub(crate) namespace: Namespace,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        tools::require(&[Tool::Conntrack, Tool::Nft, Tool::Ip, Tool::Setpriv]).unwrap();
        let namespace = Namespace::new("exporter").unwrap();
        namespace.track_connections().unwrap();
        let rule = |port| format!("tcp {port} {PORT} notrack;");
        let rules = [rule("dport"), rule("sport")].join(" ");
        namespace
            .nft(&format!(
                "table inet own {{ chain out {{ type filter hook output priority raw; {rules} }}; }}"
            ))
            .unwrap();
        Lab { namespace }
    }

    /// Adds entries, each as the words of `conntrack -I`.
    pub(crate) fn add(&self, entries: &[impl AsRef<str>]) {
        let lines: String = entries.iter().map(|entry| format!("-A {}\n", entry.as_ref())).collect();
        self.namespace.command_with_input(&["conntrack", "-R", "-"], &lines).unwrap();
    }

    pub(crate) fn start(&self, flags: &[&str]) -> Exporter<'_> {
        self.start_under(&[], flags)
    }

    /// Starts it through another program, such as setpriv.
    pub(crate) fn start_under(&self, wrapper: &[&str], flags: &[&str]) -> Exporter<'_> {
        Exporter::start(&self.namespace, wrapper, flags)
    }
}

/// A running exporter.
pub(crate) struct Exporter<'a> {
    namespace: &'a Namespace,
    pub(crate) running: Running,
}

impl<'a> Exporter<'a> {
    /// Starts it in any namespace, through another program unless `wrapper` is empty.
    pub(crate) fn start(namespace: &'a Namespace, wrapper: &[&str], flags: &[&str]) -> Exporter<'a> {
        let address = SocketAddr::from(([127, 0, 0, 1], PORT));
        let listen = format!("--web.listen-address={address}");
        let words: Vec<&str> =
            wrapper.iter().copied().chain([BINARY, listen.as_str()]).chain(flags.iter().copied()).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let running = Running::start(namespace, command, address.into()).unwrap();
        Exporter { namespace, running }
    }
}

impl Exporter<'_> {
    pub(crate) fn get(&self, path: &str, headers: &[&str]) -> Response {
        self.namespace.run(|| http::get(&self.running.address, path, headers)).unwrap()
    }

    pub(crate) fn scrape(&self) -> Metrics {
        self.scrape_with("", &[])
    }

    pub(crate) fn scrape_with(&self, query: &str, headers: &[&str]) -> Metrics {
        let answer = self.get(&format!("/metrics{query}"), headers);
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics::read(&answer.text())
    }

    pub(crate) fn log(&self) -> String {
        self.running.process.log()
    }
}

/// The samples of a scrape in the classic format, by name and labels as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metrics(pub(crate) BTreeMap<String, f64>);

impl Metrics {
    pub(crate) fn read(text: &str) -> Metrics {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number in {line:?}")))
        });
        Metrics(samples.collect())
    }

    #[track_caller]
    pub(crate) fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or_else(|| panic!("{series} is missing in {:#?}", self.0))
    }

    pub(crate) fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// The samples of one metric, by their labels.
    pub(crate) fn of(&self, name: &str) -> BTreeMap<&str, f64> {
        let labels = |series: &'_ str| {
            series.strip_prefix(name).filter(|l| l.is_empty() || l.starts_with('{')).is_some()
        };
        self.0
            .iter()
            .filter(|(series, _)| labels(series))
            .map(|(s, value)| (&s[name.len()..], *value))
            .collect()
    }

    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.of(name).values().sum()
    }

    #[track_caller]
    pub(crate) fn success(&self, collector: &str) -> bool {
        self.value(&format!("nf_conntrack_scrape_collector_success{{collector=\"{collector}\"}}")) == 1.0
    }

    /// Every entry is among the sources that are shown, the others or this host's.
    #[track_caller]
    pub(crate) fn add_up(&self) {
        let parts = [
            "nf_conntrack_source_entries",
            "nf_conntrack_other_sources_entries",
            "nf_conntrack_local_entries",
        ];
        let parts: f64 = parts.iter().map(|name| self.sum(name)).sum();
        assert_eq!(parts, self.sum("nf_conntrack_state_entries"), "{:#?}", self.0);
    }
}

/// `count` assured TCP entries of `source` that outlive the test.
pub(crate) fn assured(source: &str, count: u16) -> Vec<String> {
    let to = if source.contains(':') { "2001:db8:1::1" } else { "192.0.2.1" };
    let entry = |port| {
        format!(
            "-p tcp -s {source} -d {to} --sport {port} --dport 80 --state ESTABLISHED -u ASSURED,SEEN_REPLY -t 9000"
        )
    };
    (1..=count).map(entry).collect()
}
