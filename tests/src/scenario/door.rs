//! What the kernel says: the table as conntrack(8) prints it, the set as ipset(8) does, and packets counted on both sides
//! of the drop rule. Nothing here asks our own programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use ipnet::IpNet;
use serde_json::Value;

use super::settings::Evidence;
use crate::{
    Failure, Result,
    listing::{Entry, list},
    netns::Namespace,
};

/// The actioner's sets, as DESIGN.md names them.
const SETS: [&str; 2] = ["conntrack-guard-4", "conntrack-guard-6"];

/// The counters around the drop rule.
#[derive(Debug)]
pub struct Door {
    attackers: IpNet,
    busy: IpAddr,
}

/// The kernel at one moment.
#[derive(Debug, Clone)]
pub struct Look {
    /// When.
    pub at: SystemTime,
    /// Entries in the server's table.
    pub entries: usize,
    /// Those with an attacker at either end.
    pub his: usize,
    /// Those that an attacker began and that are assured.
    pub his_assured: usize,
    /// Those that an attacker began, that say ESTABLISHED, and for which the server has no socket, as `ss` shows them.
    pub his_dead: usize,
    /// Assured entries that the busy client began.
    pub busy_assured: usize,
    /// Entries by the source of their original direction, the largest first; the server's own left out.
    pub sources: Vec<(IpAddr, usize)>,
    /// Everything in the actioner's sets.
    pub banned: Vec<IpNet>,
    /// The attackers' packets that reached the server.
    pub came: u64,
    /// Those that the drop rule let pass.
    pub passed: u64,
    /// Packets of Alertmanager to the webhook.
    pub webhook: u64,
}

impl Look {
    /// Whether `net` is in the set.
    pub fn bans(&self, net: IpNet) -> bool {
        self.banned.contains(&net)
    }

    /// How much of it speaks against the attacker.
    pub fn counted(&self, evidence: Evidence) -> usize {
        match evidence {
            Evidence::Socketless => self.his_dead,
            Evidence::Assured => self.his_assured,
        }
    }
}

impl Door {
    /// Counts packets from `attackers` in the namespace, before raw PREROUTING (-300), where the drop rule is, and
    /// behind it, before conntrack (-200).
    pub(super) fn watch(namespace: &Namespace, attackers: IpNet, busy: IpAddr) -> Result<Self> {
        let family = if attackers.addr().is_ipv4() { "ip" } else { "ip6" };
        let (webhook, port) =
            super::settings::WEBHOOK.split_once(':').expect("the webhook's address has a port");
        namespace.nft(&format!(
            "table inet door {{\n\
               counter came {{ }}\n\
               counter passed {{ }}\n\
               counter webhook {{ }}\n\
               chain before {{ type filter hook prerouting priority -310; {family} saddr {attackers} counter name came; }}\n\
               chain behind {{ type filter hook prerouting priority -290; {family} saddr {attackers} counter name passed; }}\n\
               chain told {{ type filter hook input priority 0; ip daddr {webhook} tcp dport {port} counter name webhook; }}\n\
             }}\n"
        ))?;
        Ok(Self { attackers, busy })
    }

    pub(super) fn attackers(&self) -> IpNet {
        self.attackers
    }

    /// The set is read first and the counters last: what passed after a look that shows a ban passed after the ban. The sockets are
    /// read after the table: a connection made between the two must not look dead.
    pub(super) fn look(&self, namespace: &Namespace) -> Result<Look> {
        let mut banned = Vec::new();
        for set in SETS {
            let saved = namespace.output(&["ipset", "save", set])?;
            banned.extend(saved.lines().filter_map(element));
        }
        let entries = list(namespace)?;
        let sockets = peers(&namespace.output(&["ss", "-Htn", "state", "connected"])?);
        let counters = counters(namespace)?;
        let counter = |name| {
            counters
                .get(name)
                .copied()
                .ok_or_else(|| Failure::answer("nft list counters", format!("no {name}")))
        };
        Ok(Look {
            at: SystemTime::now(),
            entries: entries.len(),
            his: entries.iter().filter(|entry| ends(entry).any(|end| self.attackers.contains(&end))).count(),
            his_assured: assured(&entries, |source| self.attackers.contains(&source)),
            his_dead: entries.iter().filter(|entry| self.is_dead(entry, &sockets)).count(),
            busy_assured: assured(&entries, |source| source == self.busy),
            sources: sources(&entries),
            banned,
            came: counter("came")?,
            passed: counter("passed")?,
            webhook: counter("webhook")?,
        })
    }

