//! What the kernel refuses, loses or is robbed of: a failure is said, never called a ban.

use serde_json::Value;
use tests::{Result, netns::Namespace, wait::wait_until};

use crate::lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, members, quiet, raw_rules, sets, with_end};

const HIM_TOO: &str = "198.51.100.67";
const FAILED: &str = "bans_total{rule=\"hoarder\",result=\"failed\"}";

/// The ban failed, everybody is told, and nothing was deleted.
fn said_to_have_failed(
    actioner: &Actioner<'_>,
    namespace: &Namespace,
    answer: &Value,
    why: &str,
) -> Result<()> {
    assert_eq!((count(answer, "banned"), count(answer, "failed")), (0, 1), "{answer}");
    let sentence = answer["reasons"]["ban_failed"]["first"].as_str().unwrap();
    assert!(sentence.contains(why), "{sentence}");
    let audit = actioner.audit();
    let line = audit.last().unwrap();
    assert_eq!(line["result"]["ban"], "failed", "{line}");
    assert_eq!(line["result"]["error"], sentence);
    assert!(actioner.metric(FAILED)? >= 1.0);
    assert!(actioner.metric("alerts_total{rule=\"hoarder\",outcome=\"failed\"}")? >= 1.0);
    assert_eq!(actioner.metric("alerts_total{rule=\"hoarder\",outcome=\"banned\"}")?, 0.0);
    assert!(actioner.log().contains("NOT banned"), "{}", actioner.log());
    assert_eq!(with_end(namespace, HIM)?.len(), 30, "without a ban in force nothing is deleted");
    assert_eq!(actioner.metric("deleted_entries_total{rule=\"hoarder\"}")?, 0.0);
    Ok(())
}

/// Destroys the IPv4 set and does `then` before the actioner's next look puts it back. A rule's hold on a set ends a moment after the
/// rule, and a look in that moment puts the rule back as well.
pub(crate) fn rob(namespace: &Namespace, then: &[&str]) -> Result<()> {
    wait_until("the set to be taken away", SOON, || {
        for tool in ["iptables", "ip6tables"] {
            namespace.command(&[tool, "-t", "raw", "-F", "PREROUTING"])?;
        }
        namespace.command(&["ipset", "destroy", "conntrack-guard-4"])?;
        if then.is_empty() { Ok(()) } else { namespace.command(then).map(drop) }
    })
}

#[test]
fn a_set_of_another_kind_in_our_place_is_a_failed_ban() -> Result<()> {
    let lab = quiet("robbed")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    rob(&lab, &["ipset", "create", "conntrack-guard-4", "hash:ip"])?;
    for _ in 0..3 {
        let answer = actioner.alert(&[HIM])?;
        said_to_have_failed(&actioner, &lab, &answer, "conntrack-guard-4")?;
    }
    assert_eq!(
        (actioner.metric("active_bans")?, actioner.metric("enforced_bans")?),
        (1.0, 0.0),
        "due, not there"
    );
    wait_until("the set to be free", SOON, || {
        lab.command(&["ipset", "destroy", "conntrack-guard-4"]).map(drop)
    })?;
    wait_until("the ban to be there after all", SOON, || {
        let answer = actioner.alert(&[HIM]).map_err(|failure| failure.to_string())?;
        if count(&answer, "already_banned") == 1 { Ok(()) } else { Err(answer.to_string()) }
    })?;
    let audit = actioner.audit();
    let offences: Vec<_> =
        audit.iter().map(|line| &line["result"]["offence"]).filter(|o| o.is_number()).collect();
    assert_eq!(offences, [1], "failures are one offence: {audit:#?}");
    assert_eq!(members(&lab, "conntrack-guard-4")?[0].0, HIM);
    assert_eq!(raw_rules(&lab)?.matches("-j DROP").count(), 2, "{}", raw_rules(&lab)?);
    assert!(with_end(&lab, HIM)?.is_empty());
    Ok(())
}

