//! Networks as people write them, each read in the one way it can be meant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

use crate::foreign::shorten;
use crate::source;

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum NetworkError {
    #[error(
        "`{0}` is neither an address nor a network such as 192.0.2.0/24 or 2001:db8::/32; names are never looked up"
    )]
    Neither(String),
    #[error("`{0}` has a leading zero, which some programs read as octal: write it without")]
    LeadingZero(String),
    #[error("`{text}`: a prefix of this family is a number from 0 to {longest}")]
    Prefix { text: String, longest: u8 },
    #[error(
        "`{text}` has bits set beyond its prefix; the network is `{network}`, the single address `{address}`"
    )]
    HostBits { text: String, network: IpNet, address: IpAddr },
}

/// An address is a network of its own; `::ffff:a.b.c.d` is a.b.c.d, with 96 taken off its prefix.
pub(super) fn parse(text: &str) -> Result<IpNet, NetworkError> {
    let shown = || shorten(text, 60);
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let canonical = source::parse(address).map_err(|error| match error {
        source::SourceError::LeadingZero(_) => NetworkError::LeadingZero(shown()),
        _ => NetworkError::Neither(shown()),
    })?;
    let Some(prefix) = prefix else { return Ok(IpNet::from(canonical)) };
    let mapped = canonical.is_ipv4() && address.contains(':');
    let longest: u8 = if canonical.is_ipv4() && !mapped { 32 } else { 128 };
    let digits = (1..=3).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let length = prefix.parse::<u8>().ok().filter(|length| digits && *length <= longest);
    let Some(length) = length else { return Err(NetworkError::Prefix { text: shown(), longest }) };
    if prefix.len() > 1 && prefix.starts_with('0') {
        return Err(NetworkError::LeadingZero(shown()));
    }
    let length = match mapped {
        false => length,
        true => length.checked_sub(96).ok_or_else(|| NetworkError::Neither(shown()))?,
    };
    exact(canonical, length).ok_or_else(|| NetworkError::HostBits {
        text: shown(),
        network: masked(canonical, length),
        address: canonical,
    })
}

fn exact(address: IpAddr, length: u8) -> Option<IpNet> {
    let network = masked(address, length);
    (network.addr() == address).then_some(network)
}

fn masked(address: IpAddr, length: u8) -> IpNet {
    let address = match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    };
    IpNet::new_assert(address, length)
}

#[cfg(test)]
mod tests;
