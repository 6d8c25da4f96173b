//! Who is taken for one client.

use std::net::{IpAddr, Ipv6Addr};

use crate::Peer;

/// Whom one client can pretend to be: an IPv4 address, or the /64 of an IPv6 one, out of which he has as many as he likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Neighbourhood(Option<IpAddr>);

impl Neighbourhood {
    pub(crate) fn of(peer: Peer) -> Self {
        Self(match peer {
            Peer::Unix { .. } => None,
            Peer::Tcp(address) => Some(match address.ip().to_canonical() {
                IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).into(),
                four @ IpAddr::V4(_) => four,
            }),
        })
    }

    /// Whether it is this host's own, by the unix socket.
    pub(crate) fn is_here(self) -> bool {
        self.0.is_none()
    }
}
