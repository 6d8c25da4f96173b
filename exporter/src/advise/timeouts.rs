//! How long an entry may hold its slot.

use super::facts::Facts;
use super::judgement::{Advice, Topic, Urgency};

pub(super) const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

/// RFC 5382, REQ-5: an established connection is not to be forgotten before 2 hours 4 minutes, so that the keep-alive of two hours that
/// RFC 1122 allows still finds it.
const RFC_5382: u64 = 7440;
/// Time for the first keep-alive probe to arrive.
const PROBE: u64 = 240;
const DAY: u64 = 86_400;
/// A reading takes so long that idle cannot be told from busy in less (`--collector.sockets.grace`).
const GRACE: u64 = 30;

/// The timeout that lets a slow fill succeed.
pub(super) fn established(facts: &Facts) -> Option<Advice> {
    let now = facts.timeouts.tcp_established?;
    let busy = facts.timeouts.tcp_unacknowledged.max(facts.timeouts.tcp_max_retrans).unwrap_or(0);
    let value = RFC_5382.max(facts.keepalive_time.unwrap_or(0).saturating_add(PROBE));
    if now <= busy + GRACE + 1 {
        return Some(too_short(now, busy, value));
    }
    if now <= value {
        return None;
    }
    let urgency = match (now > DAY, facts.listeners.deferring.is_empty()) {
        (true, false) => Urgency::Now,
        (true, true) => Urgency::Should,
        (false, _) => Urgency::Could,
    };
    let advice = Advice::new(urgency, Topic::EstablishedTimeout, format!("An idle connection holds its slot for {}", span(now)))
        .because(format!(
            "Whoever completes a handshake and goes silent holds a slot that long. At 19 connections a minute one host holds {} slots by \
             then; with {value} s, {}. {value} s is {}: connections with keep-alive never notice.",
            slots(now),
            slots(value),
            if value == RFC_5382 {
                "what RFC 5382 asks of NAT (2 h 04 min)".to_owned()
            } else {
                format!("this host's tcp_keepalive_time and {PROBE} s for the answer")
            }
        ))
        .because(format!("What it can break: connections that are silent for longer and have no keep-alive. {}", breaks(facts)))
        .because(format!(
            "Where one service must keep its silent connections, leave this and shorten the others: nft `ct timeout` for their ports \
             (policy = {{ established: {value} }}). Entries that exist keep their old time until their next packet."
        ));
    Some(advice.set(ESTABLISHED, now, value))
}

fn too_short(now: u64, busy: u64, value: u64) -> Advice {
    Advice::new(Urgency::Should, Topic::EstablishedTimeout, "Dead slots cannot be told from busy ones")
        .because(format!(
            "nf_conntrack_tcp_timeout_established is {now} s, and an entry with data on its way has up to {busy} s left: an idle one cannot \
             be told from it, so nf_conntrack_socketless_entries is absent and `delete: socketless` does nothing. Connections that are \
             silent for {now} s lose their entry."
        ))
        .set(ESTABLISHED, now, value)
}

fn breaks(facts: &Facts) -> String {
    let here = match facts.tcp_loose {
        Some(0) => {
            "nf_conntrack_tcp_loose is 0 here, so on this host too their next packet is invalid and they hang"
        }
        _ => {
            "On this host itself nf_conntrack_tcp_loose picks them up again with their next packet, unless a rule drops new connections \
             that do not begin with SYN"
        }
    };
    format!(
        "Behind NAT (masquerade, DNAT, containers) their mapping is gone and they hang: database pools, ssh without ServerAliveInterval, \
         message queues. {here}."
    )
}

