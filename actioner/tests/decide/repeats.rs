//! What repeats change (nothing), what a new offence changes, what ends when.

use crate::scene::{Desk, HOARDER, about, alert, ban, is_repeat, now, only, policy, refusal, with};
use conntrack_actioner::alert::{Alert, Origin};
use conntrack_actioner::plan::Decision;
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Duration;

const HIM: &str = "198.51.100.66";
const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

fn desk() -> Desk {
    Desk::new(policy(HOARDER), &[(HIM, 300, 0), ("198.51.100.67", 300, 0)])
}

/// Two rules over the same source.
fn two_rules(enforce_second: bool) -> String {
    let second = HOARDER
        .replace("- name: hoarder", &format!("- name: other\n  enforce: {enforce_second}"))
        .replace("\"Hoarder\"", "\"Other\"")
        .replace("for: 10m", "for: 1h");
    format!("{HOARDER}{second}")
}

fn other() -> Alert {
    alert(&[("alertname", "Other"), ("source", HIM)])
}

#[test]
fn repeats_change_nothing_wherever_they_come_from() {
    let mut desk = desk();
    let first = ban(&desk.act(&about(HIM), now(0.0)));
    let budget = desk.remaining(now(0.0));
    let mut repeats = vec![about(HIM), about("::ffff:198.51.100.66")];
    repeats[0].fingerprint = "of the other Alertmanager of the pair".into();
    repeats.push(Alert { origin: Origin::Watch, ..about(HIM) });
    repeats.push(Alert { origin: Origin::Admin, ..about(HIM) });
    let tier = alert(&[("alertname", "Hoarder"), ("source", HIM), ("severity", "critical")]);
    repeats.push(tier);
    for (second, repeat) in repeats.iter().cycle().take(50).enumerate() {
        let plan = desk.act(repeat, now(second as f64 / 100.0));
        let Decision::AlreadyBanned { net, until, .. } = only(&plan) else { panic!("{plan:?}") };
        assert_eq!((*net, *until), (first.net, Some(now(0.0).boot + first.lasts)));
    }
    assert_eq!(desk.remaining(now(0.0)), budget);
    assert_eq!(desk.state.active(now(1.0)), 1);
    let next = ban(&desk.act(&about(HIM), now(10.0 * MINUTE)));
    assert_eq!((next.offence, next.lasts), (2, Duration::from_secs(2400)), "fifty repeats are no offence");
}

#[test]
fn a_new_offence_after_the_end_escalates_up_to_max() {
    let mut desk = desk();
    let mut at = 0.0;
    for (offence, minutes) in [(1, 10), (2, 40), (3, 160), (4, 640), (5, 1440), (6, 1440), (7, 1440)] {
        let ban = ban(&desk.act(&about(HIM), now(at)));
        assert_eq!((ban.offence, ban.lasts), (offence, Duration::from_secs(minutes * 60)));
        at += ban.lasts.as_secs_f64();
        assert!(is_repeat(&desk.plan(&about(HIM), now(at - 0.001))), "just before its end");
    }
    let first = ban(&desk.act(&about("198.51.100.67"), now(at)));
    assert_eq!(first.offence, 1, "another source has offences of its own");
}

#[test]
fn fractions_of_a_second_are_multiplied_too() {
    let mut desk = Desk::new(policy(&HOARDER.replace("for: 10m", "for: 1500ms")), &[(HIM, 300, 0)]);
    desk.act(&about(HIM), now(0.0));
    assert_eq!(ban(&desk.act(&about(HIM), now(1.5))).lasts, Duration::from_secs(6));
}

#[test]
fn a_huge_factor_ends_at_max() {
    let mut desk = Desk::new(policy(&HOARDER.replace("factor: 4", "factor: 1000")), &[(HIM, 300, 0)]);
    for at in [0.0, DAY, 3.0 * DAY, 5.0 * DAY] {
        let ban = ban(&desk.act(&about(HIM), now(at)));
        assert!(ban.lasts <= Duration::from_secs(86_400), "{ban:?}");
    }
}

