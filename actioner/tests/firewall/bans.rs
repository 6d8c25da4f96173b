//! Adding, extending, ending bans.

use std::time::Duration;

use conntrack_actioner::firewall::{Ban, BanError, Change, LONGEST_BAN};
use tests::wait::wait_until;

use crate::{Open, about, ban, ban_one, find, for_each_client, members, net, on_a_guarded_host};

for_each_client!(
    what_is_banned_is_what_the_ipset_program_lists,
    a_fraction_of_a_second_is_one_and_zero_is_refused,
    the_longest_ban_is_not_cut_and_a_longer_one_is_refused,
    a_ban_is_extended_and_never_shortened,
    permanent_elements_and_exceptions_stay,
    an_impossible_ban_leaves_its_neighbours_in,
    a_prefix_asked_for_twice_gets_the_longer_time,
    host_bits_do_not_matter,
    a_host_inside_a_banned_prefix_is_an_element_of_its_own,
    a_ban_ends_by_itself,
    unban_counts_what_was_there,
);

fn what_is_banned_is_what_the_ipset_program_lists(open: Open) {
    on_a_guarded_host(open, |host, firewall| {
        let bans = [
            ban("192.0.2.7/32", 600),
            ban("2001:db8::7/128", 700),
            ban("198.51.100.0/24", 800),
            ban("2001:db8:1::/64", 900),
        ];
        for (outcome, ban) in firewall.ban(&bans).unwrap().into_iter().zip(&bans) {
            let enforced = outcome.unwrap();
            assert_eq!(enforced.change, Change::Added);
            assert!(about(enforced.remaining, ban.timeout.as_secs()), "{enforced:?}");
        }
        let mut listed = firewall.list().unwrap();
        listed.sort_unstable_by_key(|element| element.net);
        let printed = [members(host, "conntrack-guard-4"), members(host, "conntrack-guard-6")].concat();
        assert_eq!(printed.len(), 4);
        for (element, (net, timeout)) in listed.iter().zip(&printed) {
            assert_eq!(element.net, *net);
            assert!(about(element.remaining, *timeout + 1), "{element:?}, printed {timeout}");
        }
    });
}

fn a_fraction_of_a_second_is_one_and_zero_is_refused(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        let zero = Ban { net: net("192.0.2.1/32"), timeout: Duration::ZERO };
        assert_eq!(ban_one(firewall, zero), Err(BanError::Timeout { timeout: Duration::ZERO }));
        assert_eq!(firewall.list().unwrap(), []);
        let brief = Ban { net: net("192.0.2.1/32"), timeout: Duration::from_millis(1) };
        let enforced = ban_one(firewall, brief).unwrap();
        assert_eq!(enforced.remaining, Some(Duration::from_secs(1)), "0 would be for ever");
    });
}

fn the_longest_ban_is_not_cut_and_a_longer_one_is_refused(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        let longest = Ban { net: net("192.0.2.1/32"), timeout: LONGEST_BAN };
        let enforced = ban_one(firewall, longest).unwrap();
        assert!(about(enforced.remaining, LONGEST_BAN.as_secs()), "{enforced:?}");
        let timeout = LONGEST_BAN + Duration::from_nanos(1);
        let longer = Ban { net: net("192.0.2.2/32"), timeout };
        assert_eq!(ban_one(firewall, longer), Err(BanError::Timeout { timeout }));
        assert_eq!(find(firewall, "192.0.2.2/32"), None);
    });
}

fn a_ban_is_extended_and_never_shortened(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        for address in ["192.0.2.1/32", "2001:db8::1/128"] {
            assert_eq!(ban_one(firewall, ban(address, 300)).unwrap().change, Change::Added);
            let longer = ban_one(firewall, ban(address, 3600)).unwrap();
            assert_eq!(longer.change, Change::Extended);
            assert!(about(longer.remaining, 3600), "{longer:?}");
            let shorter = ban_one(firewall, ban(address, 60)).unwrap();
            assert_eq!(shorter.change, Change::Kept);
            assert!(about(shorter.remaining, 3600), "{shorter:?}");
            assert!(about(find(firewall, address).unwrap().remaining, 3600));
        }
    });
}

