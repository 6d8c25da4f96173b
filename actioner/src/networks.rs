//! Which of many banned networks an address or an entry belongs to: asked a million times for a dump.

use conntrack::Flow;
use foldhash::fast::RandomState;
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::IpAddr;

/// Networks, asked for each entry: hosts by hash, the few wider ones one by one.
#[derive(Debug)]
pub(crate) struct Networks {
    hosts: HashSet<IpAddr, RandomState>,
    hint: Hint,
    wider: Vec<IpNet>,
}

/// A bit for each host among 65,536: a million entries are asked for both ends, and nearly all of them are nobody's. It fits a
/// first-level cache. Addresses chosen to share a bit cost the look-up that it saves, and nothing else.
#[derive(Debug)]
struct Hint(Box<[u64; 1024]>);

impl Hint {
    fn of(hosts: &[IpNet]) -> Hint {
        let mut hint = Hint(Box::new([0; 1024]));
        for host in hosts {
            let (word, bit) = Hint::place(host.addr());
            hint.0[word] |= bit;
        }
        hint
    }

    #[inline]
    fn place(address: IpAddr) -> (usize, u64) {
        let bits = match address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h] = address.segments().map(u32::from);
                (a ^ c ^ e ^ g) << 16 | (b ^ d ^ f ^ h)
            }
        };
        let place = bits.wrapping_mul(0x9e37_79b1) >> 16;
        (place as usize / 64, 1 << (place % 64))
    }

    #[inline]
    fn may_hold(&self, address: IpAddr) -> bool {
        let (word, bit) = Hint::place(address);
        self.0[word] & bit != 0
    }
}

impl Networks {
    pub(crate) fn of(nets: impl Iterator<Item = IpNet>) -> Networks {
        let (hosts, wider): (Vec<IpNet>, _) = nets.partition(|net| net.prefix_len() == net.max_prefix_len());
        Networks { hint: Hint::of(&hosts), hosts: hosts.iter().map(IpNet::addr).collect(), wider }
    }

    #[inline]
    pub(crate) fn of_address(&self, address: IpAddr) -> Option<IpNet> {
        let address = address.to_canonical();
        if self.hint.may_hold(address) && self.hosts.contains(&address) {
            return Some(address.into());
        }
        self.wider.iter().find(|net| net.contains(&address)).copied()
    }

    pub(crate) fn of_flow(&self, flow: &Flow) -> Option<IpNet> {
        let ends = [flow.original.src, flow.original.dst];
        let answers = [flow.reply.dst, flow.reply.src];
        let of = |addresses: [IpAddr; 2]| addresses.into_iter().find_map(|address| self.of_address(address));
        of(ends).or_else(|| if ends == answers { None } else { of(answers) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..200_000).prop_map(|bits| IpAddr::V4((bits * 77).into())),
            (0u128..200_000).prop_map(|bits| IpAddr::V6((bits << 64 | bits).into())),
        ]
    }

    proptest! {
        #[test]
        fn a_host_is_found_and_nobody_else(hosts in proptest::collection::vec(address(), 0..300), others in proptest::collection::vec(address(), 0..300)) {
            let networks = Networks::of(hosts.iter().map(|host| IpNet::from(host.to_canonical())));
            for address in hosts.iter().chain(&others) {
                let found = networks.of_address(*address).map(|net| net.addr());
                prop_assert_eq!(found, hosts.contains(address).then(|| address.to_canonical()));
            }
        }
    }
}
