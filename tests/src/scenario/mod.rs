//! The loop, closed on a real attack: what the demo shows and the end-to-end tests assert.
//!
//! ```text
//! attacker ──┐            ┌─ service (TCP_DEFER_ACCEPT) at :80 and at [::]:80
//!            ├── server ──┼─ conntrack-exporter → Prometheus → Alertmanager ─┬→ conntrack-actioner → ban + delete
//! honest ────┤            └─ … or conntrack-actioner's own watch             └→ people
//! busy ──────┘
//! ```

pub mod defaults;
pub mod door;
pub mod settings;
pub mod story;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

pub use self::{
    defaults::AtDefaults,
    door::{Door, Look},
    settings::{Evidence, GRACE, Seer, THRESHOLD},
    story::{Finding, Progress, Stage, Story, Timeline},
};
use crate::{
    Failure, Result,
    attack::{Attack, Pace, hoard, slow_fill},
    failure::Tried,
    honest::{Habits, Honest, HonestReport},
    netns::Namespace,
    programs::{Program, Running},
    receiver::{Answer, Receiver},
    responder::{Accept, KeepAlive, Responder},
    servers::{Alertmanager, Prometheus, Release},
    tools::{Tool, require},
    topology::{Family, Topology},
    wait::wait_until,
};

const READY: Duration = Duration::from_secs(20);
/// The name of the alert that names a source.
pub const ALERT: &str = "ConntrackSourceHoardsEntries";
/// The service's port.
pub const PORT: u16 = 80;
/// The server gives a silent request up after seconds; five of these, the default, take a minute (DOMAIN.md 1).
const SYNACK_RETRIES: &str = "1";
/// 19 connections a minute and host in DOMAIN.md 1, and an end at about 300; here 60 a second, and no end before the ban, so that his
/// last packets can be seen.
pub const SLOW_FILL: Pace = Pace { count: 3000, per_second: 60, within: Duration::from_secs(90) };
/// The service asks silent peers after a second whether they still live: with sockets left behind, its questions would bring a
/// hoarder's entries back (DOMAIN.md 3).
const KEEP_ALIVE: KeepAlive = KeepAlive::Every(Duration::from_secs(1));
/// Twenty connections kept open, four new ones a second.
pub const HABITS: Habits = Habits {
    keep: 20,
    round: Duration::from_millis(100),
    open: Duration::from_millis(250),
    patience: Duration::from_secs(10),
};
/// The look-alike, a proxy or a crawler: about 30 finished connections a second. Each leaves an assured entry in TIME_WAIT for two minutes,
/// so it soon holds more assured entries than the attacker may hold dead ones.
pub const BUSY: Habits = Habits { keep: 0, open: Duration::from_millis(30), ..HABITS };

/// A server under guard, an attacker who has not begun, honest clients at work.
#[derive(Debug)]
pub struct Scenario {
    honest: Honest,
    /// None where assured entries are the evidence: there it is a hoarder.
    busy: Option<Honest>,
    evidence: Evidence,
    monitoring: Option<Monitoring>,
    actioner: Running,
    _services: [Responder; 2],
    directory: TempDir,
    door: Door,
    family: Family,
    // The last to go: everything above runs in it.
    topology: Topology,
}

/// What runs where there is Prometheus.
#[derive(Debug)]
pub struct Monitoring {
    /// Prometheus, with the configuration and the rules we ship.
    pub prometheus: Prometheus,
    /// Alertmanager, with the route we ship.
    pub alertmanager: Alertmanager,
    /// Where people hear: `/team` and `/pager`.
    pub people: Receiver,
    /// Our exporter.
    pub exporter: Running,
}

/// A line of the actioner's audit log, as much of it as matters here.
#[derive(Debug, Clone, Deserialize)]
pub struct Decision {
    /// When, RFC 3339.
    pub time: jiff::Timestamp,
    /// `watch` or `webhook`.
    pub origin: String,
    /// Whom it is about.
    pub source: Option<IpAddr>,
    /// `ban`, `refused` …
    pub verdict: String,
    /// Why it was refused.
    pub reason: Option<String>,
    /// What became of it in the kernel.
    pub result: Option<Outcome>,
}

/// What became of a decision.
#[derive(Debug, Clone, Deserialize)]
pub struct Outcome {
    /// `in_force` or `failed`.
    pub ban: Option<String>,
    /// Of the table, for this source.
    pub entries_deleted: Option<u64>,
}

