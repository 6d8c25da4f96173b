//! This host's addresses and its gateways, from the routes of all tables.
//!
//! "Own" is what the kernel delivers locally: RTN_LOCAL routes. An AnyIP `local 192.0.2.0/24 dev lo` accepts connections
//! and is in no `ip addr`.

use crate::link::{Channel, Error, Link};
use crate::netlink::{Attributes, Malformed, NLM_F_DUMP, Requests};
use foldhash::fast::RandomState;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
pub(crate) const RTM_NEWNEXTHOP: u16 = 104;
const RTM_GETNEXTHOP: u16 = 106;
const RTMSG: usize = 12;
/// The bits before the IPv4 address in `::ffff:a.b.c.d`.
const MAPPED: u8 = 96;
/// `struct nhmsg`.
const NHMSG: usize = 8;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
const NHA_GATEWAY: u16 = 6;
pub(crate) const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTNH: usize = 8;
/// What is read while routes change is read again, so often at most.
const READINGS: usize = 3;
const ASKED: &str = "the routes of this host";

/// The addresses that belong to this host, and those it sends through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// As [`bits`], which are hashed in one step: each entry of a dump asks.
    hosts: HashSet<u128, RandomState>,
    wider: Vec<IpNet>,
    broadcasts: BTreeSet<IpAddr>,
    gateways: BTreeSet<IpAddr>,
}

impl OwnAddresses {
    /// Reads them in the calling thread's namespace. Errors: see [`Error`].
    pub fn read() -> Result<OwnAddresses, Error> {
        OwnAddresses::read_over(&mut Link::open(Channel::Route, ASKED)?)
    }

    /// Reads them in the namespace that the link was opened in.
    pub(crate) fn read_over(link: &mut Link) -> Result<OwnAddresses, Error> {
        let mut own = OwnAddresses::default();
        for _ in 0..READINGS {
            // Both readings count: what is spared for a while too long does no harm.
            if !own.read_routes(link)? {
                break;
            }
        }
        own.read_next_hops(link)?;
        Ok(own)
    }

