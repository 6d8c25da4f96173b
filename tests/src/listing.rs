//! The table as conntrack(8) prints it: the second opinion on everything our own dump says.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Failure, Result, netns::Namespace, topology::Family};

/// The fields of one direction as printed, by their printed names: src, dst, sport, dport, type, code, id, srckey …
pub type Tuple = BTreeMap<String, String>;

/// One line of `conntrack -L -o extended,id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// IPv4 or IPv6.
    pub family: Family,
    /// The protocol's number.
    pub protocol: u8,
    /// Seconds left; offloaded entries print none.
    pub timeout: Option<u32>,
    /// The state's name in the tool's spelling; TCP and SCTP have one.
    pub state: Option<String>,
    /// The first direction.
    pub original: Tuple,
    /// The other.
    pub reply: Tuple,
    /// Words in brackets: UNREPLIED, ASSURED, OFFLOAD.
    pub flags: BTreeSet<String>,
    /// The rest, by its printed name: mark, zone, zone-orig, zone-reply, use, id …
    pub rest: BTreeMap<String, String>,
}

impl Entry {
    /// The source of the first direction.
    pub fn source(&self) -> &str {
        self.original.get("src").map_or("", String::as_str)
    }

    /// Whether the word stands in brackets.
    pub fn is(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// A number of [`Self::rest`], in decimal or with 0x.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.rest.get(name).and_then(|text| text.parse().ok())
    }
}

/// Every entry of the namespace's table, both families.
///
/// # Errors
/// When `conntrack` fails, or prints a line that is not understood.
pub fn list(namespace: &Namespace) -> Result<Vec<Entry>> {
    let printed = namespace.output(&["conntrack", "-L", "-o", "extended,id"])?;
    let lines = printed.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| parse(line).map_err(|detail| Failure::answer(format!("conntrack -L: {line}"), detail)))
        .collect()
}

/// How many entries stand in each state (protocol number and state's name), for messages.
pub fn by_state(entries: &[Entry]) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for entry in entries {
        let state = entry.state.as_deref().unwrap_or("-");
        let assured = if entry.is("ASSURED") { " assured" } else { "" };
        *states.entry(format!("{}/{state}{assured}", entry.protocol)).or_default() += 1;
    }
    states
}

fn parse(line: &str) -> Result<Entry, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [family, _, _, protocol, ..] = words[..] else { return Err("fewer than four words".into()) };
    let family = match family {
        "ipv4" => Family::V4,
        "ipv6" => Family::V6,
        other => return Err(format!("family {other}")),
    };
    let mut entry = Entry {
        family,
        protocol: protocol.parse().map_err(|_| format!("protocol {protocol}"))?,
        timeout: None,
        state: None,
        original: Tuple::new(),
        reply: Tuple::new(),
        flags: BTreeSet::new(),
        rest: BTreeMap::new(),
    };
    for word in &words[4..] {
        if let Some((name, value)) = word.split_once('=') {
            entry.place(name, value.into());
        } else if let Some(flag) = word.strip_prefix('[') {
            entry.flags.insert(flag.trim_end_matches(']').into());
        } else if let Ok(seconds) = word.parse() {
            entry.timeout = Some(seconds);
        } else {
            entry.state = Some((*word).into());
        }
    }
    if entry.reply.is_empty() { Err("no second direction".into()) } else { Ok(entry) }
}

impl Entry {
    fn place(&mut self, name: &str, value: String) {
        let first = self.reply.is_empty() && !(name == "src" && self.original.contains_key("src"));
        let tuple = if first { &mut self.original } else { &mut self.reply };
        // `id` belongs to an ICMP tuple once, right after its code; the last one is the entry's own.
        let of_tuple = match name {
            "src" | "dst" | "sport" | "dport" | "type" | "code" | "srckey" | "dstkey" | "packets"
            | "bytes" => true,
            "id" => tuple.contains_key("code") && !tuple.contains_key("id"),
            _ => false,
        };
        if of_tuple {
            tuple.insert(name.into(), value);
        } else {
            self.rest.insert(name.into(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_line_and_an_icmp_line() {
        let tcp = "ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.1 dst=192.0.2.2 sport=1 dport=2 src=192.0.2.2 \
                   dst=192.0.2.1 sport=2 dport=1 [ASSURED] mark=0 zone=3 use=1 id=77";
        let tcp = parse(tcp).unwrap();
        assert_eq!(
            (tcp.protocol, tcp.timeout, tcp.state.as_deref()),
            (6, Some(431_999), Some("ESTABLISHED"))
        );
        assert_eq!((tcp.original["sport"].as_str(), tcp.reply["sport"].as_str()), ("1", "2"));
        assert!(tcp.is("ASSURED") && !tcp.is("UNREPLIED"));
        assert_eq!((tcp.number("zone"), tcp.number("id")), (Some(3), Some(77)));

        let icmp = "ipv4     2 icmp     1 29 src=192.0.2.1 dst=192.0.2.2 type=8 code=0 id=5 [UNREPLIED] src=192.0.2.2 \
                    dst=192.0.2.1 type=0 code=0 id=5 mark=0 use=1 id=99";
        let icmp = parse(icmp).unwrap();
        assert_eq!(
            (icmp.original["id"].as_str(), icmp.reply["id"].as_str(), icmp.number("id")),
            ("5", "5", Some(99))
        );
        assert!(icmp.is("UNREPLIED") && icmp.state.is_none());
    }
}