impl Scenario {
    /// Builds the stage in that family; the honest client has its connections when this returns.
    ///
    /// # Errors
    /// When a tool is missing, a program does not start, or a file we ship no longer says what is changed for the stage.
    pub fn start(family: Family, seer: Seer) -> Result<Self> {
        Self::start_by(family, seer, Evidence::Socketless)
    }

    /// The same with other evidence than the packaged policy asks for.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_by(family: Family, seer: Seer, evidence: Evidence) -> Result<Self> {
        let topology = topology()?;
        let attacker = topology.peer("attacker").address(family);
        Self::on(topology, family, seer, evidence, attacker.into())
    }

    /// The same with an attacker who has every address of `attackers`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_many(family: Family, seer: Seer, attackers: IpNet) -> Result<Self> {
        let topology = topology()?;
        topology.give_prefix("attacker", attackers)?;
        Self::on(topology, family, seer, Evidence::Socketless, attackers)
    }

    fn on(
        topology: Topology,
        family: Family,
        seer: Seer,
        evidence: Evidence,
        attackers: IpNet,
    ) -> Result<Self> {
        let server = &topology.server;
        server.sysctl("net/ipv4/tcp_synack_retries", SYNACK_RETRIES)?;
        let door = Door::watch(server, attackers, topology.peer("busy").address(family))?;
        let at = [Family::V4, Family::V6].map(|family| topology.server_socket(family, PORT));
        let serve = |address| Responder::start(server, address, Accept::Deferred, KEEP_ALIVE);
        let services = [serve(at[0])?, serve(at[1])?];
        let directory = tempfile::tempdir().tried(|| "a directory for the scenario")?;
        let actioner = actioner(&topology, &directory, seer, evidence)?;
        let monitoring = seer.scrapes().then(|| Monitoring::start(&topology)).transpose()?;
        let target = topology.server_socket(family, PORT);
        let honest = Honest::start(&topology.peer("honest").namespace, target, at.to_vec(), HABITS)?;
        let busy = (evidence == Evidence::Socketless)
            .then(|| Honest::start(&topology.peer("busy").namespace, target, vec![target], BUSY));
        let busy = busy.transpose()?;
        let _services = services;
        Ok(Self {
            honest,
            busy,
            evidence,
            monitoring,
            actioner,
            _services,
            directory,
            door,
            family,
            topology,
        })
    }

    /// The namespaces.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Our actioner.
    pub fn actioner(&self) -> &Running {
        &self.actioner
    }

    /// Prometheus and what belongs to it.
    ///
    /// # Panics
    /// Where the scenario plays without.
    pub fn monitoring(&self) -> &Monitoring {
        self.monitoring.as_ref().expect("this scenario plays with Prometheus")
    }

    /// The addresses that attack.
    pub fn attackers(&self) -> IpNet {
        self.door.attackers()
    }

    /// The honest client's address in the family under attack.
    pub fn honest_address(&self) -> IpAddr {
        self.topology.peer("honest").address(self.family)
    }

    /// Whether it is the honest client's, in either family.
    pub fn is_honest(&self, source: IpAddr) -> bool {
        let honest = self.topology.peer("honest");
        [Family::V4, Family::V6].map(|family| honest.address(family)).contains(&source)
    }

    /// The honest client's life so far.
    pub fn honest(&self) -> HonestReport {
        self.honest.so_far()
    }

    /// The busy client's life so far, where there is one.
    pub fn busy(&self) -> Option<HonestReport> {
        self.busy.as_ref().map(Honest::so_far)
    }

    /// The busy client's address in the family under attack.
    pub fn busy_address(&self) -> IpAddr {
        self.topology.peer("busy").address(self.family)
    }

    /// What is counted against a source here.
    pub fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// The service under attack.
    pub fn target(&self) -> SocketAddr {
        self.topology.server_socket(self.family, PORT)
    }

    /// Begins the slow fill.
    ///
    /// # Errors
    /// When the attacker's firewall refuses to swallow his goodbyes.
    pub fn slow_fill(&self, pace: Pace) -> Result<Attack> {
        let attacker = self.topology.peer("attacker");
        slow_fill(&attacker.namespace, vec![attacker.address(self.family)], self.target(), pace)
    }

    /// Begins to hoard: connections that the service has accepted, held open.
    ///
    /// # Errors
    /// As [`Self::slow_fill`].
    pub fn hoard(&self, pace: Pace) -> Result<Attack> {
        let attacker = self.topology.peer("attacker");
        hoard(&attacker.namespace, vec![attacker.address(self.family)], self.target(), pace)
    }

    /// Looks at table, set and counters.
    ///
    /// # Errors
    /// When `conntrack`, `ipset` or `nft` fails.
    pub fn look(&self) -> Result<Look> {
        self.door.look(&self.topology.server)
    }

    /// Everything the actioner has decided.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn decisions(&self) -> Result<Vec<Decision>> {
        let path = self.directory.path().join("storage/audit.jsonl");
        let text = fs::read_to_string(&path).tried(|| path.display().to_string())?;
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let read = |line| serde_json::from_str(line);
        whole.lines().map(|line| read(line).map_err(|error| Failure::answer(line, error))).collect()
    }

    /// Since when the alert about the attacker has been firing, as its sender says.
    fn alert_since(&self) -> Result<Option<SystemTime>> {
        let Some(monitoring) = &self.monitoring else {
            let decisions = self.decisions()?;
            let raised = |decision: &&Decision| decision.origin == "watch" && decision.verdict == "ban";
            return Ok(decisions.iter().find(raised).map(|decision| decision.time.into()));
        };
        let alerts = monitoring.prometheus.api(&self.topology.server, "/api/v1/alerts")?;
        let is_his = |alert: &&Value| {
            let source = alert["labels"]["source"].as_str().and_then(|source| source.parse().ok());
            alert["labels"]["alertname"] == ALERT
                && source.is_some_and(|source: IpAddr| self.attackers().contains(&source))
        };
        let all = alerts["data"]["alerts"].as_array().map_or(&[][..], Vec::as_slice);
        let since = all.iter().find(is_his).and_then(|alert| alert["activeAt"].as_str());
        Ok(since.and_then(|time| time.parse::<jiff::Timestamp>().ok()).map(SystemTime::from))
    }
}

