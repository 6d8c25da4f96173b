//! The text of a label as a source's address: exactly one address, or a typed reason why it is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::foreign::shorten;

/// The longest textual address is an IPv6 one with an embedded IPv4 address (INET6_ADDRSTRLEN - 1).
const LONGEST: usize = 45;
/// So much of a foreign text is repeated in a message.
const SHOWN: usize = 60;

/// Why a text is not the address of one source. The text stands in each, shortened and with its control
/// characters written out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceError {
    /// Nothing there: most often the alert lacks the label.
    #[error("the source is empty: the alert lacks the label, or its value")]
    Empty,
    /// Blanks, tabs or line ends.
    #[error("the source \"{0}\" holds white space: write the address alone")]
    Whitespace(String),
    /// A network, not an address.
    #[error(
        "the source \"{0}\" is a prefix: only single addresses are nominated; how wide a ban is, the rule says"
    )]
    Prefix(String),
    /// An address in brackets, as in URLs.
    #[error("the source \"{0}\" is in brackets: write the address alone")]
    Brackets(String),
    /// An address with a zone id, `fe80::1%eth0`.
    #[error("the source \"{0}\" carries a zone id: conntrack entries have none")]
    Zone(String),
    /// An address with a port attached.
    #[error("the source \"{0}\" has a port attached: write the address alone")]
    Port(String),
    /// Four numbers, of which one has a leading zero: octal to some readers, decimal to others.
    #[error("the source \"{0}\" has a leading zero, which some programs read as octal: write it without")]
    LeadingZero(String),
    /// Anything else: a host name, a word.
    #[error("the source \"{0}\" is not an IPv4 or IPv6 address; names are never looked up")]
    NotAnAddress(String),
}

/// Reads a source's address. `::ffff:a.b.c.d` is a.b.c.d: it is the same peer, seen through a dual-stack socket.
///
/// # Errors
/// [`SourceError`]: each its own sentence.
pub fn parse(text: &str) -> Result<IpAddr, SourceError> {
    if text.is_empty() {
        return Err(SourceError::Empty);
    }
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical()),
        Err(_) => Err(reason(text)),
    }
}

fn reason(text: &str) -> SourceError {
    let shown = shorten(text, SHOWN);
    if text.chars().any(char::is_whitespace) {
        return SourceError::Whitespace(shown);
    }
    // Beyond this length the refinements below could only describe a text that is no address anyway.
    if text.len() > LONGEST + "/128".len() + "[]:65535".len() {
        return SourceError::NotAnAddress(shown);
    }
    if let Some((address, _)) = text.split_once('/')
        && looks_like_address(address)
    {
        return SourceError::Prefix(shown);
    }
    if let Some(inner) = text.strip_prefix('[')
        && let Some((address, _)) = inner.split_once(']')
        && looks_like_address(address)
    {
        return SourceError::Brackets(shown);
    }
    if let Some((address, _)) = text.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
    {
        return SourceError::Zone(shown);
    }
    if let Some((address, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
        && looks_like_ipv4(address)
    {
        return SourceError::Port(shown);
    }
    if without_leading_zeros(text).parse::<IpAddr>().is_ok() {
        return SourceError::LeadingZero(shown);
    }
    SourceError::NotAnAddress(shown)
}

fn looks_like_address(text: &str) -> bool {
    looks_like_ipv4(text) || text.parse::<Ipv6Addr>().is_ok()
}

/// An IPv4 address, leading zeros forgiven.
fn looks_like_ipv4(text: &str) -> bool {
    without_leading_zeros(text).parse::<Ipv4Addr>().is_ok()
}

/// The numbers of an IPv4 address, alone or at the end of an IPv6 one, without their leading zeros.
fn without_leading_zeros(text: &str) -> String {
    let dotted = text.rfind(':').map_or(0, |colon| colon + 1);
    let number = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        digits => digits.to_owned(),
    };
    let numbers: Vec<String> = text[dotted..].split('.').map(number).collect();
    format!("{}{}", &text[..dotted], numbers.join("."))
}

#[cfg(test)]
mod tests;