#[test]
fn offences_are_forgotten_a_week_after_the_last_ban_ended() {
    for (days, offence) in [(6.999, 2), (7.001, 1)] {
        let mut desk = desk();
        desk.act(&about(HIM), now(0.0));
        let later = now(10.0 * MINUTE + days * DAY);
        desk.state.expire(later);
        assert_eq!(ban(&desk.act(&about(HIM), later)).offence, offence, "after {days} days");
    }
}

#[test]
fn what_has_ended_is_counted_once() {
    let mut desk = desk();
    desk.act(&about(HIM), now(0.0));
    desk.act(&about("198.51.100.67"), now(MINUTE));
    assert_eq!(desk.state.expire(now(5.0 * MINUTE)), 0);
    assert_eq!(desk.state.expire(now(10.5 * MINUTE)), 1);
    assert_eq!(desk.state.expire(now(10.6 * MINUTE)), 0);
    assert_eq!(desk.state.active(now(10.6 * MINUTE)), 1);
    assert_eq!(desk.state.expire(now(HOUR)), 1);
}

#[test]
fn budgets_run_out_and_refill_evenly() {
    let text = "enforce: true\nnever_ban: []\nlimits: {bans_per_minute: 2, bans_per_hour: 4}\n";
    let sources: Vec<String> = (1..=9).map(|host| format!("198.51.100.{host}")).collect();
    let table: Vec<_> = sources.iter().map(|source| (source.as_str(), 300, 0)).collect();
    let mut desk = Desk::new(with(text, HOARDER), &table);
    let mut said = |source: usize, at: f64| {
        let plan = desk.act(&about(&sources[source]), now(at));
        match only(&plan) {
            Decision::Ban(_) => "ban".to_owned(),
            _ => refusal(&plan).to_string(),
        }
    };
    assert_eq!((said(0, 0.0).as_str(), said(1, 0.0).as_str()), ("ban", "ban"));
    assert!(said(2, 29.9).contains("bans_per_minute = 2"), "a token takes half a minute");
    assert_eq!(said(2, 30.0), "ban");
    assert_eq!(said(3, 60.0), "ban");
    assert!(said(4, 120.0).contains("bans_per_hour = 4"));
    assert_eq!(said(4, HOUR / 4.0 + 1.0), "ban", "the hour's bucket gave one token in a quarter");
}

#[test]
fn so_many_bans_at_once_and_no_more() {
    let text = "enforce: true\nnever_ban: []\nlimits: {active_bans: 1}\n";
    let mut desk = Desk::new(with(text, HOARDER), &[(HIM, 300, 0), ("198.51.100.67", 300, 0)]);
    desk.act(&about(HIM), now(0.0));
    let plan = desk.act(&about("198.51.100.67"), now(1.0));
    assert!(refusal(&plan).to_string().contains("limits.active_bans"), "{plan:?}");
    ban(&desk.act(&about("198.51.100.67"), now(10.0 * MINUTE)));
}

#[test]
fn one_who_was_unbanned_by_hand_is_left_alone_for_a_day() {
    let mut desk = desk();
    let first = ban(&desk.act(&about(HIM), now(0.0)));
    assert!(desk.state.unban_by_hand(first.net, "alice", now(MINUTE)));
    assert_eq!(desk.state.active(now(MINUTE)), 0);
    let refused = desk.plan(&about(HIM), now(23.9 * HOUR));
    assert_eq!(refusal(&refused).reason(), "unbanned_by_hand");
    assert!(refusal(&refused).to_string().contains("alice"), "{}", refusal(&refused));
    ban(&desk.plan(&about("198.51.100.67"), now(HOUR)));
    let again = ban(&desk.plan(&about(HIM), now(DAY + 2.0 * MINUTE)));
    assert_eq!(again.offence, 2, "what he did is not forgotten by it");
    desk.state.ban_by_hand(first.net, Duration::from_secs(60), "bob", "he was wrong", now(HOUR));
    assert!(is_repeat(&desk.plan(&about(HIM), now(HOUR))), "a ban by hand answers rules too");
    ban(&desk.plan(&about(HIM), now(HOUR + 61.0)));
}

