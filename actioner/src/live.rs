//! Who is connected: established sockets of this host by peer. No evidence, for an attacker can hold sockets too, but what
//! a person wants to know before he lets a rule ban by itself.

use foldhash::fast::RandomState;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

/// `TCP_ESTABLISHED` (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;
/// So many peers are counted, some 3 MiB.
const MOST: usize = 65_536;

/// Established sockets by peer, as one reading found them.
#[derive(Debug, Default)]
pub struct LiveSockets {
    by_peer: HashMap<IpAddr, u32, RandomState>,
    /// There were more peers than are counted.
    clipped: bool,
}

impl LiveSockets {
    /// Counts a socket, if it is established.
    pub(crate) fn add(&mut self, peer: IpAddr, state: u8) {
        if state != ESTABLISHED {
            return;
        }
        let peer = peer.to_canonical();
        let room = self.by_peer.len() < MOST;
        match self.by_peer.get_mut(&peer) {
            Some(count) => *count += 1,
            None if room => drop(self.by_peer.insert(peer, 1)),
            None => self.clipped = true,
        }
    }

    /// How many lead to an address of `net`; None: there are too many peers to tell.
    pub fn with(&self, net: &IpNet) -> Option<u64> {
        let of = |count: &u32| u64::from(*count);
        if net.prefix_len() == net.max_prefix_len() {
            let count = self.by_peer.get(&net.addr()).map(of);
            return if self.clipped { count } else { Some(count.unwrap_or(0)) };
        }
        let peers = self.by_peer.iter().filter(|(peer, _)| net.contains(*peer));
        (!self.clipped).then(|| peers.map(|(_, count)| of(count)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn established_sockets_are_counted_by_peer_and_by_prefix() {
        let mut live = LiveSockets::default();
        for (peer, state) in
            [("198.51.100.7", 1), ("::ffff:198.51.100.7", 1), ("198.51.100.7", 6), ("198.51.100.8", 1)]
        {
            live.add(peer.parse().unwrap(), state);
        }
        let with = |net: &str| live.with(&net.parse().unwrap());
        assert_eq!(
            (with("198.51.100.7/32"), with("198.51.100.0/24"), with("198.51.100.9/32")),
            (Some(2), Some(3), Some(0))
        );
    }
}
