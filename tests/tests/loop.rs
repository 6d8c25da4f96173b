//! The loop closes: an attack is seen, its source banned and its slots freed, and nobody else notices. Real packets, real
//! Prometheus and Alertmanager, the files we ship.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use tests::{
    Result,
    attack::{Attack, Pace},
    flood::syn_flood,
    scenario::{ALERT, Evidence, HABITS, SLOW_FILL, Scenario, Seer, Stage, Story, THRESHOLD},
    topology::Family,
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(60);
/// As in the demo, where people watch, but faster; no end before the ban.
const FAST: Pace = Pace { count: 15_000, per_second: 150, ..SLOW_FILL };

/// The whole story of a slow fill.
fn stopped(family: Family, seer: Seer) -> Result<(Scenario, Story)> {
    let scenario = Scenario::start(family, seer)?;
    let attack = scenario.slow_fill(FAST)?;
    let story = proved(&scenario, attack)?;
    Ok((scenario, story))
}

/// Follows an attack, and asserts everything that must hold at its end.
fn proved(scenario: &Scenario, attack: Attack) -> Result<Story> {
    let story = scenario.follow(&attack, |_| Ok(()))?;
    drop(attack);
    for finding in story.findings() {
        println!("{}: {}", finding.claim, finding.seen);
    }
    for stage in Stage::ALL {
        println!("{}: {:?}", stage.words(), story.timeline.after_first_packet(stage));
    }
    assert!(story.broken().is_empty(), "{:#?}", story.broken());
    let decisions = scenario.decisions()?;
    let bans: Vec<_> = decisions.iter().filter(|decision| decision.verdict == "ban").collect();
    assert_eq!(bans.len(), 1, "one ban, however often the alert is repeated: {decisions:#?}");
    let ban = bans[0];
    assert_eq!(ban.source, Some(scenario.attackers().addr()));
    let result = ban.result.as_ref().expect("a ban has a result");
    assert_eq!(result.ban.as_deref(), Some("in_force"));
    assert!(result.entries_deleted.is_some_and(|deleted| deleted >= THRESHOLD as u64), "{ban:?}");
    Ok(story)
}

#[test]
fn the_watch_alone_stops_the_slow_fill_over_ipv4() -> Result<()> {
    stopped(Family::V4, Seer::Watch).map(drop)
}

#[test]
fn the_watch_alone_stops_the_slow_fill_over_ipv6() -> Result<()> {
    stopped(Family::V6, Seer::Watch).map(drop)
}

#[test]
fn a_ban_that_somebody_undoes_is_noticed() -> Result<()> {
    let scenario = Scenario::start(Family::V4, Seer::Watch)?;
    let attack = scenario.slow_fill(FAST)?;
    let story = scenario.follow(&attack, |progress| match progress.news.contains(&Stage::Gone) {
        true => scenario.topology().server.command(&["iptables", "-t", "raw", "-F"]).map(drop),
        false => Ok(()),
    })?;
    let broken: Vec<_> = story.broken().into_iter().map(|finding| finding.claim).collect();
    assert_eq!(broken, ["the attacker's packets no longer arrive", "none of his slots remains"]);
    Ok(())
}

/// What the packaged policy's comment says of living connections: `assured` instead of `socketless`. His sockets are alive and the server's kernel asks after them each second: ban and deletion alone would not free a slot.
fn hoarder_is_thrown_out(family: Family) -> Result<()> {
    let scenario = Scenario::start_by(family, Seer::Watch, Evidence::Assured)?;
    let attack = scenario.hoard(FAST)?;
    proved(&scenario, attack).map(drop)
}

#[test]
fn a_hoarder_of_real_connections_is_thrown_out_over_ipv4() -> Result<()> {
    hoarder_is_thrown_out(Family::V4)
}

#[test]
fn a_hoarder_of_real_connections_is_thrown_out_over_ipv6() -> Result<()> {
    hoarder_is_thrown_out(Family::V6)
}

#[test]
fn prometheus_and_alertmanager_stop_the_slow_fill_over_ipv4_and_people_hear_of_it() -> Result<()> {
    let (scenario, story) = stopped(Family::V4, Seer::Prometheus)?;
    assert!(story.timeline.at(Stage::Webhook).is_some(), "the actioner heard by webhook and by no other way");
    for decision in scenario.decisions()? {
        assert_eq!(decision.origin, "webhook", "{decision:?}");
    }
    people_hear(&scenario)
}

#[test]
fn prometheus_and_alertmanager_stop_the_slow_fill_over_ipv6_and_people_hear_of_it() -> Result<()> {
    let (scenario, _) = stopped(Family::V6, Seer::Prometheus)?;
    people_hear(&scenario)
}

