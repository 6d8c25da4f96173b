//! `keep_reachable`: ports that answer named peers while the table is full, because their packets never ask for a slot.
//!
//! The rules stand in chains of our own (`layout`) and are kept like the drop rule: looked at when the rules of the namespace
//! changed, put back and counted. A port that is translated, or that a foreign filter would cut off untracked, is refused with the
//! rule's own words: reachable a little less is better than cut off. Put in only where a policy enforces something.

mod layout;
mod nat;
mod native;
mod saved;

use crate::firewall::tool::run;
use crate::firewall::{Family, FirewallError, Generation};
use crate::policy::KeepReachable;
use conntrack::own::OwnAddresses;
use ipnet::IpNet;
use layout::{Chain, chains};
use native::Objection;
use saved::{Stand, stand, tables, transaction};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// So long a look is trusted where the kernel says that no rule changed: addresses can have.
const TRUSTED: Duration = Duration::from_secs(60);
const TRIES: usize = 8;
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// What `status` says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reachable {
    /// Ports that answer whatever the table holds, by family.
    pub covered: Vec<Covered>,
    /// Ports that were asked for and are not covered.
    pub refused: Vec<Refused>,
    /// Why nothing is in place as it should be; each a sentence.
    pub trouble: Vec<String>,
}

/// What is covered of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Covered {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// TCP ports of this host.
    pub ports: Vec<u16>,
    /// For whom.
    pub from: Vec<IpNet>,
}

/// A port that is not covered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// The port.
    pub port: u16,
    /// A sentence that names the rule.
    pub why: String,
}

/// The rules could not be read or written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Tool(#[from] FirewallError),
    #[error(
        "keep_reachable: the chains {set}-in and {set}-out of raw and filter are still not as they should be after {TRIES} tries: is another program rewriting them? See `{show}`"
    )]
    Contested { set: String, show: &'static str },
}

/// Keeps the rules. Works in the calling thread's network namespace.
#[derive(Debug, Default)]
pub struct Reach {
    generation: Generation,
    /// What stood at the last look, at which generation of the rules.
    seen: Option<Seen>,
    /// What was put in before, so that what is missing of it is drift.
    put: Option<KeepReachable>,
    status: Option<Reachable>,
    /// No rule of ours stands, and nobody but us puts one in.
    clean: bool,
}

#[derive(Debug)]
struct Seen {
    wanted: KeepReachable,
    generation: u32,
    at: Instant,
}

impl Reach {
    /// What stands; None: nothing is asked for.
    pub fn status(&self) -> Option<&Reachable> {
        self.status.as_ref()
    }

    /// Nothing is put in, and this is why.
    pub fn idle(&mut self, why: Option<&str>) {
        self.status = why.map(|why| Reachable { trouble: vec![why.to_owned()], ..Reachable::default() });
    }

    /// Makes the rules stand, and returns how many chains somebody else had changed since. What is wrong is in
    /// [`Self::status`], and logged when it is new.
    pub fn keep(&mut self, wanted: &KeepReachable, set: &str, own: &OwnAddresses) -> u64 {
        // Before the look: what changes during it is seen at the next one.
        let generation = self.generation.now();
        let unchanged = |seen: &Seen| {
            Some(seen.generation) == generation && seen.at.elapsed() < TRUSTED && seen.wanted == *wanted
        };
        if self.seen.as_ref().is_some_and(unchanged) {
            return 0;
        }
        (self.seen, self.clean) = (None, false);
        let mut status = Reachable::default();
        let mut mended = 0;
        for family in FAMILIES {
            match self.keep_family(family, wanted, set, own, &mut status) {
                Ok(found) => mended += found,
                Err(error) => status.trouble.push(format!("{}: {error}", word(family))),
            }
        }
        if self.status.as_ref() != Some(&status) {
            say(&status);
        }
        if let (Some(generation), true) = (generation, mended == 0 && status.trouble.is_empty()) {
            self.seen = Some(Seen { wanted: wanted.clone(), generation, at: Instant::now() });
        }
        self.status = Some(status);
        let before = self.put.replace(wanted.clone());
        if before.as_ref() == Some(wanted) { mended } else { 0 }
    }

    fn keep_family(
        &mut self,
        family: Family,
        wanted: &KeepReachable,
        set: &str,
        own: &OwnAddresses,
        status: &mut Reachable,
    ) -> Result<u64, Error> {
        let from: Vec<IpNet> = wanted.from.iter().filter(|net| Family::of(net) == family).copied().collect();
        let mut ports = Vec::new();
        if !from.is_empty() {
            let rules = Rules::read(family, self.generation.by_nftables())?;
            for port in &wanted.ports {
                match rules.objection(family, *port, own) {
                    None => ports.push(*port),
                    Some(why) => status.refused.push(Refused { family: word(family), port: *port, why }),
                }
            }
        }
        let found = ensure(family, set, &chains(family, set, &ports, &from))?;
        if !ports.is_empty() {
            status.covered.push(Covered { family: word(family), ports, from });
        }
        Ok(found)
    }

    /// Takes our rules out, if any stand.
    ///
    /// # Errors
    /// A sentence; what could be taken out was.
    pub fn remove(&mut self, set: &str) -> Result<bool, String> {
        if self.clean {
            return Ok(false);
        }
        (self.seen, self.put, self.status) = (None, None, None);
        let removed = remove(set)?;
        self.clean = true;
        Ok(removed)
    }

