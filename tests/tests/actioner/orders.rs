//! Orders by hand, as the one on call gives them: over the socket, with the actioner alive, hanging or dead.

use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Result, netns::Namespace, wait::wait_until};

use crate::lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, members, quiet, with_end};

const SOCKET: &[&str] = &["--admin.socket"];
const ALL: &[&str] = &["--policy.file", "--storage.path", "--admin.socket"];
const OTHER: &str = "198.51.100.67";

/// A command's exit status, and what it said.
fn order(home: &Home, lab: &Namespace, words: &[&str], flags: &[&str]) -> Result<(i32, String)> {
    let Output { status, stdout, stderr } = home.run(lab, &[], words, flags)?;
    let said = String::from_utf8([stdout, stderr].concat()).unwrap();
    assert!(!said.contains('\u{1b}'), "no colours where nobody looks: {said:?}");
    Ok((status.code().unwrap(), said))
}

pub(crate) fn must(home: &Home, lab: &Namespace, words: &[&str], code: i32, said: &[&str]) -> Result<String> {
    let (ended, text) = order(home, lab, words, if words[0] == "panic" { ALL } else { SOCKET })?;
    assert_eq!(ended, code, "{words:?}: {text}");
    for part in said {
        assert!(text.contains(part), "{words:?}: no {part:?} in\n{text}");
    }
    Ok(text)
}

fn banned(lab: &Namespace) -> Vec<String> {
    let bans = members(lab, "conntrack-guard-4").unwrap_or_default();
    bans.into_iter().map(|(net, _)| net).collect()
}

#[test]
fn a_ban_by_hand_is_listed_explained_and_ended() -> Result<()> {
    let lab = quiet("orders")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    must(&home, &lab, &["bans"], 0, &["no bans"])?;
    must(
        &home,
        &lab,
        &["ban", HIM, "--for", "1h", "--reason", "he scans"],
        0,
        &["read back from the kernel"],
    )?;
    assert_eq!(banned(&lab), [HIM]);
    assert!(with_end(&lab, HIM)?.is_empty(), "his entries are gone");
    must(&home, &lab, &["bans"], 0, &["198.51.100.66/32", "hand: root", "he scans", "yes"])?;
    let bans: Value = serde_json::from_str(&must(&home, &lab, &["bans", "--json"], 0, &[])?).unwrap();
    assert_eq!(
        (&bans["bans"][0]["net"], &bans["bans"][0]["in_kernel"]),
        (&"198.51.100.66/32".into(), &true.into())
    );
    for as_bans_shows_it in [HIM, "198.51.100.66/32"] {
        let said = ["198.51.100.66 is banned", "he scans", "HISTORY", "ban by root"];
        must(&home, &lab, &["explain", as_bans_shows_it], 0, &said)?;
    }
    must(&home, &lab, &["explain", "198.51.100.0/24"], 2, &["name one of them"])?;
    must(&home, &lab, &["status"], 0, &["enforcing", "1 in force, 1 in the kernel"])?;
    let status: Value = serde_json::from_str(&must(&home, &lab, &["status", "--json"], 0, &[])?).unwrap();
    assert_eq!(status["table_id"], actioner.table_id);

    must(
        &home,
        &lab,
        &["unban", HIM],
        0,
        &["no longer banned: 198.51.100.66/32", "no rule bans them again before"],
    )?;
    assert!(banned(&lab).is_empty());
    must(&home, &lab, &["unban", HIM], 5, &[])?;
    fill(&lab, HIM, 30)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "refused"), 1, "what a person decided holds");
    must(
        &home,
        &lab,
        &["explain", HIM],
        0,
        &["is not banned", "unbanned_by_hand", "What would change it", "unban by root"],
    )?;

    must(&home, &lab, &["ban", "127.0.0.1", "--for", "1h", "--reason", "x"], 3, &["refused", "loopback"])?;
    must(&home, &lab, &["ban", "nobody", "--for", "1h", "--reason", "x"], 2, &[])?;
    assert!(banned(&lab).is_empty());
    Ok(())
}

