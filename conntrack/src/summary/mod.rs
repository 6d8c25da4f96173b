//! What one dump holds: entries by state, by mark and by source. Pure: fed flow by flow, read afterwards.
//!
//! A *source* is the source address of the original direction. Memory grows with sources, not with entries, and is bounded.

mod shared;
mod sources;

pub use shared::{Counts, Part, Shared};
pub use sources::{SourceCounts, Sources};

use crate::flow::{Family, Flow, Status};
use crate::own::OwnAddresses;
use crate::socketless::Behind;
use crate::state::{ProtocolName, State};

const FAMILIES: usize = Family::ALL.len();
const PROTOCOLS: usize = ProtocolName::ALL.len();

/// Entries with a property that cuts across states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Not to be evicted early.
    Assured,
    /// No packet came back.
    Unreplied,
    /// In a flow table.
    Offload,
    /// The source is rewritten.
    Snat,
    /// The destination is rewritten.
    Dnat,
    /// Expected by a helper.
    Expected,
}

impl Mark {
    /// All of them.
    pub const ALL: [Mark; 6] =
        [Mark::Assured, Mark::Unreplied, Mark::Offload, Mark::Snat, Mark::Dnat, Mark::Expected];

    /// Whether entries of a kind have it.
    fn is_of(self, kind: usize) -> bool {
        let status = Kind::status(kind);
        match self {
            Mark::Assured => status.assured(),
            Mark::Unreplied => !status.seen_reply(),
            Mark::Offload => status.offload(),
            Mark::Snat => status.snat(),
            Mark::Dnat => status.dnat(),
            Mark::Expected => status.expected(),
        }
    }

    /// The word in the metric's name.
    pub fn name(self) -> &'static str {
        match self {
            Mark::Assured => "assured",
            Mark::Unreplied => "unreplied",
            Mark::Offload => "offload",
            Mark::Snat => "snat",
            Mark::Dnat => "dnat",
            Mark::Expected => "expected",
        }
    }
}

/// Entries of the same status bits, as far as these are marks: so that an entry is one addition.
struct Kind;

impl Kind {
    const COUNT: usize = 1 << 6;
    /// Its bits that stand where the kernel has them: expected, seen reply, assured, source and destination NAT.
    const KERNELS: u32 = 0b11_0111;
    /// In a flow table, in software or hardware.
    const OFFLOAD: u32 = 1 << 3;

    #[inline]
    fn of(status: Status) -> usize {
        let offload = if status.offload() { Kind::OFFLOAD } else { 0 };
        (status.0 & Kind::KERNELS | offload) as usize
    }

    fn status(kind: usize) -> Status {
        let bits = kind as u32;
        let offload = if bits & Kind::OFFLOAD != 0 { Status::OFFLOAD } else { 0 };
        Status(bits & Kind::KERNELS | offload)
    }
}

/// What stands behind the established entries of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Judged {
    /// Nothing: dead slots.
    pub socketless: u64,
    /// A request socket of a listener that waits for data (TCP_DEFER_ACCEPT).
    pub deferred: u64,
}

/// What one dump holds.
#[derive(Debug)]
pub struct Summary {
    /// Entries visited.
    pub entries: u64,
    /// Entries whose source is an address of this host. Known after [`Summary::set_local_apart`].
    pub local: u64,
    /// Entries by source.
    pub sources: Sources,
    /// What stands behind the entries; None: not judged, or the judgement does not hold.
    pub judged: Option<Judged>,
    states: [[[u64; State::COUNT]; PROTOCOLS]; FAMILIES],
    kinds: [[[u64; Kind::COUNT]; PROTOCOLS]; FAMILIES],
}

impl Default for Summary {
    fn default() -> Summary {
        Summary::new()
    }
}

impl Summary {
    /// An empty one.
    pub fn new() -> Summary {
        Summary {
            entries: 0,
            local: 0,
            sources: Sources::new(),
            judged: None,
            states: [[[0; State::COUNT]; PROTOCOLS]; FAMILIES],
            kinds: [[[0; Kind::COUNT]; PROTOCOLS]; FAMILIES],
        }
    }

    /// Takes one entry in, with what stands behind it. From the first of these on, the summary counts as judged.
    #[inline]
    pub fn add_judged(&mut self, flow: &Flow, behind: Behind) {
        self.judge(behind);
        self.count(flow, behind == Behind::Nothing);
    }

    #[inline]
    fn judge(&mut self, behind: Behind) {
        let judged = self.judged.get_or_insert_default();
        judged.socketless += u64::from(behind == Behind::Nothing);
        judged.deferred += u64::from(behind == Behind::Request);
    }

    /// Takes one entry in.
    #[inline]
    pub fn add(&mut self, flow: &Flow) {
        self.count(flow, false);
    }

    #[inline]
    fn count(&mut self, flow: &Flow, socketless: bool) {
        self.tally(flow);
        self.sources.add(flow.original.src, flow.status.assured(), flow.state.half_open(), socketless);
    }

    #[inline]
    fn tally(&mut self, flow: &Flow) {
        let protocol = flow.original.protocol.name() as usize;
        let family = flow.family.index();
        self.entries += 1;
        self.states[family][protocol][flow.state.index()] += 1;
        self.kinds[family][protocol][Kind::of(flow.status)] += 1;
    }

