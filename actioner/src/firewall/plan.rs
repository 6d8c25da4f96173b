//! Which elements must be written so that every ban stands as long as asked and none is shortened, and what came of
//! it. Pure: the sets are read and written by `sets`.

use std::{collections::HashMap, time::Duration};

use foldhash::fast::RandomState;
use ipnet::IpNet;

use super::{
    Ban, BanError, Change, Enforced, KernelError,
    reply::Held,
    sets::Refusal,
    wire::{Existing, Write},
};

/// What an element of a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Seconds(u32),
    ForEver,
    /// Packets from here pass.
    Exception,
}

impl From<Held> for Stand {
    fn from(held: Held) -> Self {
        match held.timeout {
            _ if held.nomatch => Stand::Exception,
            Some(seconds) if seconds > 0 => Stand::Seconds(seconds),
            _ => Stand::ForEver,
        }
    }
}

/// One prefix that shall be in a set. Small: a batch of 65,536 is visited in the order of the kernel's hash.
#[derive(Debug)]
struct Ask {
    net: IpNet,
    seconds: u32,
    /// As the set was before anything was written.
    before: Option<Stand>,
    /// As it was read last.
    now: Option<Stand>,
}

/// The bans asked of one set, each prefix once.
#[derive(Debug)]
pub(super) struct Asks {
    set: String,
    asks: Vec<Ask>,
    /// By their place in `asks`: a set holds fewer than 2³².
    index: HashMap<IpNet, u32, RandomState>,
    refusals: HashMap<usize, Refusal>,
    readings: usize,
    /// Seconds that an element written since the first reading may show less than was written.
    late: u32,
}

/// What a set cannot hold, or would hold to no effect.
pub(super) fn refuse(ban: &Ban) -> Option<BanError> {
    let net = ban.net;
    match net {
        _ if net.prefix_len() == 0 => Some(BanError::Everything { net }),
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.network().to_ipv4_mapped().is_some() => {
            Some(BanError::Mapped { net })
        }
        _ => ban.seconds().err(),
    }
}

impl Asks {
    pub(super) fn new(set: String, room: usize) -> Asks {
        Asks {
            set,
            asks: Vec::with_capacity(room),
            index: HashMap::with_capacity_and_hasher(room, RandomState::default()),
            refusals: HashMap::new(),
            readings: 0,
            late: 0,
        }
    }

