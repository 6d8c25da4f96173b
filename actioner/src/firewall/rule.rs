//! The drop rule in raw PREROUTING, through `iptables` and `ip6tables`.
//!
//! Every change is one `iptables-restore --noflush` transaction. It fails as a whole when another program changed the
//! rules in between, so that two starts at once leave one rule, and no moment is without one that was there before.

use super::{Family, FirewallError, Rule, tool::run};

const COMMENT: &str = "conntrack-guard: drop banned sources";
const TRIES: usize = 8;

struct Tools {
    show: &'static str,
    restore: &'static str,
}

const IPV4: Tools = Tools { show: "iptables", restore: "iptables-restore" };
const IPV6: Tools = Tools { show: "ip6tables", restore: "ip6tables-restore" };

fn tools(family: Family) -> Tools {
    match family {
        Family::Ipv4 => IPV4,
        Family::Ipv6 => IPV6,
    }
}

/// Makes the rule stand once and first.
pub(super) fn ensure(family: Family, set: &str) -> Result<Rule, FirewallError> {
    let tools = tools(family);
    let mut first_look = None;
    let mut refusal = None;
    for _ in 0..TRIES {
        let positions = positions(&show(&tools)?, set);
        let found = first_look.get_or_insert_with(|| state(&positions));
        if state(&positions) == Rule::InPlace {
            return Ok(*found);
        }
        refusal = restore(&tools, &transaction(set, positions.len(), true)).err();
        if let Some(missing @ FirewallError::ToolMissing { .. }) = refusal {
            return Err(missing);
        }
    }
    Err(refusal.map_or_else(|| FirewallError::RuleContested { set: set.to_owned(), tries: TRIES }, advised))
}

/// What `iptables` says where the kernel has no xt_set: in both back ends, and by revision. The set itself was there a moment ago.
const NO_MATCH: [&str; 3] =
    ["No such file or directory", "No chain/target/match by that name", "missing kernel module"];
const ADVICE: &str = "is the match that asks our set missing? `modprobe xt_set`, or a kernel with CONFIG_NETFILTER_XT_SET (in a container: on its host)";

fn advised(error: FirewallError) -> FirewallError {
    match error {
        FirewallError::Tool { command, reason } if NO_MATCH.iter().any(|words| reason.contains(words)) => {
            FirewallError::Tool { command, reason: format!("{reason} ({ADVICE})") }
        }
        error => error,
    }
}

/// Whether `iptables` writes nftables rules: it says `iptables v1.8.9 (nf_tables)`, or `(legacy)`.
pub(super) fn by_nftables() -> bool {
    let both = [IPV4, IPV6].map(|tools| run(tools.show, &["-V"], ""));
    both.into_iter().all(|version| version.is_ok_and(|version| version.contains("nf_tables")))
}

/// Removes every copy of the rule and says how many there were.
pub(super) fn remove(family: Family, set: &str) -> Result<usize, FirewallError> {
    let tools = tools(family);
    let mut refusal = None;
    for _ in 0..TRIES {
        let copies = positions(&show(&tools)?, set).len();
        if copies == 0 {
            return Ok(0);
        }
        match restore(&tools, &transaction(set, copies, false)) {
            Ok(()) => return Ok(copies),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.unwrap_or_else(|| FirewallError::RuleContested { set: set.to_owned(), tries: TRIES }))
}

fn specification(set: &str) -> String {
    format!("-m set --match-set {set} src -m comment --comment \"{COMMENT}\" -j DROP")
}

/// Where the rule stands among the chain's, from 1. The program may print its parts in another order, with or without quotes.
fn positions(listing: &str, set: &str) -> Vec<usize> {
    let words = |line: &str| {
        let mut words: Vec<String> = line.split_whitespace().map(|word| word.replace('"', "")).collect();
        words.sort_unstable();
        words
    };
    let ours = words(&specification(set));
    let rules = listing.lines().filter_map(|line| line.strip_prefix("-A PREROUTING "));
    rules.zip(1..).filter(|(rule, _)| words(rule) == ours).map(|(_, position)| position).collect()
}

fn state(positions: &[usize]) -> Rule {
    match positions {
        [] => Rule::Inserted,
        [1] => Rule::InPlace,
        [position, ..] => Rule::Mended { position: *position, copies: positions.len() },
    }
}

fn transaction(set: &str, deletions: usize, insertion: bool) -> String {
    let specification = specification(set);
    let mut lines = "*raw\n".to_owned();
    for _ in 0..deletions {
        lines += &format!("-D PREROUTING {specification}\n");
    }
    if insertion {
        lines += &format!("-I PREROUTING 1 {specification}\n");
    }
    lines + "COMMIT\n"
}

fn show(tools: &Tools) -> Result<String, FirewallError> {
    run(tools.show, &["-w", "5", "-t", "raw", "-S", "PREROUTING"], "")
}

fn restore(tools: &Tools, transaction: &str) -> Result<(), FirewallError> {
    run(tools.restore, &["-w", "5", "--noflush"], transaction).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "-A PREROUTING -m set --match-set g-4 src -m comment --comment \"conntrack-guard: drop banned sources\" -j DROP";

    #[test]
    fn our_rule_is_found_among_others() {
        let listing = format!(
            "-P PREROUTING ACCEPT\n\
             -A PREROUTING -m set --match-set other src -j DROP\n\
             {OURS}\n\
             -A PREROUTING -i eth0 -m set --match-set g-4 src -m comment --comment \"conntrack-guard: drop banned sources\" -j DROP\n\
             -A PREROUTING -m set ! --match-set g-4 src -m comment --comment \"conntrack-guard: drop banned sources\" -j DROP\n\
             -A PREROUTING -m set --match-set g-4 dst -m comment --comment \"conntrack-guard: drop banned sources\" -j DROP\n\
             {OURS}\n"
        );
        assert_eq!(positions(&listing, "g-4"), [2, 6]);
        assert_eq!(positions(&listing, "g-6"), [0; 0]);
        assert_eq!(state(&positions(&listing, "g-4")), Rule::Mended { position: 2, copies: 2 });
    }

    #[test]
    fn a_kernel_without_the_match_is_told_what_it_lacks() {
        let said = |reason: &str| {
            advised(FirewallError::Tool { command: "iptables-restore".to_owned(), reason: reason.to_owned() })
                .to_string()
        };
        let nft = "exit status: 4: iptables-restore v1.8.9 (nf_tables): \nline 3: RULE_INSERT failed (No such file or directory): rule in chain PREROUTING";
        let legacy = "exit status: 1: iptables: No chain/target/match by that name.";
        for reason in [nft, legacy] {
            let said = said(reason);
            assert!(said.contains(reason) && said.contains("`modprobe xt_set`"), "{said}");
        }
        assert!(!said("exit status: 4: Permission denied (you must be root)").contains("modprobe"));
    }

    #[test]
    fn quotes_and_order_do_not_matter() {
        let other = "-A PREROUTING -m comment --comment conntrack-guard: drop banned sources -m set --match-set g-4 src -j DROP";
        assert_eq!(positions(other, "g-4"), [1]);
        assert_eq!(state(&[1]), Rule::InPlace);
    }

    #[test]
    fn a_change_is_one_transaction() {
        let rule = OURS.trim_start_matches("-A PREROUTING ");
        let expected =
            format!("*raw\n-D PREROUTING {rule}\n-D PREROUTING {rule}\n-I PREROUTING 1 {rule}\nCOMMIT\n");
        assert_eq!(transaction("g-4", 2, true), expected);
    }
}
