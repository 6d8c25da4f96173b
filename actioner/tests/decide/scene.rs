//! A host, a table and a policy to decide on.

use conntrack::own::OwnAddresses;
use conntrack::{Family, Flow, L4, Protocol, State, Status, Summary, TcpState, Tuple, Zone};
use conntrack_actioner::alert::{Alert, Origin};
use conntrack_actioner::decide::{Scene, decide};
use conntrack_actioner::evidence::TableFill;
use conntrack_actioner::host::Host;
use conntrack_actioner::nominate::{Nominator, rule_for};
use conntrack_actioner::now::Now;
use conntrack_actioner::plan::{Decision, Plan, PlannedBan};
use conntrack_actioner::policy::Policy;
use conntrack_actioner::refusal::Refusal;
use conntrack_actioner::spared::{Flood, Spared};
use conntrack_actioner::state::State as Standings;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One rule over the label `source`, 300 assured entries, ban 10m ×4 up to 24h.
pub(crate) const HOARDER: &str = "
- name: hoarder
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {assured: 300}}
  actions: [{ban: {for: 10m, factor: 4, max: 24h}}, {delete: all}]
";

/// Enforcing, with 10 bans a minute and 50 an hour.
pub(crate) fn policy(rules: &str) -> Policy {
    with("enforce: true\nnever_ban: []\n", rules)
}

pub(crate) fn with(head: &str, rules: &str) -> Policy {
    let text = format!("{head}rules:{rules}");
    Policy::parse(&text, Path::new(".")).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

pub(crate) fn host() -> Host {
    let own = ["192.0.2.1/32", "127.0.0.0/8", "2001:db8::1/128", "203.0.113.128/25"];
    let gateways = ["192.0.2.254", "fe80::1", "2001:db8::fe"];
    let own = OwnAddresses::of(
        own.map(|net| net.parse().unwrap()),
        gateways.map(|gateway| gateway.parse().unwrap()),
    );
    Host { table_id: "feed".into(), name: "web1".into(), own: Arc::new(own), spared: Spared::default() }
}

pub(crate) fn now(seconds: f64) -> Now {
    Now { boot: Duration::from_secs_f64(100_000.0 + seconds), wall: SystemTime::UNIX_EPOCH }
}

pub(crate) fn alert(labels: &[(&str, &str)]) -> Alert {
    let mut alert = Alert {
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        annotations: Default::default(),
        fingerprint: "f".into(),
        starts_at: String::new(),
        firing: true,
        origin: Origin::Webhook,
        receiver: "actioner".into(),
        group_key: "{}".into(),
    };
    alert.labels.entry("table_id".to_owned()).or_insert_with(|| "feed".to_owned());
    alert
}

pub(crate) fn about(source: &str) -> Alert {
    alert(&[("alertname", "Hoarder"), ("source", source)])
}

/// A table in which each source holds so many assured entries, and as many half open ones.
pub(crate) fn table(sources: &[(&str, u32, u32)]) -> Summary {
    let mut summary = Summary::new();
    for (source, assured, half_open) in sources {
        let source = source.parse().unwrap();
        (0..*assured).for_each(|_| summary.sources.add(source, true, false, false));
        (0..*half_open).for_each(|_| summary.sources.add(source, false, true, false));
        summary.entries += u64::from(assured + half_open);
    }
    summary
}

/// An entry between two TCP ends, seen from its source; `reply` is what answers come from, where an address was translated.
pub(crate) fn flow(original: (&str, &str), reply: (&str, &str), status: u32) -> Flow {
    let tuple = |(src, dst): (&str, &str)| {
        let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let l4 = L4::Ports { src: src.port(), dst: dst.port() };
        Tuple { src: src.ip(), dst: dst.ip(), protocol: Protocol::TCP, l4 }
    };
    let original = tuple(original);
    Flow {
        family: Family::of(original.src),
        original,
        reply: tuple(reply),
        zone: Zone::Both(0),
        status: Status(status),
        state: State::Tcp(TcpState::Established),
        timeout: Some(431_000),
        id: 1,
        mark: 0,
        counters: None,
        synproxy: false,
        picked_up: false,
    }
}

/// Adds so many sources with one unreplied entry each.
pub(crate) fn forge(table: &mut Summary, sources: u32) {
    for host in 0..sources {
        let source = Ipv4Addr::from_bits(0xc612_0000 + host);
        let (source, us) = (format!("{source}:1000"), "192.0.2.1:80");
        table.add(&flow((&source, us), (us, &source), 0));
    }
}

/// Everything that a decision is made on, and what decisions leave.
pub(crate) struct Desk {
    pub(crate) policy: Policy,
    pub(crate) host: Host,
    pub(crate) table: Summary,
    pub(crate) fill: TableFill,
    pub(crate) liberal: bool,
    pub(crate) state: Standings,
}

impl Desk {
    pub(crate) fn new(policy: Policy, sources: &[(&str, u32, u32)]) -> Desk {
        let table = table(sources);
        let fill = TableFill { entries: table.entries, limit: 10_000 };
        Desk { policy, host: host(), table, fill, liberal: false, state: Standings::new() }
    }

    /// Decides as the effects thread does, without folding it in.
    pub(crate) fn plan(&self, alert: &Alert, at: Now) -> Plan {
        let rule = match rule_for(&self.policy, &self.host, alert) {
            Ok(rule) => rule,
            Err(refusal) => return Plan::refused(refusal),
        };
        match Nominator::new(&self.table).nominate(rule, alert) {
            Err(refusal) => Plan::whole(rule, self.policy.enforces(rule), Decision::Refused(refusal)),
            Ok(nominees) => {
                let scene = Scene {
                    host: &self.host,
                    table: self.fill,
                    flood: Flood::in_table(&self.table, self.liberal),
                    now: at,
                };
                decide(&self.policy, &self.state, rule, &nominees, scene)
            }
        }
    }

    /// Decides and folds it in; the kernel took what was to be banned.
    pub(crate) fn act(&mut self, alert: &Alert, at: Now) -> Plan {
        let plan = self.plan(alert, at);
        self.state.apply(&plan, &self.policy.limits, at);
        plan
    }

    pub(crate) fn remaining(&self, at: Now) -> [f64; 2] {
        self.state.budget(&self.policy.limits, self.policy.enforces_anything(), at)
    }
}

/// The one decision of a plan.
pub(crate) fn only(plan: &Plan) -> &Decision {
    assert_eq!(plan.verdicts.len(), 1, "{plan:?}");
    &plan.verdicts[0].decision
}

pub(crate) fn ban(plan: &Plan) -> PlannedBan {
    match only(plan) {
        Decision::Ban(ban) => *ban,
        other => panic!("no ban: {other:?}"),
    }
}

pub(crate) fn refusal(plan: &Plan) -> &Refusal {
    match only(plan) {
        Decision::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn is_repeat(plan: &Plan) -> bool {
    matches!(only(plan), Decision::AlreadyBanned { .. })
}