    /// How many ports are covered, and how many are not though they were asked for, in every family.
    pub fn counts(&self) -> [usize; 2] {
        let Some(status) = &self.status else { return [0, 0] };
        let refused: BTreeSet<u16> = status.refused.iter().map(|refused| refused.port).collect();
        let asked = self.put.as_ref().map_or(0, |put| put.ports.len());
        let covered = if status.trouble.is_empty() { asked - refused.len().min(asked) } else { 0 };
        [covered, asked - covered]
    }
}

/// Takes the chains out, their jumps first, and says whether there were any. Where a program is missing, no rule of ours was made.
///
/// # Errors
/// A sentence.
pub fn remove(set: &str) -> Result<bool, String> {
    let removed = FAMILIES.map(|family| {
        let mut gone = chains(family, set, &[], &[]);
        // No packet goes untracked any more when the accepts are taken out.
        gone.reverse();
        match ensure(family, set, &gone) {
            Err(Error::Tool(FirewallError::ToolMissing { .. })) => Ok(false),
            found => found.map(|found| found > 0).map_err(|error| error.to_string()),
        }
    });
    let [ipv4, ipv6] = removed;
    Ok(ipv4? | ipv6?)
}

/// Everything that may translate or drop, as the programs print it.
struct Rules {
    iptables: String,
    /// Of the other iptables, whose rules stand besides and are not shown by this one.
    legacy: String,
    nftables: String,
    by_nftables: bool,
}

impl Rules {
    fn read(family: Family, by_nftables: bool) -> Result<Rules, Error> {
        // A host without the program has no rules of its making, or keeps them from us.
        let if_there = |program, arguments: &[&str]| match run(program, arguments, "") {
            Err(FirewallError::ToolMissing { .. }) => Ok(String::new()),
            printed => printed,
        };
        let legacy = match family {
            Family::Ipv4 => "iptables-legacy-save",
            Family::Ipv6 => "ip6tables-legacy-save",
        };
        Ok(Rules {
            iptables: run(save(family), &[], "")?,
            legacy: if by_nftables { if_there(legacy, &[])? } else { String::new() },
            nftables: if_there("nft", &["-s", "-t", "list", "ruleset"])?,
            by_nftables,
        })
    }

    /// Why this port must stay tracked.
    fn objection(&self, family: Family, port: u16, own: &OwnAddresses) -> Option<String> {
        let is_ours = |net: &IpNet| own.touches(net).is_some();
        let translated = |rule: &str| {
            format!(
                "port {port} is translated by `{rule}`: untracked, its packets would not be, so it stays tracked and is dropped with the others when the table is full"
            )
        };
        for text in [&self.iptables, &self.legacy] {
            let tables = tables(text);
            if let Some(rule) = tables.get("nat").and_then(|nat| nat::translating(nat, port, &is_ours)) {
                return Some(translated(&rule));
            }
        }
        let legacy = tables(&self.legacy);
        let rule = legacy.get("filter").and_then(|filter| {
            filter.iter().find_map(|(chain, rules)| Some(format!("-A {chain} {}", rules.first()?)))
        });
        if let Some(rule) = rule {
            return Some(format!(
                "iptables-legacy has a filter besides (`{rule}`), which an accept of ours cannot pass: move its rules to iptables, or remove them"
            ));
        }
        let iptables = tables(&self.iptables);
        // The legacy one shows tables of its own, which are not those of nftables.
        let shown: Vec<&str> = iptables.keys().copied().filter(|_| self.by_nftables).collect();
        match native::objection(&self.nftables, family, port, &shown)? {
            Objection::Translates(rule) => Some(translated(&rule)),
            Objection::Drops(table) => Some(format!(
                "nftables' {table} drops by connection state and accepts no untracked packet, so port {port} would be cut off: add to its input chain `tcp dport {port} ct state untracked accept` for these peers (and the same with sport to its output chain if that drops)"
            )),
        }
    }
}

/// Makes the chains stand, and says how many did not at first.
fn ensure(family: Family, set: &str, chains: &[Chain; 4]) -> Result<u64, Error> {
    let restore = match family {
        Family::Ipv4 => "iptables-restore",
        Family::Ipv6 => "ip6tables-restore",
    };
    let (mut first_look, mut refusal) = (None, None);
    for _ in 0..TRIES {
        let text = run(save(family), &[], "")?;
        let tables = tables(&text);
        let wrong: Vec<&Chain> =
            chains.iter().filter(|chain| stand(chain, &tables) != Stand::InPlace).collect();
        let found = *first_look.get_or_insert(wrong.len() as u64);
        if wrong.is_empty() {
            return Ok(found);
        }
        refusal = run(restore, &["-w", "5", "--noflush"], &transaction(&wrong, &tables)).err();
        if let Some(missing @ FirewallError::ToolMissing { .. }) = refusal {
            return Err(missing.into());
        }
    }
    Err(refusal.map_or_else(|| Error::Contested { set: set.to_owned(), show: save(family) }, Error::Tool))
}

fn save(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "iptables-save",
        Family::Ipv6 => "ip6tables-save",
    }
}

fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

fn say(status: &Reachable) {
    for Covered { family, ports, from } in &status.covered {
        tracing::info!(family, ?ports, ?from, "these ports answer these peers even when the table is full");
    }
    for Refused { family, port, why } in &status.refused {
        tracing::error!(family, port, why, "a port is not kept reachable");
    }
    for trouble in &status.trouble {
        tracing::error!(error = trouble, "ports cannot be kept reachable");
    }
}