    /// The routes of all tables. Returns whether they changed meanwhile, so that some may be missing.
    fn read_routes(&mut self, link: &mut Link) -> Result<bool, Error> {
        let mut interrupted = false;
        for family in [AF_INET, AF_INET6] {
            let sequence = link.next_sequence();
            let mut request = Requests::new();
            request.message(RTM_GETROUTE, NLM_F_DUMP, sequence, |r| {
                let mut rtmsg = [0; RTMSG];
                rtmsg[0] = family;
                r.raw(&rtmsg);
            });
            let read = |message: crate::netlink::Message<'_>| match message.kind {
                RTM_NEWROUTE => self.route(message.payload),
                _ => Ok(()),
            };
            match link.ask(&request, ASKED, read, || ()) {
                // A kernel without IPv6 has no such routes.
                Err(Error::Refused { .. }) if family == AF_INET6 => {}
                other => interrupted |= other?.interrupted,
            }
        }
        Ok(interrupted)
    }

    /// Nexthop objects: with `net.ipv4.nexthop_compat_mode=0` a route only names one, and does not show its gateway.
    fn read_next_hops(&mut self, link: &mut Link) -> Result<(), Error> {
        let sequence = link.next_sequence();
        let mut request = Requests::new();
        request.message(RTM_GETNEXTHOP, NLM_F_DUMP, sequence, |r| r.raw(&[0; NHMSG]));
        let read = |message: crate::netlink::Message<'_>| match message.kind {
            RTM_NEWNEXTHOP => self.next_hop_object(message.payload),
            _ => Ok(()),
        };
        match link.ask(&request, ASKED, read, || ()) {
            // Kernels before 5.3 have none.
            Err(Error::Refused { .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes in what another list holds.
    pub(crate) fn merge(&mut self, more: OwnAddresses) {
        self.hosts.extend(more.hosts);
        more.wider.into_iter().for_each(|net| self.add(net));
        self.broadcasts.extend(more.broadcasts);
        self.gateways.extend(more.gateways);
    }

    /// Whether everything in `other` is in this list.
    pub(crate) fn includes(&self, other: &OwnAddresses) -> bool {
        other.hosts.is_subset(&self.hosts)
            && other.wider.iter().all(|net| self.wider.contains(net))
            && other.broadcasts.is_subset(&self.broadcasts)
            && other.gateways.is_subset(&self.gateways)
    }

    /// Whether packets to `address` are delivered on this host. `::ffff:a.b.c.d` is a.b.c.d.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        // Family by family: ipnet's own for both copies each network.
        let within = |net: &IpNet| match (net, address) {
            (IpNet::V4(net), IpAddr::V4(address)) => net.contains(&address),
            (IpNet::V6(net), IpAddr::V6(address)) => net.contains(&address),
            _ => false,
        };
        self.hosts.contains(&bits(address)) || self.wider.iter().any(within)
    }

    /// Whether any own address lies in `net`.
    pub fn touches(&self, net: &IpNet) -> Option<IpAddr> {
        let host = self.hosts().find(|host| net.contains(host));
        host.or_else(|| {
            self.wider.iter().find(|own| own.contains(net) || net.contains(*own)).map(IpNet::network)
        })
    }

    /// The next hops of all routes.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.gateways.iter().copied()
    }

    /// The broadcast addresses of this host's networks.
    pub fn broadcasts(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.broadcasts.iter().copied()
    }

    /// The own addresses that are single hosts.
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.hosts.iter().map(|bits| Ipv6Addr::from_bits(*bits).to_canonical())
    }

    /// A list made by hand, for tests and for hosts that know better.
    pub fn of(
        own: impl IntoIterator<Item = IpNet>,
        gateways: impl IntoIterator<Item = IpAddr>,
    ) -> OwnAddresses {
        let mut addresses =
            OwnAddresses { gateways: gateways.into_iter().collect(), ..OwnAddresses::default() };
        own.into_iter().for_each(|net| addresses.add(net));
        addresses
    }

    fn add(&mut self, net: IpNet) {
        if net.prefix_len() == net.max_prefix_len() {
            self.hosts.insert(bits(net.addr()));
        } else if !self.wider.contains(&net) {
            self.wider.push(net);
        }
    }

    pub(crate) fn route(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let (rtmsg, attributes) =
            payload.split_first_chunk::<RTMSG>().ok_or(Malformed("a route shorter than its rtmsg"))?;
        let (family, prefix, kind) = (rtmsg[0], rtmsg[1], rtmsg[7]);
        let (mut destination, mut mapped) = (None, false);
        for attribute in Attributes(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                RTA_DST => {
                    destination = address(family, attribute.value);
                    mapped = family == AF_INET6 && destination.is_some_and(|address| address.is_ipv4());
                }
                RTA_GATEWAY => self.gateways.extend(address(family, attribute.value)),
                RTA_VIA => self.gateways.extend(via(attribute.value)),
                RTA_MULTIPATH => self.next_hops(family, attribute.value)?,
                _ => {}
            }
        }
        let prefix = match (mapped, prefix.checked_sub(MAPPED)) {
            (false, _) => prefix,
            (true, Some(prefix)) => prefix,
            // Wider than all of IPv4, of which it cannot make this host the owner.
            (true, None) => return Ok(()),
        };
        match (kind, destination) {
            (RTN_LOCAL, Some(IpAddr::V4(address))) => self.add(four(address, prefix)?),
            (RTN_LOCAL, Some(IpAddr::V6(address))) => self.add(six(address, prefix)?),
            (RTN_BROADCAST, Some(address)) => drop(self.broadcasts.insert(address)),
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn next_hop_object(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let (nhmsg, attributes) =
            payload.split_first_chunk::<NHMSG>().ok_or(Malformed("a nexthop shorter than its nhmsg"))?;
        for attribute in Attributes(attributes) {
            let attribute = attribute?;
            if attribute.kind == NHA_GATEWAY {
                self.gateways.extend(address(nhmsg[0], attribute.value));
            }
        }
        Ok(())
    }

    fn next_hops(&mut self, family: u8, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let Some((header, _)) = bytes.split_first_chunk::<RTNH>() {
            let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            let hop = bytes.get(RTNH..len).ok_or(Malformed("a next hop cut short"))?;
            for attribute in Attributes(hop) {
                let attribute = attribute?;
                match attribute.kind {
                    RTA_GATEWAY => self.gateways.extend(address(family, attribute.value)),
                    RTA_VIA => self.gateways.extend(via(attribute.value)),
                    _ => {}
                }
            }
            bytes = bytes.get((len + 3) & !3..).unwrap_or(&[]);
        }
        Ok(())
    }
}