fn topology() -> Result<Topology> {
    require(&Tool::ALL)?;
    Topology::direct(&["attacker", "honest", "busy"])
}

fn actioner(topology: &Topology, directory: &TempDir, seer: Seer, evidence: Evidence) -> Result<Running> {
    let path = |name: &str| directory.path().join(name).display().to_string();
    let policy = path("policy.yaml");
    fs::write(&policy, settings::policy(seer, evidence)?).tried(|| policy.clone())?;
    let address = Program::Actioner.default_address();
    let arguments = [
        "--policy.file",
        &policy,
        "--storage.path",
        &path("storage"),
        "--admin.socket",
        &path("actioner.sock"),
        "--web.listen-address",
        &address.to_string(),
        "--web.listen-address",
        settings::WEBHOOK,
    ];
    Program::Actioner.start(&topology.server, address, &arguments)
}

impl Monitoring {
    fn start(topology: &Topology) -> Result<Self> {
        let server = &topology.server;
        let people = settings::PEOPLE.parse().expect("an address");
        let people = Receiver::start(server, people, |_| Answer::default())?;
        let exporter = Program::Exporter;
        let grace = ["--collector.sockets.grace", GRACE];
        let exporter = exporter.start(server, exporter.default_address(), &grace)?;
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let alertmanager = Alertmanager::start(server, at(9093), &settings::alertmanager()?)?;
        let (configuration, rules) = (settings::prometheus()?, settings::rules()?);
        let files = [("prometheus.yml", &*configuration), ("conntrack-guard.rules.yml", &*rules)];
        let prometheus = Prometheus::configured(server, at(9090), Release::Debian12, &files)?;
        let monitoring = Self { prometheus, alertmanager, people, exporter };
        wait_until("Prometheus to scrape both programs and to know Alertmanager", READY, || {
            monitoring.at_work(server)
        })?;
        Ok(monitoring)
    }

    /// Prometheus takes up its targets as late as five seconds after its start (its discovery manager collects changes so
    /// long), which is no part of the loop.
    fn at_work(&self, server: &Namespace) -> Result<(), String> {
        // Each question is a connection, and so an entry in the table that is to be looked at.
        thread::sleep(Duration::from_millis(200));
        let said = |failure: Failure| failure.to_string();
        let up = self.prometheus.query(server, "up").map_err(said)?;
        let known = self.prometheus.api(server, "/api/v1/alertmanagers").map_err(said)?;
        let known = known["data"]["activeAlertmanagers"].as_array().map_or(0, Vec::len);
        match up.iter().filter(|(_, up)| *up == 1.0).count() {
            2 if known == 1 => Ok(()),
            _ => Err(format!("{up:?}, {known} Alertmanagers")),
        }
    }
}
