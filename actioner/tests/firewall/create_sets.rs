//! `create-sets`: what is made before saved rulesets are loaded.

use std::fs;

use conntrack_actioner::{
    cli::CreateSets,
    create_sets::create_sets,
    firewall::{Config, TornDown},
    policy::Policy,
};
use tests::netns::Namespace;

use crate::{Open, ban, ban_one, for_each_client, ipset, members, on_a_host, rules};

for_each_client!(
    the_running_program_finds_the_sets_it_would_have_made,
    a_saved_ruleset_loads_with_them_and_not_without,
    what_is_there_stays_and_a_policy_that_cannot_be_read_is_said,
);

const POLICY: &str = "never_ban: []\nlimits: {active_bans: 500}\nfirewall: {set: mine, manage_rule: true}\n";

fn create(policy: &str) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let policy_file = directory.path().join("policy.yaml");
    fs::write(&policy_file, policy).unwrap();
    create_sets(&CreateSets { policy_file })
}

fn headers(host: &Namespace) -> String {
    host.output(&["ipset", "list", "-t"]).unwrap()
}

fn the_running_program_finds_the_sets_it_would_have_made(open: Open) {
    let policy = Policy::parse(POLICY, ".".as_ref()).unwrap();
    on_a_host(open, policy.firewall_config(), |host, firewall| {
        firewall.ensure().unwrap().ipv6.unwrap();
        firewall.teardown().unwrap();
        let shown = |header: String| header.replace("References: 1", "References: 0");
        let said = create(POLICY).unwrap();
        assert!(
            said.contains("mine-4: made, empty, room for 65536") && said.contains("mine-6: made"),
            "{said}"
        );
        assert_eq!(rules(host, "iptables"), [""; 0], "no rule");
        let made = headers(host);
        let ensured = firewall.ensure().unwrap();
        assert!(!ensured.ipv4.set_created && !ensured.ipv6.unwrap().set_created);
        assert_eq!(firewall.teardown().unwrap().sets.len(), 2);
        firewall.ensure().unwrap().ipv6.unwrap();
        let without_seed = |header: String| -> Vec<String> {
            // The kernel draws initval; memory and references follow the use.
            let lines = shown(header).lines().map(str::to_owned).collect::<Vec<_>>();
            lines.into_iter().filter(|line| !line.starts_with("Size in memory")).collect()
        };
        assert_eq!(
            without_seed(made),
            without_seed(headers(host)),
            "the same header as the running program's"
        );
    });
}

fn a_saved_ruleset_loads_with_them_and_not_without(open: Open) {
    on_a_host(open, Config::default(), |host, firewall| {
        firewall.ensure().unwrap().ipv6.unwrap();
        host.command(&["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP"]).unwrap();
        let saved = host.output(&["iptables-save"]).unwrap();
        // As after a reboot.
        host.command(&["iptables", "-F", "INPUT"]).unwrap();
        assert_eq!(
            firewall.teardown().unwrap(),
            TornDown { rules: 2, sets: vec!["conntrack-guard-4".to_owned(), "conntrack-guard-6".to_owned()] }
        );
        let filter = || host.output(&["iptables", "-S", "INPUT"]).unwrap();
        assert!(host.command_with_input(&["iptables-restore"], &saved).is_err());
        assert!(!filter().contains("--dport 23"), "without the sets nothing of it loads");
        create("never_ban: []\n").unwrap();
        host.command_with_input(&["iptables-restore"], &saved).unwrap();
        assert!(filter().contains("--dport 23"), "{}", filter());
    });
}

fn what_is_there_stays_and_a_policy_that_cannot_be_read_is_said(open: Open) {
    on_a_host(open, Config::default(), |host, firewall| {
        firewall.ensure().unwrap().ipv6.unwrap();
        ban_one(firewall, ban("192.0.2.7/32", 600)).unwrap();
        let said = create("never_ban: []\n").unwrap();
        assert!(said.contains("conntrack-guard-4: was there, and was left as it is"), "{said}");
        assert_eq!(members(host, "conntrack-guard-4").len(), 1);
        assert_eq!(rules(host, "iptables").len(), 1);
        host.command(&["ipset", "create", "mine-4", "hash:ip"]).unwrap();
        let error = create(POLICY).unwrap_err();
        assert!(error.contains("mine-4"), "{error}");
        firewall.teardown().unwrap();
        // A host without a firewall would be the worse end of a typing error.
        let error = create("never_ban: []\nenfroce: true\n").unwrap_err();
        assert!(error.contains("enfroce") && error.contains("conntrack-guard-6: made"), "{error}");
        assert_eq!(members(host, "conntrack-guard-4"), []);
        // A second client sees what the first made.
        assert!(!ipset(Config::default()).unwrap().ensure().unwrap().ipv4.set_created);
    });
}