    fn is_dead(&self, entry: &Entry, sockets: &BTreeSet<SocketAddr>) -> bool {
        let client = begun_by(entry).zip(entry.original.get("sport").and_then(|port| port.parse().ok()));
        entry.state.as_deref() == Some("ESTABLISHED")
            && client.is_some_and(|(source, port)| {
                self.attackers.contains(&source) && !sockets.contains(&SocketAddr::new(source, port))
            })
    }
}

fn begun_by(entry: &Entry) -> Option<IpAddr> {
    entry.source().parse().ok()
}

fn assured(entries: &[Entry], by: impl Fn(IpAddr) -> bool) -> usize {
    let of = |entry: &&Entry| entry.is("ASSURED") && begun_by(entry).is_some_and(&by);
    entries.iter().filter(of).count()
}

/// The far ends of `ss -Htn state connected`: `SYN-RECV 0 0 192.0.2.1:80 198.51.100.66:10000`.
fn peers(printed: &str) -> BTreeSet<SocketAddr> {
    printed.lines().filter_map(|line| line.split_whitespace().nth(4)?.parse().ok()).collect()
}

/// `add conntrack-guard-4 198.51.100.66 timeout 599`
fn element(line: &str) -> Option<IpNet> {
    let mut words = line.split(' ');
    let ("add", Some(_), Some(net)) = (words.next()?, words.next(), words.next()) else { return None };
    net.parse().or_else(|_| net.parse::<IpAddr>().map(IpNet::from)).ok()
}

/// The four addresses of both directions.
fn ends(entry: &Entry) -> impl Iterator<Item = IpAddr> {
    let both = [&entry.original, &entry.reply].map(|tuple| [tuple.get("src"), tuple.get("dst")]);
    both.into_iter()
        .flatten()
        .flatten()
        .filter_map(|address| address.parse().ok())
        .collect::<Vec<_>>()
        .into_iter()
}

fn sources(entries: &[Entry]) -> Vec<(IpAddr, usize)> {
    let mut counts = BTreeMap::<IpAddr, usize>::new();
    for source in entries.iter().filter_map(|entry| entry.source().parse::<IpAddr>().ok()) {
        if !source.is_loopback() {
            *counts.entry(source).or_default() += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(source, count)| (usize::MAX - count, *source));
    counts
}

fn counters(namespace: &Namespace) -> Result<BTreeMap<String, u64>> {
    let printed = namespace.output(&["nft", "-j", "list", "counters", "table", "inet", "door"])?;
    let json: Value = serde_json::from_str(&printed).map_err(|error| Failure::answer(&printed, error))?;
    let objects = json["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let counter = |object: &Value| {
        let counter = &object["counter"];
        Some((counter["name"].as_str()?.to_owned(), counter["packets"].as_u64()?))
    };
    Ok(objects.iter().filter_map(counter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_as_ipset_saves_them() {
        let named = |line| element(line).map(|net| net.to_string());
        assert_eq!(
            named("add conntrack-guard-4 198.51.100.66 timeout 599").as_deref(),
            Some("198.51.100.66/32")
        );
        assert_eq!(named("add conntrack-guard-6 2001:db8::/64 timeout 9").as_deref(), Some("2001:db8::/64"));
        assert_eq!(named("create conntrack-guard-4 hash:net family inet"), None);
    }

    #[test]
    fn far_ends_are_read_as_ss_prints_them() {
        let printed = "SYN-RECV  0 0 192.0.2.1:80 198.51.100.66:10000\n\
                       ESTAB     0 0 [2001:db8:2::1]:80 [2001:db8:51::66]:10001\n";
        let expected = ["198.51.100.66:10000", "[2001:db8:51::66]:10001"].map(|one| one.parse().unwrap());
        assert_eq!(peers(printed), BTreeSet::from(expected));
    }
}
