//! The days as blocks of a real Prometheus, and every rule's expression asked over the day.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    DAY, EPOCH,
    alerting::{Fired, fired},
    host::Host,
    openmetrics::{self, Walked},
    rules::{self, Rule},
    scrapes::scrapes,
};
use crate::{
    Failure, Result,
    failure::Tried,
    netns::Namespace,
    programs::Running,
    servers::{Binary, Labels, Release, percent_encoded},
};

/// What is judged: the second day, in seconds since [`EPOCH`]. The first is its history.
pub const JUDGED: Range<u32> = DAY..2 * DAY;
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// An alert of a rule about one host, which fired at least once.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The rule's place in the list that was asked.
    pub rule: usize,
    /// The host's name.
    pub host: String,
    /// All its labels.
    pub labels: Labels,
    /// When, in order; never empty.
    pub fired: Vec<Fired>,
}

/// Labels, and what was answered at which second.
type Series = (Labels, Vec<(u32, String)>);

/// Two days of some hosts in a Prometheus' database.
#[derive(Debug)]
pub struct Replay {
    namespace: Namespace,
    directory: TempDir,
    interval: u32,
}

impl Replay {
    /// Walks through the days of `hosts` with a scrape each `interval` seconds, and makes blocks of what was seen.
    ///
    /// # Errors
    /// When promtool is missing or does not accept what was written.
    pub fn prepare(hosts: &[&'static Host], interval: u32, rules: &Path) -> Result<Self> {
        let directory = tempfile::tempdir().tried(|| "a directory for two days of metrics")?;
        let replay = Self { namespace: Namespace::new("day")?, directory, interval };
        let walked: Vec<Walked> = hosts.iter().map(|host| (*host, scrapes(host, interval))).collect();
        replay.block("day.om", |out| openmetrics::write(out, &walked, interval))?;
        replay.record(rules)?;
        Ok(replay)
    }

    /// Adds what the rules record, as Prometheus would have recorded it beside the scrapes. `promtool tsdb create-blocks-from rules` asks
    /// the same, but makes a block for each rule and two hours, which takes a minute.
    fn record(&self, rules: &Path) -> Result<()> {
        let server = self.serve()?;
        let mut text = String::new();
        for (name, expression) in rules::recorded(rules)? {
            text += &format!("# TYPE {name} gauge\n");
            for (labels, samples) in self.range(&server, &expression, &(0..2 * DAY))? {
                let labels: Vec<_> =
                    labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
                let labels = labels.join(",");
                for (second, value) in samples {
                    text += &format!("{name}{{{labels}}} {value} {}\n", EPOCH + i64::from(second));
                }
            }
        }
        drop(server);
        self.block("recorded.om", |out| writeln!(out, "{text}# EOF"))
    }

    /// What each rule says of each host. Rules that ask about `ALERTS` are asked last, when it is known.
    ///
    /// # Errors
    /// When Prometheus refuses an expression, in its words.
    pub fn judge(&self, rules: &[Rule]) -> Result<Vec<Outcome>> {
        let (second, first): (Vec<usize>, Vec<usize>) =
            (0..rules.len()).partition(|&index| rules[index].expression.contains("ALERTS{"));
        let mut outcomes = self.ask(rules, &first)?;
        if second.is_empty() {
            return Ok(outcomes);
        }
        self.block("alerts.om", |out| write_alerts(out, rules, &outcomes, self.interval))?;
        outcomes.extend(self.ask(rules, &second)?);
        outcomes.sort_by_key(|outcome| outcome.rule);
        Ok(outcomes)
    }

    fn ask(&self, rules: &[Rule], which: &[usize]) -> Result<Vec<Outcome>> {
        let server = self.serve()?;
        let mut outcomes = Vec::new();
        for &index in which {
            for (labels, samples) in self.range(&server, &rules[index].expression, &JUDGED)? {
                let held: Vec<u32> = samples.into_iter().map(|(second, _)| second).collect();
                let fired = fired(rules[index].timing, &held, JUDGED.start, JUDGED.end, self.interval);
                let instance = labels.get("instance").map_or("", String::as_str);
                let host = instance.rsplit_once(':').map_or(instance, |(host, _)| host).to_owned();
                if !fired.is_empty() {
                    outcomes.push(Outcome { rule: index, host, labels, fired });
                }
            }
        }
        Ok(outcomes)
    }

    /// The series of an expression, evaluated at each scrape of `when`.
    fn range(&self, server: &Running, expression: &str, when: &Range<u32>) -> Result<Vec<Series>> {
        let Self { namespace, interval, .. } = self;
        let form = format!(
            "query={}&start={}&end={}&step={interval}",
            percent_encoded(expression),
            EPOCH + i64::from(when.start),
            EPOCH + i64::from(when.end - interval),
        );
        let headers = ["Content-Type: application/x-www-form-urlencoded"];
        let text = server.post(namespace, "/api/v1/query_range", &headers, form.as_bytes())?.text();
        parse(&text).map_err(|detail| Failure::answer(format!("query_range {expression}"), detail))
    }

    /// A Prometheus over the blocks. A sample is seen until the next scrape is due, so that a missed one is missed, as its stale
    /// marker would have it: blocks made from text have none.
    fn serve(&self) -> Result<Running> {
        let configuration = self.directory.path().join("prometheus.yml");
        fs::write(&configuration, "{}").tried(|| configuration.display().to_string())?;
        let mut command = Command::new(Binary::Prometheus.path_of(Release::Debian12)?);
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", self.data().display()))
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--query.lookback-delta={}s", self.interval - 1))
            .arg(format!("--web.listen-address={ADDRESS}"));
        Running::start(&self.namespace, command, ADDRESS.into())
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn block(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<()> {
        let path = self.directory.path().join(name);
        let written = File::create(&path).and_then(|file| {
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.flush()
        });
        written.tried(|| path.display().to_string())?;
        let promtool = Binary::Promtool.path()?;
        // Two days in one block: else promtool reads the text once for each two hours.
        self.namespace.command(&[
            &promtool.to_string_lossy(),
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            "--max-block-duration=54h",
            &path.to_string_lossy(),
            &self.data().to_string_lossy(),
        ])?;
        fs::remove_file(&path).tried(|| path.display().to_string())
    }
}

/// The answer to a range query: <https://prometheus.io/docs/prometheus/latest/querying/api/>.
fn parse(text: &str) -> Result<Vec<Series>, String> {
    let answer: Value = serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))?;
    if answer["status"] != "success" {
        return Err(answer["error"].as_str().unwrap_or(text).into());
    }
    let series = answer["data"]["result"].as_array().ok_or_else(|| format!("no series in {text}"))?;
    let one = |series: &Value| {
        let mut labels: Labels = serde_json::from_value(series["metric"].clone()).ok()?;
        labels.remove("__name__");
        let sample = |pair: &Value| {
            let second = u32::try_from(pair[0].as_f64()? as i64 - EPOCH).ok()?;
            Some((second, pair[1].as_str()?.to_owned()))
        };
        Some((labels, series["values"].as_array()?.iter().map(sample).collect::<Option<_>>()?))
    };
    series
        .iter()
        .map(|series| one(series).ok_or_else(|| format!("no labels and times in {series}")))
        .collect()
}

/// `ALERTS` of what fired.
fn write_alerts(
    out: &mut impl Write,
    rules: &[Rule],
    outcomes: &[Outcome],
    interval: u32,
) -> std::io::Result<()> {
    writeln!(out, "# TYPE ALERTS gauge")?;
    for outcome in outcomes {
        let rule = &rules[outcome.rule];
        let mut labels = format!("alertname=\"{}\",alertstate=\"firing\"", rule.alert);
        labels += &format!(",severity=\"{}\"", rule.severity.name());
        let own = rule.labels.iter().map(|(name, value)| (name, value));
        for (name, value) in own.chain(&outcome.labels) {
            labels += &format!(",{name}=\"{value}\"");
        }
        for fired in &outcome.fired {
            for second in (fired.from..fired.until).step_by(interval as usize) {
                writeln!(out, "ALERTS{{{labels}}} 1 {}", EPOCH + i64::from(second))?;
            }
        }
    }
    writeln!(out, "# EOF")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_seconds_of_the_days() {
        let text = format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{"__name__":"x","instance":"a:1"}},"values":[[{},"1"],[{},"2"]]}}]}}}}"#,
            EPOCH + 60,
            EPOCH + 120
        );
        let labels = Labels::from([("instance".to_owned(), "a:1".to_owned())]);
        assert_eq!(parse(&text), Ok(vec![(labels, vec![(60, "1".to_owned()), (120, "2".to_owned())])]));
        let refused = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert_eq!(parse(refused), Err("parse error".into()));
    }
}
