//! Reload, restart, stop.

use std::{thread, time::Duration};

use nix::sys::signal::Signal;
use tests::{Result, http, wait::wait_until};

use crate::lab::{
    HIM, Home, POLICY, SOON, count, dry, fill, members, message, quiet, raw_rules, sets, with_end,
};

#[test]
fn a_bad_policy_keeps_the_old_one_and_a_good_one_comes_into_force_whole() -> Result<()> {
    let lab = quiet("reload")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(&POLICY.replace("assured: 20", "assured: 1000"));
    let mut actioner = home.start(&lab)?;
    let refused = |answer: &serde_json::Value| count(answer, "refused");
    let hash = |actioner: &crate::lab::Actioner<'_>| actioner.audit().pop().unwrap()["policy"].clone();
    assert_eq!(refused(&actioner.alert(&[HIM])?), 1);
    let before = hash(&actioner);
    assert_eq!(actioner.metric("policy_last_reload_successful")?, 1.0);
    let read_at = actioner.metric("policy_last_reload_success_timestamp_seconds")?;

    let bad =
        POLICY.replace("assured: 20", "assured: 20, asured: 20").replace("enforce: true", "enforce: maybe");
    assert!(!actioner.reload(&bad)?);
    assert!(
        actioner.log().contains("asured") && actioner.log().contains("maybe"),
        "every error at once: {}",
        actioner.log()
    );
    assert_eq!(actioner.metric("policy_last_reload_successful")?, 0.0);
    assert_eq!(actioner.metric("policy_last_reload_success_timestamp_seconds")?, read_at);
    assert_eq!(refused(&actioner.alert(&[HIM])?), 1);
    assert_eq!(hash(&actioner), before);

    assert!(actioner.reload(POLICY)?);
    assert_eq!(actioner.metric("policy_last_reload_successful")?, 1.0);
    assert!(actioner.metric("policy_last_reload_success_timestamp_seconds")? > read_at);
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    assert_ne!(hash(&actioner), before);

    assert!(!actioner.reload(&POLICY.replace("limits:", "firewall: {set: other}\nlimits:"))?);
    assert!(actioner.log().contains("teardown --keep-bans`"), "{}", actioner.log());
    Ok(())
}

#[test]
fn enforcement_begins_with_a_reload() -> Result<()> {
    let lab = quiet("enforce")?;
    fill(&lab, HIM, 30)?;
    fill(&lab, "198.51.100.68", 30)?;
    let home = Home::new(&dry());
    let mut actioner = home.start(&lab)?;
    assert_eq!(count(&actioner.alert(&[HIM, "198.51.100.68"])?, "dry_run"), 2);
    assert_eq!(sets(&lab)?, [""; 0]);
    assert!(actioner.reload(POLICY)?);
    assert_eq!(sets(&lab)?, ["conntrack-guard-4", "conntrack-guard-6"]);
    assert_eq!(raw_rules(&lab)?.matches("-j DROP").count(), 2);
    assert_eq!(actioner.metric("enforcing")?, 1.0);
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1, "what was only decided is no ban");
    assert_eq!(actioner.audit().pop().unwrap()["result"]["offence"], 1);
    assert_eq!(members(&lab, "conntrack-guard-4")?.len(), 1);
    assert!(with_end(&lab, HIM)?.is_empty());

    assert!(actioner.reload(&dry())?);
    fill(&lab, "198.51.100.67", 30)?;
    assert_eq!(count(&actioner.alert(&["198.51.100.67"])?, "dry_run"), 1);
    let forgotten = actioner.alert(&["198.51.100.68"])?;
    assert_eq!(count(&forgotten, "dry_run"), 1, "of what was only decided nothing was kept: {forgotten}");
    assert_eq!(with_end(&lab, "198.51.100.67")?.len(), 30);
    assert_eq!(count(&actioner.alert(&[HIM])?, "already_banned"), 1, "the kernel still holds it");
    assert_eq!((actioner.metric("active_bans")?, actioner.metric("enforcing")?), (1.0, 0.0));
    Ok(())
}

#[test]
fn reloading_over_http_is_for_those_who_asked_for_it() -> Result<()> {
    let lab = quiet("lifecycle")?;
    let home = Home::new(&dry());
    {
        let actioner = home.start(&lab)?;
        let refused = actioner.running.post(&lab, "/-/reload", &[], b"")?;
        assert_eq!(refused.status, 403);
        assert!(refused.text().contains("--web.enable-lifecycle"), "{}", refused.text());
        assert_eq!(http::post(&actioner.socket, "/-/reload", &[], b"")?.status, 200, "root's own socket may");
    }
    let actioner = home.start_with(&lab, &["--web.enable-lifecycle"])?;
    assert_eq!(actioner.running.post(&lab, "/-/reload", &[], b"")?.status, 200);
    assert_eq!(actioner.running.get(&lab, "/-/reload")?.status, 405);
    actioner.write_policy("enforce: true\nrulez: []\n");
    let refused = actioner.running.post(&lab, "/-/reload", &[], b"")?;
    assert_eq!(refused.status, 500);
    assert!(refused.text().contains("never_ban") && refused.text().contains("rulez"), "{}", refused.text());
    assert_eq!(actioner.metric("policy_last_reload_successful")?, 0.0);
    Ok(())
}

