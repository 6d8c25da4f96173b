//! The watch on a server: what it costs when nothing happens, what it does to a server with a large table, and how soon it acts.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod large;
mod prompt;
mod quiet;

use std::{fs, net::IpAddr};

use tests::{
    Result,
    netns::Namespace,
    programs::workspace,
    topology::{SERVER_V4, SERVER_V6},
};

/// The policy that is packaged, but enforced.
fn packaged() -> String {
    let text = fs::read_to_string(workspace().join("packaging/policy.yaml")).unwrap();
    let enforced = text.replacen("\nenforce: false\n", "\nenforce: true\n", 1);
    assert_ne!(enforced, text, "packaged, it is a dry run");
    enforced
}

/// Puts dead slots into the server's table, each of a source of its own: half of them IPv4, half IPv6. They are idle for 1,000 s.
fn fill(server: &Namespace, count: u32) -> Result<()> {
    let line = |number: u32| {
        let (source, to): (IpAddr, IpAddr) = if number.is_multiple_of(2) {
            (std::net::Ipv4Addr::from_bits(0x0b00_0000 + number).into(), SERVER_V4.into())
        } else {
            let high = 0x2001_0db8_0011_0000_u128 << 64;
            (std::net::Ipv6Addr::from_bits(high + (u128::from(number) << 32) + 1).into(), SERVER_V6.into())
        };
        format!(
            "-I -s {source} -d {to} -p tcp --sport 1024 --dport 80 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 431000\n"
        )
    };
    let lines: String = (0..count).map(line).collect();
    server.command_with_input(&["conntrack", "--load-file", "-"], &lines)?;
    let entries: u32 = server.read_sysctl("net/netfilter/nf_conntrack_count")?.parse().unwrap();
    assert!((count..count + 100).contains(&entries), "{entries} entries of {count}");
    Ok(())
}
