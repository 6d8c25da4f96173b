//! The timeouts that tell an idle TCP connection from a busy one: the namespace's own, and those of every timeout policy.
//!
//! A dump does not show which policy an entry is under (`ctnetlink_fill_info` writes no timeout extension), and under a policy
//! shorter than the default an entry made this moment looks idle for days. So all that exist are read, and an entry is taken to
//! be idle for the *shortest* time that any of them allows.

use crate::link::{Channel, Error, Link};
use crate::netlink::{Attribute, Attributes, Malformed, NLM_F_DUMP, Requests};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::path::Path;

const IPPROTO_TCP: u8 = 6;
const ASKED: &str = "the conntrack timeout policies";
const NFGENMSG: usize = 4;

/// `linux/netfilter/nf_tables.h`: `ct timeout` objects of nftables.
mod nft {
    pub(super) const NEWOBJ: u16 = 10 << 8 | 18;
    pub(super) const GETOBJ: u16 = 10 << 8 | 19;
    pub(super) const OBJ_TYPE: u16 = 3;
    pub(super) const OBJ_DATA: u16 = 4;
    pub(super) const OBJECT_CT_TIMEOUT: u32 = 7;
    pub(super) const L4PROTO: u16 = 2;
    pub(super) const DATA: u16 = 3;
}

/// `linux/netfilter/nfnetlink_cttimeout.h`: what `iptables -j CT --timeout` names.
mod cttimeout {
    pub(super) const NEW: u16 = 8 << 8;
    pub(super) const GET: u16 = 8 << 8 | 1;
    pub(super) const L4PROTO: u16 = 3;
    pub(super) const DATA: u16 = 4;
}

/// `enum ctattr_timeout_tcp`.
const CTA_TIMEOUT_TCP_ESTABLISHED: u16 = 3;
const CTA_TIMEOUT_TCP_RETRANS: u16 = 10;
const CTA_TIMEOUT_TCP_UNACK: u16 = 11;

/// The TCP timeouts that an entry of this namespace can be under, in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpTimeouts {
    default: Timeouts,
    established: BTreeSet<u32>,
    busy: u32,
}

/// The three that matter, of the namespace or of a policy, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// `nf_conntrack_tcp_timeout_established`.
    pub established: u32,
    /// `nf_conntrack_tcp_timeout_unacknowledged`.
    pub unacknowledged: u32,
    /// `nf_conntrack_tcp_timeout_max_retrans`.
    pub max_retrans: u32,
}

impl Timeouts {
    /// An established entry with no more than so many seconds left may be busy: unacknowledged data, retransmissions and loose
    /// pick-up hold at most this.
    pub fn busy(&self) -> u32 {
        self.unacknowledged.max(self.max_retrans)
    }
}

impl TcpTimeouts {
    /// Reads them in the calling thread's namespace: the defaults from procfs, the policies over netlink.
    ///
    /// # Errors
    /// A file is missing or holds no number, or the policies cannot be read; the text names it.
    pub fn read(procfs: &Path) -> std::io::Result<TcpTimeouts> {
        let read = |name: &str| {
            let path = procfs.join("sys/net/netfilter").join(format!("nf_conntrack_tcp_timeout_{name}"));
            let named = |why: String| std::io::Error::other(format!("{}: {why}", path.display()));
            let text = std::fs::read_to_string(&path).map_err(|error| named(error.to_string()))?;
            text.trim().parse().map_err(|_| named(format!("{:?} is no number", text.trim())))
        };
        let default = Timeouts {
            established: read("established")?,
            unacknowledged: read("unacknowledged")?,
            max_retrans: read("max_retrans")?,
        };
        Ok(TcpTimeouts::of(default, policies().map_err(std::io::Error::other)?))
    }

    /// Those of the namespace and of the policies in it.
    pub fn of(default: Timeouts, policies: impl IntoIterator<Item = Timeouts>) -> TcpTimeouts {
        let mut timeouts = TcpTimeouts { default, established: BTreeSet::new(), busy: 0 };
        for one in std::iter::once(default).chain(policies) {
            timeouts.established.insert(one.established);
            timeouts.busy = timeouts.busy.max(one.busy());
        }
        timeouts
    }

    /// The namespace's own.
    pub fn default(&self) -> Timeouts {
        self.default
    }

    /// The most that a busy entry has left, under whichever policy.
    pub fn busy(&self) -> u32 {
        self.busy
    }

    /// How long an established entry with so much left has been idle at least. None: more is left than any timeout allows
    /// (`conntrack -U --timeout`), or it may be busy.
    #[inline]
    pub fn idle(&self, left: u32) -> Option<u32> {
        if left <= self.busy {
            return None;
        }
        self.established.range(left..).next().map(|established| established - left)
    }
}