/// The other timeouts, where they are longer than the kernel's own; that of half-open entries more strictly once the table was full.
pub(super) fn others(facts: &Facts) -> Option<Advice> {
    let was_full = facts.counters.is_some_and(|counters| counters.early_drop > 0);
    let timeouts = facts.timeouts;
    let known = [
        (
            "net.netfilter.nf_conntrack_tcp_timeout_syn_recv",
            timeouts.tcp_syn_recv,
            if was_full { 30 } else { 60 },
        ),
        ("net.netfilter.nf_conntrack_tcp_timeout_syn_sent", timeouts.tcp_syn_sent, 120),
        ("net.netfilter.nf_conntrack_tcp_timeout_fin_wait", timeouts.tcp_fin_wait, 120),
        ("net.netfilter.nf_conntrack_tcp_timeout_close_wait", timeouts.tcp_close_wait, 60),
        ("net.netfilter.nf_conntrack_tcp_timeout_last_ack", timeouts.tcp_last_ack, 30),
        ("net.netfilter.nf_conntrack_tcp_timeout_time_wait", timeouts.tcp_time_wait, 120),
        ("net.netfilter.nf_conntrack_tcp_timeout_close", timeouts.tcp_close, 10),
        ("net.netfilter.nf_conntrack_tcp_timeout_max_retrans", timeouts.tcp_max_retrans, 300),
        ("net.netfilter.nf_conntrack_tcp_timeout_unacknowledged", timeouts.tcp_unacknowledged, 300),
        ("net.netfilter.nf_conntrack_udp_timeout", timeouts.udp, 30),
        // 180 before Linux 5.0.
        ("net.netfilter.nf_conntrack_udp_timeout_stream", timeouts.udp_stream, 180),
        ("net.netfilter.nf_conntrack_icmp_timeout", timeouts.icmp, 30),
        ("net.netfilter.nf_conntrack_icmpv6_timeout", timeouts.icmpv6, 30),
        ("net.netfilter.nf_conntrack_generic_timeout", timeouts.generic, 600),
    ];
    let longer: Vec<_> = known
        .into_iter()
        .filter_map(|(key, now, value)| now.filter(|now| *now > value).map(|now| (key, now, value)))
        .collect();
    let only_syn_recv = matches!(longer[..], [(_, now, 30)] if now <= 60);
    let (urgency, title) = match longer.len() {
        0 => return None,
        1 if only_syn_recv => (Urgency::Could, "Half-open entries can go sooner".to_owned()),
        1 => (Urgency::Should, "A timeout is longer than Linux has it".to_owned()),
        count => (Urgency::Should, format!("{count} timeouts are longer than Linux has them")),
    };
    let mut advice = Advice::new(urgency, Topic::OtherTimeouts, title).because(
        "Each second is a second more that anybody's packet holds a slot, and for half-open, UDP and ICMP entries its sender can be \
         forged. If somebody raised them for an application, a `ct timeout` policy for its port does the same for it alone.",
    );
    if was_full && timeouts.tcp_syn_recv > Some(30) {
        advice = advice.because(
            "syn_recv: this table has been full. 30 s still leave a client on a bad line time for its last ACK, and halve what a SYN flood holds.",
        );
    }
    advice.settings.extend(longer.into_iter().map(|(key, now, value)| super::judgement::Setting {
        key,
        now,
        value,
    }));
    Some(advice)
}

/// What one attacker of the article holds in the end.
fn slots(seconds: u64) -> u64 {
    seconds * 19 / 60
}

/// For people.
pub(super) fn span(seconds: u64) -> String {
    let unit =
        |count: u64, unit: &str| if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") };
    match seconds {
        DAY.. if seconds.is_multiple_of(DAY) => unit(seconds / DAY, "day"),
        3600.. if seconds.is_multiple_of(3600) => unit(seconds / 3600, "hour"),
        7200.. => format!("{:.1} hours", seconds as f64 / 3600.0),
        60.. if seconds.is_multiple_of(60) => unit(seconds / 60, "minute"),
        _ => unit(seconds, "second"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::facts::Timeouts;
    use crate::advise::facts::tests::as_it_comes;

    fn with(seconds: u64) -> Facts {
        let came = as_it_comes();
        Facts { timeouts: Timeouts { tcp_established: Some(seconds), ..came.timeouts }, ..came }
    }

    #[test]
    fn five_days_become_what_keep_alive_needs() {
        let value = |facts: &Facts| established(facts).map(|advice| advice.settings[0].value);
        assert_eq!(value(&with(432_000)), Some(7440));
        assert_eq!(value(&with(7440)), None);
        assert_eq!(value(&with(3600)), None, "shorter has its reason");
        assert_eq!(value(&with(330)), Some(7440), "too short to judge");
        let late = Facts { keepalive_time: Some(14_400), ..with(432_000) };
        assert_eq!(value(&late), Some(14_640), "its keep-alive comes later");
        let never = Facts { keepalive_time: Some(1 << 40), ..with(432_000) };
        assert_eq!(value(&never), None, "not raised");
    }

    #[test]
    fn it_says_what_breaks_here() {
        let why = |facts: &Facts| established(facts).unwrap().why.join("\n");
        let as_comes = why(&with(432_000));
        assert!(
            as_comes.contains("holds 136800 slots") && as_comes.contains("with 7440 s, 2356"),
            "{as_comes}"
        );
        assert!(as_comes.contains("picks them up again"), "{as_comes}");
        assert!(why(&Facts { tcp_loose: Some(0), ..with(432_000) }).contains("they hang"));
        assert!(established(&with(432_000)).unwrap().title.contains("5 days"));
    }

    #[test]
    fn other_timeouts_are_judged_by_the_kernels_own() {
        assert_eq!(others(&as_it_comes()), None);
        let came = as_it_comes();
        let raised =
            Facts { timeouts: Timeouts { udp: Some(300), tcp_syn_recv: Some(61), ..came.timeouts }, ..came };
        let advice = others(&raised).unwrap();
        let set: Vec<_> = advice.settings.iter().map(|setting| (setting.key, setting.value)).collect();
        let expected = [
            ("net.netfilter.nf_conntrack_tcp_timeout_syn_recv", 60),
            ("net.netfilter.nf_conntrack_udp_timeout", 30),
        ];
        assert_eq!((advice.urgency, set), (Urgency::Should, expected.to_vec()));
    }

    #[test]
    fn spans_are_read_aloud() {
        let spans = [
            (432_000, "5 days"),
            (86_400, "1 day"),
            (7440, "2.1 hours"),
            (3600, "1 hour"),
            (90, "90 seconds"),
        ];
        for (seconds, text) in spans {
            assert_eq!(span(seconds), text);
        }
    }
}
