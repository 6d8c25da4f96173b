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

/// One prefix that shall be in a set.
#[derive(Debug)]
struct Ask {
    net: IpNet,
    seconds: u32,
    /// As the set was before anything was written.
    before: Option<Held>,
    /// As it was read last.
    now: Option<Held>,
    refusal: Option<Refusal>,
}

/// The bans asked of one set, each prefix once.
#[derive(Debug)]
pub(super) struct Asks {
    set: String,
    asks: Vec<Ask>,
    index: HashMap<IpNet, usize, RandomState>,
    reads: usize,
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
            reads: 0,
        }
    }

    /// Asks for a prefix and returns its number. Of a prefix that is asked for twice, the longer time counts.
    pub(super) fn push(&mut self, net: IpNet, seconds: u32) -> usize {
        let net = net.trunc();
        let number = *self.index.entry(net).or_insert(self.asks.len());
        match self.asks.get_mut(number) {
            Some(ask) => ask.seconds = ask.seconds.max(seconds),
            None => self.asks.push(Ask { net, seconds, before: None, now: None, refusal: None }),
        }
        number
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    /// Begins a reading of the set.
    pub(super) fn begin_reading(&mut self) {
        self.reads += 1;
        self.asks.iter_mut().for_each(|ask| ask.now = None);
    }

    /// An element of the set.
    pub(super) fn see(&mut self, held: Held) {
        if let Some(ask) = self.index.get(&held.net).and_then(|number| self.asks.get_mut(*number)) {
            ask.now = Some(held);
            if self.reads == 1 {
                ask.before = Some(held);
            }
        }
    }

    /// What has to be written after a reading, `since` the first one began: those that are there and run out too
    /// early, or those that are not there.
    pub(super) fn outstanding(&self, existing: Existing, since: Duration) -> (Vec<usize>, Vec<Write>) {
        let late = if self.reads > 1 { lost_since(since) } else { 0 };
        let wanted = |ask: &Ask| match (ask.now, existing) {
            _ if ask.refusal.is_some() => false,
            (Some(held), Existing::Overwrite) => {
                !held.nomatch && !lasts(&held, ask.seconds.saturating_sub(late))
            }
            (now, Existing::Refuse) => now.is_none(),
            (None, Existing::Overwrite) => false,
        };
        let of = |(number, ask): (usize, &Ask)| (number, Write { net: ask.net, seconds: ask.seconds });
        self.asks.iter().enumerate().filter(|(_, ask)| wanted(ask)).map(of).unzip()
    }

    /// The element cannot be written. One that somebody else added in the meantime is not refused: it is looked at again.
    pub(super) fn refused(&mut self, number: usize, refusal: Refusal) {
        if refusal != Refusal::Kernel(KernelError::Exist) {
            self.asks[number].refusal = Some(refusal);
        }
    }

    /// None of them can be written.
    pub(super) fn refuse_all(&mut self, refusal: &Refusal) {
        self.asks.iter_mut().for_each(|ask| ask.refusal = Some(refusal.clone()));
    }

    /// What came of a prefix, by the last reading.
    pub(super) fn outcome(&self, number: usize) -> Result<Enforced, BanError> {
        let Ask { net, seconds, before, now, ref refusal } = self.asks[number];
        let set = self.set.clone();
        match (refusal, now) {
            (Some(Refusal::Kernel(KernelError::HashFull)), _) => Err(BanError::SetFull { set, net }),
            (Some(Refusal::Kernel(KernelError::NO_SUCH_SET)), _) => Err(BanError::SetMissing { set, net }),
            (Some(Refusal::Kernel(error)), _) => Err(BanError::Kernel { set, net, error: *error }),
            (Some(Refusal::Library(reason)), _) => {
                Err(BanError::Library { set, net, reason: reason.clone() })
            }
            (None, None) => Err(BanError::NotThere { set, net }),
            (None, Some(held)) if held.nomatch => Err(BanError::Excepted { set, net }),
            (None, Some(held)) => Ok(Enforced {
                remaining: held.remaining(),
                change: match before {
                    None => Change::Added,
                    Some(before) if lasts(&before, seconds) => Change::Kept,
                    Some(_) => Change::Extended,
                },
            }),
        }
    }
}

impl Held {
    /// `None`: for ever.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.timeout.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()))
    }
}

fn lasts(held: &Held, seconds: u32) -> bool {
    held.remaining().is_none_or(|remaining| remaining >= Duration::from_secs(seconds.into()))
}

/// Seconds that an element may have lost since it was written, and the one that the kernel cuts off in showing it.
fn lost_since(since: Duration) -> u32 {
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX).saturating_add(2)
}
