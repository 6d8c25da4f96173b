//! Attacks of single packets from many sources. Bounded in number and in time.
//!
//! No packet is forged: the namespace owns every address of the prefix (see
//! [`Topology::give_prefix`](crate::topology::Topology::give_prefix)) and its sockets bind to them in turn.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

use crate::{
    Result,
    attack::{Attack, Pace, connecting, swallow_goodbyes},
    netns::Namespace,
};

/// One SYN for each attempt, each from the prefix's next address, until it starts again. A socket closed in SYN_SENT
/// says nothing and the server's SYN-ACK is swallowed on arrival (veth delivers it before the socket can be closed),
/// so the entry stays half open. Connections from other addresses of the namespace are not disturbed.
///
/// # Errors
/// When `nft` refuses the rule.
pub fn syn_flood(namespace: &Namespace, sources: IpNet, target: SocketAddr, pace: Pace) -> Result<Attack> {
    swallow_goodbyes(namespace)?;
    let family = if sources.addr().is_ipv4() { "ip" } else { "ip6" };
    namespace.nft(&format!(
        "table inet flood {{\n\
           chain deaf {{\n\
             type filter hook input priority 0;\n\
             {family} daddr {sources} tcp flags & (syn | ack) == syn | ack counter drop\n\
           }}\n\
         }}\n"
    ))?;
    Attack::start(namespace, "SYN flood", pace, move |number| {
        connecting(SocketAddr::new(nth_host(sources, number), 0), target).map(drop)
    })
}

/// One datagram for each attempt, each from the prefix's next address.
///
/// # Errors
/// When the namespace has no thread to give.
pub fn udp_spray(namespace: &Namespace, sources: IpNet, target: SocketAddr, pace: Pace) -> Result<Attack> {
    Attack::start(namespace, "UDP spray", pace, move |number| {
        let socket = UdpSocket::bind((nth_host(sources, number), 0))?;
        socket.send_to(b"spray", target).map(drop)
    })
}

/// The prefix's address of that number, its first (the network) left out, starting again when there are no more.
pub fn nth_host(prefix: IpNet, number: usize) -> IpAddr {
    let host_bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    let hosts = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |all| all.saturating_sub(2).max(1));
    let offset = (number as u128 % hosts) + u128::from(hosts > 1);
    match prefix.network() {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + offset as u32).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + offset).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_in_order_and_start_again() {
        let named = |prefix: &str, number| nth_host(prefix.parse().unwrap(), number).to_string();
        assert_eq!(named("198.18.0.0/15", 0), "198.18.0.1");
        assert_eq!(named("198.18.0.0/15", 131_069), "198.19.255.254");
        assert_eq!(named("198.18.0.0/15", 131_070), "198.18.0.1");
        assert_eq!(named("198.18.0.9/32", 5), "198.18.0.9");
        assert_eq!(named("2001:db8:bad::/48", 65_536), "2001:db8:bad::1:1");
        assert_eq!(named("::/0", 0), "::1");
    }
}
