//! Both programs as they are started on a server, looking as often as they can at what is alive.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tests::{
    Result,
    guard::Guard,
    netns::Namespace,
    programs::{Program, Running},
    wait::wait_until,
};

use crate::{
    PATIENCE,
    churn::Churn,
    kinds::{EACH, Kinds},
};

/// Short connections while the programs judge.
const CHURNED: usize = 20_000;
const DEAD: usize = 2 * EACH;
/// One kind and its dual-stack twin.
const DEFERRED: usize = 4 * EACH;

fn policy(grace: Duration) -> String {
    format!(
        "enforce: true\n\
         never_ban: []\n\
         socketless_grace: {}s\n\
         watch:\n  interval: 200ms\n  every: 200ms\n  alerts: [{{alert: DeadSlots, host: {{socketless: 1}}}}]\n\
         rules:\n\
         - name: dead\n  matchers: [alertname=DeadSlots]\n  sources: all\n  actions: [{{delete: socketless}}]\n",
        grace.as_secs()
    )
}

/// What the exporter says of sockets: socketless and deferred entries; None where it says that it cannot tell.
fn judged(exporter: &Running, server: &Namespace) -> Result<Option<[usize; 2]>> {
    let text = exporter.get(server, "/metrics?collect[]=sockets")?.text();
    let value = |name: &str| {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok();
        text.lines().find_map(of).map(|value| value as usize)
    };
    let success = value("nf_conntrack_scrape_collector_success{collector=\"sockets\"}");
    let both = value("nf_conntrack_socketless_entries").zip(value("nf_conntrack_deferred_entries"));
    match (success, both) {
        (Some(1), Some((socketless, deferred))) => Ok(Some([socketless, deferred])),
        (Some(0), None) => Ok(None),
        _ => panic!("neither told nor not told:\n{text}"),
    }
}

/// The exporter counts the dead slots and no other; the actioner deletes them and no other; whatever is alive keeps
/// its entry and goes on, after it has sat for `sit` among 20,000 short connections.
fn nothing_alive_is_touched(grace: Duration, sit: Duration) -> Result<()> {
    let kinds = Kinds::new()?;
    let server = kinds.server();
    let grace_flag = format!("--collector.sockets.grace={}s", grace.as_secs());
    let exporter = Program::Exporter.start(server, Program::Exporter.default_address(), &[&grace_flag])?;
    wait_until("all to be idle for the grace", grace + PATIENCE, || {
        let found = judged(&exporter, server).unwrap();
        if found == Some([DEAD, DEFERRED]) { Ok(()) } else { Err(format!("{found:?}")) }
    })?;
    kinds.make_deletion_fatal()?;
    let before = kinds.living_entries()?;
    let guard = Guard::start(server, &policy(grace))?;
    let churn = Churn::start(&kinds.scene)?;
    let (start, mut looks, mut seen) = (Instant::now(), 0, BTreeSet::from([DEAD]));
    while start.elapsed() < sit || churn.made() < CHURNED {
        assert!(start.elapsed() < sit + Duration::from_secs(120), "{} connections", churn.made());
        if let Some([socketless, deferred]) = judged(&exporter, server)? {
            looks += 1;
            assert_eq!(deferred, DEFERRED, "look {looks}");
            assert!(Some(&socketless) <= seen.first(), "look {looks}: {socketless} after {seen:?}");
            seen.insert(socketless);
        }
    }
    let made = churn.made();
    churn.end();
    let surveys = guard.dumps()?;
    println!("{made} short connections, {looks} scrapes and {surveys} surveys, none with a false positive");
    assert!(looks >= 20 && surveys >= 20.0, "{looks} scrapes, {surveys} surveys: too few to show anything");
    assert_eq!(seen.first(), Some(&0), "the dead ones were deleted");
    assert_eq!(guard.metric("deleted_entries_total{rule=\"dead\"}")?, DEAD as f64);
    let audit = guard.audit()?;
    let deleted: u64 = audit.iter().filter_map(|line| line["result"]["entries_deleted"].as_u64()).sum();
    assert_eq!(deleted, DEAD as u64, "{audit:#?}");
    let after = kinds.living_entries()?;
    let other: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(other.is_empty(), "id and ports of entries that are gone or new: {other:?}");
    drop((guard, exporter));
    kinds.assert_still_connected();
    Ok(())
}

#[test]
fn twenty_thousand_short_connections_and_a_thousand_idle_ones_of_every_kind_are_left_alone() -> Result<()> {
    nothing_alive_is_touched(Duration::from_secs(3), Duration::from_secs(15))
}

#[test]
#[ignore = "sits for five minutes with the grace that is shipped: make soak-socketless"]
fn soak() -> Result<()> {
    nothing_alive_is_touched(Duration::from_secs(30), Duration::from_secs(300))
}
