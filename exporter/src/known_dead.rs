//! The slots that the last dump found dead, so that each costs one look-up and not one in every dump.
//!
//! A look-up takes 2.7 µs, more than all else a dump does for an entry: with 100,000 dead slots the scrape took 2.5 times as long.
//! A slot with the same tuple, zone, id and absolute expiry has seen no packet since, so it is as dead as it was.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use conntrack::own::OwnAddresses;
use conntrack::socketless::TcpTimeouts;
use conntrack::{Flow, L4, State, TcpState, Tuple};
use foldhash::{fast, quality};

/// What hashbrown holds in 2¹⁷ slots, 3.3 MB. The rest is looked up each time.
const MOST: usize = 114_688;
/// The kernel cuts off what is less than a second, and a message may wait before we read it.
const ROUNDING_MS: u64 = 1500;
/// A packet moves the expiry of an entry that was idle for the grace by more than the grace; below this that might be rounding.
const LEAST_GRACE: Duration = Duration::from_secs(5);

/// What was dead, and under which circumstances.
#[derive(Debug)]
pub(crate) struct KnownDead {
    grace: Duration,
    epoch: Instant,
    hash: quality::RandomState,
    own: OwnAddresses,
    timeouts: Option<TcpTimeouts>,
    slots: HashMap<u64, Slot, fast::RandomState>,
    dump: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// In milliseconds since the program began, as first read: many small steps must not pass for none.
    expires: u64,
    /// The dump that saw it last.
    dump: u32,
}

impl KnownDead {
    /// None yet. Where `grace` is too short to tell, none ever.
    pub(crate) fn none(grace: Duration) -> KnownDead {
        KnownDead {
            grace,
            epoch: Instant::now(),
            hash: quality::RandomState::default(),
            own: OwnAddresses::default(),
            timeouts: None,
            slots: HashMap::default(),
            dump: 0,
        }
    }

    /// A dump begins. What was judged by other addresses or timeouts is forgotten.
    pub(crate) fn begin(&mut self, own: &OwnAddresses, timeouts: &TcpTimeouts) {
        self.dump = self.dump.wrapping_add(1);
        if self.own != *own || self.timeouts.as_ref() != Some(timeouts) {
            self.slots.clear();
            (self.own, self.timeouts) = (own.clone(), Some(timeouts.clone()));
        }
    }

    /// Whether the last dump found it dead and nothing has come since. If so it is known to the next dump too.
    #[inline]
    pub(crate) fn has(&mut self, flow: &Flow) -> bool {
        if self.slots.is_empty() || flow.state != State::Tcp(TcpState::Established) {
            return false;
        }
        let idle = flow.timeout.and_then(|left| self.timeouts.as_ref()?.idle(left));
        if idle.is_none_or(|idle| u64::from(idle) <= self.grace.as_secs()) {
            return false;
        }
        let (key, expires, dump) = (self.key(flow), self.expires(flow), self.dump);
        let slot = self.slots.get_mut(&key).filter(|slot| slot.expires.abs_diff(expires) <= ROUNDING_MS);
        slot.map(|slot| slot.dump = dump).is_some()
    }

    /// It was found dead now.
    pub(crate) fn add(&mut self, flow: &Flow) {
        if self.grace >= LEAST_GRACE && self.slots.len() < MOST {
            let slot = Slot { expires: self.expires(flow), dump: self.dump };
            self.slots.insert(self.key(flow), slot);
        }
    }

    /// The dump has ended, and its judgement holds or not. What it did not see dead is forgotten.
    pub(crate) fn end(&mut self, holds: bool) {
        self.slots.retain(|_, slot| holds && slot.dump == self.dump);
        if self.slots.is_empty() {
            self.slots = HashMap::default();
        }
    }

    fn key(&self, flow: &Flow) -> u64 {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(four) => u128::from(four.to_bits()),
            IpAddr::V6(six) => six.to_bits(),
        };
        let ends = |tuple: &Tuple| match tuple.l4 {
            L4::Ports { src, dst } => {
                (bits(tuple.src), bits(tuple.dst), u32::from(src) << 16 | u32::from(dst))
            }
            L4::Icmp { .. } | L4::None => (bits(tuple.src), bits(tuple.dst), 0),
        };
        self.hash.hash_one((ends(&flow.original), ends(&flow.reply), flow.zone, flow.id))
    }

    /// In milliseconds since the program began.
    #[inline]
    fn expires(&self, flow: &Flow) -> u64 {
        let passed = self.epoch.elapsed();
        let left = u64::from(flow.timeout.unwrap_or_default());
        (passed.as_secs() + left) * 1000 + u64::from(passed.subsec_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, flow};
    use conntrack::Protocol;
    use conntrack::socketless::Timeouts;

    const GRACE: Duration = Duration::from_secs(30);

    fn timeouts(established: u32) -> TcpTimeouts {
        TcpTimeouts::of(Timeouts { established, unacknowledged: 300, max_retrans: 300 }, [])
    }

    fn dead() -> Flow {
        let state = State::Tcp(TcpState::Established);
        Flow { timeout: Some(400_000), ..flow([198, 51, 100, 1], Protocol::TCP, state, sample::ASSURED) }
    }

    /// Knows [`dead`], and a dump begins.
    fn knowing(grace: Duration) -> KnownDead {
        let mut known = KnownDead::none(grace);
        known.begin(&OwnAddresses::default(), &timeouts(432_000));
        assert!(!known.has(&dead()));
        known.add(&dead());
        known.end(true);
        known.begin(&OwnAddresses::default(), &timeouts(432_000));
        known
    }

    #[test]
    fn a_dead_slot_stays_known_from_dump_to_dump() {
        let mut known = knowing(GRACE);
        for _ in 0..3 {
            assert!(known.has(&dead()));
            known.end(true);
            known.begin(&OwnAddresses::default(), &timeouts(432_000));
        }
        known.end(true);
        assert!(!known.has(&dead()), "the last dump did not see it");
    }

    #[test]
    fn whatever_changed_is_looked_at_anew() {
        type Change = fn(&mut Flow);
        let changes: [(&str, Change); 5] = [
            ("a packet came", |f| f.timeout = Some(400_031)),
            ("another entry", |f| f.id = 2),
            ("closing", |f| f.state = State::Tcp(TcpState::FinWait)),
            ("it may be busy", |f| f.timeout = Some(300)),
            ("another port", |f| f.reply.l4 = L4::Ports { src: 8080, dst: 1000 }),
        ];
        for (what, change) in changes {
            let mut flow = dead();
            change(&mut flow);
            assert!(!knowing(GRACE).has(&flow), "{what}");
        }
        let mut known = knowing(GRACE);
        known.begin(&OwnAddresses::default(), &timeouts(500_000));
        assert!(!known.has(&dead()), "other timeouts");
        let mut known = knowing(GRACE);
        known.begin(&OwnAddresses::of(["192.0.2.1/32".parse().unwrap()], []), &timeouts(432_000));
        assert!(!known.has(&dead()), "other addresses");
        let mut known = knowing(GRACE);
        known.end(false);
        assert!(!known.has(&dead()), "a judgement that does not hold");
        assert!(!knowing(Duration::from_secs(1)).has(&dead()), "a grace that rounding hides");
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let mut known = KnownDead::none(GRACE);
        known.begin(&OwnAddresses::default(), &timeouts(432_000));
        for id in 0..200_000 {
            known.add(&Flow { id, ..dead() });
        }
        known.end(true);
        assert_eq!(known.slots.len(), MOST);
    }
}
