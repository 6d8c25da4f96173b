//! An actioner in a namespace, and what it is asked and shows.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    Result, http,
    http::{Response, Server},
    listing::{Entry, list},
    netns::Namespace,
    process::Process,
    programs::{Program, Running},
    tools::{Tool, require},
    wait::wait_until,
};

/// Far longer than anything takes, on a busy machine too: only what never comes takes it.
pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const HIM: &str = "198.51.100.66";

/// One rule, enforced: 20 assured entries, ten minutes, everything deleted.
pub(crate) const POLICY: &str = "\
enforce: true
never_ban: []
limits: {bans_per_minute: 10000, bans_per_hour: 60000, active_bans: 50000}
rules:
- name: hoarder
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {assured: 20}}
  actions: [{ban: {for: 10m, factor: 4, max: 24h}}, {delete: all}]
";

pub(crate) fn dry() -> String {
    POLICY.replace("enforce: true", "enforce: false")
}

/// A namespace with tracking on and nothing in its table.
pub(crate) fn quiet(name: &str) -> Result<Namespace> {
    require(&Tool::ALL)?;
    let namespace = Namespace::new(name)?;
    namespace.track_connections()?;
    Ok(namespace)
}

/// Puts `count` established, assured entries into the table, from `source` to an address that is nobody's.
pub(crate) fn fill(namespace: &Namespace, source: &str, count: usize) -> Result<()> {
    let to = if source.contains(':') { "2001:db8:2::1" } else { "192.0.2.1" };
    let line = |port: usize| {
        format!(
            "-I -s {source} -d {to} -p tcp --sport {port} --dport 80 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 4000\n"
        )
    };
    let lines: String = (1..=count).map(|port| line(1000 + port)).collect();
    namespace.command_with_input(&["conntrack", "--load-file", "-"], &lines).map(drop)
}

/// Entries that have the address at either end.
pub(crate) fn with_end(namespace: &Namespace, address: &str) -> Result<Vec<Entry>> {
    let ends = |entry: &Entry| {
        let values = entry.original.values().chain(entry.reply.values());
        values.into_iter().any(|value| value == address)
    };
    Ok(list(namespace)?.into_iter().filter(ends).collect())
}

/// The elements of a set of ours, as `ipset save` prints them: address and seconds.
pub(crate) fn members(namespace: &Namespace, set: &str) -> Result<Vec<(String, u32)>> {
    let saved = namespace.output(&["ipset", "save", set])?;
    let line = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["add", _, net, "timeout", seconds, ..] => Some((net.to_owned(), seconds.parse().ok()?)),
            _ => None,
        }
    };
    Ok(saved.lines().filter_map(line).collect())
}

pub(crate) fn sets(namespace: &Namespace) -> Result<Vec<String>> {
    let names = namespace.output(&["ipset", "list", "-name"])?;
    Ok(names.lines().map(str::to_owned).collect())
}

pub(crate) fn raw_rules(namespace: &Namespace) -> Result<String> {
    Ok(["iptables", "ip6tables"]
        .map(|tool| namespace.output(&[tool, "-t", "raw", "-S", "PREROUTING"]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?
        .concat())
}

/// A message of Alertmanager's with these alerts.
pub(crate) fn message(alerts: &[Value]) -> String {
    json!({"version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing", "receiver": "actioner",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am:9093", "alerts": alerts})
    .to_string()
}

/// Files of an actioner that outlive it.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    pub(crate) fn new(policy: &str) -> Home {
        let home = Home { directory: tempfile::tempdir().unwrap() };
        home.write(policy);
        home
    }

    pub(crate) fn write(&self, policy: &str) {
        fs::write(self.path("policy.yaml"), policy).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn arguments(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        [("--policy.file", "policy.yaml"), ("--storage.path", "storage"), ("--admin.socket", "admin.sock")]
            .into_iter()
            .flat_map(|(flag, name)| [flag.to_owned(), path(name)])
            .collect()
    }

    /// A command of the actioner's run to its end.
    pub(crate) fn run(
        &self,
        namespace: &Namespace,
        wrapper: &[&str],
        words: &[&str],
        flags: &[&str],
    ) -> Result<Output> {
        let program = Program::Actioner.path()?;
        let mut command = match wrapper {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        let arguments = self.arguments();
        let named = arguments.chunks(2).filter(|pair| flags.contains(&pair[0].as_str())).flatten();
        command.args(words).args(named);
        Ok(namespace.run(|| command.output()).unwrap())
    }

    pub(crate) fn teardown(&self, namespace: &Namespace) -> Result<(bool, String)> {
        self.teardown_with(namespace, &[])
    }

    pub(crate) fn teardown_with(&self, namespace: &Namespace, more: &[&str]) -> Result<(bool, String)> {
        let words: Vec<&str> = ["teardown"].iter().chain(more).copied().collect();
        let output =
            self.run(namespace, &[], &words, &["--policy.file", "--storage.path", "--admin.socket"])?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    pub(crate) fn start<'n>(&self, namespace: &'n Namespace) -> Result<Actioner<'n>> {
        self.start_with(namespace, &[])
    }

    pub(crate) fn start_with<'n>(&self, namespace: &'n Namespace, more: &[&str]) -> Result<Actioner<'n>> {
        self.start_at(namespace, Program::Actioner.default_address().into(), more)
    }

    /// One that asks strangers for a password: what is asked of it goes over its socket.
    pub(crate) fn start_guarded<'n>(&self, namespace: &'n Namespace, more: &[&str]) -> Result<Actioner<'n>> {
        self.start_at(namespace, Server::Unix(self.path("admin.sock")), more)
    }

    fn start_at<'n>(&self, namespace: &'n Namespace, address: Server, more: &[&str]) -> Result<Actioner<'n>> {
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let running = Program::Actioner.start(namespace, address, &arguments)?;
        self.met(namespace, running)
    }

    /// Starts it behind a shell script in a mount namespace of its own; STORAGE in it is the storage directory.
    pub(crate) fn start_on<'n>(&self, namespace: &'n Namespace, script: &str) -> Result<Actioner<'n>> {
        let storage = self.path("storage");
        fs::create_dir_all(&storage).unwrap();
        let script = script.replace("STORAGE", &storage.display().to_string()) + "; exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).arg(Program::Actioner.path()?).args(self.arguments());
        let running = Running::start(namespace, command, Program::Actioner.default_address().into())?;
        self.met(namespace, running)
    }

    /// Starts one that is not ready, and says why.
    pub(crate) fn start_unready<'n>(&self, namespace: &'n Namespace) -> Result<Actioner<'n>> {
        let mut command = Command::new(Program::Actioner.path()?);
        command.args(self.arguments());
        let address = Program::Actioner.default_address().into();
        self.met(namespace, Running::start_until(namespace, command, address, "/-/healthy")?)
    }

    fn met<'n>(&self, namespace: &'n Namespace, running: Running) -> Result<Actioner<'n>> {
        let mut actioner = Actioner {
            namespace,
            running,
            audit: self.path("storage/audit.jsonl"),
            socket: Server::Unix(self.path("admin.sock")),
            policy: self.path("policy.yaml"),
            table_id: String::new(),
        };
        let metrics = actioner.metrics()?;
        let line =
            metrics.lines().find(|line| line.starts_with("nf_conntrack_table_info{")).unwrap().to_owned();
        actioner.table_id = line.split('"').nth(1).unwrap().to_owned();
        Ok(actioner)
    }
}

