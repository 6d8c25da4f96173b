//! What makes an attack easier, timeouts and sizes aside.

use std::fmt::Write;

use super::facts::Facts;
use super::judgement::{Advice, Topic, Urgency};

const SYNACK_RETRIES: &str = "net.ipv4.tcp_synack_retries";
/// Bytes of an entry in a dump, and what two options add to each (DOMAIN.md 2, measured).
const DUMPED: u64 = 238;
const ACCT: u64 = 56;
const TIMESTAMP: u64 = 16;
const DAY: u64 = 86_400;

/// Listeners that let a silent client in and forget him.
pub(super) fn deferring(facts: &Facts) -> Option<Advice> {
    let listeners = &facts.listeners.deferring;
    if listeners.is_empty() {
        return None;
    }
    let established = facts.timeouts.tcp_established.unwrap_or(0);
    let urgency = if established > DAY { Urgency::Now } else { Urgency::Could };
    let mut list = String::new();
    for listener in listeners {
        let _ = write!(list, " {} ({}, process {});", listener.address, listener.program, listener.pid);
    }
    let list = list.trim_end_matches(';');
    let advice = Advice::new(urgency, Topic::DeferringListeners, "Listeners that wait for data (TCP_DEFER_ACCEPT)")
        .because(format!(
            "Found:{list}. A client that completes the handshake and says nothing is never handed to the program: the kernel keeps a \
             request for {} and then forgets it, without FIN or RST. The table keeps its entry, ESTABLISHED and ASSURED, for {}, and no \
             socket stands behind it. No log has a line of it, netstat shows nothing, and no rate alarm fires: this is how a handful of \
             hosts fills a table.",
            super::timeouts::span(deferred_lives(facts, facts.synack_retries.unwrap_or(5))),
            super::timeouts::span(established)
        ))
        .because(
            "Without it, a silent client's socket belongs to the program, whose own timeout closes it (Apache: mod_reqtimeout, nginx: \
             client_header_timeout), and the entry goes with it. It costs a worker for so long: with event-driven servers nothing. If you \
             keep it: the short established timeout below, and dead slots deleted by conntrack-actioner (`delete: socketless`), which \
             harms nobody.",
        )
        .step("Apache: AcceptFilter http none and AcceptFilter https none, then restart (a reload keeps the socket).")
        .step("nginx: take `deferred` out of `listen`. HAProxy: take `defer-accept` out of `bind`. Others: TCP_DEFER_ACCEPT, TCPDeferAcceptSec.");
    Some(advice)
}

/// Listeners that were not looked at are said, or silence would read as "there are none".
pub(super) fn not_asked(facts: &Facts) -> Option<Advice> {
    let listeners = &facts.listeners;
    let why = listeners.why.as_ref()?;
    let title = match listeners.not_asked.len() {
        0 => "Listeners are not known".to_owned(),
        count => format!(
            "{count} of {} listeners could not be asked for TCP_DEFER_ACCEPT",
            count + listeners.asked
        ),
    };
    let mut names = String::new();
    for address in listeners.not_asked.iter().take(10) {
        let _ = write!(names, " {address}");
    }
    let which = if names.is_empty() { String::new() } else { format!("Not asked:{names}. ") };
    Some(Advice::new(Urgency::Could, Topic::ListenersNotAsked, title).because(format!(
        "{which}{why}. A listener with that option is how a slow fill begins, so it is worth knowing."
    )))
}