/// An address as 128 bits; an IPv4 address and its v4-mapped form are the same.
#[inline]
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().to_bits(),
        IpAddr::V6(six) => six.to_bits(),
    }
}

fn four(address: Ipv4Addr, prefix: u8) -> Result<IpNet, Malformed> {
    Ipv4Net::new(address, prefix).map(IpNet::from).map_err(|_| Malformed("a route's prefix length"))
}

fn six(address: Ipv6Addr, prefix: u8) -> Result<IpNet, Malformed> {
    Ipv6Net::new(address, prefix).map(IpNet::from).map_err(|_| Malformed("a route's prefix length"))
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => bytes.first_chunk::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets))),
        _ => bytes.first_chunk::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets)).to_canonical()),
    }
}

/// `struct rtvia`: an address of another family than the route's (RFC 5549).
fn via(bytes: &[u8]) -> Option<IpAddr> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    address(u16::from_ne_bytes(*family) as u8, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_ours_without_being_told() {
        let own = OwnAddresses::read().unwrap();
        assert!(own.contains("127.0.0.1".parse().unwrap()));
        assert!(own.contains("127.9.9.9".parse().unwrap()), "the local route is 127.0.0.0/8");
        assert!(own.contains("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!own.contains("203.0.113.9".parse().unwrap()));
    }

    #[test]
    fn a_prefix_that_holds_an_own_address_is_found_out() {
        let own = OwnAddresses::of(["192.0.2.1/32".parse().unwrap(), "198.51.100.0/24".parse().unwrap()], []);
        assert!(own.touches(&"192.0.2.0/24".parse().unwrap()).is_some());
        assert!(own.touches(&"198.51.100.7/32".parse().unwrap()).is_some());
        assert!(own.touches(&"198.51.0.0/16".parse().unwrap()).is_some());
        assert!(own.touches(&"192.0.3.0/24".parse().unwrap()).is_none());
    }

    #[test]
    fn a_route_to_mapped_addresses_is_one_to_ipv4_ones() {
        let route = |prefix: u8, destination: &str| {
            let mut request = Requests::new();
            request.raw(&[AF_INET6, prefix, 0, 0, 255, 0, 0, RTN_LOCAL, 0, 0, 0, 0]);
            request.attribute(RTA_DST, &destination.parse::<Ipv6Addr>().unwrap().octets());
            request.attribute(RTA_GATEWAY, &"fe80::1".parse::<Ipv6Addr>().unwrap().octets());
            let mut own = OwnAddresses::default();
            own.route(request.bytes()).map(|()| own)
        };
        let net = |net: &str| net.parse::<IpNet>().unwrap();
        let gateway: [IpAddr; 1] = ["fe80::1".parse().unwrap()];
        let one = route(128, "::ffff:192.0.2.1").unwrap();
        assert_eq!(one, OwnAddresses::of([net("192.0.2.1/32")], gateway));
        let many = route(120, "::ffff:192.0.2.0").unwrap();
        assert_eq!(many, OwnAddresses::of([net("192.0.2.0/24")], gateway));
        for (prefix, destination) in [(80, "::ffff:0.0.0.0"), (0, "::ffff:0.0.0.0")] {
            assert_eq!(route(prefix, destination).unwrap(), OwnAddresses::of([], gateway));
        }
        assert!(route(129, "::ffff:192.0.2.1").is_err());
    }

    #[test]
    fn every_cut_of_a_route_is_an_error_or_less() {
        let mut request = Requests::new();
        request.raw(&[AF_INET, 32, 0, 0, 255, 0, 0, RTN_LOCAL, 0, 0, 0, 0]);
        request.attribute(RTA_DST, &[192, 0, 2, 1]);
        request.attribute(RTA_MULTIPATH, &{
            let mut hop = Requests::new();
            hop.raw(&[16, 0, 0, 0, 0, 0, 0, 0]);
            hop.attribute(RTA_GATEWAY, &[192, 0, 2, 254]);
            hop.bytes().to_vec()
        });
        let mut own = OwnAddresses::default();
        own.route(request.bytes()).unwrap();
        assert!(own.contains("192.0.2.1".parse().unwrap()));
        assert_eq!(own.gateways().collect::<Vec<_>>(), ["192.0.2.254".parse::<IpAddr>().unwrap()]);
        for cut in 0..request.bytes().len() {
            let _ = OwnAddresses::default().route(&request.bytes()[..cut]);
        }
    }
}
