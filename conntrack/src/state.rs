//! The states that entries are counted by, with the kernel's words in lower case.

use crate::flow::{Protocol, Status};

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in the order of its discriminant.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// The word used in labels.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
    };
}

states! {
    /// `enum tcp_conntrack` of `nf_conntrack_tcp.h`. SYN_SENT2 is a simultaneous open.
    TcpState {
        /// `TCP_CONNTRACK_NONE`.
        None = "none",
        /// A SYN was seen.
        SynSent = "syn_sent",
        /// A SYN-ACK was seen.
        SynRecv = "syn_recv",
        /// The handshake is complete.
        Established = "established",
        /// A FIN was seen.
        FinWait = "fin_wait",
        /// The FIN was acknowledged.
        CloseWait = "close_wait",
        /// The second FIN was seen.
        LastAck = "last_ack",
        /// Both FINs were acknowledged.
        TimeWait = "time_wait",
        /// A RST was seen.
        Close = "close",
        /// A SYN from each side.
        SynSent2 = "syn_sent2",
        /// A number that this version does not know.
        Unknown = "unknown",
    }
}

states! {
    /// `enum sctp_conntrack` of `nf_conntrack_sctp.h`.
    SctpState {
        /// `SCTP_CONNTRACK_NONE`.
        None = "none",
        /// Closed.
        Closed = "closed",
        /// INIT was seen.
        CookieWait = "cookie_wait",
        /// COOKIE-ECHO was seen.
        CookieEchoed = "cookie_echoed",
        /// Established.
        Established = "established",
        /// SHUTDOWN was sent.
        ShutdownSent = "shutdown_sent",
        /// SHUTDOWN was received.
        ShutdownRecd = "shutdown_recd",
        /// SHUTDOWN-ACK was sent.
        ShutdownAckSent = "shutdown_ack_sent",
        /// A HEARTBEAT on a new path.
        HeartbeatSent = "heartbeat_sent",
        /// That HEARTBEAT's answer (gone in newer kernels).
        HeartbeatAcked = "heartbeat_acked",
        /// A number that this version does not know.
        Unknown = "unknown",
    }
}

states! {
    /// The protocols that entries are counted by. A closed list: the attacker chooses the numbers.
    ProtocolName {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// UDP-Lite.
        UdpLite = "udplite",
        /// ICMP.
        Icmp = "icmp",
        /// ICMPv6.
        Icmpv6 = "icmpv6",
        /// SCTP.
        Sctp = "sctp",
        /// DCCP.
        Dccp = "dccp",
        /// GRE.
        Gre = "gre",
        /// Any other number.
        Other = "other",
    }
}

impl ProtocolName {
    /// The name of a protocol number.
    #[inline]
    pub fn of(protocol: Protocol) -> ProtocolName {
        match protocol.0 {
            6 => ProtocolName::Tcp,
            17 => ProtocolName::Udp,
            136 => ProtocolName::UdpLite,
            1 => ProtocolName::Icmp,
            58 => ProtocolName::Icmpv6,
            132 => ProtocolName::Sctp,
            33 => ProtocolName::Dccp,
            47 => ProtocolName::Gre,
            _ => ProtocolName::Other,
        }
    }

    /// The states its entries can be in, so that a metric can show the zeros.
    pub fn states(self) -> impl Iterator<Item = State> {
        let tcp = TcpState::ALL.iter().filter(|s| **s != TcpState::Unknown).map(|s| State::Tcp(*s));
        let sctp = SctpState::ALL.iter().filter(|s| **s != SctpState::Unknown).map(|s| State::Sctp(*s));
        let other = [State::Unreplied, State::Replied, State::Assured];
        let (tcp, sctp, other): (Option<_>, Option<_>, Option<_>) = match self {
            ProtocolName::Tcp => (Some(tcp), None, None),
            ProtocolName::Sctp => (None, Some(sctp), None),
            _ => (None, None, Some(other)),
        };
        tcp.into_iter()
            .flatten()
            .chain(sctp.into_iter().flatten())
            .chain(other.into_iter().flatten())
            .chain([State::Offload])
    }
}

/// The state an entry is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// A TCP entry's.
    Tcp(TcpState),
    /// An SCTP entry's.
    Sctp(SctpState),
    /// Any other protocol: no packet came back.
    Unreplied,
    /// Any other protocol: a packet came back.
    Replied,
    /// Any other protocol: not to be evicted early.
    Assured,
    /// In a flow table: the kernel shows neither state nor timeout.
    Offload,
}

impl State {
    /// How many values [`State::index`] has.
    pub const COUNT: usize = 11 + 11 + 4;

    /// The state of an entry without a protocol state of its own: from its status bits.
    pub fn of_status(status: Status) -> State {
        if status.assured() {
            State::Assured
        } else if status.seen_reply() {
            State::Replied
        } else {
            State::Unreplied
        }
    }

    /// The word used in labels.
    pub fn name(self) -> &'static str {
        match self {
            State::Tcp(state) => state.name(),
            State::Sctp(state) => state.name(),
            State::Unreplied => "unreplied",
            State::Replied => "replied",
            State::Assured => "assured",
            State::Offload => "offload",
        }
    }

    /// A place in an array of [`State::COUNT`].
    #[inline]
    pub fn index(self) -> usize {
        match self {
            State::Tcp(state) => state as usize,
            State::Sctp(state) => 11 + state as usize,
            State::Unreplied => 22,
            State::Replied => 23,
            State::Assured => 24,
            State::Offload => 25,
        }
    }

    /// SYN_SENT, SYN_SENT2, SYN_RECV: a handshake that is not complete.
    #[inline]
    pub fn half_open(self) -> bool {
        matches!(self, State::Tcp(TcpState::SynSent | TcpState::SynSent2 | TcpState::SynRecv))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_place_of_its_own() {
        let mut seen = [false; State::COUNT];
        let tcp = TcpState::ALL.iter().map(|s| State::Tcp(*s));
        let sctp = SctpState::ALL.iter().map(|s| State::Sctp(*s));
        for state in tcp.chain(sctp).chain([State::Unreplied, State::Replied, State::Assured, State::Offload])
        {
            assert!(!std::mem::replace(&mut seen[state.index()], true), "{state:?}");
        }
        assert!(seen.iter().all(|place| *place));
    }
}