    /// Asks for a prefix and returns its number. Of a prefix that is asked for twice, the longer time counts.
    pub(super) fn push(&mut self, net: IpNet, seconds: u32) -> usize {
        let net = net.trunc();
        let next = u32::try_from(self.asks.len()).unwrap_or(u32::MAX);
        let number = *self.index.entry(net).or_insert(next) as usize;
        match self.asks.get_mut(number) {
            Some(ask) => ask.seconds = ask.seconds.max(seconds),
            None => self.asks.push(Ask { net, seconds, before: None, now: None }),
        }
        number
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    /// Begins a reading of the set, `since` the first one began.
    pub(super) fn begin_reading(&mut self, since: Duration) {
        self.late = if self.readings > 0 { lost(since) } else { 0 };
        self.readings += 1;
        self.asks.iter_mut().for_each(|ask| ask.now = None);
    }

    /// An element of the set.
    pub(super) fn see(&mut self, held: Held) {
        if let Some(number) = self.index.get(&held.net) {
            let ask = &mut self.asks[*number as usize];
            ask.now = Some(held.into());
            if self.readings == 1 {
                ask.before = ask.now;
            }
        }
    }

    /// What has to be written after a reading: those that are there and end too early, or those that are not there.
    pub(super) fn outstanding(&self, existing: Existing) -> (Vec<usize>, Vec<Write>) {
        let wanted = |ask: &Ask| match (ask.now, existing) {
            (Some(stand), Existing::Overwrite) => ends_before(stand, self.wanted(ask)),
            (None, Existing::Overwrite) => false,
            (now, Existing::Refuse) => now.is_none(),
        };
        let asks = self.asks.iter().enumerate();
        asks.filter(|(number, ask)| wanted(ask) && !self.refusals.contains_key(number))
            .map(|(number, ask)| (number, Write { net: ask.net, seconds: ask.seconds }))
            .unzip()
    }

    fn wanted(&self, ask: &Ask) -> u32 {
        ask.seconds.saturating_sub(self.late)
    }

    /// The element cannot be written. One that somebody else added in the meantime is not refused: it is looked at again.
    pub(super) fn refused(&mut self, number: usize, refusal: Refusal) {
        if refusal != Refusal::Kernel(KernelError::Exist) {
            self.refusals.insert(number, refusal);
        }
    }

    /// None of them can be written.
    pub(super) fn refuse_all(&mut self, refusal: &Refusal) {
        self.refusals = (0..self.asks.len()).map(|number| (number, refusal.clone())).collect();
    }

    /// What came of a prefix, by the last reading.
    pub(super) fn outcome(&self, number: usize) -> Result<Enforced, BanError> {
        let ask = &self.asks[number];
        let remaining = match (self.refusals.get(&number), ask.now) {
            (Some(refusal), _) => return Err(self.refusal(ask.net, refusal)),
            (None, None) => return Err(BanError::NotThere { set: self.set.clone(), net: ask.net }),
            (None, Some(Stand::Exception)) => {
                return Err(BanError::Excepted { set: self.set.clone(), net: ask.net });
            }
            (None, Some(Stand::ForEver)) => None,
            (None, Some(Stand::Seconds(left))) => {
                let remaining = Duration::from_secs(left.into());
                if left < self.wanted(ask) {
                    return Err(BanError::Shortened { set: self.set.clone(), net: ask.net, remaining });
                }
                Some(remaining)
            }
        };
        let change = match ask.before {
            None => Change::Added,
            Some(before) if ends_before(before, ask.seconds) => Change::Extended,
            Some(_) => Change::Kept,
        };
        Ok(Enforced { remaining, change })
    }

    fn refusal(&self, net: IpNet, refusal: &Refusal) -> BanError {
        let set = self.set.clone();
        match refusal {
            Refusal::Kernel(KernelError::HashFull) => BanError::SetFull { set, net },
            Refusal::Kernel(KernelError::NO_SUCH_SET) => BanError::SetMissing { set, net },
            Refusal::Kernel(error) => BanError::Kernel { set, net, error: *error },
            Refusal::Library(reason) => BanError::Library { set, net, reason: reason.clone() },
        }
    }
}

/// Permanent elements last, and exceptions are not ours to end.
fn ends_before(stand: Stand, seconds: u32) -> bool {
    matches!(stand, Stand::Seconds(left) if left < seconds)
}

/// What passed, and the part of a second that the kernel cuts off in showing an element's time.
fn lost(since: Duration) -> u32 {
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX).saturating_add(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(seconds: u32) -> Asks {
        let mut asks = Asks::new("g-4".to_owned(), 1);
        assert_eq!(asks.push("192.0.2.1/32".parse().unwrap(), seconds), 0);
        asks.begin_reading(Duration::ZERO);
        asks
    }

    fn held(seconds: u32) -> Held {
        Held { net: "192.0.2.1/32".parse().unwrap(), timeout: Some(seconds), nomatch: false }
    }

    fn to_write(asks: &Asks) -> [usize; 2] {
        [Existing::Overwrite, Existing::Refuse].map(|existing| asks.outstanding(existing).0.len())
    }

    #[test]
    fn only_what_ends_too_early_or_is_absent_is_written() {
        assert_eq!(to_write(&asks(600)), [0, 1]);
        for (there, overwritten) in [(599, 1), (600, 0), (601, 0), (0, 0)] {
            let mut asks = asks(600);
            asks.see(held(there));
            assert_eq!(to_write(&asks), [overwritten, 0], "{there} s left");
        }
    }

    #[test]
    fn what_a_slow_machine_lost_since_the_write_is_not_written_again() {
        let mut asks = asks(600);
        asks.begin_reading(Duration::from_millis(3900));
        asks.see(held(595));
        assert_eq!(to_write(&asks), [0, 0]);
        assert_eq!(asks.outcome(0).unwrap().change, Change::Added);
        asks.see(held(594));
        assert_eq!(to_write(&asks), [1, 0]);
        let remaining = Duration::from_secs(594);
        let net = held(0).net;
        assert_eq!(asks.outcome(0), Err(BanError::Shortened { set: "g-4".to_owned(), net, remaining }));
    }

    #[test]
    fn one_that_another_added_first_is_looked_at_again_and_extended() {
        let mut asks = asks(600);
        asks.refused(0, Refusal::Kernel(KernelError::Exist));
        asks.begin_reading(Duration::ZERO);
        asks.see(held(60));
        assert_eq!(to_write(&asks), [1, 0]);
    }

    #[test]
    fn what_was_accepted_and_is_gone_is_no_ban() {
        let mut asks = asks(600);
        asks.begin_reading(Duration::ZERO);
        assert_eq!(asks.outcome(0), Err(BanError::NotThere { set: "g-4".to_owned(), net: held(0).net }));
        asks.refused(0, Refusal::Kernel(KernelError::HashFull));
        assert_eq!(to_write(&asks), [0, 0]);
        assert_eq!(asks.outcome(0), Err(BanError::SetFull { set: "g-4".to_owned(), net: held(0).net }));
    }
}
