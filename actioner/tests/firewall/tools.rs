//! Hosts on which a program is missing or broken.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use conntrack_actioner::firewall::{Config, Firewall, FirewallError, Rule, TornDown};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tests::netns::Namespace;

use crate::{Open, ban, ban_one, for_each_client, on_a_host, our_rule, rules};

for_each_client!(
    without_iptables_the_package_is_named,
    without_ip6tables_ipv4_works,
    what_a_broken_ip6tables_says_is_passed_on,
);

/// For this thread and its children alone: `/etc/alternatives`, through which Debian finds these programs, is a copy that `change` was made to.
fn with_alternatives(
    open: Open,
    change: impl FnOnce(&Path) + Send,
    test: impl FnOnce(&Namespace, &mut dyn Firewall) + Send,
) {
    on_a_host(open, Config::default(), |host, _| {
        const NONE: Option<&str> = None;
        let copy = tempfile::tempdir().unwrap();
        let alternatives = Path::new("/etc/alternatives");
        for entry in fs::read_dir(alternatives).unwrap().map(Result::unwrap) {
            let target = fs::read_link(entry.path());
            if let Ok(target) = target {
                std::os::unix::fs::symlink(target, copy.path().join(entry.file_name())).unwrap();
            }
        }
        change(copy.path());
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
        mount(Some(copy.path()), alternatives, NONE, MsFlags::MS_BIND, NONE).unwrap();
        test(host, open(Config::default()).unwrap().as_mut());
    });
}

fn remove(programs: &[&str], directory: &Path) {
    for program in programs {
        fs::remove_file(directory.join(program)).unwrap();
    }
}

fn without_iptables_the_package_is_named(open: Open) {
    let change = |directory: &Path| remove(&["iptables", "ip6tables"], directory);
    with_alternatives(open, change, |_, firewall| {
        let error = firewall.ensure().unwrap_err();
        assert_eq!(error.to_string(), "iptables is not installed: apt-get install iptables");
        let TornDown { rules, sets } = firewall.teardown().unwrap();
        assert_eq!((rules, sets.as_slice()), (0, ["conntrack-guard-4".to_owned()].as_slice()));
    });
}

fn without_ip6tables_ipv4_works(open: Open) {
    with_alternatives(
        open,
        |directory| remove(&["ip6tables"], directory),
        |host, firewall| {
            let ensured = firewall.ensure().unwrap();
            assert_eq!(ensured.ipv4.rule, Rule::Inserted);
            assert!(
                matches!(ensured.ipv6, Err(FirewallError::ToolMissing { program: "ip6tables" })),
                "{ensured:?}"
            );
            ban_one(firewall, ban("192.0.2.1/32", 60)).unwrap();
            assert_eq!(rules(host, "iptables"), [our_rule("conntrack-guard-4")]);
            assert_eq!(firewall.teardown().unwrap().rules, 1);
        },
    );
}

fn what_a_broken_ip6tables_says_is_passed_on(open: Open) {
    let change = |directory: &Path| {
        remove(&["ip6tables"], directory);
        let broken = directory.join("ip6tables");
        fs::write(&broken, "#!/bin/sh\necho \"can't initialize ip6tables table 'raw'\" >&2\nexit 3\n")
            .unwrap();
        fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    };
    with_alternatives(open, change, |_, firewall| {
        let ensured = firewall.ensure().unwrap();
        assert_eq!(ensured.ipv4.rule, Rule::Inserted);
        let error = ensured.ipv6.unwrap_err().to_string();
        assert!(error.contains("ip6tables -w 5 -t raw -S PREROUTING"), "{error}");
        assert!(error.contains("can't initialize ip6tables table 'raw'"), "{error}");
    });
}
