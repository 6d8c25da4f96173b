//! The rules stay while the policy asks for them, whoever changes them, and go with it.

use serde_json::{Value, json};
use tests::{Result, topology::Topology, wait::wait_until};

use crate::stage::*;

#[test]
fn rules_are_put_back_counted_shown_and_gone_when_the_policy_says_so() -> Result<()> {
    kept_by(Tables::Nft)
}

#[test]
fn the_same_on_a_host_with_the_legacy_iptables() -> Result<()> {
    kept_by(Tables::Legacy)
}

fn kept_by(tables: Tables) -> Result<()> {
    let scene = Topology::direct(&["visitor"])?;
    let server = &scene.server;
    server.command(&[
        &tables.named("iptables"),
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-p",
        "tcp",
        "--dport",
        "80",
        "-j",
        "REDIRECT",
        "--to-ports",
        "10048",
    ])?;
    let dry = POLICY.replace("enforce: true", "enforce: false");
    let mut actioner = Actioner::start_with(server, &dry, tables)?;
    assert!(!rules_of(server, tables)?.contains("keep reachable"), "dry run changes nothing");
    assert!(actioner.status()["keep_reachable"]["trouble"][0].as_str().unwrap().contains("enforces nothing"));

    actioner.reload(POLICY)?;
    let stand = rules_of(server, tables)?;
    let status = &actioner.status()["keep_reachable"];
    assert_eq!(status["covered"][0]["ports"], json!([22, 10049]), "{status}");
    assert_eq!(status["covered"][1]["ports"], json!([22, 10048, 10049]), "IPv6 has no such rule: {status}");
    let why = status["refused"][0]["why"].as_str().unwrap();
    assert!(
        why.contains("port 10048 is translated by `-A PREROUTING") && why.contains("--to-ports 10048`"),
        "{why}"
    );
    assert_eq!(actioner.metric("conntrack_actioner_keep_reachable_ports{state=\"refused\"}"), 1.0);
    assert_eq!(actioner.metric("conntrack_actioner_drift_total{what=\"keep_reachable\"}"), 0.0);

    server.command(&[&tables.named("iptables"), "-t", "raw", "-F", "conntrack-guard-out"])?;
    server.command(&[
        &tables.named("iptables"),
        "-I",
        "INPUT",
        "-m",
        "conntrack",
        "--ctstate",
        "INVALID",
        "-j",
        "DROP",
    ])?;
    server.command(&[&tables.named("ip6tables"), "-F", "OUTPUT"])?;
    let lines = |text: &str| {
        let kept = |line: &&str| line.contains("keep reachable");
        text.lines().filter(kept).map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("the rules to be put back", SOON, || match rules_of(server, tables).unwrap() {
        now if lines(&now) == lines(&stand) => Ok(()),
        now => Err(now),
    })?;
    let first = server.output(&[&tables.named("iptables"), "-S", "INPUT", "1"])?;
    assert!(first.contains("-j conntrack-guard-in"), "before what drops: {first}");
    wait_until("the drift to be counted", SOON, || {
        match actioner.metric("conntrack_actioner_drift_total{what=\"keep_reachable\"}") {
            3.0 => Ok(()),
            other => Err(other),
        }
    })?;

    let without =
        POLICY.lines().filter(|line| !line.starts_with("keep_reachable")).collect::<Vec<_>>().join("\n");
    actioner.reload(&without)?;
    let left = rules_of(server, tables)?;
    assert!(!left.contains("keep reachable") && !left.contains("conntrack-guard-in"), "{left}");
    assert!(left.contains("drop banned sources"), "bans are something else: {left}");
    assert_eq!(actioner.status()["keep_reachable"], Value::Null);
    Ok(())
}