/// How often the SYN-ACK is repeated: as long does a request hold on.
pub(super) fn synack_retries(facts: &Facts) -> Option<Advice> {
    let now = facts.synack_retries?;
    let deferring = !facts.listeners.deferring.is_empty();
    let value = if deferring { 3 } else { 5 };
    if now <= value {
        return None;
    }
    let (before, after) = (deferred_lives(facts, now), deferred_lives(facts, value));
    let (urgency, deferred) = match (deferring, after < before) {
        (false, _) => (Urgency::Could, String::new()),
        (true, true) => (
            Urgency::Should,
            format!(
                " Those that wait at a deferring listener go after {after} s instead of {before} s, and then their slots are dead for \
                 all to see."
            ),
        ),
        (true, false) => (
            Urgency::Could,
            format!(
                " Those that wait at a deferring listener stay {before} s all the same: TCP_DEFER_ACCEPT itself keeps them so long."
            ),
        ),
    };
    let advice = Advice::new(urgency, Topic::SynackRetries, format!("A half-open request waits {} s for its client", request(now)))
        .because(format!(
            "The kernel repeats its SYN-ACK {now} times; {value} times are {} s.{deferred} A client whose line loses every packet for {} s \
             would have to connect again.",
            request(value),
            request(value)
        ));
    Some(advice.set(SYNACK_RETRIES, now, value))
}

/// Packets outside the window.
pub(super) fn liberal(facts: &Facts) -> Option<Advice> {
    let now = facts.tcp_be_liberal.filter(|liberal| *liberal != 0)?;
    let advice = Advice::new(Urgency::Should, Topic::BeLiberal, "Anybody can forge established entries")
        .because(
            "With tcp_be_liberal packets outside the window count as valid, so a sender who sees no answer can make ESTABLISHED ASSURED \
             entries in anybody's name (100 of 100 forged; none with 0). They are never evicted early, and ASSURED proves nothing about a \
             source any more: do not let conntrack-actioner ban on `assured` here.",
        )
        .because(
            "It may have been set for a reason: asymmetric routes, where this host sees one direction only, and some Kubernetes and Docker \
             Swarm set-ups (resets of long connections). There 0 makes such packets invalid.",
        );
    Some(advice.set("net.netfilter.nf_conntrack_tcp_be_liberal", now, 0))
}

/// Picking up in the middle of a stream.
pub(super) fn loose(facts: &Facts) -> Option<Advice> {
    let now = facts.tcp_loose.filter(|loose| *loose == 0)?;
    let advice = Advice::new(Urgency::Could, Topic::Loose, "A living connection without its entry is lost")
        .because(
            "With tcp_loose = 0 a connection whose entry is gone (evicted, expired, deleted after a ban, after a change of timeouts) cannot \
             go on: 0 of 3 survived, 20 of 20 with 1. It is the stricter choice, and right where only SYNPROXY may open connections.",
        );
    Some(advice.set("net.netfilter.nf_conntrack_tcp_loose", now, 1))
}

/// What makes entries larger and dumps slower.
pub(super) fn accounting(facts: &Facts) -> Option<Advice> {
    let acct = facts.acct.filter(|on| *on != 0);
    let timestamp = facts.timestamp.filter(|on| *on != 0);
    let more = acct.map_or(0, |_| ACCT) + timestamp.map_or(0, |_| TIMESTAMP);
    if more == 0 {
        return None;
    }
    let advice = Advice::new(Urgency::Could, Topic::Accounting, "Entries carry counters that nothing here reads").because(format!(
        "They add {more} bytes to each entry of a dump ({DUMPED} without), so every scrape and every look of the actioner takes that much \
         longer, and memory to each entry. Neither program uses them. Keep them if something else does (conntrack -L with bytes, conntrackd, \
         flow accounting). Entries that exist keep theirs."
    ));
    let advice = match acct {
        Some(now) => advice.set("net.netfilter.nf_conntrack_acct", now, 0),
        None => advice,
    };
    Some(match timestamp {
        Some(now) => advice.set("net.netfilter.nf_conntrack_timestamp", now, 0),
        None => advice,
    })
}

/// How long a silent client's request lives at a deferring listener, in seconds, if the SYN-ACK is repeated so often: as long as the longer
/// of the two says (`syn_ack_recalc`; measured on 6.18).
fn deferred_lives(facts: &Facts, retries: u64) -> u64 {
    let periods =
        facts.listeners.deferring.iter().map(|listener| periods(listener.seconds)).max().unwrap_or(0);
    request(retries.max(periods))
}

