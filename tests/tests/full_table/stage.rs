//! A host whose table can be filled, and an actioner on it that keeps ports reachable.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    Result,
    entries::{Wanted, insert},
    http::{self, Server},
    netns::Namespace,
    programs::{Program, Running},
    responder::{Accept, KeepAlive, Responder},
    wait::wait_until,
};

pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Who is kept out stays out, however long he waits: his SYN is dropped, and whatever repeats it.
pub(crate) const PATIENCE: Duration = Duration::from_millis(700);
pub(crate) const SSH: u16 = 22;
pub(crate) const WEB: u16 = 80;
pub(crate) const BY_SOURCE: u32 = 60_000;
/// Connections of each kind.
pub(crate) const EACH: usize = 1_000;

pub(crate) const POLICY: &str = "\
enforce: true
never_ban: []
limits: {bans_per_minute: 1000, bans_per_hour: 6000, active_bans: 5000, deletes_per_action: 2000000}
keep_reachable: {ports: [22, 10048, 10049], from: [127.0.0.0/8, '::1', 198.51.100.66, '2001:db8:51::66', '2001:db8:51::42']}
rules:
- name: hoarder
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {socketless: 300}, table: {fill_percent: 50}}
  actions: [{ban: {for: 10m}}, {delete: all}]
";

/// Which iptables a host has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Tables {
    Nft,
    Legacy,
}

impl Tables {
    /// The program of that kind.
    pub(crate) fn named(self, program: &str) -> String {
        match self {
            Tables::Nft => program.to_owned(),
            Tables::Legacy => program.replace("tables", "tables-legacy"),
        }
    }

    /// A search path on which `iptables` is of that kind.
    pub(crate) fn path(self, home: &Path) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        if self == Tables::Nft {
            return path;
        }
        for family in ["iptables", "ip6tables"] {
            for end in ["", "-save", "-restore"] {
                let program = format!("{family}{end}");
                symlink(format!("/usr/sbin/{}", self.named(&program)), home.join(program)).unwrap();
            }
        }
        format!("{}:{path}", home.display())
    }
}

/// An actioner that peers can reach, and its files.
pub(crate) struct Actioner {
    pub(crate) running: Running,
    pub(crate) home: TempDir,
}

impl Actioner {
    pub(crate) fn start(namespace: &Namespace, policy: &str) -> Result<Actioner> {
        Actioner::start_with(namespace, policy, Tables::Nft)
    }

    pub(crate) fn start_with(namespace: &Namespace, policy: &str, tables: Tables) -> Result<Actioner> {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).display().to_string();
        fs::write(path("policy.yaml"), policy).unwrap();
        let flags = [
            format!("--policy.file={}", path("policy.yaml")),
            format!("--storage.path={}", path("storage")),
            format!("--admin.socket={}", path("admin.sock")),
            "--web.listen-address=[::]:10049".to_owned(),
            "--web.allow-unauthenticated-webhooks".to_owned(),
        ];
        let mut command = std::process::Command::new(Program::Actioner.path()?);
        command.args(flags).env("PATH", tables.path(home.path()));
        let socket = Server::Unix(home.path().join("admin.sock"));
        let running = Running::start(namespace, command, socket)?;
        Ok(Actioner { running, home })
    }

    pub(crate) fn socket(&self) -> Server {
        Server::Unix(self.home.path().join("admin.sock"))
    }

    pub(crate) fn status(&self) -> Value {
        let answer = http::get(&self.socket(), "/api/v1/status", &[]).unwrap();
        serde_json::from_str(&answer.text()).unwrap()
    }

    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let text = http::get(&self.socket(), "/metrics", &[]).unwrap().text();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {sample} in {text}")).parse().unwrap()
    }

    pub(crate) fn reload(&mut self, policy: &str) -> Result<()> {
        fs::write(self.home.path().join("policy.yaml"), policy).unwrap();
        let before = self.running.process.log().matches("policy was read again").count();
        self.running.process.signal(nix::sys::signal::Signal::SIGHUP)?;
        wait_until("the policy to be read again", SOON, || {
            match self.running.process.log().matches("policy was read again").count() {
                now if now > before => Ok(()),
                _ => Err(self.running.process.log()),
            }
        })
    }

    pub(crate) fn end(mut self, namespace: &Namespace) -> Result<()> {
        self.running.process.signal(nix::sys::signal::Signal::SIGTERM)?;
        self.running.process.wait(SOON)?;
        let path = |name: &str| self.home.path().join(name).display().to_string();
        let (policy, socket) = (path("policy.yaml"), path("admin.sock"));
        let program = Program::Actioner.path()?.display().to_string();
        namespace
            .command(&[&program, "teardown", "--policy.file", &policy, "--admin.socket", &socket])
            .map(drop)
    }
}

