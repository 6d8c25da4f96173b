//! The name servers of a `resolv.conf` (resolv.conf(5)).

use super::address;
use std::net::IpAddr;

/// Every `nameserver` of it, also those beyond the three that glibc asks: another resolver may read the file as well.
pub fn nameservers(text: &str) -> impl Iterator<Item = IpAddr> + use<> {
    let servers: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next().and_then(address)).flatten()
        })
        .collect();
    servers.into_iter()
}