/// The kernel keeps TCP_DEFER_ACCEPT as a number of timeouts and tells it in seconds: 1, 3, 7, 15, 31, 63 (`retrans_to_secs`).
fn periods(seconds: i32) -> u64 {
    (1..=255).find(|periods| request(periods - 1) >= seconds.max(0).unsigned_abs().into()).unwrap_or(255)
}

/// The first timeout is a second, each next twice as long up to two minutes (`reqsk_timer_handler`, `TCP_RTO_MAX`).
fn request(retries: u64) -> u64 {
    (0..=retries.min(255)).map(|retry| (1u64 << retry.min(7)).min(120)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::facts::tests::as_it_comes;
    use crate::advise::listeners::{Deferring, Listeners};

    #[test]
    fn a_request_lives_as_long_as_its_retries() {
        assert_eq!([0, 1, 3, 5, 7, 8].map(request), [1, 3, 15, 63, 247, 367]);
    }

    #[test]
    fn a_deferred_request_lives_as_long_as_the_longer_of_two_options_says() {
        assert_eq!([1, 3, 7, 15, 31, 63].map(periods), [1, 2, 3, 4, 5, 6]);
        let with = |seconds, retries| {
            let listener =
                Deferring { address: "0.0.0.0:80".parse().unwrap(), seconds, program: "x".into(), pid: 1 };
            let listeners = Listeners { deferring: vec![listener], ..Listeners::default() };
            deferred_lives(&Facts { listeners, ..as_it_comes() }, retries)
        };
        // As measured on 6.18.
        assert_eq!([with(3, 1), with(31, 1), with(31, 3), with(3, 5), with(1, 3)], [7, 63, 63, 63, 15]);
        let apache =
            Deferring { address: "0.0.0.0:80".parse().unwrap(), seconds: 31, program: "x".into(), pid: 1 };
        let listeners = Listeners { deferring: vec![apache], ..Listeners::default() };
        let why = synack_retries(&Facts { listeners, ..as_it_comes() }).unwrap().why.join(" ");
        assert!(why.contains("stay 63 s all the same"), "{why}");
    }

    #[test]
    fn a_deferring_listener_is_named_with_what_it_means() {
        let listener = Deferring {
            address: "[::]:80".parse().unwrap(),
            seconds: 31,
            program: "apache2".into(),
            pid: 812,
        };
        let listeners = Listeners { deferring: vec![listener], asked: 1, ..Listeners::default() };
        let advice = deferring(&Facts { listeners, ..as_it_comes() }).unwrap();
        let why = &advice.why[0];
        assert!(why.contains("[::]:80 (apache2, process 812)"), "{why}");
        assert!(why.contains("for 63 seconds") && why.contains("for 5 days"), "{why}");
        assert!(advice.steps[0].contains("AcceptFilter"));
    }

    #[test]
    fn silence_about_listeners_is_not_taken_for_none() {
        let unseen = Listeners {
            asked: 2,
            not_asked: vec!["0.0.0.0:22".parse().unwrap()],
            why: Some("not permitted".into()),
            ..Listeners::default()
        };
        let advice = not_asked(&Facts { listeners: unseen, ..as_it_comes() }).unwrap();
        assert!(advice.title.starts_with("1 of 3 listeners"), "{advice:?}");
        assert!(
            advice.why[0].contains("0.0.0.0:22") && advice.why[0].contains("not permitted"),
            "{advice:?}"
        );
    }

    #[test]
    fn each_option_costs_its_own_bytes() {
        let with = |acct, timestamp| Facts { acct: Some(acct), timestamp: Some(timestamp), ..as_it_comes() };
        assert_eq!(accounting(&with(0, 0)), None);
        for (facts, bytes, settings) in [(with(1, 0), "56", 1), (with(0, 1), "16", 1), (with(1, 1), "72", 2)]
        {
            let advice = accounting(&facts).unwrap();
            assert!(advice.why[0].contains(&format!("add {bytes} bytes")), "{advice:?}");
            assert_eq!(advice.settings.len(), settings);
        }
    }
}