/// A kernel without ipset is met the same way (`make try-kernels`, which can take the module away).
#[test]
fn a_firewall_that_cannot_be_put_up_at_the_start_is_said_everywhere_and_put_up_when_it_can() -> Result<()> {
    let lab = quiet("barred")?;
    fill(&lab, HIM, 30)?;
    lab.command(&["ipset", "create", "conntrack-guard-4", "hash:ip"])?;
    let home = Home::new(POLICY);
    let actioner = home.start_unready(&lab)?;
    let why = "set conntrack-guard-4 exists as hash:ip";
    let (status, text) = actioner.readiness()?;
    assert!(status == 503 && text.contains(why), "{status} {text}");
    assert!(actioner.log().contains("NOTHING IS ENFORCED"), "{}", actioner.log());
    let shown = home.run(&lab, &[], &["status"], &["--admin.socket"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.starts_with("mode      NOTHING IS ENFORCED") && shown.contains(why), "{shown}");
    said_to_have_failed(&actioner, &lab, &actioner.alert(&[HIM])?, why)?;
    let by_hand = ["ban", HIM_TOO, "--for", "1h", "--reason", "seen"];
    let refused = home.run(&lab, &[], &by_hand, &["--admin.socket"])?;
    let refused = (refused.status.code(), String::from_utf8_lossy(&refused.stderr).into_owned());
    assert!(
        refused.0 == Some(1) && refused.1.contains("is not banned yet") && refused.1.contains(why),
        "{refused:?}"
    );
    assert_eq!((actioner.metric("active_bans")?, actioner.metric("enforced_bans")?), (2.0, 0.0));
    assert_eq!(actioner.metric("last_look_timestamp_seconds")?, 0.0, "nothing was read");
    lab.command(&["ipset", "destroy", "conntrack-guard-4"])?;
    wait_until("it to be ready", SOON, || match actioner.readiness() {
        Ok((200, _)) if actioner.metric("enforced_bans").is_ok_and(|bans| bans == 2.0) => Ok(()),
        other => Err(format!("{other:?}\n{}", actioner.log())),
    })?;
    let mut held: Vec<String> = members(&lab, "conntrack-guard-4")?.into_iter().map(|(net, _)| net).collect();
    held.sort();
    assert_eq!(held, [HIM, HIM_TOO], "the bans that failed are in force, without a restart");
    Ok(())
}

/// Whatever the answer says is so in the kernel: put back, or failed.
#[test]
fn a_destroyed_set_never_holds_a_ban_that_is_only_said() -> Result<()> {
    let lab = quiet("robbed")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    rob(&lab, &[])?;
    let answer = actioner.alert(&[HIM])?;
    match (count(&answer, "banned"), count(&answer, "failed")) {
        (1, 0) => assert_eq!(members(&lab, "conntrack-guard-4")?[0].0, HIM),
        (0, 1) => said_to_have_failed(&actioner, &lab, &answer, "does not exist")?,
        _ => panic!("{answer}"),
    }
    Ok(())
}

#[test]
fn a_full_set_is_a_failed_ban() -> Result<()> {
    let lab = quiet("full")?;
    fill(&lab, HIM, 30)?;
    lab.command_with_input(
        &["ipset", "restore"],
        "create conntrack-guard-4 hash:net family inet timeout 0 maxelem 1\nadd conntrack-guard-4 203.0.113.9 timeout 500\n",
    )?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    assert_eq!(
        (actioner.metric("active_bans")?, actioner.metric("enforced_bans")?),
        (1.0, 1.0),
        "found at the start"
    );
    let answer = actioner.alert(&[HIM])?;
    said_to_have_failed(&actioner, &lab, &answer, "full")?;
    assert_eq!((actioner.metric("active_bans")?, actioner.metric("enforced_bans")?), (2.0, 1.0));
    assert_eq!(members(&lab, "conntrack-guard-4")?[0].0, "203.0.113.9");
    lab.command(&["ipset", "del", "conntrack-guard-4", "203.0.113.9"])?;
    let him_too = || match actioner.metric("enforced_bans") {
        Ok(1.0) if members(&lab, "conntrack-guard-4").is_ok_and(|members| members.len() == 1) => Ok(()),
        other => Err(format!("{other:?}\n{}", actioner.log())),
    };
    wait_until("one of the two to be put in the room that is there", SOON, him_too)
}

#[test]
fn a_ban_that_somebody_flushed_is_put_back_by_the_next_repeat() -> Result<()> {
    let lab = quiet("flushed")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    wait_until("a repeat to be faster than the look that comes every five seconds", SOON, || {
        lab.command(&["ipset", "flush", "conntrack-guard-4"]).map_err(|failure| failure.to_string())?;
        let answer = actioner.alert(&[HIM]).map_err(|failure| failure.to_string())?;
        assert_eq!(count(&answer, "already_banned"), 1, "{answer}");
        let (net, seconds) = members(&lab, "conntrack-guard-4").unwrap().remove(0);
        assert!(net == HIM && (500..=600).contains(&seconds), "{net} {seconds}");
        match actioner.log().contains("was not in the kernel: put back") {
            true => Ok(()),
            false => Err(actioner.log()),
        }
    })?;
    assert_eq!(
        actioner.metric("bans_total{rule=\"hoarder\",result=\"enforced\"}")?,
        1.0,
        "it is the same ban"
    );
    Ok(())
}

#[test]
fn repeats_write_nothing_to_the_kernel() -> Result<()> {
    let lab = quiet("repeats")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(&POLICY.replace("for: 10m", "for: 5s"));
    let actioner = home.start(&lab)?;
    assert_eq!(count(&actioner.alert(&[HIM, HIM])?, "banned"), 1, "twice in one webhook is once");
    // In its last second an alert may come when it has ended for the actioner and not for the kernel: that is a new offence.
    let (mut seen, mut repeats) = (u32::MAX, 0);
    while let Some((_, seconds)) = members(&lab, "conntrack-guard-4")?.pop() {
        assert!(seconds <= seen, "a repeat lengthened the ban: {seen} s, then {seconds} s");
        seen = seconds;
        if seconds > 1 {
            let answer = actioner.alert(&[HIM])?;
            assert_eq!(count(&answer, "banned") + count(&answer, "failed"), 0, "{answer}");
            repeats += 1;
        }
    }
    assert!(repeats > 0, "the ban of five seconds was over before anybody repeated the alert");
    assert!(!actioner.log().contains("put back"), "{}", actioner.log());
    Ok(())
}

#[test]
fn a_deletion_is_clipped_says_so_and_goes_on() -> Result<()> {
    let lab = quiet("clipped")?;
    fill(&lab, HIM, 30)?;
    fill(&lab, HIM_TOO, 5)?;
    let home = Home::new(&POLICY.replace("limits: {", "limits: {deletes_per_action: 12, "));
    let actioner = home.start(&lab)?;
    for (left, deleted, clipped) in [(18, 12, true), (6, 12, true), (0, 6, false)] {
        actioner.alert(&[HIM])?;
        assert_eq!(with_end(&lab, HIM)?.len(), left);
        let line = actioner.audit().pop().unwrap();
        assert_eq!(
            (&line["result"]["entries_deleted"], &line["result"]["deletion_clipped"]),
            (&deleted.into(), &clipped.into()),
            "{line}"
        );
    }
    assert_eq!(actioner.metric("clipped_deletions_total")?, 2.0);
    assert_eq!(actioner.metric("deleted_entries_total{rule=\"hoarder\"}")?, 30.0);
    assert!(actioner.log().contains("limits.deletes_per_action"), "{}", actioner.log());
    assert_eq!(with_end(&lab, HIM_TOO)?.len(), 5);
    Ok(())
}

#[test]
fn teardown_takes_ours_away_and_nothing_else() -> Result<()> {
    let lab = quiet("teardown")?;
    fill(&lab, HIM, 30)?;
    lab.command(&["ipset", "create", "theirs-4", "hash:net"])?;
    lab.command(&[
        "iptables",
        "-t",
        "raw",
        "-A",
        "PREROUTING",
        "-m",
        "set",
        "--match-set",
        "theirs-4",
        "src",
        "-j",
        "DROP",
    ])?;
    lab.command(&["ip6tables", "-t", "raw", "-A", "PREROUTING", "-s", "2001:db8:9::/48", "-j", "DROP"])?;
    let theirs = raw_rules(&lab)?;
    let home = Home::new(POLICY);
    let mut actioner = home.start(&lab)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    let (done, said) = home.teardown(&lab)?;
    assert!(!done && said.contains("stop it first"), "{said}");
    assert_eq!(sets(&lab)?.len(), 3);
    assert!(actioner.process().stop()?.success());
    assert_eq!(members(&lab, "conntrack-guard-4")?.len(), 1, "bans outlive the program");
    for (flags, said_of_bans, left) in
        [(&["--keep-bans"][..], "1 bans are kept", 1), (&[], "1 bans are ended", 0)]
    {
        let (done, said) = home.teardown_with(&lab, flags)?;
        let removed = "removed 2 drop rules and the sets conntrack-guard-4, conntrack-guard-6";
        assert!(done && said.contains(removed) && said.contains(said_of_bans), "{said}");
        assert_eq!(sets(&lab)?, ["theirs-4"]);
        assert_eq!(raw_rules(&lab)?, theirs);
        let mut next = home.start(&lab)?;
        assert_eq!(members(&lab, "conntrack-guard-4")?.len(), left, "{flags:?}: after the next start");
        assert!(next.process().stop()?.success());
    }
    let (done, said) = home.teardown(&lab)?;
    assert!(done && !said.contains("bans"), "{said}");
    let (done, said) = home.teardown(&lab)?;
    assert!(done && said.contains("nothing to remove"), "{said}");
    Ok(())
}

#[test]
fn where_the_rule_is_somebody_elses_a_ban_needs_his_rule() -> Result<()> {
    let lab = quiet("foreign")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(&POLICY.replace("limits:", "firewall: {manage_rule: false}\nlimits:"));
    {
        let actioner = home.start(&lab)?;
        let answer = actioner.alert(&[HIM])?;
        said_to_have_failed(&actioner, &lab, &answer, "NOTHING DROPS")?;
        assert!(!raw_rules(&lab)?.contains("DROP"), "it was told to leave rules alone");
    }
    for (tool, set) in [("iptables", "conntrack-guard-4"), ("ip6tables", "conntrack-guard-6")] {
        lab.command(&[
            tool,
            "-t",
            "raw",
            "-A",
            "PREROUTING",
            "-m",
            "set",
            "--match-set",
            set,
            "src",
            "-j",
            "DROP",
        ])?;
    }
    let theirs = raw_rules(&lab)?;
    lab.command(&["ipset", "flush", "conntrack-guard-4"])?;
    let actioner = home.start(&lab)?;
    assert_eq!(members(&lab, "conntrack-guard-4")?[0].0, HIM, "what failed before the restart is still due");
    assert_eq!(count(&actioner.alert(&[HIM])?, "already_banned"), 1);
    assert_eq!(raw_rules(&lab)?, theirs);
    Ok(())
}