/// Our route says `continue`: what reaches the actioner reaches the team as well, and pages nobody.
fn people_hear(scenario: &Scenario) -> Result<()> {
    let people = &scenario.monitoring().people;
    let source = scenario.attackers().addr().to_string();
    let names = |body: &str| {
        let message: Value = serde_json::from_str(body).unwrap_or_default();
        let alerts = message["alerts"].as_array().cloned().unwrap_or_default();
        let his =
            |alert: &Value| alert["labels"]["alertname"] == ALERT && alert["labels"]["source"] == source;
        alerts.iter().any(his)
    };
    wait_until("people to hear of the attacker", SOON, || {
        let received = people.received();
        match received.iter().any(|one| one.path == "/team" && names(&one.body)) {
            true => Ok(()),
            false => Err(format!("{received:#?}")),
        }
    })?;
    assert!(people.received().iter().all(|one| one.path != "/pager"), "a contained attack wakes nobody");
    Ok(())
}

/// Each address of a flood sends one SYN, as forged ones would: there is nobody whom a ban would hit but the innocent.
fn flood_bans_nobody(family: Family, prefix: &str) -> Result<()> {
    let scenario = Scenario::start_with_many(family, Seer::Both, prefix.parse().expect("a prefix"))?;
    let attacker = &scenario.topology().peer("attacker").namespace;
    let pace = Pace { count: 4000, per_second: 1000, within: Duration::from_secs(40) };
    let flood = syn_flood(attacker, scenario.attackers(), scenario.target(), pace)?;
    let server = &scenario.topology().server;
    let prometheus = &scenario.monitoring().prometheus;
    let half_open = r#"sum(nf_conntrack_state_entries{protocol="tcp", state="syn_recv"}) >= 3000"#;
    wait_until("Prometheus to see three thousand half-open entries", SOON, || {
        match prometheus.query(server, half_open) {
            Ok(series) if !series.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    // Five evaluations and as many looks of the watch later, whoever wanted to act has acted.
    let evaluated = |at_least: f64| {
        let seen = r#"count_over_time(instance:nf_conntrack_half_open_entries:sum[1m])"#;
        wait_until("the rules to be evaluated", SOON, || match prometheus.query(server, seen) {
            Ok(series) if series.first().is_some_and(|(_, count)| *count >= at_least) => Ok(series[0].1),
            other => Err(format!("{other:?}")),
        })
    };
    let now = evaluated(1.0)?;
    evaluated(now + 5.0)?;

    let look = scenario.look()?;
    assert!(look.his >= 3000, "the flood is in the table: {look:?}");
    assert_eq!(look.banned, [], "no source is banned");
    assert_eq!(look.came, look.passed, "and nothing is dropped");
    let banned: Vec<_> = scenario.decisions()?.into_iter().filter(|one| one.verdict == "ban").collect();
    assert!(banned.is_empty(), "{banned:#?}");
    let firing = prometheus.query(server, &format!(r#"ALERTS{{alertname="{ALERT}"}}"#))?;
    assert!(firing.is_empty(), "no source is a hoarder: {firing:?}");
    let tally = flood.finish();
    assert_eq!((tally.made, tally.first_failure), (4000, None));
    let honest = scenario.honest();
    assert_eq!((honest.kept, honest.lost.clone()), (HABITS.keep, Vec::new()), "{honest:?}");
    assert!(honest.opened >= 10, "{honest:?}");
    Ok(())
}

#[test]
fn a_syn_flood_from_many_sources_bans_nobody_over_ipv4() -> Result<()> {
    flood_bans_nobody(Family::V4, "198.18.0.0/15")
}

#[test]
fn a_syn_flood_from_many_sources_bans_nobody_over_ipv6() -> Result<()> {
    flood_bans_nobody(Family::V6, "2001:db8:bad::/48")
}

#[test]
fn the_honest_client_is_not_spared_by_being_small() -> Result<()> {
    // He is listed like the attacker, so the thresholds told them apart and not blindness.
    let scenario = Scenario::start(Family::V4, Seer::Watch)?;
    let honest = scenario.honest_address();
    wait_until("the honest client to be among the sources", SOON, || {
        let look = scenario.look().map_err(|failure| failure.to_string())?;
        let held: BTreeSet<_> = look.sources.iter().filter(|(_, count)| *count >= HABITS.keep).collect();
        if held.iter().any(|(source, _)| *source == honest) { Ok(()) } else { Err(format!("{look:?}")) }
    })
}
