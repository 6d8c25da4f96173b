//! The spoof guard: a table full of sources that never answer says that somebody forges addresses. Then entries prove
//! nothing about the source that stands in them, and a ban would hit whomever the forger chose.
//!
//! A forged SYN to an open port is answered, by us: its entry has a reply and is in SYN_RECV. It counts like one without,
//! for its source has said nothing more.

use crate::policy::Rule;
use conntrack::summary::Mark;
use conntrack::{Family, ProtocolName, State, Summary, TcpState};
use serde::{Deserialize, Serialize};

/// More distinct sources than this …
const SOURCES: u64 = 1000;
/// … and more entries than this many of a hundred that nobody answered, or whose source never answered us.
const UNREPLIED_PERCENT: u64 = 80;

/// A flood of forged sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flood {
    /// Distinct remote sources.
    pub sources: u64,
    /// Entries without a reply, and handshakes of which the source never sent the end.
    pub unreplied: u64,
    /// All entries.
    pub entries: u64,
    /// `nf_conntrack_tcp_be_liberal`: with it an established entry can be forged without seeing our answers (100 of 100;
    /// without it 0: DOMAIN.md, 1).
    pub liberal: bool,
}

impl Flood {
    /// Whether that is what the table shows, this host's own entries set apart from its sources.
    pub fn in_table(summary: &Summary, liberal: bool) -> Option<Flood> {
        let (sources, entries) = (summary.sources.distinct(), summary.entries);
        let waiting = |family| summary.in_state(family, ProtocolName::Tcp, State::Tcp(TcpState::SynRecv));
        let unreplied = summary.marked_in_all(Mark::Unreplied) + Family::ALL.map(waiting).iter().sum::<u64>();
        let flood = sources > SOURCES && unreplied * 100 > entries * UNREPLIED_PERCENT;
        flood.then_some(Flood { sources, unreplied, entries, liberal })
    }

    /// Whether what a rule requires could be the forger's work. A socketless entry needs a complete handshake, whose answer
    /// he never sees: rules that ask for it go on, or a forger could switch them off.
    pub fn could_forge(&self, rule: &Rule) -> bool {
        self.liberal || rule.require.source.socketless.is_none()
    }

    /// Unreplied entries of a hundred.
    pub fn unreplied_percent(&self) -> u64 {
        self.unreplied * 100 / self.entries.max(1)
    }
}
