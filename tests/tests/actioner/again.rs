//! What a later start finds: other stores, tens of thousands of bans, and what people did before it.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tests::{Result, http, netns::Namespace, programs::as_released, wait::wait_until};

use crate::{
    kept::{banned, forget_everything, kill},
    lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, quiet},
};

const SET: &str = "conntrack-guard-4";

fn stored(home: &Home) -> Value {
    serde_json::from_str(&fs::read_to_string(home.path("storage/state.json")).unwrap()).unwrap()
}

/// A store that holds one ban of ten minutes, its actioner dead.
fn one_ban(lab: &Namespace, home: &Home) -> Result<()> {
    fill(lab, HIM, 30)?;
    let mut actioner = home.start(lab)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    kill(&mut actioner)
}

#[test]
fn bans_of_65536_are_in_the_kernel_again_at_once() -> Result<()> {
    const BANS: u32 = 65_536;
    let lab = quiet("all")?;
    let home = Home::new(&POLICY.replace("active_bans: 50000", "active_bans: 65536"));
    one_ban(&lab, &home)?;
    forget_everything(&lab)?;
    let mut state = stored(&home);
    let row = state["enforced"]["bans"][0].clone();
    let rows = (0..BANS).map(|host| {
        let mut row = row.clone();
        row["net"] = format!("10.{}.{}.{}/32", host >> 16, host >> 8 & 255, host & 255).into();
        row
    });
    state["enforced"]["bans"] = rows.collect();
    fs::write(home.path("storage/state.json"), state.to_string()).unwrap();
    let began = Instant::now();
    let actioner = home.start(&lab)?;
    let took = began.elapsed();
    println!("{BANS} bans restored, from exec to ready: {took:?}");
    let header = lab.output(&["ipset", "list", "-terse", SET])?;
    assert!(header.contains(&format!("Number of entries: {BANS}")), "{header}");
    assert_eq!(actioner.metric("enforced_bans")?, f64::from(BANS));
    let slow = "under a second as released (`make restore`); otherwise it is only to be ready in the time that `start` waits";
    assert!(!as_released() || took < Duration::from_secs(1), "{took:?}: {slow}");
    Ok(())
}

#[test]
fn a_newer_store_is_set_aside_and_also_dry_run_keeps_its_bans() -> Result<()> {
    let lab = quiet("newer")?;
    let home = Home::new(POLICY);
    one_ban(&lab, &home)?;
    let mut state = stored(&home);
    state["version"] = 99.into();
    fs::write(home.path("storage/state.json"), state.to_string()).unwrap();
    home.write(&crate::lab::dry());
    {
        let dry = home.start(&lab)?;
        assert!(dry.log().contains("newer version"), "{}", dry.log());
        assert_eq!((dry.metric("store_degraded")?, dry.metric("enforced_bans")?), (1.0, 1.0));
    }
    // Its own store is good: that the kernel's ban is one of ours must be in it.
    let mut next = home.start(&lab)?;
    assert_eq!(next.metric("store_degraded")?, 0.0);
    assert!(next.reload(POLICY)?);
    assert_eq!(banned(&lab), [HIM], "{}", next.log());
    assert_eq!(next.metric("drift_total{what=\"ban_foreign\"}")?, 0.0);
    Ok(())
}

