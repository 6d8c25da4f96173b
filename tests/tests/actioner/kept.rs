//! The store: bans outlive what the kernel forgets, and the kernel holds what was decided and nothing else.

use nix::sys::signal::Signal;
use std::{fs, process::Command, time::Instant};
use tests::{Result, netns::Namespace, wait::wait_until};

use crate::lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, members, quiet, raw_rules};

const SET: &str = "conntrack-guard-4";

pub(crate) fn banned(namespace: &Namespace) -> Vec<String> {
    let mut nets: Vec<String> =
        members(namespace, SET).unwrap_or_default().into_iter().map(|(net, _)| net).collect();
    nets.sort();
    nets
}

/// Ends it without a word, once what it has acknowledged is on the disk: a disk that takes longer than half a second for it is not waited
/// for, which is said.
pub(crate) fn kill(actioner: &mut Actioner<'_>) -> Result<()> {
    wait_until("the state to be written down", SOON, || match actioner.metric("store_degraded") {
        Ok(0.0) => Ok(()),
        other => Err(format!("{other:?}\n{}", actioner.log())),
    })?;
    kill_now(actioner)
}

/// At this very moment.
pub(crate) fn kill_now(actioner: &mut Actioner<'_>) -> Result<()> {
    actioner.process().signal(Signal::SIGKILL)?;
    actioner.process().wait(SOON).map(drop)
}

/// As a reboot leaves it: no set, no rule.
pub(crate) fn forget_everything(namespace: &Namespace) -> Result<()> {
    for tool in ["iptables", "ip6tables"] {
        namespace.command(&[tool, "-t", "raw", "-F", "PREROUTING"])?;
    }
    for set in [SET, "conntrack-guard-6"] {
        wait_until("the set to be free", SOON, || namespace.command(&["ipset", "destroy", set]).map(drop))?;
    }
    Ok(())
}

#[test]
fn a_kernel_that_forgot_everything_has_its_bans_again_with_the_time_they_had_left() -> Result<()> {
    let lab = quiet("reboot")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let mut first = home.start(&lab)?;
    assert_eq!(count(&first.alert(&[HIM])?, "banned"), 1);
    kill(&mut first)?;
    let since = Instant::now();
    let (_, before) = members(&lab, SET)?.remove(0);
    forget_everything(&lab)?;

    let second = home.start(&lab)?;
    let (net, after) = members(&lab, SET)?.remove(0);
    // The kernel shows whole seconds, twice.
    let passed = since.elapsed().as_secs() as u32 + 3;
    assert!(net == HIM && after <= before && after + passed >= before, "{net}: {before} s, then {after} s");
    assert_eq!(raw_rules(&lab)?.matches("-j DROP").count(), 2);
    assert_eq!(second.metric("drift_total{what=\"ban_missing\"}")?, 0.0, "a reboot is no drift");
    fill(&lab, HIM, 30)?;
    assert_eq!(count(&second.alert(&[HIM])?, "already_banned"), 1, "it is the same offence");
    Ok(())
}

#[test]
fn what_others_do_to_our_sets_is_undone_counted_and_written_down() -> Result<()> {
    let lab = quiet("drift")?;
    let him_too = "198.51.100.67";
    fill(&lab, HIM, 30)?;
    fill(&lab, him_too, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    assert_eq!(count(&actioner.alert(&[HIM, him_too])?, "banned"), 2);

    lab.command(&["ipset", "del", SET, HIM])?;
    lab.command(&["ipset", "add", SET, "203.0.113.5", "timeout", "0"])?;
    lab.command(&["ipset", "add", "-exist", SET, him_too, "timeout", "90"])?;
    wait_until("the sets to be as decided", SOON, || match &members(&lab, SET).unwrap_or_default()[..] {
        [(_, a), (_, b)] if banned(&lab) == [HIM, him_too] && a.min(b) > &500 => Ok(()),
        other => Err(format!("{other:?}\n{}", actioner.log())),
    })?;
    for what in ["ban_missing", "ban_foreign", "ban_shortened"] {
        let counted = || match actioner.metric(&format!("drift_total{{what=\"{what}\"}}")) {
            Ok(1.0) => Ok(()),
            other => Err(format!("{what}: {other:?}")),
        };
        wait_until("the drift to be counted", SOON, counted)?;
        let lines = || actioner.audit().iter().filter(|line| line["detail"]["what"] == what).count();
        wait_until("an audit line", SOON, || if lines() == 1 { Ok(()) } else { Err(what.to_owned()) })?;
    }
    Ok(())
}

#[test]
fn a_store_that_cannot_be_read_costs_no_ban() -> Result<()> {
    let lab = quiet("aside")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let mut first = home.start(&lab)?;
    assert_eq!(count(&first.alert(&[HIM])?, "banned"), 1);
    kill(&mut first)?;
    fs::write(home.path("storage/state.json"), "{\"format\":").unwrap();

    let second = home.start(&lab)?;
    assert_eq!(banned(&lab), [HIM]);
    assert_eq!((second.metric("active_bans")?, second.metric("store_degraded")?), (1.0, 1.0));
    assert!(second.log().contains("set-aside"), "{}", second.log());
    let status = second.status()?;
    assert!(status["store"]["degraded"].as_str().unwrap().contains("state.json"), "{status}");
    Ok(())
}

#[test]
fn a_second_actioner_is_refused_on_the_same_store_and_on_the_same_sets() -> Result<()> {
    let lab = quiet("second")?;
    let home = Home::new(POLICY);
    let _first = home.start(&lab)?;
    let other = Home::new(POLICY);
    let mut same_store = Command::new(tests::programs::Program::Actioner.path()?);
    same_store
        .arg("--policy.file")
        .arg(home.path("policy.yaml"))
        .arg("--storage.path")
        .arg(home.path("storage"));
    same_store
        .arg("--admin.socket")
        .arg(other.path("admin.sock"))
        .args(["--web.listen-address", "127.0.0.1:0"]);
    let mut same_sets = Command::new(tests::programs::Program::Actioner.path()?);
    same_sets
        .arg("--policy.file")
        .arg(other.path("policy.yaml"))
        .arg("--storage.path")
        .arg(other.path("storage"));
    same_sets
        .arg("--admin.socket")
        .arg(other.path("admin.sock"))
        .args(["--web.listen-address", "127.0.0.1:0"]);
    for mut second in [same_store, same_sets] {
        let output = lab.run(|| second.output()).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("another conntrack-actioner"), "{said}");
    }
    Ok(())
}
