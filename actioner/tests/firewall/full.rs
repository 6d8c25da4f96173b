//! Many bans, and more than there is room for.

use std::net::{Ipv4Addr, Ipv6Addr};

use conntrack_actioner::firewall::{Ban, BanError, Change, Config};
use ipnet::IpNet;

use crate::{Open, about, ban, find, for_each_client, members, net, on_a_guarded_host, on_a_host};

for_each_client!(
    thousands_go_in_at_once_in_their_order,
    a_full_set_takes_renewals_and_refuses_the_rest,
    far_too_many_are_refused_one_by_one,
);

fn hosts(count: u32) -> impl Iterator<Item = IpNet> {
    let v4 = |number: u32| IpNet::from(std::net::IpAddr::from(Ipv4Addr::from(0xc612_0000 + number)));
    (0..count).map(v4)
}

fn for_a_minute(net: IpNet) -> Ban {
    ban(&net.to_string(), 60)
}

/// One message holds a thousand: these need three for IPv4 and two for IPv6.
fn thousands_go_in_at_once_in_their_order(open: Open) {
    on_a_guarded_host(open, |host, firewall| {
        let v6 = |number: u16| {
            IpNet::from(std::net::IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number)))
        };
        let mut bans: Vec<Ban> = hosts(2500).map(for_a_minute).collect();
        bans.extend((1..=1200).map(v6).map(for_a_minute));
        bans.swap(3, 3000);
        bans[1700].timeout *= 10;
        let outcomes = firewall.ban(&bans).unwrap();
        assert_eq!(outcomes.len(), bans.len());
        for (outcome, ban) in outcomes.iter().zip(&bans) {
            let enforced = outcome.as_ref().unwrap();
            assert!(about(enforced.remaining, ban.timeout.as_secs()), "{ban:?} {enforced:?}");
        }
        assert_eq!(members(host, "conntrack-guard-4").len(), 2500);
        assert_eq!(members(host, "conntrack-guard-6").len(), 1200);
        let again = firewall.ban(&bans).unwrap();
        let kept = |change| change == Change::Kept || change == Change::Extended;
        assert!(again.iter().all(|outcome| kept(outcome.as_ref().unwrap().change)));
        let nets: Vec<IpNet> = bans.iter().map(|ban| ban.net).collect();
        assert_eq!(firewall.unban(&nets).unwrap(), 3700);
        assert_eq!(firewall.list().unwrap(), []);
    });
}

fn a_full_set_takes_renewals_and_refuses_the_rest(open: Open) {
    let config = Config { max_elements: 3, ..Config::default() };
    on_a_host(open, config, |_, firewall| {
        assert_eq!(firewall.ensure().unwrap().ipv4.max_elements, 3);
        let first = ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"].map(|address| ban(address, 60));
        assert!(firewall.ban(&first).unwrap().iter().all(Result::is_ok));
        let mixed =
            ["192.0.2.8/32", "192.0.2.2/32", "192.0.2.9/32", "192.0.2.1/32"].map(|address| ban(address, 900));
        let outcomes = firewall.ban(&mixed).unwrap();
        let full =
            |address| Err(BanError::SetFull { set: "conntrack-guard-4".to_owned(), net: net(address) });
        assert_eq!(outcomes[0], full("192.0.2.8/32"));
        assert_eq!(outcomes[1].as_ref().unwrap().change, Change::Extended);
        assert_eq!(outcomes[2], full("192.0.2.9/32"));
        assert_eq!(outcomes[3].as_ref().unwrap().change, Change::Extended);
        assert!(about(find(firewall, "192.0.2.2/32").unwrap().remaining, 900));
        let words = outcomes[0].as_ref().unwrap_err().to_string();
        assert!(words.contains("conntrack-guard-4 is full") && words.contains("max_elements"), "{words}");
        let v6 = firewall.ban(&[ban("2001:db8::1/128", 60)]).unwrap();
        assert!(v6[0].is_ok(), "the other family has room of its own: {v6:?}");
        assert_eq!(firewall.unban(&[net("192.0.2.1/32")]).unwrap(), 1);
        assert!(firewall.ban(&[ban("192.0.2.8/32", 60)]).unwrap()[0].is_ok(), "room was made");
    });
}

fn far_too_many_are_refused_one_by_one(open: Open) {
    let config = Config { max_elements: 100, ..Config::default() };
    on_a_host(open, config, |host, firewall| {
        firewall.ensure().unwrap();
        let bans: Vec<Ban> = hosts(3000).map(for_a_minute).collect();
        let outcomes = firewall.ban(&bans).unwrap();
        let banned: Vec<IpNet> = outcomes
            .iter()
            .zip(&bans)
            .filter(|(outcome, _)| outcome.is_ok())
            .map(|(_, ban)| ban.net)
            .collect();
        let listed: Vec<IpNet> = members(host, "conntrack-guard-4").into_iter().map(|(net, _)| net).collect();
        assert_eq!(banned, listed, "what is called banned is in the set, and nothing else");
        assert_eq!(banned.len(), 100);
        let full = outcomes.iter().filter(|outcome| matches!(outcome, Err(BanError::SetFull { .. }))).count();
        assert_eq!(full, 2900);
    });
}
