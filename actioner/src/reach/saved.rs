//! What `iptables-save` prints, compared with what shall stand, and the transaction that makes it so. Pure.

use super::layout::{Chain, Place};
use std::collections::BTreeMap;

/// One table of a listing: its chains, each with its rules in order.
pub(super) type Table<'t> = BTreeMap<&'t str, Vec<&'t str>>;

/// The tables of what `iptables-save` printed.
pub(super) fn tables(text: &str) -> BTreeMap<&str, Table<'_>> {
    let mut tables: BTreeMap<&str, Table<'_>> = BTreeMap::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
            tables.entry(table).or_default();
        } else if let Some(chain) = line.strip_prefix(':').and_then(|line| line.split_whitespace().next()) {
            tables.entry(table).or_default().entry(chain).or_default();
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|line| line.split_once(' ')) {
            tables.entry(table).or_default().entry(chain).or_default().push(rule);
        }
    }
    tables
}

/// The same rule may be printed in another order, with or without quotes.
fn words(rule: &str) -> Vec<String> {
    let mut words: Vec<String> = rule.split_whitespace().map(|word| word.replace('"', "")).collect();
    words.sort_unstable();
    words
}

/// What stands of one chain of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// As it should.
    InPlace,
    /// Nothing of it.
    Absent,
    /// Something else than it should.
    Differs,
}

/// How often the chain's jump stands, and where the first of them does, from 1.
fn jumps(chain: &Chain, table: Option<&Table<'_>>) -> (usize, Option<usize>) {
    let jump = words(&chain.jump());
    let base = table.and_then(|table| table.get(chain.base)).map_or(&[][..], Vec::as_slice);
    let mut found = base.iter().zip(1..).filter(|(rule, _)| words(rule) == jump).map(|(_, place)| place);
    let first = found.next();
    (usize::from(first.is_some()) + found.count(), first)
}

pub(super) fn stand(chain: &Chain, tables: &BTreeMap<&str, Table<'_>>) -> Stand {
    let table = tables.get(chain.table);
    let rules = table.and_then(|table| table.get(chain.name.as_str()));
    let (copies, first) = jumps(chain, table);
    match (rules, copies) {
        (None, 0) if chain.rules.is_empty() => Stand::InPlace,
        (None, 0) => Stand::Absent,
        (Some(rules), 1) if !chain.rules.is_empty() => {
            let same = rules.iter().map(|rule| words(rule)).eq(chain.rules.iter().map(|rule| words(rule)));
            let placed = chain.place == Place::Anywhere || first == Some(1);
            if same && placed { Stand::InPlace } else { Stand::Differs }
        }
        _ => Stand::Differs,
    }
}

/// What makes these chains as they shall be: a transaction for each table, one after the other, in the order given.
pub(super) fn transaction(chains: &[&Chain], tables: &BTreeMap<&str, Table<'_>>) -> String {
    let mut text = String::new();
    for chunk in chains.chunk_by(|one, next| one.table == next.table) {
        let table = tables.get(chunk[0].table);
        text += &format!("*{}\n", chunk[0].table);
        // Declaring a chain makes it, or empties it.
        for chain in chunk {
            text += &format!(":{} - [0:0]\n", chain.name);
        }
        for chain in chunk {
            let (copies, _) = jumps(chain, table);
            for _ in 0..copies {
                text += &format!("-D {} {}\n", chain.base, chain.jump());
            }
            for rule in &chain.rules {
                text += &format!("-A {} {rule}\n", chain.name);
            }
            text += &match (chain.rules.is_empty(), chain.place) {
                (true, _) => format!("-X {}\n", chain.name),
                (false, Place::First) => format!("-I {} 1 {}\n", chain.base, chain.jump()),
                (false, Place::Anywhere) => format!("-A {} {}\n", chain.base, chain.jump()),
            };
        }
        text += "COMMIT\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::layout::chains;
    use super::*;
    use crate::firewall::Family;

    fn wanted(ports: &[u16]) -> [Chain; 4] {
        chains(Family::Ipv4, "g", ports, &["10.0.0.0/8".parse().unwrap()])
    }

    /// As `iptables-save` prints it where these chains stand, behind `before` in INPUT.
    fn printed(chains: &[Chain], before: &str) -> String {
        let mut text = String::new();
        for chain in chains {
            text += &format!("*{}\n:{} - [0:0]\n", chain.table, chain.name);
            text += before;
            text += &format!("-A {} {}\n", chain.base, chain.jump().replace('"', ""));
            for rule in &chain.rules {
                text += &format!("-A {} {rule}\n", chain.name);
            }
            text += "COMMIT\n";
        }
        text
    }

    #[test]
    fn what_stands_is_left_alone() {
        let chains = wanted(&[22]);
        let text = printed(&chains, "");
        assert!(chains.iter().all(|chain| stand(chain, &tables(&text)) == Stand::InPlace));
    }

    #[test]
    fn another_port_or_a_rule_before_ours_is_a_difference() {
        let chains = wanted(&[22]);
        let text = printed(&wanted(&[22, 80]), "");
        assert!(chains.iter().all(|chain| stand(chain, &tables(&text)) == Stand::Differs));
        let text = printed(&chains, "-A INPUT -m conntrack --ctstate INVALID -j DROP\n");
        let stands = chains.each_ref().map(|chain| stand(chain, &tables(&text)));
        assert_eq!(stands, [Stand::Differs, Stand::InPlace, Stand::InPlace, Stand::InPlace]);
        assert_eq!(stand(&chains[0], &tables("")), Stand::Absent);
    }

    #[test]
    fn a_change_takes_out_every_copy_of_the_jump() {
        let [chain, ..] = &wanted(&[22]);
        let text = printed(std::slice::from_ref(chain), "") + &printed(std::slice::from_ref(chain), "");
        let change = transaction(&[chain], &tables(&text));
        assert_eq!(change.matches("-D INPUT").count(), 2, "{change}");
        assert_eq!(change.matches("-I INPUT 1 ").count(), 1, "{change}");
    }

    #[test]
    fn removal_leaves_no_chain() {
        let gone = wanted(&[]);
        let text = printed(&wanted(&[22]), "");
        assert!(gone.iter().all(|chain| stand(chain, &tables(&text)) == Stand::Differs));
        let change = transaction(&gone.each_ref(), &tables(&text));
        assert_eq!((change.matches("-X g-in").count(), change.matches("-X g-out").count()), (2, 2));
        assert!(!change.contains("-A "), "{change}");
        assert!(gone.iter().all(|chain| stand(chain, &tables("")) == Stand::InPlace));
    }
}