/// A running actioner.
pub(crate) struct Actioner<'n> {
    namespace: &'n Namespace,
    pub(crate) running: Running,
    audit: PathBuf,
    pub(crate) socket: Server,
    policy: PathBuf,
    pub(crate) table_id: String,
}

impl Actioner<'_> {
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.running.process
    }

    pub(crate) fn log(&self) -> String {
        self.running.process.log()
    }

    /// A firing alert about a source of this table.
    pub(crate) fn about(&self, source: &str) -> Value {
        json!({"status": "firing", "labels": {"alertname": "Hoarder", "source": source, "table_id": self.table_id},
            "annotations": {}, "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "00"})
    }

    pub(crate) fn post(&self, body: &str) -> Result<Response> {
        self.running.post(self.namespace, "/webhook", &["Content-Type: application/json"], body.as_bytes())
    }

    pub(crate) fn post_over_socket(&self, body: &str) -> Result<Response> {
        http::post(&self.socket, "/webhook", &[], body.as_bytes())
    }

    /// Posts alerts about these sources; the answer's counts.
    pub(crate) fn alert(&self, sources: &[&str]) -> Result<Value> {
        let alerts: Vec<Value> = sources.iter().map(|source| self.about(source)).collect();
        let answer = self.post(&message(&alerts))?;
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), self.log());
        Ok(serde_json::from_str(&answer.text()).unwrap())
    }

    /// Status and text of `/-/ready`.
    pub(crate) fn readiness(&self) -> Result<(u16, String)> {
        let answer = self.running.get(self.namespace, "/-/ready")?;
        Ok((answer.status, answer.text()))
    }

    pub(crate) fn metrics(&self) -> Result<String> {
        Ok(self.running.get(self.namespace, "/metrics")?.text())
    }

    /// The value of a sample, named with its labels and without our prefix.
    pub(crate) fn metric(&self, sample: &str) -> Result<f64> {
        let metrics = self.metrics()?;
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix("conntrack_actioner_")?.strip_prefix(sample)?.strip_prefix(' ')
        });
        Ok(line.unwrap_or_else(|| panic!("no sample {sample} in\n{metrics}")).parse().unwrap())
    }

    /// What `conntrack-actioner status --json` prints.
    pub(crate) fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&http::get(&self.socket, "/api/v1/status", &[])?.text()).unwrap())
    }

    /// Dumps taken for decisions so far.
    pub(crate) fn dumps(&self) -> Result<f64> {
        self.metric("action_duration_seconds_count{action=\"survey\"}")
    }

    /// What it has written down so far. An answer waits for its lines for 100 ms only, so they are waited for here: the thread that
    /// writes them sleeps when it has nothing left to write.
    pub(crate) fn audit(&self) -> Vec<Value> {
        wait_until("the audit log to be written", SOON, || match self.running.process.sleeps("audit") {
            Ok(None | Some(true)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
        read_audit(&self.audit)
    }

    pub(crate) fn write_policy(&self, policy: &str) {
        fs::write(&self.policy, policy).unwrap();
    }

    /// Writes a policy, sends SIGHUP and waits until it was read or refused.
    pub(crate) fn reload(&mut self, policy: &str) -> Result<bool> {
        let said = |log: &str| {
            (log.matches("policy was read again").count(), log.matches("policy was not reloaded").count())
        };
        let before = said(&self.log());
        self.write_policy(policy);
        self.running.process.signal(Signal::SIGHUP)?;
        wait_until("the policy to be read again", SOON, || match said(&self.log()) {
            now if now == before => Err(self.log()),
            now => Ok(now.0 > before.0),
        })
    }
}

/// The lines that are there whole: the last one may be under way.
pub(crate) fn read_audit(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The answer's count of that name.
pub(crate) fn count(answer: &Value, name: &str) -> u64 {
    answer[name].as_u64().unwrap_or_else(|| panic!("no {name} in {answer}"))
}

pub(crate) fn set_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "conntrack-guard-4" } else { "conntrack-guard-6" }
}
