//! The drop rule: once, first, and put back.

use std::thread;

use conntrack_actioner::firewall::{Config, Rule};

use crate::{Open, ban, ban_one, for_each_client, on_a_guarded_host, on_a_host, our_rule, rules};

for_each_client!(
    the_rule_is_made_once,
    what_was_flushed_is_reported_and_put_back,
    what_changes_after_quiet_looks_is_noticed,
    a_rule_behind_another_is_moved_to_the_front,
    copies_become_one,
    starts_at_the_same_moment_make_one_rule,
    unmanaged_rules_are_only_looked_at,
);

const PROGRAMS: [(&str, &str); 2] = [("iptables", "conntrack-guard-4"), ("ip6tables", "conntrack-guard-6")];

fn the_rule_is_made_once(open: Open) {
    on_a_host(open, Config::default(), |host, firewall| {
        let first = firewall.ensure().unwrap();
        assert!(!first.unchanged());
        assert_eq!((first.ipv4.rule, first.ipv6.unwrap().rule), (Rule::Inserted, Rule::Inserted));
        for _ in 0..2 {
            let again = firewall.ensure().unwrap();
            assert!(again.unchanged(), "{again:?}");
            assert_eq!((again.ipv4.rule, again.ipv6.unwrap().rule), (Rule::InPlace, Rule::InPlace));
        }
        for (program, set) in PROGRAMS {
            assert_eq!(rules(host, program), [our_rule(set)]);
        }
    });
}

fn what_was_flushed_is_reported_and_put_back(open: Open) {
    on_a_guarded_host(open, |host, firewall| {
        ban_one(firewall, ban("192.0.2.1/32", 600)).unwrap();
        host.command(&["ipset", "flush"]).unwrap();
        assert_eq!(firewall.list().unwrap(), [], "the caller sees that its bans are gone");
        assert!(firewall.ensure().unwrap().unchanged(), "the sets are there");
        for (program, _) in PROGRAMS {
            host.command(&[program, "-t", "raw", "-F"]).unwrap();
        }
        let ensured = firewall.ensure().unwrap();
        assert!(!ensured.unchanged());
        assert_eq!((ensured.ipv4.rule, ensured.ipv6.unwrap().rule), (Rule::Inserted, Rule::Inserted));
        assert_eq!(rules(host, "iptables"), [our_rule("conntrack-guard-4")]);
    });
}

/// After looks that found nothing new, whichever tool changes the rules, of whichever family.
fn what_changes_after_quiet_looks_is_noticed(open: Open) {
    on_a_guarded_host(open, |host, firewall| {
        let changes = [
            ("iptables -t raw -F", Rule::Inserted, Rule::InPlace),
            ("ip6tables -t raw -F", Rule::InPlace, Rule::Inserted),
            ("nft flush table ip raw", Rule::Inserted, Rule::InPlace),
            (
                "nft insert rule ip6 raw PREROUTING counter accept",
                Rule::InPlace,
                Rule::Mended { position: 2, copies: 1 },
            ),
            ("nft flush ruleset", Rule::Inserted, Rule::Inserted),
        ];
        for (change, ipv4, ipv6) in changes {
            for _ in 0..3 {
                assert!(firewall.ensure().unwrap().unchanged(), "before {change}");
            }
            host.command(&change.split(' ').collect::<Vec<_>>()).unwrap();
            let ensured = firewall.ensure().unwrap();
            assert_eq!((ensured.ipv4.rule, ensured.ipv6.unwrap().rule), (ipv4, ipv6), "{change}");
            for (program, set) in PROGRAMS {
                assert_eq!(rules(host, program)[0], our_rule(set), "{change}");
            }
        }
    });
}

fn a_rule_behind_another_is_moved_to_the_front(open: Open) {
    on_a_guarded_host(open, |host, firewall| {
        let before = "iptables -t raw -I PREROUTING 1 -s 192.0.2.0/24 -j ACCEPT";
        host.command(&before.split(' ').collect::<Vec<_>>()).unwrap();
        let ensured = firewall.ensure().unwrap();
        assert_eq!(ensured.ipv4.rule, Rule::Mended { position: 2, copies: 1 });
        assert!(!ensured.unchanged());
        let theirs = "-A PREROUTING -s 192.0.2.0/24 -j ACCEPT".to_owned();
        assert_eq!(rules(host, "iptables"), [our_rule("conntrack-guard-4"), theirs]);
        assert!(firewall.ensure().unwrap().unchanged());
    });
}

fn copies_become_one(open: Open) {
    on_a_guarded_host(open, |host, firewall| {
        let ours = our_rule("conntrack-guard-4");
        let copies = format!("*raw\n{ours}\n-A PREROUTING -i lo -j ACCEPT\n{ours}\nCOMMIT\n");
        host.command_with_input(&["iptables-restore", "--noflush"], &copies).unwrap();
        assert_eq!(firewall.ensure().unwrap().ipv4.rule, Rule::Mended { position: 1, copies: 3 });
        assert_eq!(rules(host, "iptables"), [ours, "-A PREROUTING -i lo -j ACCEPT".to_owned()]);
    });
}

fn starts_at_the_same_moment_make_one_rule(open: Open) {
    on_a_host(open, Config::default(), |host, _| {
        thread::scope(|scope| {
            let starts: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| open(Config::default()).unwrap().ensure().unwrap().ipv6.unwrap()))
                .collect();
            starts.into_iter().for_each(|start| {
                start.join().unwrap();
            });
        });
        for (program, set) in PROGRAMS {
            assert_eq!(rules(host, program), [our_rule(set)]);
        }
    });
}

fn unmanaged_rules_are_only_looked_at(open: Open) {
    let config = Config { manage_rule: false, ..Config::default() };
    on_a_host(open, config, |host, firewall| {
        let ensured = firewall.ensure().unwrap();
        assert_eq!(
            (ensured.ipv4.rule, ensured.ipv6.unwrap().rule),
            (Rule::Missing, Rule::Missing),
            "nothing drops"
        );
        assert_eq!(rules(host, "iptables"), [""; 0]);
        let theirs = "iptables -A INPUT -m set --match-set conntrack-guard-4 src -j DROP";
        host.command(&theirs.split(' ').collect::<Vec<_>>()).unwrap();
        let ensured = firewall.ensure().unwrap();
        assert_eq!((ensured.ipv4.rule, ensured.ipv6.unwrap().rule), (Rule::Foreign, Rule::Missing));
        assert_eq!(rules(host, "iptables"), [""; 0]);
    });
}
