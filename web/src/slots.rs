//! Room for the connections of one listener, and who makes room when there is none: not whoever came last, but whoever holds most.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::neighbourhood::Neighbourhood;

/// Who holds more than so great a part of all places makes room for others.
const CROWD: usize = 8;

/// As many as there may be.
#[derive(Debug)]
pub(crate) struct Slots {
    limit: usize,
    taken: Rc<RefCell<BTreeMap<u64, Occupant>>>,
    next: u64,
}

/// A connection, as the others of its listener know it.
#[derive(Debug)]
struct Occupant {
    whose: Neighbourhood,
    rest: Rest,
    leave: Rc<Notify>,
}

/// Since when a connection has had no request under way; none while it has one.
#[derive(Debug, Clone)]
pub(crate) struct Rest(Rc<Cell<Option<Instant>>>);

impl Rest {
    pub(crate) fn begins() -> Self {
        Self(Rc::new(Cell::new(Some(Instant::now()))))
    }

    /// A request is under way, or none any more.
    pub(crate) fn set(&self, resting: bool) {
        self.0.set(resting.then(Instant::now));
    }
}

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u64,
    rest: Rest,
    leave: Rc<Notify>,
    taken: Rc<RefCell<BTreeMap<u64, Occupant>>>,
}

impl Slots {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, taken: Rc::default(), next: 0 }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// A place, if one is free.
    pub(crate) fn take(&mut self, whose: Neighbourhood) -> Option<Slot> {
        if self.taken.borrow().len() >= self.limit {
            return None;
        }
        self.next += 1;
        let (rest, leave) = (Rest::begins(), Rc::new(Notify::new()));
        let occupant = Occupant { whose, rest: rest.clone(), leave: Rc::clone(&leave) };
        self.taken.borrow_mut().insert(self.next, occupant);
        Some(Slot { number: self.next, rest, leave, taken: Rc::clone(&self.taken) })
    }

    /// The place of another connection, which ends: of those that make room, the one that has rested longest.
    pub(crate) fn take_over(&mut self, whose: Neighbourhood) -> Option<Slot> {
        let longest = self.makes_room_for(whose)?;
        let occupant = self.taken.borrow_mut().remove(&longest)?;
        occupant.leave.notify_one();
        self.take(whose)
    }

    /// On a unix socket are no strangers: all make room for each other there, so that no program that forgets to close keeps an
    /// order out. Over TCP a crowd of one neighbourhood does, for everybody else.
    fn makes_room_for(&self, whose: Neighbourhood) -> Option<u64> {
        let taken = self.taken.borrow();
        let from = if whose.is_here() {
            whose
        } else {
            let mut held = HashMap::new();
            taken.values().for_each(|occupant| *held.entry(occupant.whose).or_insert(0) += 1);
            held.remove(&whose);
            let (crowd, count) = held.into_iter().max_by_key(|(_, count)| *count)?;
            (count > self.limit / CROWD).then_some(crowd)?
        };
        let theirs = taken.iter().filter(|(_, occupant)| occupant.whose == from);
        let resting = theirs.filter_map(|(number, occupant)| Some((occupant.rest.0.get()?, *number)));
        resting.min().map(|(_, number)| number)
    }
}

impl Slot {
    /// Where its connection says whether it has a request under way.
    pub(crate) fn rest(&self) -> Rest {
        self.rest.clone()
    }

    /// Ends when another connection has its place.
    pub(crate) async fn taken_over(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.taken.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Peer;

    fn here() -> Neighbourhood {
        Neighbourhood::of(Peer::Unix { uid: 0, pid: None })
    }

    fn from(address: &str) -> Neighbourhood {
        Neighbourhood::of(Peer::Tcp((address.parse::<std::net::IpAddr>().unwrap(), 1).into()))
    }

    fn leaves(slot: &Slot) -> bool {
        slot.taken.borrow().get(&slot.number).is_none()
    }

    #[test]
    fn who_has_rested_longest_makes_room_and_who_works_does_not() {
        let mut slots = Slots::new(3);
        let mut held: Vec<Slot> = (0..3).map(|_| slots.take(here()).unwrap()).collect();
        assert!(slots.take(here()).is_none());
        held[0].rest().set(false);
        let new = slots.take_over(here()).unwrap();
        assert!(leaves(&held[1]), "the second has rested longest, for the first works");
        assert!(slots.take(here()).is_none(), "one for one");
        drop(held.remove(1));
        assert!(
            slots.take(here()).is_none(),
            "a place that was taken over is not free when its first holder leaves"
        );
        new.rest().set(false);
        held[1].rest().set(false);
        assert!(slots.take_over(here()).is_none(), "all work");
        drop(new);
        assert!(slots.take(here()).is_some());
    }

    #[test]
    fn a_crowd_of_one_neighbourhood_makes_room_for_others_and_others_do_not() {
        let mut slots = Slots::new(32);
        let mut hold = |address: &str| slots.take(from(address)).unwrap();
        let mut few: Vec<Slot> = (0..4).map(|_| hold("192.0.2.1")).collect();
        let mut crowd: Vec<Slot> = (0..28).map(|n| hold(&format!("2001:db8::{n:x}"))).collect();
        assert!(slots.take_over(from("2001:db8::ffff")).is_none(), "not for one of their own");
        let mut newcomers = Vec::new();
        for n in 0..12 {
            newcomers.push(slots.take_over(from(&format!("198.51.100.{n}"))).unwrap());
        }
        assert_eq!(crowd.iter().filter(|slot| leaves(slot)).count(), 12);
        assert!(!few.iter().chain(&newcomers).any(leaves), "whoever was before stays");
        // Four of 32 are no crowd.
        crowd.drain(..24);
        let mut more: Vec<Slot> = Vec::new();
        while let Some(slot) = slots.take(from(&format!("203.0.113.{}", more.len()))) {
            more.push(slot);
        }
        assert!(slots.take_over(from("198.51.100.200")).is_none());
        few.clear();
    }
}
