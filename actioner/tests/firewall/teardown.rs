//! What teardown removes, and what it must not.

use conntrack_actioner::firewall::{Config, FirewallError, TornDown};

use crate::{Open, ban, ban_one, for_each_client, members, on_a_guarded_host, on_a_host, our_rule, rules};

for_each_client!(
    ours_goes_and_what_is_others_stays,
    where_there_is_nothing_nothing_is_removed,
    a_set_in_use_by_others_is_named,
);

fn both_sets() -> Vec<String> {
    vec!["conntrack-guard-4".to_owned(), "conntrack-guard-6".to_owned()]
}

fn ours_goes_and_what_is_others_stays(open: Open) {
    on_a_guarded_host(open, |host, firewall| {
        for words in [
            "ipset create blocklist hash:net timeout 60",
            "ipset add blocklist 192.0.2.1",
            "iptables -t raw -A PREROUTING -m set --match-set blocklist src -j DROP",
            "iptables -A INPUT -s 192.0.2.9 -j DROP",
        ] {
            host.command(&words.split(' ').collect::<Vec<_>>()).unwrap();
        }
        let copy = format!("*raw\n{}\nCOMMIT\n", our_rule("conntrack-guard-4"));
        host.command_with_input(&["iptables-restore", "--noflush"], &copy).unwrap();
        ban_one(firewall, ban("192.0.2.1/32", 600)).unwrap();
        ban_one(firewall, ban("2001:db8::1/128", 600)).unwrap();

        assert_eq!(firewall.teardown().unwrap(), TornDown { rules: 3, sets: both_sets() });

        assert_eq!(host.output(&["ipset", "list", "-n"]).unwrap(), "blocklist\n");
        assert_eq!(members(host, "blocklist").len(), 1);
        let theirs = "-A PREROUTING -m set --match-set blocklist src -j DROP".to_owned();
        assert_eq!(rules(host, "iptables"), [theirs]);
        assert_eq!(rules(host, "ip6tables"), [""; 0]);
        assert!(host.output(&["iptables", "-S", "INPUT"]).unwrap().contains("-s 192.0.2.9/32 -j DROP"));
        assert_eq!(firewall.teardown().unwrap(), TornDown::default());
    });
}

fn where_there_is_nothing_nothing_is_removed(open: Open) {
    on_a_host(open, Config::default(), |_, firewall| {
        assert_eq!(firewall.teardown().unwrap(), TornDown::default());
        firewall.ensure().unwrap();
        assert_eq!(firewall.teardown().unwrap(), TornDown { rules: 2, sets: both_sets() });
    });
}

fn a_set_in_use_by_others_is_named(open: Open) {
    on_a_guarded_host(open, |host, firewall| {
        let theirs = "iptables -A INPUT -m set --match-set conntrack-guard-4 src -j DROP";
        host.command(&theirs.split(' ').collect::<Vec<_>>()).unwrap();
        let error = firewall.teardown().unwrap_err();
        assert!(matches!(&error, FirewallError::InUse { set } if set == "conntrack-guard-4"), "{error:?}");
        let words = error.to_string();
        assert!(words.contains("iptables-save | grep conntrack-guard-4"), "{words}");
        assert_eq!(rules(host, "iptables"), [""; 0], "ours are gone nevertheless");
        assert_eq!(
            host.output(&["ipset", "list", "-n"]).unwrap(),
            "conntrack-guard-4\n",
            "so is the other set"
        );
    });
}
