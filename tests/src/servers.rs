//! Debian's Prometheus and Alertmanager, started in a namespace.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Failure, Result,
    failure::Tried,
    netns::Namespace,
    programs::{Running, workspace},
};

/// The labels of a series.
pub type Labels = BTreeMap<String, String>;

/// A program that `packaging/servers.sh` fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// Scrapes, and evaluates rules.
    Prometheus,
    /// Checks rules and metrics.
    Promtool,
    /// Routes alerts.
    Alertmanager,
    /// Checks Alertmanager's configuration.
    Amtool,
}

/// Whose servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Release {
    /// Debian 12's: Prometheus 2.42, Alertmanager 0.25.
    #[default]
    Debian12,
    /// A later suite's: Prometheus 3.
    Next,
}

impl Release {
    fn directory(self) -> &'static str {
        match self {
            Self::Debian12 => "target/servers/bin",
            Self::Next => "target/servers/next/bin",
        }
    }
}

impl Binary {
    /// Debian 12's executable below `target/servers`, fetched first when it is missing.
    ///
    /// # Errors
    /// When it cannot be fetched; the script's words are in the failure.
    pub fn path(self) -> Result<PathBuf> {
        self.path_of(Release::Debian12)
    }

    /// The same of any release.
    ///
    /// # Errors
    /// As [`Self::path`].
    pub fn path_of(self, release: Release) -> Result<PathBuf> {
        let name = match self {
            Self::Prometheus => "prometheus",
            Self::Promtool => "promtool",
            Self::Alertmanager => "alertmanager",
            Self::Amtool => "amtool",
        };
        let path = workspace().join(release.directory()).join(name);
        if !path.exists() {
            fetched(release)?;
        }
        Ok(path)
    }
}

fn fetched(release: Release) -> Result<()> {
    static FETCHED: [OnceLock<std::result::Result<(), String>>; 2] = [OnceLock::new(), OnceLock::new()];
    FETCHED[release as usize]
        .get_or_init(|| {
            let next = (release == Release::Next).then_some("next");
            let mut script = Command::new("bash");
            script.current_dir(workspace()).args(["packaging/servers.sh", "target/servers"]).args(next);
            let output = script.output();
            let output = output.map_err(|error| error.to_string())?;
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        })
        .clone()
        .map_err(|detail| Failure::answer("bash packaging/servers.sh target/servers", detail))
}

/// What a Prometheus is to do; every interval is one second unless the configuration says otherwise.
#[derive(Debug, Clone, Default)]
pub struct PrometheusSetup {
    /// A job's name and its targets, `host:port`.
    pub jobs: Vec<(String, Vec<String>)>,
    /// Rule files.
    pub rules: Vec<PathBuf>,
    /// Alertmanagers, `host:port`.
    pub alertmanagers: Vec<String>,
}

impl PrometheusSetup {
    // JSON is YAML, and quotes itself.
    fn configuration(&self) -> String {
        let targets = |targets: &[String]| serde_json::json!([{ "targets": targets }]);
        let job = |(name, at): &(String, Vec<String>)| serde_json::json!({"job_name": name, "static_configs": targets(at)});
        serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": self.rules,
            "alerting": {"alertmanagers": [{"static_configs": targets(&self.alertmanagers)}]},
            "scrape_configs": self.jobs.iter().map(job).collect::<Vec<_>>(),
        })
        .to_string()
    }
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    running: Running,
    _data: TempDir,
}

impl Prometheus {
    /// Starts one at `address` with a database of its own.
    ///
    /// # Errors
    /// When it cannot be fetched, or refuses its configuration.
    pub fn start(namespace: &Namespace, address: SocketAddr, setup: &PrometheusSetup) -> Result<Self> {
        Self::configured(namespace, address, Release::Debian12, &[("prometheus.yml", &setup.configuration())])
    }

