//! From a webhook to a plan, and from the state to what is stored.

use conntrack::{Summary, own::OwnAddresses, summary::Judged};
use conntrack_actioner::alert::{Alert, Origin};
use conntrack_actioner::decide::{Scene, decide};
use conntrack_actioner::evidence::TableFill;
use conntrack_actioner::host::Host;
use conntrack_actioner::nominate::{Nominator, rule_for};
use conntrack_actioner::now::Now;
use conntrack_actioner::plan::{Decision, Plan, PlannedBan, Verdict};
use conntrack_actioner::policy::{DeleteAction, Policy};
use conntrack_actioner::spared::Spared;
use conntrack_actioner::state::State;
use conntrack_actioner::state::saved::{Clock, Saved};
use conntrack_actioner::webhook;
use criterion::{Criterion, Throughput};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{Arc, LazyLock},
};

const PACKAGED: &str = include_str!("../../../packaging/policy.yaml");
/// As many as a policy can allow, less those that the alerts ask for.
const BANS: u32 = 65_000;
/// The live table that the alerts are measured on: 300 dead slots of each.
static SUMMARY: LazyLock<Summary> = LazyLock::new(|| {
    let mut summary = Summary::new();
    for number in 0..150_000 {
        summary.sources.add(address(number % 500).into(), true, false, true);
    }
    summary.judged = Some(Judged::default());
    summary
});

pub(crate) fn paths(criterion: &mut Criterion) {
    let none = Path::new("/nonexistent");
    criterion.bench_function("policy/parse the packaged one", |bencher| {
        bencher.iter(|| Policy::parse(PACKAGED, none).expect("the policy that is shipped"));
    });

    let policy = Policy::parse(&unbounded(), none).expect("the policy that is shipped, with other limits");
    let now = Now::read();
    for count in [1, 500] {
        let body = notification(count);
        let mut group = criterion.benchmark_group("webhook");
        group.throughput(Throughput::Elements(u64::from(count)));
        group.bench_function(format!("parse {count} alerts"), |bencher| {
            bencher.iter(|| webhook::parse(&body, Origin::Webhook).expect("a notification"));
        });
        group.finish();
        let alerts = webhook::parse(&body, Origin::Webhook).expect("a notification").alerts;
        let mut group = criterion.benchmark_group("decide");
        group.throughput(Throughput::Elements(u64::from(count)));
        for bans in [0, BANS] {
            let state = banned(&policy, bans, now);
            assert_eq!(decided(&policy, &state, &alerts, now), alerts.len(), "every alert bans");
            let name = format!("{count} alerts, {bans} bans in force");
            group.bench_function(name, |bencher| bencher.iter(|| decided(&policy, &state, &alerts, now)));
        }
        group.finish();
    }

    let state = banned(&policy, BANS, now);
    let clock = Clock { machine: "bench".into(), boot_id: "bench".into(), now };
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(u64::from(BANS)));
    let encode = || serde_json::to_vec(&state.save(&clock)).expect("a state can be written");
    group.bench_function(format!("encode {BANS} bans"), |bencher| bencher.iter(encode));
    let bytes = encode();
    group.bench_function(format!("read {BANS} bans"), |bencher| {
        bencher.iter(|| {
            let saved: Saved<'_> = serde_json::from_slice(&bytes).expect("what was written");
            State::restore(saved, &clock)
        });
    });
    group.finish();
}

/// The packaged policy without the limits that would refuse so many, enforced; the sources here are private addresses.
fn unbounded() -> String {
    let changes = [
        ("bans_per_minute: 10\n", "bans_per_minute: 65536\n"),
        ("bans_per_hour: 50\n", "bans_per_hour: 65536\n"),
        ("active_bans: 1000\n", "active_bans: 65536\n"),
        ("never_ban: [private]\n", "never_ban: []\n"),
        ("\nenforce: false", "\nenforce: true"),
    ];
    let mut text = PACKAGED.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "the packaged policy says {from} no more");
        text = text.replace(from, to);
    }
    text
}

/// Alertmanager's message with so many alerts, each about a source of its own.
fn notification(alerts: u32) -> Vec<u8> {
    let alert = |number: u32| {
        serde_json::json!({
            "status": "firing",
            "labels": {
                "alertname": "ConntrackSourceHoardsEntries",
                "severity": "warning",
                "remediation": "conntrack-guard",
                "table_id": "bench",
                "instance": "192.0.2.1:10048",
                "job": "conntrack",
                "source": address(number).to_string(),
            },
            "annotations": {"summary": "a source holds hundreds of dead slots"},
            "startsAt": "2026-11-27T12:00:00Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://192.0.2.2:9090/graph",
            "fingerprint": format!("{number:016x}"),
        })
    };
    let message = serde_json::json!({
        "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing", "receiver": "conntrack-guard",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://192.0.2.2:9093",
        "alerts": (0..alerts).map(alert).collect::<Vec<_>>(),
    });
    serde_json::to_vec(&message).expect("a message can be written")
}

/// The `number`th source of [`SUMMARY`].
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + number)
}

/// A state that holds so many bans, of others than the alerts are about.
fn banned(policy: &Policy, bans: u32, now: Now) -> State {
    let rule = policy.rules.iter().find(|rule| rule.ban.is_some()).expect("a rule that bans");
    let verdicts = (0..bans).map(|number| Verdict {
        source: None,
        evidence: None,
        decision: Decision::Ban(PlannedBan {
            net: IpAddr::from(Ipv4Addr::from_bits(0xcb00_0000 + number)).into(),
            lasts: rule.ban.as_ref().expect("a ban").max,
            offence: 1,
            delete: Some(DeleteAction::All),
        }),
    });
    let plan =
        Plan { rule: Some(rule.name.clone()), enforce: true, table: None, verdicts: verdicts.collect() };
    let mut state = State::new();
    state.apply(&plan, &policy.limits, now);
    state
}

/// Rule, nominees and plan of each alert; how many bans they are.
fn decided(policy: &Policy, state: &State, alerts: &[Alert], now: Now) -> usize {
    let host = Host {
        table_id: "bench".into(),
        name: "bench".into(),
        own: Arc::new(OwnAddresses::default()),
        spared: Spared::default(),
    };
    let scene =
        Scene { host: &host, table: TableFill { entries: 100_000, limit: 131_072 }, flood: None, now };
    let mut nominator = Nominator::new(&SUMMARY);
    let mut bans = 0;
    for alert in alerts {
        let rule = rule_for(policy, scene.host, alert).expect("a rule");
        let nominees = nominator.nominate(rule, alert).expect("an address");
        let plan = decide(policy, state, rule, &nominees, scene);
        bans += plan.verdicts.iter().filter(|verdict| matches!(verdict.decision, Decision::Ban(_))).count();
    }
    bans
}