/// The TCP policies of the namespace, of either kind.
fn policies() -> Result<Vec<Timeouts>, Error> {
    let mut link = Link::open(Channel::Netfilter, ASKED)?;
    let mut found = Vec::new();
    for (get, new) in [(nft::GETOBJ, nft::NEWOBJ), (cttimeout::GET, cttimeout::NEW)] {
        let sequence = link.next_sequence();
        let mut request = Requests::new();
        request.message(get, NLM_F_DUMP, sequence, |r| {
            r.raw(&[0; NFGENMSG]);
            if get == nft::GETOBJ {
                r.attribute(nft::OBJ_TYPE, &nft::OBJECT_CT_TIMEOUT.to_be_bytes());
            }
        });
        let read = |message: crate::netlink::Message<'_>| {
            if message.kind == new {
                let attributes =
                    message.payload.get(NFGENMSG..).ok_or(Malformed("a policy without nfgenmsg"))?;
                found.extend(if new == nft::NEWOBJ {
                    of_nft(attributes)?
                } else {
                    of_cttimeout(attributes)?
                });
            }
            Ok(())
        };
        match link.ask(&request, ASKED, read, || ()) {
            Ok(answer) if !answer.interrupted => {}
            Ok(_) => return Err(Error::Interrupted { asked: ASKED }),
            // A kernel without that subsystem has no such policies.
            Err(Error::Refused { source, .. }) if absent(&source) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// `nfnetlink_rcv_msg` without the subsystem, and a subsystem without the message.
fn absent(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOENT))
}

/// `NFTA_OBJ_*`, and in its data `NFTA_CT_TIMEOUT_*`.
fn of_nft(attributes: &[u8]) -> Result<Option<Timeouts>, Malformed> {
    match find(Attributes(attributes), nft::OBJ_DATA)? {
        Some(data) => of_policy(data.nested(), nft::L4PROTO, nft::DATA),
        None => Ok(None),
    }
}

/// `CTA_TIMEOUT_*`.
fn of_cttimeout(attributes: &[u8]) -> Result<Option<Timeouts>, Malformed> {
    of_policy(Attributes(attributes), cttimeout::L4PROTO, cttimeout::DATA)
}

/// A policy's timeouts if it is for TCP. The kernel writes them all, those it took from the defaults too.
fn of_policy(attributes: Attributes<'_>, l4proto: u16, data: u16) -> Result<Option<Timeouts>, Malformed> {
    let protocol = find(attributes.clone(), l4proto)?.map(|protocol| protocol.byte()).transpose()?;
    let (Some(IPPROTO_TCP), Some(data)) = (protocol, find(attributes, data)?) else { return Ok(None) };
    let seconds = |kind: u16| {
        let missing = Malformed("a TCP timeout policy without one of its timeouts");
        find(data.nested(), kind)?.ok_or(missing)?.be32()
    };
    Ok(Some(Timeouts {
        established: seconds(CTA_TIMEOUT_TCP_ESTABLISHED)?,
        unacknowledged: seconds(CTA_TIMEOUT_TCP_UNACK)?,
        max_retrans: seconds(CTA_TIMEOUT_TCP_RETRANS)?,
    }))
}

fn find(attributes: Attributes<'_>, kind: u16) -> Result<Option<Attribute<'_>>, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == kind {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Timeouts = Timeouts { established: 432_000, unacknowledged: 300, max_retrans: 300 };

    #[test]
    fn idle_is_the_least_that_any_policy_allows() {
        let none = TcpTimeouts::of(DEFAULT, []);
        assert_eq!(none.idle(431_000), Some(1000));
        assert_eq!(none.idle(3_600), Some(428_400));
        assert_eq!((none.idle(300), none.idle(301)), (None, Some(431_699)), "busy or not");
        assert_eq!(none.idle(432_001), None, "more than it can have");

        let policies = [
            Timeouts { established: 3_600, ..DEFAULT },
            Timeouts { established: 200, unacknowledged: 400, ..DEFAULT },
        ];
        let some = TcpTimeouts::of(DEFAULT, policies);
        assert_eq!(some.idle(3_600), Some(0), "made this moment, under the policy");
        assert_eq!(some.idle(3_500), Some(100));
        assert_eq!(some.idle(3_601), Some(428_399), "it cannot be under the policy");
        assert_eq!(some.idle(400), None, "a policy's busy connection");
    }

    #[test]
    fn a_policy_for_another_protocol_is_none_and_every_cut_is_an_error_or_less() {
        let policy = |protocol: u8| {
            let mut r = Requests::new();
            r.nest(nft::OBJ_DATA, |r| {
                r.attribute(nft::L4PROTO, &[protocol]);
                r.nest(nft::DATA, |r| {
                    for (kind, seconds) in [(3, 3_600u32), (10, 299), (11, 298)] {
                        r.attribute(kind, &seconds.to_be_bytes());
                    }
                });
            });
            r.bytes().to_vec()
        };
        let read = Timeouts { established: 3_600, unacknowledged: 298, max_retrans: 299 };
        assert_eq!(of_nft(&policy(6)), Ok(Some(read)));
        assert_eq!(of_nft(&policy(17)), Ok(None));
        let whole = policy(6);
        for cut in 1..whole.len() {
            assert!(of_nft(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
