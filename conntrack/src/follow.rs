//! [`OwnAddresses`], read once and then kept true by what the kernel announces: a router with a million routes is not asked
//! for all of them at each decision.
//!
//! What appears is taken in from the announcement itself. What disappears is read anew: a flush of routes with a link that
//! goes down is announced for the link alone.

use crate::link::{Channel, Error, Link};
use crate::netlink::{Malformed, Message, Messages};
use crate::own::{OwnAddresses, RTM_NEWNEXTHOP, RTM_NEWROUTE, RTN_LOCAL};
use std::sync::Arc;
use std::time::{Duration, Instant};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_DELROUTE: u16 = 25;
const RTM_DELNEXTHOP: u16 = 105;
/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// `RTNLGRP_NEXTHOP`, since Linux 5.3.
const NEXTHOP: u32 = 32;
/// The offset of `rtm_type` in `struct rtmsg`.
const RTM_TYPE: usize = 7;
const ASKED: &str = "the routes of this host";
/// A gateway whose route is gone is spared so long at most.
const STALE: Duration = Duration::from_secs(300);
/// Reading anew what disappeared takes one part of the time in so many.
const SHARE: u32 = 20;
/// So many announcements are read one by one; with more waiting, everything is read anew.
const PATIENCE: usize = 100_000;

/// What is known to be wrong with the list, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// Nothing.
    None,
    /// A route went away, and its gateway may be none any more.
    Stale,
    /// An address or a link went away, or changed.
    Gone,
    /// Announcements were lost: something may be missing.
    Missed,
}

/// This host's addresses and gateways as they are now.
#[derive(Debug)]
pub struct Followed {
    announcements: Link,
    /// Absent after an answer that was not read to its end: the kernel would refuse the next question with EBUSY.
    questions: Option<Link>,
    own: Arc<OwnAddresses>,
    doubt: Doubt,
    read_at: Instant,
    took: Duration,
    readings: u64,
}

impl Followed {
    /// Reads them in the calling thread's namespace, and follows them there from then on.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open() -> Result<Followed, Error> {
        // Before the reading, or what changes in between is never heard of.
        let mut announcements = Link::open(Channel::Route, ASKED)?;
        GROUPS.iter().try_for_each(|group| announcements.subscribe(*group, ASKED))?;
        // A kernel that lacks the group has no such objects.
        let _ = announcements.subscribe(NEXTHOP, ASKED);
        let mut followed = Followed {
            announcements,
            questions: None,
            own: Arc::default(),
            doubt: Doubt::Missed,
            read_at: Instant::now(),
            took: Duration::ZERO,
            readings: 0,
        };
        followed.current()?;
        Ok(followed)
    }

    /// The list, true to the last announcement. Without one it costs a microsecond.
    ///
    /// # Errors
    /// The kernel did not answer; the next call tries again.
    pub fn current(&mut self) -> Result<Arc<OwnAddresses>, Error> {
        self.listen()?;
        if self.is_due() {
            let began = Instant::now();
            let mut questions = match self.questions.take() {
                Some(link) => link,
                None => Link::open(Channel::Route, ASKED)?,
            };
            self.own = Arc::new(OwnAddresses::read_over(&mut questions)?);
            self.questions = Some(questions);
            self.took = began.elapsed();
            self.read_at = Instant::now();
            self.readings += 1;
            self.doubt = Doubt::None;
            // What was announced meanwhile is perhaps not in it.
            self.listen()?;
        }
        Ok(Arc::clone(&self.own))
    }

    /// How often everything was read.
    pub fn readings(&self) -> u64 {
        self.readings
    }

    fn is_due(&self) -> bool {
        match self.doubt {
            Doubt::None => false,
            Doubt::Stale => self.read_at.elapsed() >= STALE,
            Doubt::Gone => self.read_at.elapsed() >= self.took * SHARE,
            Doubt::Missed => true,
        }
    }

    fn listen(&mut self) -> Result<(), Error> {
        for _ in 0..PATIENCE {
            let (doubt, news) = match self.announcements.receive_waiting(ASKED) {
                Ok(None) => return Ok(()),
                Ok(Some(datagram)) => hear(datagram, &self.own).unwrap_or((Doubt::Missed, None)),
                Err(Error::Overrun { .. } | Error::Truncated { .. }) => (Doubt::Missed, None),
                Err(error) => return Err(error),
            };
            self.doubt = self.doubt.max(doubt);
            if let Some(news) = news {
                Arc::make_mut(&mut self.own).merge(news);
            }
        }
        self.doubt = Doubt::Missed;
        Ok(())
    }
}

/// What a datagram adds to the list.
pub(crate) fn announced(datagram: &[u8], known: &OwnAddresses) -> Option<OwnAddresses> {
    hear(datagram, known).ok()?.1
}

/// What a datagram says: what is in doubt by it, and what is new.
fn hear(datagram: &[u8], known: &OwnAddresses) -> Result<(Doubt, Option<OwnAddresses>), Malformed> {
    let mut news = OwnAddresses::default();
    let mut doubt = Doubt::None;
    for message in Messages(datagram) {
        let message: Message<'_> = message?;
        doubt = doubt.max(match message.kind {
            RTM_NEWROUTE => {
                news.route(message.payload)?;
                Doubt::None
            }
            RTM_NEWNEXTHOP => {
                news.next_hop_object(message.payload)?;
                Doubt::None
            }
            RTM_DELROUTE if message.payload.get(RTM_TYPE) == Some(&RTN_LOCAL) => Doubt::Gone,
            RTM_DELROUTE | RTM_DELNEXTHOP => Doubt::Stale,
            RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => Doubt::Gone,
            _ => Doubt::None,
        });
    }
    let news = Some(news).filter(|news| !known.includes(news));
    Ok((doubt, news))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Requests;

    fn announced(kind: u16, rtm_type: u8, address: [u8; 4], gateway: [u8; 4]) -> Vec<u8> {
        let mut requests = Requests::new();
        requests.message(kind, 0, 0, |r| {
            r.raw(&[2, 32, 0, 0, 254, 0, 0, rtm_type, 0, 0, 0, 0]);
            r.attribute(1, &address);
            r.attribute(5, &gateway);
        });
        requests.bytes().to_vec()
    }

    #[test]
    fn what_is_announced_is_news_once_and_its_end_a_doubt() {
        let mut known = OwnAddresses::default();
        let new = announced(RTM_NEWROUTE, RTN_LOCAL, [192, 0, 2, 1], [192, 0, 2, 254]);
        let (doubt, news) = hear(&new, &known).unwrap();
        assert_eq!(doubt, Doubt::None);
        known.merge(news.unwrap());
        assert!(known.contains("192.0.2.1".parse().unwrap()));
        assert_eq!(known.gateways().count(), 1);
        assert_eq!(hear(&new, &known).unwrap(), (Doubt::None, None));
        let gone =
            |rtm_type| hear(&announced(RTM_DELROUTE, rtm_type, [192, 0, 2, 1], [192, 0, 2, 254]), &known);
        assert_eq!(gone(RTN_LOCAL).unwrap(), (Doubt::Gone, None));
        assert_eq!(gone(1).unwrap(), (Doubt::Stale, None));
        for cut in 1..new.len() {
            assert!(hear(&new[..cut], &known).is_err(), "cut at {cut}");
        }
    }
}
