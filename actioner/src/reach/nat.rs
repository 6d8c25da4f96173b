//! Which ports are translated, by what `iptables-save` prints: those must stay tracked, or their connections break. Pure.

use super::saved::Table;
use ipnet::IpNet;
use std::net::IpAddr;

/// Jumps that are followed back; a chain behind more of them is taken for one that everything reaches.
const DEEPEST: u8 = 8;

/// Whether an address is this host's.
pub(super) type IsOurs<'a> = &'a dyn Fn(&IpNet) -> bool;

/// The rule that translates connections to this port of ours, or to another port into this one.
pub(super) fn translating(table: &Table<'_>, port: u16, is_ours: IsOurs<'_>) -> Option<String> {
    let rules = table.iter().flat_map(|(chain, rules)| rules.iter().map(move |rule| (*chain, *rule)));
    rules
        .filter(|(_, rule)| matches!(value(rule, "-j"), Some("REDIRECT" | "DNAT")))
        .find(|(chain, rule)| {
            is_target(rule, port, is_ours)
                || allows(rule, port, is_ours) && reaches(table, chain, port, is_ours, DEEPEST)
        })
        .map(|(chain, rule)| format!("-A {chain} {rule}"))
}

/// Whether a connection to the port can come into this chain.
fn reaches(table: &Table<'_>, chain: &str, port: u16, is_ours: IsOurs<'_>, deep: u8) -> bool {
    if deep == 0 || matches!(chain, "PREROUTING" | "OUTPUT") {
        return true;
    }
    let rules = table.iter().flat_map(|(chain, rules)| rules.iter().map(move |rule| (*chain, *rule)));
    let mut jumps = rules.filter(|(_, rule)| [value(rule, "-j"), value(rule, "-g")].contains(&Some(chain)));
    jumps.any(|(from, rule)| allows(rule, port, is_ours) && reaches(table, from, port, is_ours, deep - 1))
}

/// Whether a rule can match a TCP connection to this port of ours, by protocol, address and port alone.
fn allows(rule: &str, port: u16, is_ours: IsOurs<'_>) -> bool {
    let tcp = match value(rule, "-p") {
        None | Some("tcp" | "all") => true,
        Some(_) => negated(rule, "-p"),
    };
    let ours = value(rule, "-d").and_then(net).is_none_or(|net| negated(rule, "-d") || is_ours(&net));
    let mut ports = ["--dport", "--dports", "--ports"].into_iter();
    let named =
        ports.all(|option| value(rule, option).is_none_or(|list| has(list, port) != negated(rule, option)));
    tcp && ours && named
}

/// Whether the rule translates something into this port of ours.
fn is_target(rule: &str, port: u16, is_ours: IsOurs<'_>) -> bool {
    if let Some(ports) = value(rule, "--to-ports") {
        return has(&ports.replace('-', ":"), port);
    }
    let Some((address, ports)) = value(rule, "--to-destination").and_then(|to| to.rsplit_once(':')) else {
        return false;
    };
    if address.contains(':') && !address.starts_with('[') {
        return false; // an IPv6 address without a port
    }
    let first = address.trim_matches(['[', ']']).split('-').next().unwrap_or_default();
    net(first).is_none_or(|net| is_ours(&net)) && has(&ports.replace('-', ":"), port)
}

fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// The word behind an option.
fn value<'r>(rule: &'r str, option: &str) -> Option<&'r str> {
    let mut words = rule.split_whitespace();
    words.find(|word| *word == option)?;
    words.next()
}

fn negated(rule: &str, option: &str) -> bool {
    rule.contains(&format!("! {option} "))
}

/// Whether `80,90:100` has it. What cannot be read has every port.
fn has(list: &str, port: u16) -> bool {
    list.split(',').any(|item| {
        let (first, last) = item.split_once(':').unwrap_or((item, item));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&port),
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::saved::tables;
    use super::*;

    const OURS: &str = "192.0.2.1";

    fn found(rules: &str, port: u16) -> Option<String> {
        let text = format!("*nat\n{rules}\nCOMMIT\n");
        let is_ours = |net: &IpNet| net.contains(&OURS.parse::<IpAddr>().unwrap());
        translating(&tables(&text)["nat"], port, &is_ours)
    }

    #[test]
    fn both_ends_of_a_redirection_are_refused_and_no_other_port() {
        let rule = "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080";
        assert_eq!(found(rule, 80).as_deref(), Some(rule));
        assert!(found(rule, 8080).is_some() && found(rule, 22).is_none());
        let many = "-A PREROUTING -p tcp -m multiport ! --dports 22,10000:10050 -j REDIRECT --to-ports 9-11";
        assert!(found(many, 10049).is_none() && found(many, 22).is_none());
        assert!(found(many, 443).is_some() && found(many, 10).is_some());
        assert!(found("-A PREROUTING -p udp -m udp --dport 22 -j REDIRECT --to-ports 53", 22).is_none());
        assert!(found("-A PREROUTING -j REDIRECT", 22).is_some(), "every port");
    }

    #[test]
    fn a_container_s_port_is_not_ours() {
        let docker = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
            -A DOCKER ! -i docker0 -p tcp -m tcp --dport 2222 -j DNAT --to-destination 172.17.0.2:22";
        assert!(found(docker, 2222).is_some());
        assert!(found(docker, 22).is_none());
        let to_us = format!("-A PREROUTING -p tcp -m tcp --dport 2222 -j DNAT --to-destination {OURS}:22");
        assert!(found(&to_us, 22).is_some());
    }

    #[test]
    fn a_port_is_followed_back_through_chains() {
        let kube = "-A PREROUTING -j SERVICES\n\
            -A SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j API\n\
            -A SERVICES -j NODEPORTS\n\
            -A NODEPORTS -p tcp -m tcp --dport 30080 -j WEB\n\
            -A API -p tcp -m tcp -j DNAT --to-destination 10.0.0.5:6443\n\
            -A WEB -p tcp -m tcp -j DNAT --to-destination 10.0.0.6:80";
        assert!(found(kube, 30080).is_some());
        for port in [22, 443, 80, 6443] {
            assert_eq!(found(kube, port), None, "{port}");
        }
    }

    #[test]
    fn a_chain_that_leads_to_itself_ends() {
        assert!(found("-A A -j B\n-A B -j A\n-A B -j REDIRECT", 22).is_some(), "rather one refused too many");
    }

    #[test]
    fn an_ipv6_destination_has_brackets_round_it() {
        assert!(found("-A PREROUTING -p tcp --dport 1 -j DNAT --to-destination 2001:db8::22", 22).is_none());
        assert!(found("-A OUTPUT -p tcp --dport 1 -j DNAT --to-destination [2001:db8::1]:22", 22).is_none());
    }
}