#[test]
fn a_pause_stops_bans_and_deletions_and_ends_by_itself() {
    let mut desk = desk();
    desk.state.set_pause(Some(Duration::from_secs(7200)), "alice", now(0.0));
    assert_eq!(refusal(&desk.act(&about(HIM), now(1.9 * HOUR))).reason(), "paused");
    ban(&desk.plan(&about(HIM), now(2.0 * HOUR)));
    desk.state.set_pause(None, "alice", now(3.0 * HOUR));
    assert_eq!(refusal(&desk.plan(&about(HIM), now(300.0 * HOUR))).reason(), "paused");
    assert_eq!(desk.state.resume(now(300.0 * HOUR)), ["the pause is over"]);
    ban(&desk.act(&about(HIM), now(300.0 * HOUR)));
    assert_eq!(desk.state.panic("alice"), 1);
    assert_eq!(desk.state.active(now(300.0 * HOUR)), 0);
    assert_eq!(refusal(&desk.plan(&about(HIM), now(400.0 * HOUR))).reason(), "panicked");
}

#[test]
fn an_open_breaker_refuses_bans_and_nothing_that_is_banned_is_undone() {
    let sources: Vec<String> = (1..=9).map(|host| format!("198.51.100.{host}")).collect();
    let table: Vec<_> = sources.iter().map(|source| (source.as_str(), 300, 0)).collect();
    let mut desk = Desk::new(policy(HOARDER), &table);
    for source in &sources[..5] {
        ban(&desk.act(&about(source), now(0.0)));
    }
    let held = sources[..5].iter().map(|source| (source.parse::<IpAddr>().unwrap().into(), 300));
    desk.state.banned(held, now(0.0));
    assert!(desk.state.measure(|nets| 300 * nets.len() as u64, now(61.0)).is_some());
    assert_eq!(refusal(&desk.plan(&about(&sources[5]), now(62.0))).reason(), "breaker_open");
    assert!(is_repeat(&desk.plan(&about(&sources[0]), now(62.0))));
    assert_eq!(desk.state.active(now(62.0)), 5);
    assert_eq!(desk.state.resume(now(63.0)), ["the breaker is closed"]);
    ban(&desk.plan(&about(&sources[5]), now(64.0)));
}

#[test]
fn two_rules_on_one_source_neither_shorten_nor_escalate_each_other() {
    let mut desk = Desk::new(policy(&two_rules(true)), &[(HIM, 300, 0)]);
    assert_eq!(ban(&desk.act(&other(), now(0.0))).lasts, Duration::from_secs(3600));
    assert_eq!(ban(&desk.act(&about(HIM), now(1.0))).lasts, Duration::from_secs(600));
    for second in 2..500 {
        for alert in [about(HIM), other()] {
            let plan = desk.act(&alert, now(f64::from(second)));
            let Decision::AlreadyBanned { until, .. } = only(&plan) else { panic!("{plan:?}") };
            assert_eq!(*until, Some(now(HOUR).boot), "the longer of the two");
        }
    }
    assert_eq!(desk.state.active(now(30.0 * MINUTE)), 1);
    assert_eq!(desk.state.expire(now(30.0 * MINUTE)), 0, "the source is still banned by the other rule");
    assert_eq!(desk.state.expire(now(2.0 * HOUR)), 1);
}

#[test]
fn a_ban_found_at_the_start_answers_every_rule() {
    let mut desk = Desk::new(policy(&two_rules(true)), &[(HIM, 300, 0)]);
    desk.state.adopt("198.51.100.66/32".parse().unwrap(), Some(Duration::from_secs(300)), now(0.0));
    assert!(is_repeat(&desk.plan(&about(HIM), now(299.0))) && is_repeat(&desk.plan(&other(), now(299.0))));
    ban(&desk.plan(&about(HIM), now(300.0)));
}

#[test]
fn a_permanent_ban_is_somebody_elses_until_he_takes_it_away() {
    let mut desk = desk();
    let net = "198.51.100.66/32".parse().unwrap();
    desk.state.adopt(net, None, now(0.0));
    desk.act(&about("198.51.100.67"), now(0.0));
    desk.state.forget_permanent(|kept| *kept == net);
    let plan = desk.plan(&about(HIM), now(30.0 * DAY));
    assert!(matches!(only(&plan), Decision::AlreadyBanned { until: None, .. }), "{plan:?}");
    desk.state.forget_permanent(|_| false);
    ban(&desk.plan(&about(HIM), now(1.0)));
    assert!(is_repeat(&desk.plan(&about("198.51.100.67"), now(1.0))), "those with an end are ours");
}