fn permanent_elements_and_exceptions_stay(open: Open) {
    on_a_guarded_host(open, |host, firewall| {
        let by_hand = |words: &str| {
            host.command(&words.split(' ').collect::<Vec<_>>()).unwrap();
        };
        by_hand("ipset add conntrack-guard-4 192.0.2.1 timeout 0");
        by_hand("ipset add conntrack-guard-4 192.0.2.2 nomatch timeout 0");
        let outcomes = firewall.ban(&[ban("192.0.2.1/32", 60), ban("192.0.2.2/32", 60)]).unwrap();
        let enforced = outcomes[0].clone().unwrap();
        assert_eq!((enforced.remaining, enforced.change), (None, Change::Kept));
        let set = "conntrack-guard-4".to_owned();
        assert_eq!(outcomes[1], Err(BanError::Excepted { set, net: net("192.0.2.2/32") }));
        assert_eq!(find(firewall, "192.0.2.1/32").unwrap().remaining, None);
        assert_eq!(find(firewall, "192.0.2.2/32"), None, "an exception is no ban");
        let printed = host.output(&["ipset", "list", "conntrack-guard-4"]).unwrap();
        assert!(printed.contains("192.0.2.2 timeout 0 nomatch"), "{printed}");
    });
}

fn an_impossible_ban_leaves_its_neighbours_in(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        let bans = [
            ban("192.0.2.1/32", 60),
            ban("0.0.0.0/0", 60),
            ban("192.0.2.2/32", 60),
            ban("::/0", 60),
            ban("::ffff:192.0.2.9/128", 60),
            ban("192.0.2.3/32", 0),
            ban("192.0.2.4/32", 60),
        ];
        let outcomes = firewall.ban(&bans).unwrap();
        let [Ok(_), Err(everything4), Ok(_), Err(everything6), Err(mapped), Err(zero), Ok(_)] = &outcomes[..]
        else {
            panic!("{outcomes:?}")
        };
        assert_eq!(*everything4, BanError::Everything { net: net("0.0.0.0/0") });
        assert_eq!(*everything6, BanError::Everything { net: net("::/0") });
        assert_eq!(*mapped, BanError::Mapped { net: net("::ffff:192.0.2.9/128") });
        assert_eq!(*zero, BanError::Timeout { timeout: Duration::ZERO });
        assert_eq!(firewall.list().unwrap().len(), 3);
    });
}

fn a_prefix_asked_for_twice_gets_the_longer_time(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        let bans = [ban("192.0.2.1/32", 60), ban("192.0.2.1/32", 900), ban("192.0.2.1/32", 30)];
        for outcome in firewall.ban(&bans).unwrap() {
            assert!(about(outcome.unwrap().remaining, 900));
        }
        assert_eq!(firewall.list().unwrap().len(), 1);
    });
}

fn host_bits_do_not_matter(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        ban_one(firewall, ban("198.51.100.77/24", 60)).unwrap();
        ban_one(firewall, ban("2001:db8::1:2:3/48", 60)).unwrap();
        assert!(find(firewall, "198.51.100.0/24").is_some());
        assert!(find(firewall, "2001:db8::/48").is_some());
        assert_eq!(firewall.unban(&[net("198.51.100.99/24"), net("2001:db8::9/48")]).unwrap(), 2);
    });
}

fn a_host_inside_a_banned_prefix_is_an_element_of_its_own(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        ban_one(firewall, ban("198.51.100.0/24", 60)).unwrap();
        assert_eq!(firewall.unban(&[net("198.51.100.7/32")]).unwrap(), 0, "its prefix is banned, not it");
        assert_eq!(ban_one(firewall, ban("198.51.100.7/32", 900)).unwrap().change, Change::Added);
        assert!(about(find(firewall, "198.51.100.0/24").unwrap().remaining, 60));
        assert_eq!(firewall.unban(&[net("198.51.100.0/24")]).unwrap(), 1);
        assert!(about(find(firewall, "198.51.100.7/32").unwrap().remaining, 900));
    });
}

fn a_ban_ends_by_itself(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        ban_one(firewall, ban("192.0.2.1/32", 1)).unwrap();
        let gone = wait_until("the ban to end", Duration::from_secs(30), || match firewall.list().unwrap() {
            empty if empty.is_empty() => Ok(()),
            some => Err(format!("{some:?}")),
        });
        gone.unwrap();
        assert_eq!(ban_one(firewall, ban("192.0.2.1/32", 60)).unwrap().change, Change::Added);
    });
}

fn unban_counts_what_was_there(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        let addresses = ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32", "2001:db8::1/128"];
        firewall.ban(&addresses.map(|address| ban(address, 60))).unwrap();
        let asked = [
            "192.0.2.1/32",
            "192.0.2.9/32",
            "192.0.2.3/32",
            "2001:db8::9/128",
            "2001:db8::1/128",
            "0.0.0.0/0",
        ];
        assert_eq!(firewall.unban(&asked.map(net)).unwrap(), 3);
        let left: Vec<_> = firewall.list().unwrap().into_iter().map(|element| element.net).collect();
        assert_eq!(left, [net("192.0.2.2/32")]);
        assert_eq!(firewall.unban(&[]).unwrap(), 0);
    });
}