/// An alert about a source of this table, or about another host's table.
pub(crate) fn alert(source: &str, table_id: &str) -> String {
    json!({"version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing", "receiver": "actioner",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am:9093",
        "alerts": [{"status": "firing", "labels": {"alertname": "Hoarder", "source": source, "table_id": table_id},
            "annotations": {}, "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "00"}]})
    .to_string()
}

/// Whether a new connection gets an answer to what it says, however long a busy machine takes for it.
pub(crate) fn answered(to: SocketAddr) -> bool {
    answered_within(SOON, to)
}

pub(crate) fn answered_within(patience: Duration, to: SocketAddr) -> bool {
    let talk = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"x")?;
        let mut byte = [0];
        Ok(stream.read(&mut byte)? == 1)
    };
    talk().unwrap_or(false)
}

/// How many of twenty ordinary connections succeed, all at once.
pub(crate) fn ordinary(from: &Namespace, to: SocketAddr) -> usize {
    ordinary_within(SOON, from, to)
}

pub(crate) fn ordinary_within(patience: Duration, from: &Namespace, to: SocketAddr) -> usize {
    from.run(|| {
        thread::scope(|scope| {
            let tries: Vec<_> = (0..20).map(|_| scope.spawn(move || answered_within(patience, to))).collect();
            tries.into_iter().map(|one| one.join().unwrap()).filter(|answered| *answered).count()
        })
    })
}

/// How many of so many new connections one after the other got what they asked for.
pub(crate) fn of_each(from: &Namespace, count: usize, ask: impl Fn() -> bool + Sync) -> usize {
    from.run(|| (0..count).filter(|_| ask()).count())
}

pub(crate) fn echo(namespace: &Namespace, address: IpAddr, port: u16) -> Result<Responder> {
    Responder::start(namespace, (address, port).into(), Accept::AtOnce, KeepAlive::Off)
}

pub(crate) fn number(namespace: &Namespace, sysctl: &str) -> Result<u32> {
    Ok(namespace.read_sysctl(&format!("net/netfilter/{sysctl}"))?.parse().unwrap())
}

/// Fills the table with assured entries; the attackers' addresses.
pub(crate) fn fill(server: &Namespace) -> Result<Vec<String>> {
    let (limit, count) = (number(server, "nf_conntrack_max")?, number(server, "nf_conntrack_count")?);
    assert!(limit > 0, "nf_conntrack_max is 0, unlimited: this test needs a limit");
    let wanted = limit - count;
    server.run(|| insert((0..wanted).map(|number| Wanted::nth(number, BY_SOURCE, true))));
    let sources = (0..wanted).step_by(BY_SOURCE as usize);
    Ok(sources.map(|number| Wanted::nth(number, BY_SOURCE, true).source.ip().to_string()).collect())
}

pub(crate) fn rules(namespace: &Namespace) -> Result<String> {
    rules_of(namespace, Tables::Nft)
}

pub(crate) fn rules_of(namespace: &Namespace, tables: Tables) -> Result<String> {
    Ok(["iptables-save", "ip6tables-save"]
        .map(|program| namespace.output(&[&tables.named(program)]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?
        .concat())
}
