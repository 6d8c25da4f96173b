//! What `ipset save` prints of one set: a `create` line and an `add` line for each element. Pure.

use std::{net::IpAddr, str::SplitAsciiWhitespace};

use ipnet::IpNet;

use super::{
    Family,
    reply::{Header, Held},
};

/// Reads `create NAME TYPE family inet … maxelem N timeout N …`.
pub(super) fn header(text: &str) -> Result<Header, String> {
    let line = text.lines().find(|line| line.starts_with("create ")).ok_or("no create line")?;
    let mut words = line.split_ascii_whitespace().skip(2);
    let mut header = Header {
        type_name: words.next().ok_or("no type in its create line")?.to_owned(),
        ..Header::default()
    };
    while let Some(word) = words.next() {
        let mut number = || number(word, words.next());
        match word {
            "maxelem" => header.max_elements = Some(number()?),
            "timeout" => header.default_timeout = Some(number()?),
            "family" => {
                header.family = match words.next() {
                    Some("inet") => Family::Ipv4.nfproto(),
                    Some("inet6") => Family::Ipv6.nfproto(),
                    other => return Err(format!("family {other:?}")),
                };
            }
            _ => (),
        }
    }
    Ok(header)
}

/// Reads the `add NAME NET timeout N [nomatch]` lines.
pub(super) fn elements(text: &str, each: &mut dyn FnMut(Held)) -> Result<(), String> {
    for line in text.lines().filter(|line| line.starts_with("add ")) {
        let held = element(line.split_ascii_whitespace()).map_err(|reason| format!("{line:?}: {reason}"))?;
        each(held);
    }
    Ok(())
}

fn element(words: SplitAsciiWhitespace<'_>) -> Result<Held, String> {
    let mut words = words.skip(2);
    let net = words.next().ok_or("no address")?;
    let net = net
        .parse::<IpNet>()
        .or_else(|_| net.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{net:?} is no address"))?;
    let mut held = Held { net, timeout: None, nomatch: false };
    while let Some(word) = words.next() {
        match word {
            "timeout" => held.timeout = Some(number(word, words.next())?),
            "nomatch" => held.nomatch = true,
            // A comment may hold any words, and is printed last.
            "comment" => break,
            _ => (),
        }
    }
    Ok(held)
}

fn number(name: &str, word: Option<&str>) -> Result<u32, String> {
    let word = word.ok_or_else(|| format!("{name} without a number"))?;
    word.parse().map_err(|_| format!("{name} {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `ipset` 7.17.
    const SAVED: &str = "\
create conntrack-guard-4 hash:net family inet hashsize 1024 maxelem 65536 timeout 600 bucketsize 12 initval 0xd8d2296a
add conntrack-guard-4 203.0.113.9 timeout 4 nomatch
add conntrack-guard-4 198.51.100.0/24 timeout 0
add conntrack-guard-4 192.0.2.7 timeout 299 comment \"timeout x\"
";

    #[test]
    fn what_save_prints_is_read() {
        let header = header(SAVED).unwrap();
        assert_eq!((header.type_name.as_str(), header.family), ("hash:net", 2));
        assert_eq!((header.max_elements, header.default_timeout), (Some(65_536), Some(600)));
        let mut listed = Vec::new();
        elements(SAVED, &mut |held| listed.push(held)).unwrap();
        let held =
            |net: &str, timeout, nomatch| Held { net: net.parse().unwrap(), timeout: Some(timeout), nomatch };
        assert_eq!(
            listed,
            [
                held("203.0.113.9/32", 4, true),
                held("198.51.100.0/24", 0, false),
                held("192.0.2.7/32", 299, false)
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(header("").unwrap_err().contains("create"));
        assert!(header("create x hash:net maxelem many").unwrap_err().contains("many"));
        for line in ["add x", "add x dst timeout 4", "add x 192.0.2.1 timeout", "add x 192.0.2.1 timeout -4"]
        {
            assert!(elements(line, &mut |_| ()).unwrap_err().contains(line), "{line}");
        }
    }

    #[test]
    fn every_cut_is_read_or_an_error() {
        for cut in 0..SAVED.len() {
            let _ = header(&SAVED[..cut]);
            let _ = elements(&SAVED[..cut], &mut |_| ());
        }
    }
}