/// The one order that ends every ban and leaves the actioner at work.
#[test]
fn all_bans_of_both_families_are_ended_at_once_and_no_rule_makes_them_again() -> Result<()> {
    const SIX: &str = "2001:db8:bad::1";
    let lab = quiet("all")?;
    let home = Home::new(POLICY);
    let actioner = with_bans(&home, &lab)?;
    must(&home, &lab, &["ban", SIX, "--for", "1h", "--reason", "x"], 0, &[])?;
    assert_eq!(members(&lab, "conntrack-guard-6")?.len(), 1);
    must(&home, &lab, &["unban", "--all"], 0, &["no longer banned", HIM, OTHER, SIX])?;
    assert!(banned(&lab).is_empty() && members(&lab, "conntrack-guard-6")?.is_empty());
    must(&home, &lab, &["unban", "--all"], 0, &["nothing was banned"])?;
    for source in [HIM, "198.51.100.68"] {
        fill(&lab, source, 30)?;
    }
    let answer = actioner.alert(&[HIM, "198.51.100.68"])?;
    assert_eq!(answer["reasons"]["unbanned_by_hand"]["count"], 1, "{answer}");
    assert_eq!(banned(&lab), ["198.51.100.68"], "who was not among them is judged as always");
    Ok(())
}

/// Seconds that the kernel gives him yet.
fn left(lab: &Namespace) -> Result<u32> {
    let bans = members(lab, "conntrack-guard-4")?;
    Ok(bans.into_iter().find(|(net, _)| net == HIM).map_or(0, |(_, left)| left))
}

#[test]
fn the_last_word_of_a_person_counts_also_where_it_shortens_and_a_rules_longer_ban_stays() -> Result<()> {
    let lab = quiet("shorter")?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    let ban = |lasts: &str, said: &[&str]| {
        must(&home, &lab, &["ban", HIM, "--for", lasts, "--reason", "x"], 0, said)
    };
    ban("10h", &[" is banned until "])?;
    assert!((35_900..=36_000).contains(&left(&lab)?), "{}", left(&lab)?);
    ban("5m", &["(before: until "])?;
    assert!((200..=300).contains(&left(&lab)?), "{}", left(&lab)?);
    let bans: Value = serde_json::from_str(&must(&home, &lab, &["bans", "--json"], 0, &[])?).unwrap();
    assert_eq!(bans["bans"].as_array().unwrap().len(), 1, "in its place: {bans}");
    ban("1h", &[])?;
    assert!((3500..=3600).contains(&left(&lab)?), "{}", left(&lab)?);
    assert_eq!(actioner.metric("drift_total{what=\"ban_lengthened\"}")?, 0.0);

    must(&home, &lab, &["unban", HIM], 0, &[])?;
    ban("1m", &[])?;
    must(&home, &lab, &["unban", HIM], 0, &[])?;
    let other = Home::new(POLICY);
    drop(actioner);
    lab.command(&["ipset", "flush", "conntrack-guard-4"])?;
    let actioner = other.start(&lab)?;
    fill(&lab, HIM, 30)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    must(
        &other,
        &lab,
        &["ban", HIM, "--for", "1m", "--reason", "x"],
        0,
        &["by a rule, whose longer ban stays"],
    )?;
    assert!((500..=600).contains(&left(&lab)?), "{}", left(&lab)?);
    Ok(())
}

#[test]
fn a_pause_decides_and_does_nothing_until_resume() -> Result<()> {
    let lab = quiet("pause")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    must(&home, &lab, &["pause", "--for", "2h"], 0, &[])?;
    must(&home, &lab, &["status"], 0, &["PAUSED", "by root"])?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 0);
    assert!(banned(&lab).is_empty() && with_end(&lab, HIM)?.len() == 30);
    must(&home, &lab, &["ban", OTHER, "--for", "1h", "--reason", "x"], 0, &[])?;
    assert_eq!(banned(&lab), [OTHER], "a person's order is no rule's");
    must(&home, &lab, &["unban", OTHER], 0, &[])?;
    let (code, said) = order(&home, &lab, &["resume"], &["--storage.path", "--admin.socket"])?;
    assert_eq!(code, 0, "{said}");
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    Ok(())
}

/// Two of them banned.
fn with_bans<'n>(home: &Home, lab: &'n Namespace) -> Result<Actioner<'n>> {
    for source in [HIM, OTHER] {
        fill(lab, source, 30)?;
    }
    let actioner = home.start(lab)?;
    assert_eq!(count(&actioner.alert(&[HIM, OTHER])?, "banned"), 2);
    assert_eq!(banned(lab).len(), 2);
    Ok(actioner)
}

