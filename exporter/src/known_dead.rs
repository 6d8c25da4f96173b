//! The slots that the last dump found dead, so that each costs one look-up and not one in every dump.
//!
//! A look-up takes 2.7 µs, more than all else a dump does for an entry: with 100,000 dead slots the scrape took 2.5 times as long.
//! A slot with the same tuple, zone, id and absolute expiry has seen no packet since, so it is as dead as it was.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use conntrack::own::OwnAddresses;
use conntrack::socketless::TcpTimeouts;
use conntrack::{Flow, State, TcpState};
use foldhash::{fast, quality};

/// What hashbrown holds in 2¹⁷ slots, 2.2 MB; there are two such maps during a dump. The rest is looked up each time.
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
    before: HashMap<u64, u64, fast::RandomState>,
    now: HashMap<u64, u64, fast::RandomState>,
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
            before: HashMap::default(),
            now: HashMap::default(),
        }
    }

    /// A dump begins. What was judged by other addresses or timeouts is forgotten.
    pub(crate) fn begin(&mut self, own: &OwnAddresses, timeouts: &TcpTimeouts) {
        self.now.clear();
        if self.own != *own || self.timeouts.as_ref() != Some(timeouts) {
            self.before.clear();
            (self.own, self.timeouts) = (own.clone(), Some(timeouts.clone()));
        }
    }

    /// Whether the last dump found it dead and nothing has come since. If so it is known to the next dump too.
    #[inline]
    pub(crate) fn has(&mut self, flow: &Flow) -> bool {
        if self.before.is_empty() || flow.state != State::Tcp(TcpState::Established) {
            return false;
        }
        let idle = flow.timeout.and_then(|left| self.timeouts.as_ref()?.idle(left));
        if idle.is_none_or(|idle| u64::from(idle) <= self.grace.as_secs()) {
            return false;
        }
        let (key, expires) = (self.key(flow), self.expires(flow));
        let same = self.before.get(&key).is_some_and(|before| before.abs_diff(expires) <= ROUNDING_MS);
        if same {
            // The first reading stays, so that many small steps do not pass for none.
            self.now.insert(key, self.before[&key]);
        }
        same
    }

    /// It was found dead now.
    pub(crate) fn add(&mut self, flow: &Flow) {
        if self.grace >= LEAST_GRACE && self.now.len() < MOST {
            self.now.insert(self.key(flow), self.expires(flow));
        }
    }

    /// The dump has ended, and its judgement holds or not.
    pub(crate) fn end(&mut self, holds: bool) {
        std::mem::swap(&mut self.before, &mut self.now);
        self.now = HashMap::default();
        if !holds {
            self.before = HashMap::default();
        }
    }

    fn key(&self, flow: &Flow) -> u64 {
        self.hash.hash_one((flow.original, flow.reply, flow.zone, flow.id))
    }

    /// In milliseconds since the program began.
    fn expires(&self, flow: &Flow) -> u64 {
        self.epoch.elapsed().as_millis() as u64 + u64::from(flow.timeout.unwrap_or_default()) * 1000
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
            ("another port", |f| f.reply.l4 = conntrack::L4::Ports { src: 8080, dst: 1000 }),
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
        assert_eq!(known.before.len(), MOST);
    }
}
