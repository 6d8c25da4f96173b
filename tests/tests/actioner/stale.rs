//! What a full disk, or a sender of nonsense, may not cost.

use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use tests::{Result, wait::wait_until};

use crate::lab::{HIM, Home, POLICY, SOON, count, fill, members, message, quiet};

#[test]
fn bans_made_while_the_store_could_not_be_written_outlive_a_restart() -> Result<()> {
    let lab = quiet("stale")?;
    let him_too = "198.51.100.67";
    fill(&lab, HIM, 30)?;
    fill(&lab, him_too, 30)?;
    let home = Home::new(POLICY);
    let mut first = home.start(&lab)?;
    assert_eq!(count(&first.alert(&[HIM])?, "banned"), 1);
    // No file can be opened in a directory's place, as on a disk that takes nothing.
    let blocked = home.path("storage/state.json.new");
    fs::create_dir(&blocked).unwrap();
    assert_eq!(count(&first.alert(&[him_too])?, "banned"), 1);
    assert_eq!(first.metric("store_degraded")?, 1.0);
    first.process().signal(Signal::SIGKILL)?;
    first.process().wait(SOON)?;
    fs::remove_dir(&blocked).unwrap();

    let second = home.start(&lab)?;
    let mut nets: Vec<String> = members(&lab, "conntrack-guard-4")?.into_iter().map(|(net, _)| net).collect();
    nets.sort();
    assert_eq!(nets, [HIM, him_too], "{}", second.log());
    assert_eq!((second.metric("active_bans")?, second.metric("store_degraded")?), (2.0, 0.0));
    Ok(())
}

#[test]
fn nonsense_does_not_push_what_was_done_out_of_the_audit_log() -> Result<()> {
    let lab = quiet("nonsense")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    let other = json!({"status": "firing", "labels": {"alertname": "A", "table_id": "another"}});
    let mut body: serde_json::Value = serde_json::from_str(&message(&vec![other; 2000])).unwrap();
    body["groupKey"] = "k".repeat(1 << 20).into();
    body["receiver"] = "r".repeat(1 << 20).into();
    let answer = actioner.post(&body.to_string())?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let lines = || match actioner.audit().len() {
        21 => Ok(()),
        other => Err(format!("{other} lines")),
    };
    wait_until("the ban's line and twenty of the others", SOON, lines)?;
    let size = fs::metadata(home.path("storage/audit.jsonl")).unwrap().len();
    assert!(size < 200_000, "{size} bytes");
    assert_eq!(actioner.metric("refusals_total{reason=\"other_host\"}")?, 2000.0, "all are counted");
    Ok(())
}