fn resumed(home: &Home, lab: &Namespace, said: &str) -> Result<()> {
    let (code, text) = order(home, lab, &["resume"], &["--storage.path", "--admin.socket"])?;
    assert!(code == 0 && text.contains(said), "{code}: {text}");
    Ok(())
}

#[test]
fn panic_empties_the_sets_and_stays_off_over_a_restart_until_resume() -> Result<()> {
    let lab = quiet("panic")?;
    let home = Home::new(POLICY);
    {
        let actioner = with_bans(&home, &lab)?;
        must(&home, &lab, &["panic"], 0, &["are empty", "resume"])?;
        assert!(banned(&lab).is_empty());
        fill(&lab, HIM, 30)?;
        assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 0);
        must(&home, &lab, &["status"], 0, &["PANIC", "by root"])?;
    }
    let actioner = home.start(&lab)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 0);
    assert!(banned(&lab).is_empty(), "a restart does not end a panic");
    resumed(&home, &lab, "removed")?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    assert_eq!(banned(&lab), [HIM]);
    Ok(())
}

#[test]
fn panic_works_on_a_dead_actioner() -> Result<()> {
    let lab = quiet("dead")?;
    let home = Home::new(POLICY);
    let mut actioner = with_bans(&home, &lab)?;
    actioner.process().signal(Signal::SIGKILL)?;
    actioner.process().wait(SOON)?;
    must(&home, &lab, &["bans"], 4, &["no actioner answers", "ended without cleaning up"])?;
    must(&home, &lab, &["panic"], 0, &["no actioner runs", "2 bans were taken out here"])?;
    assert!(banned(&lab).is_empty());
    let (code, said) = order(&home, &lab, &["explain", HIM], &["--storage.path", "--admin.socket"])?;
    assert!(
        code == 4 && said.contains("HISTORY") && said.contains("banned"),
        "its history is told: {code} {said}"
    );
    resumed(&home, &lab, "the next one acts again")?;
    let (code, _) = order(&home, &lab, &["resume"], &["--storage.path", "--admin.socket"])?;
    assert_eq!(code, 4, "there is nothing left to resume");
    let next = home.start(&lab)?;
    assert_eq!((banned(&lab).len(), next.metric("active_bans")?), (0, 0.0), "what panic lifted stays lifted");
    Ok(())
}

#[test]
fn panic_works_on_a_hanging_actioner_and_with_a_broken_policy() -> Result<()> {
    let lab = quiet("hanging")?;
    let home = Home::new(POLICY);
    let mut actioner = with_bans(&home, &lab)?;
    actioner.process().signal(Signal::SIGSTOP)?;
    home.write("rulez: 7\n");
    must(&home, &lab, &["panic"], 0, &["has not answered within 2s", "default name", "are empty"])?;
    assert!(banned(&lab).is_empty());
    actioner.process().signal(Signal::SIGCONT)?;
    wait_until("it to have found out", SOON, || match order(&home, &lab, &["status"], SOCKET) {
        Ok((0, said)) if said.contains("PANIC") => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    assert!(banned(&lab).is_empty(), "it puts nothing back");
    Ok(())
}

/// The panic file comes while it hangs, and what waits for it is an alert.
#[test]
fn a_batch_that_begins_after_a_panic_bans_nobody_though_nobody_could_tell_the_actioner() -> Result<()> {
    let lab = quiet("unheard")?;
    let home = Home::new(POLICY);
    fill(&lab, HIM, 30)?;
    let mut actioner = home.start(&lab)?;
    actioner.process().signal(Signal::SIGSTOP)?;
    std::fs::write(home.path("storage/panic"), "{\"since\":\"2026-01-01T00:00:00Z\",\"by\":\"root\"}")
        .unwrap();
    let body = crate::lab::message(&[actioner.about(HIM)]);
    let socket = actioner.socket.clone();
    let answer = std::thread::scope(|scope| {
        let asked = scope.spawn(|| tests::http::post(&socket, "/webhook", &[], body.as_bytes()));
        // It is on its way before the program goes on.
        std::thread::sleep(std::time::Duration::from_millis(100));
        actioner.process().signal(Signal::SIGCONT)?;
        asked.join().unwrap()
    })?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(count(&serde_json::from_str(&answer.text()).unwrap(), "banned"), 0, "{}", answer.text());
    assert!(banned(&lab).is_empty() && with_end(&lab, HIM)?.len() == 30, "{}", actioner.log());
    must(&home, &lab, &["status"], 0, &["PANIC"])?;
    Ok(())
}
