//! The spoof guard: what could be forged bans nobody, and what could not goes on.

use crate::scene::{Desk, HOARDER, about, ban, flow, forge, now, policy, refusal};
use conntrack::summary::Judged;
use conntrack::{State, Summary, TcpState};
use conntrack_actioner::policy::Policy;
use conntrack_actioner::spared::Flood;
use std::net::Ipv4Addr;

const HIM: &str = "198.51.100.66";

fn desk(policy: Policy) -> Desk {
    let mut desk = Desk::new(policy, &[]);
    let him = HIM.parse().unwrap();
    (0..300).for_each(|_| desk.table.sources.add(him, true, false, true));
    desk.table.judged = Some(Judged { socketless: 300, deferred: 0 });
    desk
}

fn requiring(what: &str) -> Policy {
    policy(&HOARDER.replace("assured: 300", what))
}

#[test]
fn more_than_a_thousand_sources_and_more_than_four_fifths_unreplied() {
    // Forged sources, each with one entry, and answered entries of one other source.
    let shown = |sources: u32, answered: u16| {
        let mut table = Summary::new();
        forge(&mut table, sources);
        for port in 0..answered {
            let (him, us) = (format!("{HIM}:{port}"), "192.0.2.1:80");
            table.add(&flow((&him, us), (us, &him), 0b1110));
        }
        Flood::in_table(&table, false)
    };
    assert!(shown(1001, 0).is_some());
    assert!(shown(1000, 0).is_none(), "a thousand sources are no flood");
    assert!(shown(2000, 499).is_some());
    assert!(shown(2000, 500).is_none(), "four fifths are not more than four fifths");
    let flood = shown(2000, 100).unwrap();
    assert_eq!((flood.sources, flood.unreplied, flood.entries), (2001, 2000, 2100));
    assert_eq!(flood.unreplied_percent(), 95);
}

/// A forged SYN to an open port gets an answer, and the entry a reply.
#[test]
fn handshakes_whose_source_never_ended_them_count() {
    let mut table = Summary::new();
    for host in 0..2000 {
        let (him, us) = (format!("{}:1000", Ipv4Addr::from_bits(0xc612_0000 + host)), "192.0.2.1:80");
        let mut waiting = flow((&him, us), (us, &him), 0b1010);
        waiting.state = State::Tcp(TcpState::SynRecv);
        table.add(&waiting);
    }
    assert_eq!(Flood::in_table(&table, false).map(|flood| flood.unreplied), Some(2000));
}

#[test]
fn what_could_be_forged_bans_nobody_while_it_lasts() {
    for required in ["assured: 300", "entries: 300"] {
        let mut desk = desk(requiring(required));
        ban(&desk.plan(&about(HIM), now(0.0)));
        forge(&mut desk.table, 5000);
        let plan = desk.plan(&about(HIM), now(0.0));
        assert_eq!(refusal(&plan).reason(), "spoofed_flood", "{required}");
        let sentence = refusal(&plan).to_string();
        assert!(sentence.starts_with("5001 sources hold entries of which "), "{sentence}");
    }
}

/// Or a forger could switch bans off. A dead slot needs a complete handshake, whose answer he never sees.
#[test]
fn rules_that_require_dead_slots_go_on() {
    for required in ["socketless: 300", "socketless: 300, entries: 300"] {
        let mut desk = desk(requiring(required));
        forge(&mut desk.table, 5000);
        ban(&desk.plan(&about(HIM), now(0.0)));
        desk.liberal = true;
        assert_eq!(refusal(&desk.plan(&about(HIM), now(0.0))).reason(), "spoofed_flood", "tcp_be_liberal");
    }
}

#[test]
fn a_ban_that_stands_goes_on_standing() {
    let mut desk = desk(requiring("assured: 300"));
    ban(&desk.act(&about(HIM), now(0.0)));
    forge(&mut desk.table, 5000);
    assert!(crate::scene::is_repeat(&desk.plan(&about(HIM), now(1.0))));
}

/// Many honest visitors are no flood: they are answered.
#[test]
fn a_busy_day_is_no_flood() {
    let mut table = Summary::new();
    for host in 0..50_000 {
        let (him, us) = (format!("{}:1000", Ipv4Addr::from_bits(0xc612_0000 + host)), "192.0.2.1:80");
        table.add(&flow((&him, us), (us, &him), 0b1110));
    }
    forge(&mut table, 50_000);
    assert_eq!(Flood::in_table(&table, false), None);
}