#[test]
fn one_who_is_spared_since_then_is_left_alone() {
    let mut desk = desk();
    desk.act(&about(HIM), now(0.0));
    desk.policy = with("enforce: true\nnever_ban: [198.51.100.0/24]\n", HOARDER);
    assert_eq!(refusal(&desk.plan(&about(HIM), now(1.0))).reason(), "never_ban");
}

#[test]
fn dry_run_goes_the_same_way_and_is_forgotten_when_enforcement_begins() {
    let (mut wet, mut dry) = (desk(), desk());
    dry.policy = with("never_ban: []\n", HOARDER);
    for minute in 0..200 {
        let (wet, dry) = (
            wet.act(&about(HIM), now(f64::from(minute) * MINUTE)),
            dry.act(&about(HIM), now(f64::from(minute) * MINUTE)),
        );
        assert_eq!((wet.verdicts, wet.enforce, dry.enforce), (dry.verdicts, true, false), "minute {minute}");
    }
    assert_eq!(dry.state.active(now(0.0)), 0, "nothing of it is in a kernel");
    dry.policy = policy(HOARDER);
    let first = ban(&dry.plan(&about(HIM), now(201.0 * MINUTE)));
    assert_eq!(
        (first.offence, first.lasts),
        (1, Duration::from_secs(600)),
        "what was not done is no offence"
    );
    dry.state.discard_shadows();
    dry.policy = with("never_ban: []\n", HOARDER);
    assert_eq!(ban(&dry.plan(&about(HIM), now(201.0 * MINUTE))).offence, 1);
}

#[test]
fn a_rule_on_trial_disturbs_no_rule_that_acts() {
    let text = "enforce: true\nnever_ban: []\nlimits: {bans_per_minute: 1, active_bans: 1}\n";
    let mut desk = Desk::new(with(text, &two_rules(false)), &[(HIM, 300, 0)]);
    ban(&desk.act(&other(), now(0.0)));
    let real = ban(&desk.act(&about(HIM), now(0.0)));
    assert_eq!(real.offence, 1, "the trial spent none of its budget");
    for second in 1..50 {
        assert!(
            is_repeat(&desk.act(&other(), now(f64::from(second)))),
            "a trial's repeats are repeats as well"
        );
        assert!(is_repeat(&desk.act(&about(HIM), now(f64::from(second)))));
    }
    assert_eq!(desk.state.active(now(50.0)), 1);
    assert_eq!(desk.state.expire(now(11.0 * MINUTE)), 1, "the real one ends when it should");
}

proptest! {
    /// Whatever comes in whatever order: no more bans than the budget, never two for one source at a time, and no ban is
    /// longer than max.
    #[test]
    fn no_order_of_alerts_breaks_the_limits(steps in proptest::collection::vec((0_u8..6, 0_u32..90), 1..200)) {
        let text = "enforce: true\nnever_ban: []\nlimits: {bans_per_minute: 3, bans_per_hour: 20, active_bans: 4}\n";
        let sources: Vec<String> = (1..=6).map(|host| format!("198.51.100.{host}")).collect();
        let table: Vec<_> = sources.iter().map(|source| (source.as_str(), 300, 0)).collect();
        let mut desk = Desk::new(with(text, HOARDER), &table);
        let mut at = 0.0;
        let mut bans: Vec<(f64, usize, f64)> = Vec::new();
        for (source, wait) in steps {
            at += f64::from(wait);
            let source = usize::from(source);
            if let Decision::Ban(ban) = only(&desk.act(&about(&sources[source]), now(at))) {
                prop_assert!(ban.lasts <= Duration::from_secs(86_400));
                prop_assert!(!bans.iter().any(|(_, other, end)| *other == source && at < *end - 1e-6));
                bans.push((at, source, at + ban.lasts.as_secs_f64()));
            }
            // A full bucket and what it was refilled by in a window.
            prop_assert!(bans.iter().filter(|(begun, ..)| *begun > at - MINUTE).count() <= 6);
            prop_assert!(bans.iter().filter(|(begun, ..)| *begun > at - HOUR).count() <= 40);
            prop_assert!(bans.iter().filter(|(_, _, end)| *end > at + 1e-6).count() <= 4);
        }
    }
}
