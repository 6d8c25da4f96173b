//! Who is never banned.

use crate::scene::{Desk, HOARDER, about, ban, host, now, policy, refusal, with};
use conntrack_actioner::guard::{ban_prefix, host_spares, may_be_banned};
use conntrack_actioner::host::Host;
use conntrack_actioner::policy::Policy;
use conntrack_actioner::spared::{Called, Spared};
use ipnet::IpNet;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

fn word(net: &str, host: &Host, policy: &Policy) -> &'static str {
    match may_be_banned(net.parse().unwrap(), host, policy) {
        Ok(()) => "may",
        Err(refusal) => refusal.reason(),
    }
}

#[test]
fn each_kind_of_address() {
    let policy = with(
        "never_ban: [private, 192.0.2.128/25, 2001:db8:aaaa::/48]\nlimits: {widest_prefix: {ipv4: 16, ipv6: 48}}\n",
        HOARDER,
    );
    let cases = [
        ("198.51.100.66/32", "may"),
        ("2001:db8:bad::1/128", "may"),
        ("127.0.0.1/32", "loopback"),
        ("127.255.255.254/32", "loopback"),
        ("::1/128", "loopback"),
        ("0.0.0.0/32", "unspecified"),
        ("0.1.2.3/32", "unspecified"),
        ("::/128", "unspecified"),
        ("169.254.1.1/32", "link_local"),
        ("fe80::1:2/128", "link_local"),
        ("febf::1/128", "link_local"),
        ("224.0.0.1/32", "multicast"),
        ("239.255.255.255/32", "multicast"),
        ("ff02::1/128", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("192.0.2.1/32", "own_address"),
        ("2001:db8::1/128", "own_address"),
        ("203.0.113.129/32", "own_address"), // AnyIP: a local route, in no `ip addr`
        ("203.0.113.127/32", "may"),
        ("192.0.2.254/32", "gateway"),
        ("2001:db8::fe/128", "gateway"),
        ("10.1.2.3/32", "never_ban"),
        ("172.31.0.1/32", "never_ban"),
        ("172.32.0.1/32", "may"),
        ("192.168.1.1/32", "never_ban"),
        ("100.64.0.1/32", "never_ban"),
        ("100.128.0.1/32", "may"),
        ("fd00::1/128", "never_ban"),
        ("192.0.2.129/32", "never_ban"),
        ("2001:db8:aaaa:1::5/128", "never_ban"),
        ("198.50.0.0/15", "prefix_too_wide"),
        ("198.51.0.0/16", "may"),
        ("2001:db8:bad::/47", "prefix_too_wide"),
        ("2001:db8:bad::/48", "may"),
    ];
    for (net, expected) in cases {
        assert_eq!(word(net, &host(), &policy), expected, "{net}");
    }
}

#[test]
fn a_prefix_that_merely_contains_one_of_them_is_refused_for_that() {
    let policy = with("never_ban: [198.51.100.5]\nlimits: {widest_prefix: {ipv4: 8, ipv6: 16}}\n", HOARDER);
    for (net, expected) in [
        ("126.0.0.0/7", "loopback"),
        ("168.0.0.0/6", "link_local"),
        ("::/96", "loopback"),
        ("fe00::/8", "link_local"),
        ("fc00::/6", "link_local"),
        ("192.0.0.0/8", "own_address"),
        ("203.0.113.0/24", "own_address"),
        ("2001:db8::/32", "own_address"),
        ("192.0.2.252/30", "gateway"),
        ("2001:db8::f0/124", "gateway"),
        ("198.51.0.0/16", "never_ban"),
        ("240.0.0.0/8", "may"),
        ("254.0.0.0/7", "broadcast"),
    ] {
        assert_eq!(word(net, &host(), &policy), expected, "{net}");
    }
}

/// A host with one address of each kind that it spares, in both families.
fn sparing() -> Host {
    let of = |text: &[&str]| text.iter().map(|address| address.parse().unwrap()).collect();
    let mut host = host();
    host.spared = Spared {
        resolvers: of(&["198.51.100.10", "2001:db8:1::10"]),
        sessions: of(&["198.51.100.20", "2001:db8:1::20"]),
        webhook_peers: of(&["198.51.100.30", "2001:db8:1::30"]),
        called: Arc::new(Called::of(
            ["198.51.100.40", "2001:db8:1::40"].map(|address| address.parse().unwrap()),
            ["198.51.100.50", "2001:db8:1::50"].map(|address| address.parse().unwrap()),
            false,
        )),
    };
    host
}

#[test]
fn whom_the_host_needs_or_knows() {
    let policy = with("never_ban: []\nlimits: {widest_prefix: {ipv4: 8, ipv6: 16}}\n", HOARDER);
    let cases = [
        ("198.51.100.10/32", "resolver"),
        ("198.51.100.20/32", "ssh_session"),
        ("198.51.100.30/32", "webhook_peer"),
        ("198.51.100.40/32", "outbound"),
        ("198.51.100.50/32", "outbound"),
        ("2001:db8:1::10/128", "resolver"),
        ("2001:db8:1::20/128", "ssh_session"),
        ("2001:db8:1::30/128", "webhook_peer"),
        ("2001:db8:1::40/128", "outbound"),
        ("2001:db8:1::50/128", "outbound"),
        // Their neighbours on either side.
        ("198.51.100.9/32", "may"),
        ("198.51.100.11/32", "may"),
        ("198.51.100.51/32", "may"),
        ("2001:db8:1::11/128", "may"),
        // Networks that merely hold one, at either end too.
        ("198.51.100.8/30", "resolver"),
        ("198.51.100.20/31", "ssh_session"),
        ("198.51.100.30/31", "webhook_peer"),
        ("198.51.100.40/29", "outbound"),
        ("198.51.100.50/31", "outbound"),
        ("198.51.100.0/24", "resolver"),
        ("198.51.100.64/26", "may"),
        ("2001:db8:1::/64", "resolver"),
        ("2001:db8:1::40/124", "outbound"),
        ("2001:db8:1::/121", "resolver"),
        ("2001:db8:1::80/121", "may"),
    ];
    for (net, expected) in cases {
        assert_eq!(word(net, &sparing(), &policy), expected, "{net}");
        let spares = host_spares(net.parse().unwrap(), &sparing());
        assert_eq!(spares.map_or_else(|refusal| refusal.reason(), |()| "may"), expected, "{net}");
    }
}

#[test]
fn what_the_policy_says_is_apart_from_what_the_host_knows() {
    let policy = with("never_ban: [198.51.100.66]\n", HOARDER);
    assert_eq!(host_spares("198.51.100.66/32".parse().unwrap(), &sparing()), Ok(()));
    assert_eq!(word("198.51.100.66/32", &sparing(), &policy), "never_ban");
    assert_eq!(host_spares("198.51.0.0/25".parse().unwrap(), &sparing()), Ok(()));
    assert_eq!(word("198.51.0.0/25", &sparing(), &policy), "prefix_too_wide");
}

/// With more addresses called than are kept, only single ones can be looked up.
#[test]
fn where_nobody_can_tell_a_network_is_spared_and_an_address_is_not() {
    let policy = with("never_ban: []\nlimits: {widest_prefix: {ipv4: 8, ipv6: 16}}\n", HOARDER);
    let mut host = host();
    host.spared.called = Arc::new(Called::of(["198.51.100.40".parse().unwrap()], [], true));
    for (net, expected) in [
        ("198.51.100.40/32", "outbound"),
        ("198.51.100.41/32", "may"),
        ("198.51.101.0/24", "outbound"),
        ("2001:db8:1::/64", "outbound"),
        ("2001:db8:1::1/128", "may"),
    ] {
        assert_eq!(word(net, &host, &policy), expected, "{net}");
    }
}

/// A whole network is banned on the sum of its hosts' entries, unless one of them is needed.
#[test]
fn one_needed_host_spares_its_network() {
    let rules = HOARDER.replace("for: 10m", "ipv4_prefix: 24, for: 10m");
    let text = "enforce: true\nnever_ban: []\nlimits: {widest_prefix: {ipv4: 24, ipv6: 64}}\n";
    let mut desk = Desk::new(with(text, &rules), &[("198.51.100.66", 150, 0), ("198.51.100.67", 150, 0)]);
    assert_eq!(ban(&desk.plan(&about("198.51.100.66"), now(0.0))).net, "198.51.100.0/24".parse().unwrap());
    desk.host = sparing();
    assert_eq!(refusal(&desk.plan(&about("198.51.100.66"), now(0.0))).reason(), "resolver");
}

/// A reload's `never_ban` holds from then on; what stands already is not touched again either.
#[test]
fn an_address_that_becomes_spared_is_refused_from_then_on() {
    let mut desk = Desk::new(policy(HOARDER), &[("198.51.100.66", 300, 0)]);
    let net = ban(&desk.act(&about("198.51.100.66"), now(0.0))).net;
    assert_eq!(may_be_banned(net, &desk.host, &desk.policy), Ok(()));
    desk.policy = with("enforce: true\nnever_ban: [198.51.100.0/24]\n", HOARDER);
    assert_eq!(refusal(&desk.plan(&about("198.51.100.66"), now(1.0))).reason(), "never_ban");
    assert!(may_be_banned(net, &desk.host, &desk.policy).is_err(), "what a reload asks of each standing ban");
}

#[test]
fn the_broadcast_addresses_of_this_hosts_networks() {
    let lab = tests::netns::Namespace::new("broadcast").unwrap();
    lab.ip("link add d0 type veth peer name d1\naddr add 198.51.100.5/24 brd + dev d0\nlink set d0 up\nlink set d1 up\n").unwrap();
    let host = lab.run(|| Host::read().unwrap());
    assert_eq!(word("198.51.100.255/32", &host, &policy(HOARDER)), "broadcast");
    assert_eq!(word("198.51.100.5/32", &host, &policy(HOARDER)), "own_address");
    assert_eq!(word("198.51.100.254/32", &host, &policy(HOARDER)), "may");
}

#[test]
fn mapped_addresses_are_folded() {
    for (source, net) in [("::ffff:192.0.2.1", "192.0.2.1/32"), ("::ffff:127.0.0.1", "127.0.0.1/32")] {
        let source: IpAddr = source.parse().unwrap();
        assert_eq!(ban_prefix(source, 32, 128), net.parse::<IpNet>().unwrap());
    }
    assert_eq!(word("192.0.2.1/32", &host(), &policy(HOARDER)), "own_address");
}

proptest! {
    /// Whatever is banned: no special, own, gateway or listed address lies in it.
    #[test]
    fn nothing_that_may_be_banned_holds_one_that_is_never(bits: u32, high: u128, len4 in 8_u8..=32, len6 in 16_u8..=128, six: bool) {
        let text = "never_ban: [private, 198.51.100.5, 2001:db8:aaaa::/48]\nlimits: {widest_prefix: {ipv4: 8, ipv6: 16}}\n";
        let policy = with(text, HOARDER);
        let source = if six { IpAddr::V6(Ipv6Addr::from_bits(high)) } else { Ipv4Addr::from_bits(bits).into() };
        let net = ban_prefix(source, len4, len6);
        prop_assert!(net.contains(&source.to_canonical()));
        if may_be_banned(net, &sparing(), &policy).is_ok() {
            for spared in ["127.0.0.1", "::1", "0.0.0.0", "::", "169.254.0.1", "fe80::1", "224.0.0.1", "ff02::1", "255.255.255.255",
                "198.51.100.10", "198.51.100.20", "198.51.100.30", "198.51.100.40", "198.51.100.50", "2001:db8:1::10", "2001:db8:1::50",
                "192.0.2.1", "203.0.113.200", "2001:db8::1", "192.0.2.254", "2001:db8::fe", "10.0.0.1", "198.51.100.5", "2001:db8:aaaa::1"] {
                prop_assert!(!net.contains(&spared.parse::<IpAddr>().unwrap()), "{net} holds {spared}");
            }
        }
    }
}
