use ipnet::IpNet;
use proptest::prelude::*;

use super::parse;

fn refused(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn networks_and_addresses() {
    for (text, network) in [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.10", "192.0.2.10/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("::/0", "::/0"),
        ("::ffff:192.0.2.10", "192.0.2.10/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
    ] {
        assert_eq!(parse(text).unwrap().to_string(), network, "{text}");
    }
}

#[test]
fn host_bits_name_what_was_meant() {
    let sentence = refused("192.0.2.10/24");
    assert!(
        sentence.contains("the network is `192.0.2.0/24`, the single address `192.0.2.10`"),
        "{sentence}"
    );
    assert!(refused("2001:db8::1/64").contains("`2001:db8::/64`"));
    assert!(refused("::ffff:192.0.2.10/120").contains("`192.0.2.0/24`"));
}

#[test]
fn what_is_no_network_says_why() {
    for (text, part) in [
        ("192.0.02.0/24", "leading zero"),
        ("192.0.2.0/024", "leading zero"),
        ("192.0.2.0/33", "from 0 to 32"),
        ("192.0.2.0/", "from 0 to 32"),
        ("192.0.2.0/-1", "from 0 to 32"),
        ("192.0.2.0/+8", "from 0 to 32"),
        ("192.0.2.0/255.255.255.0", "from 0 to 32"),
        ("2001:db8::/129", "from 0 to 128"),
        ("::ffff:0.0.0.0/90", "neither an address nor a network"),
        ("example.org", "names are never looked up"),
        ("192.0.2.0 /24", "neither"),
        ("192.0.2", "neither"),
        ("", "neither"),
    ] {
        assert!(refused(text).contains(part), "{text}: {}", refused(text));
    }
}

proptest! {
    #[test]
    fn every_network_is_read_back(bits: u128, length in 0u8..=128) {
        let network = IpNet::new_assert(std::net::Ipv6Addr::from_bits(bits).into(), length).trunc();
        prop_assume!(!matches!(network.addr().to_canonical(), std::net::IpAddr::V4(_)));
        prop_assert_eq!(parse(&network.to_string()), Ok(network));
    }

    #[test]
    fn every_v4_network_is_read_back(bits: u32, length in 0u8..=32) {
        let network = IpNet::new_assert(std::net::Ipv4Addr::from_bits(bits).into(), length).trunc();
        prop_assert_eq!(parse(&network.to_string()), Ok(network));
    }

    #[test]
    fn no_text_is_too_strange(text in "[0-9a-f:./]{0,30}|\\PC*") {
        let _ = parse(&text);
    }
}
