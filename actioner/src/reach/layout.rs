//! Which rules keep ports reachable: pure. Two chains of our own in `raw` and two in `filter`, and one jump to each.
//!
//! For remote peers a packet must go untracked on its way in (PREROUTING, to the port) and out (OUTPUT, from the port); over
//! loopback OUTPUT sees both directions, and PREROUTING none that was not marked there. Untracked packets miss
//! `ct state established`, so they have accepts of their own, for these ports and peers alone and only while untracked; and as
//! the table knows no such connection, the ICMP errors about it are INVALID: path MTU discovery needs them accepted (DOMAIN.md, 5).

use crate::firewall::Family;
use ipnet::IpNet;

/// Marks a rule as ours.
pub(super) const COMMENT: &str = "-m comment --comment \"conntrack-guard: keep reachable\"";
/// The most that one `multiport` matches (XT_MULTI_PORTS).
const MOST_PORTS: usize = 15;
const UNTRACKED: &str = "-m conntrack --ctstate UNTRACKED";

/// Where the jump to a chain of ours stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before whatever could drop what is not in the table.
    First,
    /// Anywhere: `CT --notrack` is no verdict, so a ban's drop rule is asked whether it stands before or behind.
    Anywhere,
}

/// One chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) table: &'static str,
    /// The kernel's chain that jumps to it.
    pub(super) base: &'static str,
    pub(super) name: String,
    pub(super) place: Place,
    /// What follows `-A NAME`. None: the chain is not to be there.
    pub(super) rules: Vec<String>,
}

impl Chain {
    /// What follows `-A BASE`.
    pub(super) fn jump(&self) -> String {
        format!("{COMMENT} -j {}", self.name)
    }
}

/// The chains of a family, in the order in which they are put in: accepts first, so that no packet that goes untracked
/// meets a filter that does not know it.
pub(super) fn chains(family: Family, set: &str, ports: &[u16], from: &[IpNet]) -> [Chain; 4] {
    let nets: Vec<&IpNet> = from.iter().filter(|net| Family::of(net) == family).collect();
    let (mut accept_in, mut accept_out) = (Vec::new(), Vec::new());
    let (mut untrack_in, mut untrack_out) = (Vec::new(), Vec::new());
    for ports in ports.chunks(MOST_PORTS) {
        let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let to = format!("-p tcp -m multiport --dports {list}");
        let answer = format!("-p tcp -m multiport --sports {list}");
        for net in &nets {
            untrack_in.push(format!("-s {net} {to} -m addrtype --dst-type LOCAL {COMMENT} -j CT --notrack"));
            untrack_out.push(format!("-d {net} {answer} {COMMENT} -j CT --notrack"));
            untrack_out.push(format!("-s {net} -o lo {to} {COMMENT} -j CT --notrack"));
            accept_in.push(format!("-s {net} {to} {UNTRACKED} {COMMENT} -j ACCEPT"));
            accept_in.push(format!("-d {net} -i lo {answer} {UNTRACKED} {COMMENT} -j ACCEPT"));
            accept_out.push(format!("-d {net} {answer} {UNTRACKED} {COMMENT} -j ACCEPT"));
            accept_out.push(format!("-s {net} -o lo {to} {UNTRACKED} {COMMENT} -j ACCEPT"));
        }
    }
    if !accept_in.is_empty() {
        accept_in.push(format!(
            "{} -m conntrack --ctstate INVALID,UNTRACKED {COMMENT} -j ACCEPT",
            icmp_error(family)
        ));
    }
    let chain = |table, base, end: &str, place, rules| Chain {
        table,
        base,
        name: format!("{set}-{end}"),
        place,
        rules,
    };
    [
        chain("filter", "INPUT", "in", Place::First, accept_in),
        chain("filter", "OUTPUT", "out", Place::First, accept_out),
        chain("raw", "PREROUTING", "in", Place::Anywhere, untrack_in),
        chain("raw", "OUTPUT", "out", Place::Anywhere, untrack_out),
    ]
}

/// Destination unreachable, which holds "fragmentation needed"; packet too big.
fn icmp_error(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "-p icmp -m icmp --icmp-type 3",
        Family::Ipv6 => "-p ipv6-icmp -m icmp6 --icmpv6-type 2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets() -> Vec<IpNet> {
        ["127.0.0.0/8", "10.0.0.0/8", "fc00::/7"].map(|net| net.parse().unwrap()).to_vec()
    }

    #[test]
    fn a_rule_covers_no_more_than_ports_peers_and_this_host() {
        let [accept_in, accept_out, untrack_in, untrack_out] =
            chains(Family::Ipv4, "g", &[22, 10049], &nets());
        for rule in [&accept_in, &accept_out, &untrack_in, &untrack_out].into_iter().flat_map(|c| &c.rules) {
            let icmp = rule.starts_with("-p icmp ");
            let named = rule.contains(" --dports 22,10049 ") || rule.contains(" --sports 22,10049 ");
            assert!(icmp || named && rule.contains("0.0.0/8 "), "{rule}");
            assert!(rule.contains("notrack") || rule.contains("UNTRACKED"), "{rule}");
            assert!(rule.contains("conntrack-guard: keep reachable"), "{rule}");
            assert!(!rule.contains("fc00"), "{rule}");
        }
        assert!(untrack_in.rules.iter().all(|rule| rule.contains("--dst-type LOCAL")), "not what we forward");
        assert_eq!((accept_in.rules.len(), untrack_in.rules.len(), untrack_out.rules.len()), (5, 2, 4));
    }

    #[test]
    fn accepts_are_put_in_before_anything_goes_untracked() {
        let tables = chains(Family::Ipv6, "g", &[22], &nets()).map(|chain| chain.table);
        assert_eq!(tables, ["filter", "filter", "raw", "raw"]);
    }

    #[test]
    fn a_family_without_peers_or_ports_has_no_rule() {
        for chain in chains(Family::Ipv6, "g", &[22], &nets()[..2]) {
            assert!(chain.rules.is_empty(), "{chain:?}");
        }
        assert!(chains(Family::Ipv4, "g", &[], &nets()).iter().all(|chain| chain.rules.is_empty()));
    }

    #[test]
    fn many_ports_are_several_rules() {
        let ports: Vec<u16> = (1..=31).collect();
        let [_, _, untrack_in, _] = chains(Family::Ipv4, "g", &ports, &nets());
        assert_eq!(untrack_in.rules.len(), 6, "three rules for each of two networks");
    }
}
