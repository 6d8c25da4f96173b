//! Who is never banned, whatever an alert or the table says. Pure.

use crate::host::Host;
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::spared::{Called, first_in};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What would be banned for a source: its address with as many leading bits as the rule says.
pub fn ban_prefix(source: IpAddr, ipv4: u8, ipv6: u8) -> IpNet {
    let source = source.to_canonical();
    let bits = if source.is_ipv4() { ipv4 } else { ipv6 };
    IpNet::new(source, bits).map_or_else(|_| IpNet::from(source), |net| net.trunc())
}

/// Whether `net` may be banned at all.
///
/// # Errors
/// The first reason why not, from what is true everywhere to what this policy says.
pub fn may_be_banned(net: IpNet, host: &Host, policy: &Policy) -> Result<(), Refusal> {
    host_spares(net, host)?;
    if let Some(listed) = policy.never_ban.overlap(&net) {
        return Err(Refusal::NeverBan { net, listed });
    }
    let widest = match net {
        IpNet::V4(_) => policy.limits.widest_prefix.ipv4,
        IpNet::V6(_) => policy.limits.widest_prefix.ipv6,
    };
    if net.prefix_len() < widest {
        return Err(Refusal::PrefixTooWide { net, widest });
    }
    Ok(())
}

/// Whether `net` holds an address that no policy may ban: special everywhere, or this host's own, or one it needs or knows.
///
/// # Errors
/// The first reason.
pub fn host_spares(net: IpNet, host: &Host) -> Result<(), Refusal> {
    special(net)?;
    if let Some(own) = host.own.touches(&net) {
        return Err(Refusal::OwnAddress { net, own });
    }
    if host.own.broadcasts().any(|broadcast| net.contains(&broadcast)) {
        return Err(Refusal::Broadcast(net));
    }
    if let Some(gateway) = host.own.gateways().find(|gateway| net.contains(gateway)) {
        return Err(Refusal::Gateway { net, gateway });
    }
    if let Some(resolver) = first_in(&host.spared.resolvers, &net) {
        return Err(Refusal::Resolver { net, resolver });
    }
    if let Some(peer) = first_in(&host.spared.sessions, &net) {
        return Err(Refusal::SshSession { net, peer });
    }
    if let Some(peer) = first_in(&host.spared.webhook_peers, &net) {
        return Err(Refusal::WebhookPeer { net, peer });
    }
    is_called(net, &host.spared.called)
}

fn is_called(net: IpNet, called: &Called) -> Result<(), Refusal> {
    if let Some(peer) = called.outbound_in(&net) {
        return Err(Refusal::Outbound { net, peer, how: "an assured entry leads there" });
    }
    if let Some(peer) = called.peer_in(&net) {
        return Err(Refusal::Outbound { net, peer, how: "by a socket whose local port has no listener" });
    }
    if called.cannot_tell(&net) {
        return Err(Refusal::OutboundUnknown(net));
    }
    Ok(())
}

const fn four(a: u8, b: u8, bits: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), bits))
}

const fn six(first: u16, bits: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), bits))
}

/// RFC 6890's registries, as far as packets can claim to come from there.
fn special(net: IpNet) -> Result<(), Refusal> {
    let touches = |special: IpNet| special.contains(&net) || net.contains(&special);
    let localhost = IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let unspecified = IpNet::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let broadcast = IpNet::from(IpAddr::V4(Ipv4Addr::BROADCAST));
    match () {
        () if touches(four(127, 0, 8)) || touches(localhost) => Err(Refusal::Loopback(net)),
        () if touches(four(0, 0, 8)) || touches(unspecified) => Err(Refusal::Unspecified(net)),
        () if touches(four(169, 254, 16)) || touches(six(0xfe80, 10)) => Err(Refusal::LinkLocal(net)),
        () if touches(four(224, 0, 4)) || touches(six(0xff00, 8)) => Err(Refusal::Multicast(net)),
        () if touches(broadcast) => Err(Refusal::Broadcast(net)),
        () => Ok(()),
    }
}
