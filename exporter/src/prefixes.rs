//! Sources summed up by prefix: an attacker with a network shows here, where each of his addresses hides. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use conntrack::summary::SourceCounts;
use foldhash::fast::RandomState;
use ipnet::IpNet;

use crate::rank::Top;

/// What a prefix holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrefixCounts {
    /// The network; its length is that of the flags.
    pub(crate) prefix: IpNet,
    /// Entries of all its sources.
    pub(crate) entries: u64,
    /// Its distinct sources.
    pub(crate) sources: u64,
}

/// How long the prefixes are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    /// 0 to 32.
    pub(crate) ipv4: u8,
    /// 0 to 128.
    pub(crate) ipv6: u8,
}

/// The `top` prefixes by entries, of equals the lower ones, in the order of their addresses.
pub(crate) fn prefixes(
    sources: impl Iterator<Item = (IpAddr, SourceCounts)>,
    lengths: Lengths,
    top: usize,
) -> Vec<PrefixCounts> {
    // Seeded: the keys are the attacker's to choose.
    let mut sums: HashMap<IpNet, (u64, u64), RandomState> = HashMap::default();
    for (source, counts) in sources {
        let length = if source.is_ipv4() { lengths.ipv4 } else { lengths.ipv6 };
        let Ok(net) = IpNet::new(source, length) else { continue };
        let sum = sums.entry(net.trunc()).or_default();
        sum.0 += u64::from(counts.entries);
        sum.1 += 1;
    }
    let mut largest = Top::new(top);
    sums.iter().for_each(|(prefix, (entries, _))| largest.offer(*entries, *prefix));
    let counts = |prefix: IpNet| {
        let (entries, sources) = sums[&prefix];
        PrefixCounts { prefix, entries, sources }
    };
    let mut largest: Vec<_> = largest.into_keys().map(counts).collect();
    largest.sort_unstable_by_key(|counts| counts.prefix);
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(source: &str, entries: u32) -> (IpAddr, SourceCounts) {
        (source.parse().unwrap(), SourceCounts { entries, ..SourceCounts::default() })
    }

    #[test]
    fn addresses_of_a_network_are_one() {
        let sources = [
            held("198.51.100.1", 30),
            held("198.51.100.200", 40),
            held("203.0.113.9", 60),
            held("192.0.2.1", 1),
            held("2001:db8:0:1::1", 50),
            held("2001:db8:0:1:ffff::1", 20),
        ];
        let found = prefixes(sources.into_iter(), Lengths { ipv4: 24, ipv6: 64 }, 3);
        let found: Vec<_> = found.iter().map(|p| (p.prefix.to_string(), p.entries, p.sources)).collect();
        let expected = [("198.51.100.0/24", 70, 2), ("203.0.113.0/24", 60, 1), ("2001:db8:0:1::/64", 70, 2)];
        assert_eq!(found, expected.map(|(prefix, entries, sources)| (prefix.to_owned(), entries, sources)));
    }

    #[test]
    fn the_widest_and_the_narrowest_length_work() {
        let sources = [held("198.51.100.1", 3), held("203.0.113.9", 4), held("::1", 5)];
        let all = prefixes(sources.into_iter(), Lengths { ipv4: 0, ipv6: 0 }, 9);
        assert_eq!(all.iter().map(|p| (p.entries, p.sources)).collect::<Vec<_>>(), [(7, 2), (5, 1)]);
        assert_eq!(prefixes(sources.into_iter(), Lengths { ipv4: 32, ipv6: 128 }, 9).len(), 3);
    }
}
