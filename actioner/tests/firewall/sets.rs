//! Sets that are there already, are not, or cannot be.

use conntrack_actioner::firewall::{BanError, Config, FirewallError};

use crate::{Open, ban, ban_one, for_each_client, members, net, on_a_guarded_host, on_a_host};

for_each_client!(
    a_set_made_before_with_other_room_is_used_as_it_is,
    a_set_of_another_kind_is_named_with_what_to_do,
    only_names_that_make_sets_are_taken,
    without_sets_nothing_is_banned_and_everything_says_so,
    bans_survive_a_restart,
    what_is_added_by_hand_without_a_timeout_ends,
);

fn a_set_made_before_with_other_room_is_used_as_it_is(open: Open) {
    on_a_host(open, Config::default(), |host, firewall| {
        let words = "ipset create conntrack-guard-4 hash:net maxelem 1234 timeout 60";
        host.command(&words.split(' ').collect::<Vec<_>>()).unwrap();
        host.command(&["ipset", "add", "conntrack-guard-4", "192.0.2.1"]).unwrap();
        let ensured = firewall.ensure().unwrap();
        assert_eq!((ensured.ipv4.max_elements, ensured.ipv4.set_created), (1234, false));
        let ipv6 = ensured.ipv6.unwrap();
        assert_eq!((ipv6.max_elements, ipv6.set_created), (65_536, true));
        ban_one(firewall, ban("192.0.2.2/32", 60)).unwrap();
        assert_eq!(firewall.list().unwrap().len(), 2);
    });
}

fn a_set_of_another_kind_is_named_with_what_to_do(open: Open) {
    for (kind, found) in [
        ("hash:ip timeout 60", "hash:ip of inet with timeouts"),
        ("hash:net family inet6 timeout 60", "hash:net of inet6 with timeouts"),
        ("hash:net", "hash:net of inet without timeouts"),
        ("list:set", "list:set"),
        ("bitmap:port range 1-9", "bitmap:port"),
    ] {
        on_a_host(open, Config::default(), |host, firewall| {
            let words = format!("ipset create conntrack-guard-4 {kind}");
            host.command(&words.split(' ').collect::<Vec<_>>()).unwrap();
            let error = firewall.ensure().unwrap_err();
            assert!(matches!(error, FirewallError::OtherKind { .. }), "{error:?}");
            let words = error.to_string();
            assert!(words.contains(found) && words.contains("ipset destroy conntrack-guard-4"), "{words}");
            assert_eq!(firewall.teardown().unwrap().sets, ["conntrack-guard-4"], "as the message proposes");
            firewall.ensure().unwrap();
        });
    }
}

fn only_names_that_make_sets_are_taken(open: Open) {
    let named = |set: &str| Config { set: set.to_owned(), ..Config::default() };
    let longest = "x".repeat(29);
    on_a_host(open, named(&longest), |host, firewall| {
        firewall.ensure().unwrap().ipv6.unwrap();
        assert_eq!(members(host, &format!("{longest}-6")), []);
        firewall.teardown().unwrap();
    });
    for set in ["", "-x", "x y", "x\"", "x\n", "ü", &"x".repeat(30)] {
        let Err(error) = open(named(set)) else { panic!("{set:?} was taken") };
        assert!(matches!(error, FirewallError::SetName { .. }), "{set:?}: {error}");
    }
    let nothing = Config { max_elements: 0, ..Config::default() };
    assert!(matches!(open(nothing), Err(FirewallError::NoRoom)));
}

fn without_sets_nothing_is_banned_and_everything_says_so(open: Open) {
    on_a_host(open, Config::default(), |host, firewall| {
        let missing =
            |set: &str, address| Err(BanError::SetMissing { set: set.to_owned(), net: net(address) });
        assert_eq!(ban_one(firewall, ban("192.0.2.1/32", 60)), missing("conntrack-guard-4", "192.0.2.1/32"));
        assert_eq!(firewall.list().unwrap(), []);
        assert_eq!(firewall.unban(&[net("192.0.2.1/32")]).unwrap(), 0);
        firewall.ensure().unwrap();
        host.command(&["ip6tables", "-t", "raw", "-F"]).unwrap();
        // The rule's hold on its set ends a moment after the rule.
        let destroyed =
            tests::wait::wait_until("the set to be destroyed", std::time::Duration::from_secs(30), || {
                host.command(&["ipset", "destroy", "conntrack-guard-6"])
            });
        destroyed.unwrap();
        let outcomes = firewall.ban(&[ban("2001:db8::1/128", 60), ban("192.0.2.1/32", 60)]).unwrap();
        assert_eq!(outcomes[0], missing("conntrack-guard-6", "2001:db8::1/128"));
        assert!(outcomes[1].is_ok(), "IPv4 is none the worse for it");
    });
}

fn bans_survive_a_restart(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        ban_one(firewall, ban("192.0.2.1/32", 600)).unwrap();
        let mut restarted = open(Config::default()).unwrap();
        assert!(restarted.ensure().unwrap().unchanged());
        assert_eq!(restarted.list().unwrap().len(), 1);
        assert_eq!(restarted.unban(&[net("192.0.2.1/32")]).unwrap(), 1);
        assert_eq!(firewall.list().unwrap(), []);
    });
}

fn what_is_added_by_hand_without_a_timeout_ends(open: Open) {
    on_a_guarded_host(open, |host, firewall| {
        host.command(&["ipset", "add", "conntrack-guard-4", "192.0.2.1"]).unwrap();
        let remaining = firewall.list().unwrap()[0].remaining;
        assert!(remaining.is_some(), "a slip of the hand would ban for ever");
    });
}
