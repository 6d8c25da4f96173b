//! Entries by state and by mark, as rows for metrics. Pure.

use conntrack::summary::Mark;
use conntrack::{Family, ProtocolName, SctpState, State, Summary, TcpState};

const PROTOCOLS: usize = ProtocolName::ALL.len();

/// The protocols that are shown, zeros included: those that every host has, and those seen since the program began. A series
/// that comes and goes with its last entry breaks rates and alerts.
#[derive(Debug, Clone)]
pub(crate) struct Seen([[bool; PROTOCOLS]; Family::ALL.len()]);

impl Default for Seen {
    fn default() -> Seen {
        let mut seen = Seen([[false; PROTOCOLS]; Family::ALL.len()]);
        for family in Family::ALL {
            let icmp = match family {
                Family::Ipv4 => ProtocolName::Icmp,
                Family::Ipv6 => ProtocolName::Icmpv6,
            };
            for protocol in [ProtocolName::Tcp, ProtocolName::Udp, icmp] {
                seen.0[family.index()][protocol as usize] = true;
            }
        }
        seen
    }
}

/// Entries of one family, protocol and state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateRow {
    pub(crate) family: Family,
    pub(crate) protocol: ProtocolName,
    pub(crate) state: State,
    pub(crate) entries: u64,
}

/// Entries of one family and protocol, by mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MarkRow {
    pub(crate) family: Family,
    pub(crate) protocol: ProtocolName,
    /// In the order of [`Mark::ALL`].
    pub(crate) entries: [u64; Mark::ALL.len()],
}

/// What the collector `flows` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flows {
    /// Every entry of the dump is in exactly one.
    pub(crate) states: Vec<StateRow>,
    /// An entry can have several marks, or none.
    pub(crate) marks: Vec<MarkRow>,
}

impl Flows {
    /// Reads a summary, and notes the protocols that it holds.
    pub(crate) fn of(summary: &Summary, seen: &mut Seen) -> Flows {
        let (mut states, mut marks) = (Vec::new(), Vec::new());
        for family in Family::ALL {
            for protocol in ProtocolName::ALL.iter().copied() {
                let seen = &mut seen.0[family.index()][protocol as usize];
                *seen |= summary.has(family, protocol);
                if !*seen {
                    continue;
                }
                for state in every_state() {
                    let entries = summary.in_state(family, protocol, state);
                    if entries > 0 || protocol.states().any(|known| known == state) {
                        states.push(StateRow { family, protocol, state, entries });
                    }
                }
                let entries = Mark::ALL.map(|mark| summary.marked(family, protocol, mark));
                marks.push(MarkRow { family, protocol, entries });
            }
        }
        Flows { states, marks }
    }
}

/// Whatever an entry can be counted under, the unknown ones included: the sum over them is the dump.
fn every_state() -> impl Iterator<Item = State> {
    let tcp = TcpState::ALL.iter().map(|state| State::Tcp(*state));
    let sctp = SctpState::ALL.iter().map(|state| State::Sctp(*state));
    tcp.chain(sctp).chain([State::Unreplied, State::Replied, State::Assured, State::Offload])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, flow};
    use conntrack::Protocol;

    #[test]
    fn an_empty_table_shows_the_zeros_of_what_every_host_has() {
        let flows = Flows::of(&Summary::new(), &mut Seen::default());
        let row = |family, protocol, state| {
            flows
                .states
                .iter()
                .any(|row| (row.family, row.protocol, row.state, row.entries) == (family, protocol, state, 0))
        };
        assert!(row(Family::Ipv4, ProtocolName::Tcp, State::Tcp(TcpState::SynRecv)));
        assert!(row(Family::Ipv6, ProtocolName::Icmpv6, State::Unreplied));
        assert!(row(Family::Ipv6, ProtocolName::Udp, State::Offload));
        assert!(!flows.states.iter().any(|row| row.protocol == ProtocolName::Sctp));
        assert!(!flows.states.iter().any(|row| row.state == State::Tcp(TcpState::Unknown)));
        assert_eq!(flows.marks.len(), 6);
    }

    #[test]
    fn a_protocol_stays_once_seen_and_an_unknown_state_is_not_lost() {
        let mut seen = Seen::default();
        let mut summary = Summary::new();
        summary.add(&flow(
            [198, 51, 100, 1],
            Protocol(132),
            State::Sctp(SctpState::Unknown),
            sample::ASSURED,
        ));
        let flows = Flows::of(&summary, &mut seen);
        assert_eq!(flows.states.iter().map(|row| row.entries).sum::<u64>(), 1);
        assert_eq!(flows.marks.iter().map(|row| row.entries[Mark::Assured as usize]).sum::<u64>(), 1);
        let flows = Flows::of(&Summary::new(), &mut seen);
        let sctp: Vec<_> = flows.states.iter().filter(|row| row.protocol == ProtocolName::Sctp).collect();
        assert_eq!(sctp.len(), SctpState::ALL.len(), "its ten states and offload");
        assert!(sctp.iter().all(|row| row.entries == 0));
    }
}