#[test]
fn a_restart_finds_its_bans_again() -> Result<()> {
    let lab = quiet("restart")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let mut first = home.start(&lab)?;
    assert_eq!(count(&first.alert(&[HIM])?, "banned"), 1);
    // Not even a clean end: the socket file stays behind.
    first.process().signal(Signal::SIGKILL)?;
    first.process().wait(SOON)?;
    let (_, before) = members(&lab, "conntrack-guard-4")?.remove(0);
    fill(&lab, HIM, 30)?;

    let second = home.start(&lab)?;
    assert_eq!((second.metric("active_bans")?, second.metric("enforced_bans")?), (1.0, 1.0));
    assert_eq!(raw_rules(&lab)?.matches("-j DROP").count(), 2, "the rule is there once a family");
    let answer = second.alert(&[HIM])?;
    assert_eq!((count(&answer, "banned"), count(&answer, "already_banned")), (0, 1), "{answer}");
    let (_, after) = members(&lab, "conntrack-guard-4")?.remove(0);
    assert!(after <= before, "{before} s, then {after} s");
    assert!(with_end(&lab, HIM)?.is_empty(), "what came back meanwhile is deleted");
    let audit = second.audit();
    assert_eq!(audit.len(), 2, "the log goes on where it was");
    assert_ne!(audit[0]["id"], audit[1]["id"]);
    Ok(())
}

#[test]
fn dry_run_over_the_bans_of_an_earlier_run_says_that_they_stand() -> Result<()> {
    let lab = quiet("leftovers")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    assert_eq!(count(&home.start(&lab)?.alert(&[HIM])?, "banned"), 1);
    home.write(&dry());
    let actioner = home.start(&lab)?;
    assert!(actioner.log().contains("still in force and dry run does not end them"), "{}", actioner.log());
    Ok(())
}

/// Whoever got a 200 with a ban in it has the ban in the kernel, whenever the program was told to stop.
#[test]
fn what_was_acknowledged_before_a_stop_is_in_the_kernel() -> Result<()> {
    let lab = quiet("stop")?;
    let sources: Vec<String> = (1..=60).map(|host| format!("198.51.100.{host}")).collect();
    for source in &sources {
        fill(&lab, source, 20)?;
    }
    let home = Home::new(POLICY);
    let mut actioner = home.start(&lab)?;
    let acknowledged: Vec<&String> = thread::scope(|scope| {
        let posts: Vec<_> = sources
            .iter()
            .map(|source| {
                let body = message(&[actioner.about(source)]);
                let address = &actioner.running.address;
                let lab = &lab;
                scope.spawn(move || lab.run(|| http::post(address, "/webhook", &[], body.as_bytes())))
            })
            .collect();
        // In the middle of it: as soon as the first of them is banned.
        let stop = wait_until("the first ban", SOON, || match members(&lab, "conntrack-guard-4") {
            Ok(bans) if bans.is_empty() => Err("none"),
            _ => Ok(()),
        });
        stop.unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(actioner.running.process.id().cast_signed()),
            Signal::SIGTERM,
        )
        .unwrap();
        let answers = posts.into_iter().map(|post| post.join().unwrap());
        let ok = |answer: &Result<http::Response>| {
            answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.text().contains("\"banned\":1"))
        };
        sources.iter().zip(answers).filter(|(_, answer)| ok(answer)).map(|(source, _)| source).collect()
    });
    assert!(actioner.process().wait(SOON)?.success(), "{}", actioner.log());
    let bans = members(&lab, "conntrack-guard-4")?;
    assert!(!acknowledged.is_empty());
    for source in acknowledged {
        assert!(bans.iter().any(|(net, _)| net == source), "{source} was acknowledged and is not banned");
    }
    // And every ban has its audit line.
    let audit = actioner.audit();
    for (net, _) in bans {
        let said = |line: &&serde_json::Value| line["source"] == net && line["result"]["ban"] == "in_force";
        assert!(audit.iter().any(|line| said(&line)), "{net} is banned and nobody wrote it down");
    }
    Ok(())
}

#[test]
fn a_second_actioner_does_not_start_over_the_first() -> Result<()> {
    let lab = quiet("second")?;
    let home = Home::new(POLICY);
    let first = home.start(&lab)?;
    let output = home.run(&lab, &[], &["run"], &["--policy.file", "--storage.path", "--admin.socket"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("10049"), "{said}");
    assert_eq!(first.running.get(&lab, "/-/ready")?.status, 200);
    thread::sleep(Duration::ZERO);
    Ok(())
}
