//! Whom this host called, told from an entry and from who waits on which port.

use crate::scene::{flow, host};
use conntrack::listeners::Listeners;
use conntrack::{Flow, L4, Protocol};
use conntrack_actioner::spared::called_by;

const ASSURED: u32 = 0b1110;
const UNASSURED: u32 = 0b1010;

fn called(flow: &Flow) -> Vec<String> {
    let listeners = Listeners::of([80, 8080], [53]);
    let found = called_by(flow, &host().own, &listeners);
    found.into_iter().flatten().map(|address| address.to_string()).collect()
}

#[test]
fn an_assured_entry_from_a_port_that_nobody_waits_on() {
    let (us, db) = ("192.0.2.1:40000", "198.51.100.7:5432");
    assert_eq!(called(&flow((us, db), (db, us), ASSURED)), ["198.51.100.7", "198.51.100.7"]);
    assert_eq!(called(&flow((us, db), (db, us), UNASSURED)), [""; 0], "a question without an answer");
    assert_eq!(called(&flow((db, us), (us, db), ASSURED)), [""; 0], "he called us");
    let (us, db) = ("[2001:db8::1]:40000", "[2001:db8:7::7]:5432");
    assert_eq!(called(&flow((us, db), (db, us), ASSURED)), ["2001:db8:7::7", "2001:db8:7::7"]);
    // What answers is behind a translation of our own: both are needed.
    let (us, service, behind) = ("192.0.2.1:40000", "198.51.100.7:80", "203.0.113.9:80");
    assert_eq!(called(&flow((us, service), (behind, us), ASSURED)), ["198.51.100.7", "203.0.113.9"]);
}

/// After a deletion the server's own keep-alives make it the source of an attacker's connection (DOMAIN.md, 3).
#[test]
fn an_entry_that_was_turned_round_buys_nothing() {
    let (service, him) = ("192.0.2.1:80", "198.51.100.66:4000");
    assert_eq!(called(&flow((service, him), (him, service), ASSURED)), [""; 0]);
    let mut dns =
        flow(("192.0.2.1:53", "198.51.100.66:4000"), ("198.51.100.66:4000", "192.0.2.1:53"), ASSURED);
    assert_eq!(called(&dns).len(), 2, "nobody waits on TCP port 53");
    (dns.original.protocol, dns.reply.protocol) = (Protocol::UDP, Protocol::UDP);
    assert_eq!(called(&dns), [""; 0]);
    dns.original.l4 = L4::Ports { src: 40_000, dst: 53 };
    assert_eq!(called(&dns).len(), 2, "we asked him");
}

#[test]
fn what_is_only_forwarded_is_not_ours() {
    let (inside, outside) = ("10.0.0.9:40000", "198.51.100.7:443");
    assert_eq!(called(&flow((inside, outside), (outside, inside), ASSURED)), [""; 0]);
    // Masqueraded as this host: of a turned round service behind us nobody here could tell who waits.
    assert_eq!(called(&flow((inside, outside), (outside, "192.0.2.1:40000"), ASSURED)), [""; 0]);
}