    /// All but the sources of another part of the same dump.
    fn plus(&mut self, part: &Summary) {
        self.entries += part.entries;
        if let Some(judged) = part.judged {
            let sum = self.judged.get_or_insert_default();
            sum.socketless += judged.socketless;
            sum.deferred += judged.deferred;
        }
        let states = self.states.as_flattened_mut().as_flattened_mut().iter_mut();
        states.zip(part.states.as_flattened().as_flattened()).for_each(|(sum, part)| *sum += part);
        let kinds = self.kinds.as_flattened_mut().as_flattened_mut().iter_mut();
        kinds.zip(part.kinds.as_flattened().as_flattened()).for_each(|(sum, part)| *sum += part);
    }

    /// Takes the addresses of this host out of the sources and into [`Summary::local`]. Once, after the last entry.
    pub fn set_local_apart(&mut self, own: &OwnAddresses) {
        self.local += self.sources.take_out(|source| own.contains(source));
    }

    /// Entries of a family and protocol in a state.
    pub fn in_state(&self, family: Family, protocol: ProtocolName, state: State) -> u64 {
        self.states[family.index()][protocol as usize][state.index()]
    }

    /// Entries of a family and protocol with a mark.
    pub fn marked(&self, family: Family, protocol: ProtocolName, mark: Mark) -> u64 {
        with(&self.kinds[family.index()][protocol as usize], mark)
    }

    /// Entries with a mark, over all families and protocols.
    pub fn marked_in_all(&self, mark: Mark) -> u64 {
        self.kinds.iter().flatten().map(|kinds| with(kinds, mark)).sum()
    }

    /// TCP handshakes that are not complete, both families.
    pub fn half_open(&self) -> u64 {
        let tcp = |family| {
            let half_open = ProtocolName::Tcp.states().filter(|state| state.half_open());
            half_open.map(|state| self.in_state(family, ProtocolName::Tcp, state)).sum::<u64>()
        };
        Family::ALL.into_iter().map(tcp).sum()
    }

    /// Whether the family and protocol had any entry, so that a metric can leave out those that never appear.
    pub fn has(&self, family: Family, protocol: ProtocolName) -> bool {
        self.states[family.index()][protocol as usize].iter().any(|count| *count > 0)
    }
}

/// Entries of the kinds that have a mark.
fn with(kinds: &[u64], mark: Mark) -> u64 {
    kinds.iter().enumerate().filter(|(kind, _)| mark.is_of(*kind)).map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{L4, Protocol, Tuple, Zone};
    use crate::state::TcpState;

    fn flow(src: &str, state: TcpState, status: u32) -> Flow {
        let src = src.parse().unwrap();
        let dst = "192.0.2.1".parse().unwrap();
        let l4 = L4::Ports { src: 1000, dst: 80 };
        let original = Tuple { src, dst, protocol: Protocol::TCP, l4 };
        let reply = Tuple { src: dst, dst: src, ..original };
        let state = State::Tcp(state);
        Flow {
            family: Family::Ipv4,
            original,
            reply,
            zone: Zone::Both(0),
            status: Status(status),
            state,
            timeout: Some(60),
            id: 1,
            mark: 0,
            counters: None,
            synproxy: false,
            picked_up: false,
        }
    }

    #[test]
    fn each_entry_is_counted_once_by_state_and_once_by_source() {
        let mut summary = Summary::new();
        summary.add(&flow("198.51.100.1", TcpState::Established, 0b110));
        summary.add(&flow("198.51.100.1", TcpState::SynRecv, 0b010));
        summary.add(&flow("198.51.100.2", TcpState::SynSent, 0));
        summary.add(&flow("192.0.2.1", TcpState::Established, 0b110));
        summary.set_local_apart(&OwnAddresses::of(["192.0.2.1/32".parse().unwrap()], []));
        let counts = summary.sources.get("198.51.100.1".parse().unwrap());
        assert_eq!(counts, Some(SourceCounts { entries: 2, assured: 1, half_open: 1, socketless: 0 }));
        assert_eq!((summary.entries, summary.local, summary.half_open()), (4, 1, 2));
        assert_eq!(summary.marked(Family::Ipv4, ProtocolName::Tcp, Mark::Unreplied), 1);
        let mut one_each = Summary::new();
        for (status, marks) in [
            (0b10, &[][..]),
            (0b110, &[Mark::Assured]),
            (0, &[Mark::Unreplied]),
            (1 << 14 | 0b10, &[Mark::Offload]),
            (1 << 15 | 0b110, &[Mark::Offload, Mark::Assured]),
            (0b1_0010, &[Mark::Snat]),
            (0b10_0010, &[Mark::Dnat]),
            (0b11, &[Mark::Expected]),
        ] {
            let before = Mark::ALL.map(|mark| one_each.marked_in_all(mark));
            one_each.add(&flow("198.51.100.1", TcpState::Established, status));
            for (mark, before) in Mark::ALL.into_iter().zip(before) {
                let more = one_each.marked_in_all(mark) - before;
                assert_eq!(more, u64::from(marks.contains(&mark)), "{mark:?} of {status:b}");
            }
        }
        assert_eq!(summary.sources.distinct(), 2);
        let by_source: u64 = summary.sources.iter().map(|(_, c)| u64::from(c.entries)).sum();
        assert_eq!(by_source + summary.local, summary.entries);
        assert_eq!(summary.sources.get("192.0.2.1".parse().unwrap()), Some(SourceCounts::default()));
    }
}
