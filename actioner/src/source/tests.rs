use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{SourceError, parse};

fn refused(text: &str) -> SourceError {
    parse(text).expect_err("should be refused")
}

#[test]
fn addresses_are_read_as_they_stand() {
    for text in ["192.0.2.1", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::", "::1", "fe80::1"] {
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
    assert_eq!(parse("2001:0DB8:0:0::0001").unwrap().to_string(), "2001:db8::1");
}

#[test]
fn a_v4_mapped_address_is_the_v4_one() {
    for text in ["::ffff:192.0.2.1", "::FFFF:c000:0201", "0:0:0:0:0:ffff:192.0.2.1"] {
        assert_eq!(parse(text).unwrap().to_string(), "192.0.2.1", "{text}");
    }
    // Deprecated v4-compatible addresses and NAT64's are other peers, and stay what they are.
    assert!(parse("::192.0.2.1").unwrap().is_ipv6());
    assert!(parse("64:ff9b::192.0.2.1").unwrap().is_ipv6());
}

#[test]
fn each_refusal_has_its_reason() {
    use SourceError as E;
    type Made = fn(String) -> SourceError;
    let cases: [(&str, Made); 34] = [
        (" 192.0.2.1", E::Whitespace),
        ("192.0.2.1 ", E::Whitespace),
        ("192.0.2.1\u{a0}", E::Whitespace),
        ("192.0.2.1; reboot", E::Whitespace),
        ("192.0.2.0/24", E::Prefix),
        ("192.0.2.1/32", E::Prefix),
        ("2001:db8::/32", E::Prefix),
        ("010.0.0.0/8", E::Prefix),
        ("[2001:db8::1]", E::Brackets),
        ("[2001:db8::1]:443", E::Brackets),
        ("[192.0.2.1]", E::Brackets),
        ("fe80::1%eth0", E::Zone),
        ("192.0.2.1:443", E::Port),
        ("010.0.0.1:80", E::Port),
        ("010.0.0.1", E::LeadingZero),
        ("192.0.2.01", E::LeadingZero),
        ("::ffff:192.0.2.001", E::LeadingZero),
        ("example.org", E::NotAnAddress),
        ("localhost", E::NotAnAddress),
        ("dst", E::NotAnAddress),
        ("$(reboot)", E::NotAnAddress),
        ("`id`", E::NotAnAddress),
        ("--all", E::NotAnAddress),
        ("192.0.2", E::NotAnAddress),
        ("192.0.2.1.5", E::NotAnAddress),
        ("192.0.2.256", E::NotAnAddress),
        ("3221225985", E::NotAnAddress),
        ("0xc0000201", E::NotAnAddress),
        ("2001:db8:::1", E::NotAnAddress),
        ("example.org/24", E::NotAnAddress),
        ("src:192.0.2.1", E::NotAnAddress),
        ("http://192.0.2.1", E::NotAnAddress),
        ("2001:db8:::0", E::NotAnAddress),
        ("１９２.0.2.1", E::NotAnAddress),
    ];
    for (text, reason) in cases {
        assert_eq!(refused(text), reason(text.replace('\u{a0}', "\\u{a0}")), "{text}");
    }
    assert_eq!(refused(""), E::Empty);
}

#[test]
fn a_long_text_is_not_repeated_in_full() {
    for text in ["x".repeat(100_000), "1.".repeat(100_000), ":".repeat(100_000), "\u{1b}[2J".repeat(10_000)] {
        let sentence = refused(&text).to_string();
        assert!(sentence.chars().count() < 360, "{sentence}");
        assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
    }
}

proptest! {
    #[test]
    fn every_address_is_read_back(bits: u128, short: u32) {
        let (v6, v4) = (Ipv6Addr::from(bits), Ipv4Addr::from(short));
        prop_assert_eq!(parse(&v6.to_string()), Ok(IpAddr::V6(v6).to_canonical()));
        prop_assert_eq!(parse(&v4.to_string()), Ok(IpAddr::V4(v4)));
        prop_assert_eq!(parse(&v4.to_ipv6_mapped().to_string()), Ok(IpAddr::V4(v4)));
    }

    /// What is accepted is an address to everybody else as well: nothing is guessed, trimmed or cut off.
    #[test]
    fn nothing_but_an_address_is_accepted(text in "[0-9a-f:./%\\[\\] ]{0,40}") {
        if let Ok(address) = parse(&text) {
            prop_assert_eq!(text.parse::<IpAddr>().unwrap().to_canonical(), address);
        }
    }

    #[test]
    fn no_text_is_too_strange(text: String) {
        let _ = parse(&text);
    }
}
