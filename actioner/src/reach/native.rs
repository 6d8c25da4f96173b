//! Rules that somebody else keeps in nftables itself, by what `nft -s -t list ruleset` prints: no rule of ours can accept what
//! they drop, and they may translate ports. Pure, and rather one port refused too many.

use crate::firewall::Family;

/// Why a port cannot be kept reachable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Objection {
    /// This table would drop untracked packets.
    Drops(String),
    /// This rule translates the port.
    Translates(String),
}

/// The first objection to this port. `shown` are the tables of the family's own that `iptables-save` shows, and so are none of these.
pub(super) fn objection(ruleset: &str, family: Family, port: u16, shown: &[&str]) -> Option<Objection> {
    let concerned = tables(ruleset).into_iter().filter(|(name, _)| concerns(name, family, shown));
    concerned.into_iter().find_map(|(name, lines)| {
        let rule = lines.iter().find(|line| translates(line, port));
        rule.map(|rule| Objection::Translates(format!("{rule} ({name})")))
            .or_else(|| drops_untracked(&lines).then(|| Objection::Drops(name.to_owned())))
    })
}

/// Tables with their lines.
fn tables(ruleset: &str) -> Vec<(&str, Vec<&str>)> {
    let mut tables: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in ruleset.lines() {
        if line.starts_with("table ") {
            tables.push((line.trim_end_matches([' ', '{']), Vec::new()));
        } else if let Some((_, lines)) = tables.last_mut() {
            lines.push(line.trim());
        }
    }
    tables
}

fn concerns(table: &str, family: Family, shown: &[&str]) -> bool {
    let mut words = table.split_whitespace().skip(1);
    let (of, name) = (words.next(), words.next().unwrap_or_default());
    match of {
        Some("inet") => true,
        Some("ip") => family == Family::Ipv4 && !shown.contains(&name),
        Some("ip6") => family == Family::Ipv6 && !shown.contains(&name),
        _ => false,
    }
}

/// A filter that knows connections by their state, and has no word for those without one.
fn drops_untracked(lines: &[&str]) -> bool {
    let any = |wanted: &dyn Fn(&str) -> bool| lines.iter().any(|line| wanted(line));
    let hooked = any(&|line| line.contains("hook input") || line.contains("hook output"));
    let drops = any(&|line| line.contains("drop") || line.contains("reject"));
    let by_state = any(&|line| line.contains("established"));
    hooked && drops && by_state && !any(&|line| line.contains("untracked") && line.contains("accept"))
}

fn translates(line: &str, port: u16) -> bool {
    let mut words = line.split_whitespace();
    let nat = words.any(|word| matches!(word, "redirect" | "dnat"));
    let other_protocol = ["udp ", "sctp ", "icmp "].iter().any(|other| line.contains(other));
    if !nat || other_protocol && !line.contains("tcp") {
        return false;
    }
    let to = line.rsplit_once(" to ").and_then(|(_, to)| to.split_whitespace().next()?.rsplit_once(':'));
    let into = to.is_some_and(|(_, ports)| has(ports, port));
    let matched = line.split_once("tcp dport ").is_none_or(|(_, rest)| match rest.strip_prefix('{') {
        Some(list) => list.split('}').next().unwrap_or_default().split(',').any(|item| has(item, port)),
        None => has(rest.split_whitespace().next().unwrap_or_default(), port),
    });
    into || matched
}

/// What cannot be read has every port.
fn has(item: &str, port: u16) -> bool {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&port),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: &str = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\
        \t\tct state { established, related } accept\n\t\ttcp dport 22 accept\n\t}\n}\n";

    #[test]
    fn a_filter_by_state_must_know_untracked_packets() {
        let drops = Some(Objection::Drops("table inet filter".to_owned()));
        assert_eq!(objection(FILTER, Family::Ipv4, 22, &[]), drops);
        assert_eq!(objection(FILTER, Family::Ipv6, 22, &[]), drops);
        let taught = FILTER.replace("tcp dport 22 accept", "tcp dport 22 ct state new,untracked accept");
        assert_eq!(objection(&taught, Family::Ipv4, 22, &[]), None);
        let banning = "table inet f2b {\n\tchain x {\n\t\ttype filter hook input priority -1; policy accept;\n\t\tip saddr @bad reject\n\t}\n}\n";
        assert_eq!(objection(banning, Family::Ipv4, 22, &[]), None);
        let of_ip = FILTER.replace("inet", "ip");
        assert_eq!(objection(&of_ip, Family::Ipv4, 22, &["filter"]), None, "iptables wrote it");
        assert!(objection(&of_ip, Family::Ipv4, 22, &["nat"]).is_some());
        assert_eq!(objection(&FILTER.replace("inet", "ip6"), Family::Ipv4, 22, &[]), None);
    }

    #[test]
    fn translated_ports_are_found() {
        let nat = |rule: &str| {
            format!(
                "table ip nat {{\n\tchain p {{\n\t\ttype nat hook prerouting priority dstnat;\n\t\t{rule}\n\t}}\n}}\n"
            )
        };
        let refused = |rule: &str, port| {
            matches!(objection(&nat(rule), Family::Ipv4, port, &[]), Some(Objection::Translates(_)))
        };
        let redirect = "tcp dport 80 counter packets 0 bytes 0 redirect to :8080";
        assert!(refused(redirect, 80) && refused(redirect, 8080) && !refused(redirect, 22));
        let several = "tcp dport { 80, 90-100 } dnat to 10.0.0.1:22";
        assert!(refused(several, 95) && !refused(several, 23));
        assert!(refused(several, 22), "whose address that is, is not asked");
        assert!(!refused("udp dport 53 redirect to :22", 22));
        assert!(refused("dnat to tcp dport map { 80 : 10.0.0.1 }", 22), "not understood");
        assert!(!refused("masquerade", 22));
    }
}
