//! Whether a drop rule can have changed since it was seen in place, asked without starting a program: each look by iptables
//! costs some 5 ms, and a look every five seconds would be the most that a quiet host pays for us.
//!
//! nf_tables numbers its rules: whatever changes them in a network namespace raises the namespace's generation
//! (nf_tables_commit raises base_seq). Where `iptables` is the legacy one there is no such number, and each look is one by the tools.

use conntrack::{
    Channel, Error, Link,
    netlink::{Attributes, Malformed, NLM_F_ACK, Requests},
};

use super::{Family, FirewallError, Rule, rule};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`, and the answer's NFT_MSG_NEWGEN.
const GETGEN: u16 = 10 << 8 | 16;
const NEWGEN: u16 = 10 << 8 | 15;
const NFTA_GEN_ID: u16 = 1;
const ASKED: &str = "the generation of the nftables rules";

/// The drop rules of both families, and when they were last seen in place.
#[derive(Debug, Default)]
pub(super) struct Standing {
    rules: Generation,
    /// The generation at which the rule of that family stood first and alone.
    seen: [Option<u32>; 2],
}

impl Standing {
    /// Makes the rule stand once and first, unless nothing can have changed since it did.
    pub(super) fn ensure(&mut self, family: Family, set: &str) -> Result<Rule, FirewallError> {
        // Before the look: what changes during it is seen at the next one.
        let now = self.rules.now();
        let seen = &mut self.seen[usize::from(family == Family::Ipv6)];
        if now.is_some() && *seen == now {
            return Ok(Rule::InPlace);
        }
        *seen = None;
        let rule = rule::ensure(family, set)?;
        if rule == Rule::InPlace {
            *seen = now;
        }
        Ok(rule)
    }
}

/// The number of the nftables rules of the calling thread's namespace, where `iptables` writes such.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    /// None until it is known.
    by_nftables: Option<bool>,
}

impl Generation {
    /// Whether `iptables` writes nftables rules.
    pub(crate) fn by_nftables(&mut self) -> bool {
        *self.by_nftables.get_or_insert_with(rule::by_nftables)
    }

    /// None where it cannot be known: then the tools are asked.
    pub(crate) fn now(&mut self) -> Option<u32> {
        self.by_nftables().then(|| generation().ok().flatten()).flatten()
    }
}

/// Of the calling thread's network namespace.
fn generation() -> Result<Option<u32>, Error> {
    let mut link = Link::open(Channel::Netfilter, ASKED)?;
    let sequence = link.next_sequence();
    let mut request = Requests::new();
    request.message(GETGEN, NLM_F_ACK, sequence, |r| r.raw(&[0; 4]));
    let mut found = None;
    link.ask(
        &request,
        ASKED,
        |message| {
            if message.kind == NEWGEN {
                let attributes =
                    message.payload.get(4..).ok_or(Malformed("a generation without a header"))?;
                for attribute in Attributes(attributes) {
                    let attribute = attribute?;
                    if attribute.kind == NFTA_GEN_ID {
                        found = Some(attribute.be32()?);
                    }
                }
            }
            Ok(())
        },
        || (),
    )?;
    Ok(found)
}