    /// Starts that release's with files, by name and text, of which one is `prometheus.yml`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn configured(
        namespace: &Namespace,
        address: SocketAddr,
        release: Release,
        files: &[(&str, &str)],
    ) -> Result<Self> {
        let data = directory(files)?;
        let mut command = Command::new(Binary::Prometheus.path_of(release)?);
        command
            .arg(format!("--config.file={}", data.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(data.path());
        Ok(Self { running: Running::start(namespace, command, address.into())?, _data: data })
    }

    /// The process and its address.
    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Evaluates an expression now: the series of a vector, or a scalar without labels.
    ///
    /// # Errors
    /// When Prometheus refuses the expression, in its words.
    pub fn query(&self, namespace: &Namespace, expression: &str) -> Result<Vec<(Labels, f64)>> {
        let form = format!("query={}", percent_encoded(expression));
        let headers = ["Content-Type: application/x-www-form-urlencoded"];
        let answer = self.running.post(namespace, "/api/v1/query", &headers, form.as_bytes())?;
        samples(&answer.text()).map_err(|detail| Failure::answer(format!("query {expression}"), detail))
    }

    /// `GET path` of its API, as JSON: for instance `/api/v1/alerts`.
    ///
    /// # Errors
    /// When it does not answer in JSON.
    pub fn api(&self, namespace: &Namespace, path: &str) -> Result<Value> {
        json(&self.running, namespace, path)
    }
}

/// A running Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    running: Running,
    _data: TempDir,
}

impl Alertmanager {
    /// Starts one at `address` with the configuration given as text, without peers.
    ///
    /// # Errors
    /// When it cannot be fetched, or refuses its configuration.
    pub fn start(namespace: &Namespace, address: SocketAddr, configuration: &str) -> Result<Self> {
        let data = directory(&[("alertmanager.yml", configuration)])?;
        let mut command = Command::new(Binary::Alertmanager.path()?);
        command
            .arg(format!("--config.file={}", data.path().join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .current_dir(data.path());
        Ok(Self { running: Running::start(namespace, command, address.into())?, _data: data })
    }

    /// The process and its address.
    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// `GET path` of its API, as JSON: for instance `/api/v2/alerts`.
    ///
    /// # Errors
    /// When it does not answer in JSON.
    pub fn api(&self, namespace: &Namespace, path: &str) -> Result<Value> {
        json(&self.running, namespace, path)
    }
}

fn json(running: &Running, namespace: &Namespace, path: &str) -> Result<Value> {
    let text = running.get(namespace, path)?.text();
    serde_json::from_str(&text).map_err(|error| Failure::answer(path, format!("{error} in {text}")))
}

fn directory(files: &[(&str, &str)]) -> Result<TempDir> {
    let directory = tempfile::tempdir().tried(|| "a directory for a server")?;
    for (file, text) in files {
        let path = directory.path().join(file);
        fs::write(&path, text).tried(|| path.display().to_string())?;
    }
    Ok(directory)
}

/// Prometheus' answer to an instant query: <https://prometheus.io/docs/prometheus/latest/querying/api/>.
fn samples(text: &str) -> Result<Vec<(Labels, f64)>, String> {
    let answer: Value = serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))?;
    if answer["status"] != "success" {
        return Err(answer["error"].as_str().unwrap_or(text).into());
    }
    let value = |pair: &Value| pair[1].as_str().and_then(|number| number.parse().ok());
    let result = &answer["data"]["result"];
    if answer["data"]["resultType"] == "scalar" {
        let scalar = value(result).ok_or_else(|| format!("no number in {result}"))?;
        return Ok(vec![(Labels::new(), scalar)]);
    }
    let series = result.as_array().ok_or_else(|| format!("no series in {text}"))?;
    let sample = |one: &Value| {
        let labels = serde_json::from_value(one["metric"].clone()).ok()?;
        Some((labels, value(&one["value"])?))
    };
    series.iter().map(|one| sample(one).ok_or_else(|| format!("no labels and number in {one}"))).collect()
}

/// A form's value.
pub(crate) fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Checks a file with Prometheus' or Alertmanager's own tool.
///
/// # Errors
/// When the tool finds fault; its words are in the failure.
pub fn check(tool: Binary, arguments: &[&str], directory: &Path) -> Result<String> {
    let path = tool.path()?;
    let mut command = Command::new(&path);
    let output =
        command.args(arguments).current_dir(directory).output().tried(|| path.display().to_string())?;
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words).into_owned();
    if output.status.success() {
        return Ok(words);
    }
    Err(Failure::Command { command: format!("{command:?}"), status: output.status, stderr: words })
}
