//! What a firewall must do on the real kernel, whichever client speaks to it: our own (`Ipset`), and with the cargo
//! feature `libipset` the library's. Every test has network namespaces of its own, and needs root, ipset and iptables.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod bans;
mod create_sets;
mod full;
mod packets;
mod rules;
mod sets;
mod teardown;
mod together;
mod tools;

use std::time::Duration;

use conntrack_actioner::firewall::{Ban, BanError, Config, Element, Enforced, Firewall, FirewallError};
use ipnet::IpNet;
use tests::{
    netns::Namespace,
    tools::{Tool, require},
};

/// How the client under test is opened.
type Open = fn(Config) -> Result<Box<dyn Firewall>, FirewallError>;

fn ipset(config: Config) -> Result<Box<dyn Firewall>, FirewallError> {
    Ok(Box::new(conntrack_actioner::firewall::Ipset::open(config)?))
}

#[cfg(feature = "libipset")]
fn libipset(config: Config) -> Result<Box<dyn Firewall>, FirewallError> {
    Ok(Box::new(conntrack_actioner::firewall::LibIpset::open(config)?))
}

/// Makes a test of each function for each client.
macro_rules! for_each_client {
    ($($test:ident),* $(,)?) => {
        mod ipset {
            $(#[test] fn $test() { super::$test(crate::ipset); })*
        }
        #[cfg(feature = "libipset")]
        mod libipset {
            $(#[test] fn $test() { super::$test(crate::libipset); })*
        }
    };
}
use for_each_client;

/// A host with nothing but loopback, and a firewall opened in it, not yet in place.
fn on_a_host(open: Open, config: Config, test: impl FnOnce(&Namespace, &mut dyn Firewall) + Send) {
    require(&[Tool::Ipset, Tool::Iptables, Tool::Ip]).unwrap();
    let host = Namespace::new("host").unwrap();
    host.run(|| test(&host, open(config).unwrap().as_mut()));
}

/// The same with the firewall in place.
fn on_a_guarded_host(open: Open, test: impl FnOnce(&Namespace, &mut dyn Firewall) + Send) {
    on_a_host(open, Config::default(), |host, firewall| {
        let ensured = firewall.ensure().unwrap();
        ensured.ipv6.unwrap();
        test(host, firewall);
    });
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ban(text: &str, seconds: u64) -> Ban {
    Ban { net: net(text), timeout: Duration::from_secs(seconds) }
}

/// Bans one, which must come out as one.
fn ban_one(firewall: &mut dyn Firewall, ban: Ban) -> Result<Enforced, BanError> {
    let mut outcomes = firewall.ban(&[ban]).unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// The kernel shows whole seconds, and a slow machine loses some between writing and reading.
fn about(remaining: Option<Duration>, seconds: u64) -> bool {
    remaining.is_some_and(|left| (seconds.saturating_sub(20)..=seconds).contains(&left.as_secs()))
}

fn find(firewall: &mut dyn Firewall, text: &str) -> Option<Element> {
    firewall.list().unwrap().into_iter().find(|element| element.net == net(text))
}

/// The members of a set as the `ipset` program prints them, sorted, with their timeouts.
fn members(host: &Namespace, set: &str) -> Vec<(IpNet, u64)> {
    let printed = host.output(&["ipset", "list", set]).unwrap();
    let member = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let net =
            words[0].parse().unwrap_or_else(|_| IpNet::from(words[0].parse::<std::net::IpAddr>().unwrap()));
        (net, words[2].parse().unwrap())
    };
    let mut members: Vec<_> =
        printed.lines().skip_while(|line| *line != "Members:").skip(1).map(member).collect();
    members.sort_unstable();
    members
}

/// The rules of raw PREROUTING as `iptables` prints them.
fn rules(host: &Namespace, program: &str) -> Vec<String> {
    let printed = host.output(&[program, "-t", "raw", "-S", "PREROUTING"]).unwrap();
    printed.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
}

/// Our rule as `iptables` prints it.
fn our_rule(set: &str) -> String {
    format!(
        "-A PREROUTING -m set --match-set {set} src -m comment --comment \"conntrack-guard: drop banned sources\" -j DROP"
    )
}