#[test]
fn grace_with_its_giver_offences_and_budget_outlive_a_restart() -> Result<()> {
    let lab = quiet("grace")?;
    let home =
        Home::new(&POLICY.replace("for: 10m", "for: 2s").replace("bans_per_hour: 60000", "bans_per_hour: 3"));
    let him_too = "198.51.100.67";
    fill(&lab, HIM, 30)?;
    fill(&lab, him_too, 30)?;
    let mut first = home.start(&lab)?;
    assert_eq!(count(&first.alert(&[HIM, him_too])?, "banned"), 2);
    assert_eq!(http::delete(&first.socket, &format!("/api/v1/bans?source={HIM}"))?.status, 200);
    kill(&mut first)?;
    let second = home.start(&lab)?;
    wait_until("the ban to end", SOON, || match second.metric("active_bans") {
        Ok(0.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    fill(&lab, HIM, 30)?;
    fill(&lab, him_too, 30)?;
    fill(&lab, "198.51.100.68", 30)?;
    let refused = second.alert(&[HIM])?;
    assert_eq!(refused["reasons"]["unbanned_by_hand"]["count"], 1, "{refused}");
    assert!(refused.to_string().contains("root"), "who did it: {refused}");
    assert_eq!(count(&second.alert(&[him_too])?, "banned"), 1);
    wait_until("the audit line", SOON, || match second.audit().pop() {
        Some(line) if line["result"]["offence"] == 2 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let exhausted = second.alert(&["198.51.100.68"])?;
    assert_eq!(exhausted["reasons"]["budget_exhausted"]["count"], 1, "{exhausted}");
    Ok(())
}

/// After a start the trial is up in so long: the store must have been read by then, or it is a trial that nobody looked at.
const UP: Duration = Duration::from_secs(5);

/// Milliseconds of the boot clock, as the store has them.
fn boot() -> u64 {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap().as_millis() as u64
}

/// Five bans whose effect is awaited, and what `meanwhile` makes of the table; an actioner that was started after that, and has looked
/// at it when the trial was up.
fn after_the_trial<'n>(
    lab: &'n Namespace,
    home: &Home,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Actioner<'n>> {
    let five: Vec<String> = (1..=5).map(|host| format!("198.51.100.{host}")).collect();
    five.iter().try_for_each(|source| fill(lab, source, 30))?;
    let mut first = home.start(lab)?;
    assert_eq!(count(&first.alert(&five.iter().map(String::as_str).collect::<Vec<_>>())?, "banned"), 5);
    kill(&mut first)?;
    meanwhile()?;
    let mut state = stored(home);
    let trial = &mut state["breaker"]["on_trial"];
    let before: u64 = trial["before"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!((trial["before"].as_object().unwrap().len(), before), (5, 150), "it is written down: {trial}");
    // A minute is too long for a test.
    let up = boot() + UP.as_millis() as u64;
    trial["settles"] = up.into();
    fs::write(home.path("storage/state.json"), state.to_string()).unwrap();
    let second = home.start(lab)?;
    wait_until("the trial to be up", UP + SOON, || if boot() > up { Ok(()) } else { Err(boot()) })?;
    second.alert(&[HIM])?;
    Ok(second)
}

#[test]
fn neither_forged_sources_nor_a_second_army_open_the_breaker() -> Result<()> {
    let lab = quiet("spoofed")?;
    let home = Home::new(POLICY);
    let forged = |host: u32| {
        format!(
            "-I -s 10.1.{}.{} -d 192.0.2.1 -p tcp --sport 1 --dport 80 --state SYN_RECV -t 600\n",
            host >> 8,
            host & 255
        )
    };
    let actioner = after_the_trial(&lab, &home, || {
        let lines: String = (0..900).map(forged).collect();
        lab.command_with_input(&["conntrack", "--load-file", "-"], &lines)?;
        (1..=20).try_for_each(|host| fill(&lab, &format!("203.0.113.{host}"), 30))?;
        fill(&lab, HIM, 30)
    })?;
    assert_eq!(actioner.metric("breaker_open")?, 0.0, "{}", actioner.log());
    assert_eq!(banned(&lab).len(), 6, "and the next is banned");
    Ok(())
}

#[test]
fn bans_that_do_not_work_open_the_breaker_which_stays_open_over_a_restart_until_resume() -> Result<()> {
    let lab = quiet("pressure")?;
    let home = Home::new(POLICY);
    let mut actioner = after_the_trial(&lab, &home, || {
        (1..=5).try_for_each(|host| fill(&lab, &format!("198.51.100.{host}"), 30))?;
        fill(&lab, HIM, 30)
    })?;
    assert_eq!(actioner.metric("breaker_open")?, 1.0, "{}", actioner.log());
    assert_eq!(banned(&lab).len(), 5);
    kill(&mut actioner)?;
    let next = home.start(&lab)?;
    assert_eq!(next.metric("breaker_open")?, 1.0, "it stays open over a restart");
    assert_eq!(next.alert(&[HIM])?["reasons"]["breaker_open"]["count"], 1);
    let resumed = home.run(&lab, &[], &["resume"], &["--storage.path", "--admin.socket"])?;
    assert!(resumed.status.success(), "{resumed:?}");
    assert_eq!(next.metric("breaker_open")?, 0.0, "a hand closes it");
    assert_eq!(count(&next.alert(&[HIM])?, "banned"), 1);
    Ok(())
}
