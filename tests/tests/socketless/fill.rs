//! The slow fill of DOMAIN.md 1.

use std::{net::IpAddr, time::Duration};

use conntrack::{Summary, Table, dead::Buried, own::OwnAddresses, summary::Judged};
use tests::{
    Result,
    attack::{self, Pace},
    netns::Namespace,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::{PATIENCE, Verdicts};

const SLOTS: usize = 1000;

/// What a program makes of the verdicts.
fn summary(namespace: &Namespace) -> Summary {
    let verdicts = Verdicts::of(namespace);
    let mut summary = Summary::new();
    verdicts.flows.iter().for_each(|(flow, behind)| summary.add_judged(flow, *behind));
    summary.set_local_apart(&namespace.run(|| OwnAddresses::read().unwrap()));
    summary
}

/// Requests that live, by the tool's account.
fn requests(namespace: &Namespace) -> Result<u64> {
    Ok(namespace.output(&["ss", "-Htn", "state", "syn-recv"])?.lines().count() as u64)
}

#[test]
fn slots_are_deferred_while_their_requests_live_and_then_dead_every_one() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    // Requests are given up after seconds instead of a minute.
    scene.server.sysctl("net/ipv4/tcp_synack_retries", "1")?;
    let attacker = scene.peer("attacker");
    let mut responders = Vec::new();
    for family in [Family::V4, Family::V6] {
        let at = scene.server_socket(family, 80);
        responders.push(Responder::start(&scene.server, at, Accept::Deferred, KeepAlive::Off)?);
        let pace = Pace { count: SLOTS, per_second: u32::MAX, within: PATIENCE };
        let tally =
            attack::slow_fill(&attacker.namespace, vec![attacker.address(family)], at, pace)?.finish();
        assert_eq!(tally.made, SLOTS, "{tally:?}");
    }
    let all = 2 * SLOTS as u64;

    let mut seen_deferred = 0;
    wait_until("every slot to be dead", Duration::from_secs(60), || {
        let summary = summary(&scene.server);
        let alive = requests(&scene.server).map_err(|failure| failure.to_string())?;
        let Some(Judged { socketless, deferred }) = summary.judged else {
            return Err("nothing judged".into());
        };
        seen_deferred = seen_deferred.max(deferred);
        // No request comes any more, so those that live now lived when it was judged.
        assert!(socketless + alive <= all, "{socketless} dead, and {alive} requests live");
        let of = |family| summary.sources.get(attacker.address(family)).map_or(0, |counts| counts.socketless);
        assert_eq!(u64::from(of(Family::V4) + of(Family::V6)), socketless, "counted at their source");
        if socketless == all {
            Ok(())
        } else {
            Err(format!("{socketless} dead, {deferred} deferred of {all}"))
        }
    })?;
    assert!(seen_deferred > 0, "requests that lived were seen");
    assert!(responders.iter().all(|responder| responder.accepted() == 0));

    let dead = Verdicts::of(&scene.server).dead;
    let sources: Vec<IpAddr> = dead.iter().map(|slot| slot.key().source()).collect();
    assert_eq!(sources.iter().filter(|source| **source == IpAddr::V4(attacker.v4)).count(), SLOTS);
    assert_eq!(sources.len(), 2 * SLOTS);
    let buried = scene.server.run(|| Table::open().unwrap().bury(dead.clone()).unwrap());
    assert_eq!(buried, Buried { deleted: all, ..Buried::default() });
    let left = Verdicts::of(&scene.server);
    assert!(left.flows.is_empty(), "left: {:?}", left.flows.first());
    let again = scene.server.run(|| Table::open().unwrap().bury(dead).unwrap());
    assert_eq!(again, Buried { absent: all, ..Buried::default() });
    let none = summary(&scene.server);
    assert!(none.judged.is_none_or(|judged| judged == Judged::default()));
    Ok(())
}
