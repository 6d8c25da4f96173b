//! Dead slots, deleted: each is read once more just before, and spared if anything about it changed or a socket is there.
//!
//! The id alone does not tell: the reuse of a dead slot's tuple revived it with the same id in 10 of 10 cases. What tells is that its
//! absolute expiry has moved. And the judgement is not trusted with a deletion: the kernel is asked for a socket of exactly these
//! ends, last of all. What is left is the race of a first packet that comes in the microseconds before the deletion; its entry is
//! picked up again by the next one.

use crate::decode;
use crate::delete::Deleted;
use crate::flow::Flow;
use crate::key::FlowKey;
use crate::link::Error;
use crate::netlink::NLM_F_ACK;
use crate::socketless::ends;
use crate::sockets::Sockets;
use crate::state::{State, TcpState};
use crate::table::{CTNETLINK, Table};
use rustix::io::Errno;
use std::time::{Duration, Instant};

const CT_GET: u16 = CTNETLINK | 1;
const ASKED: &str = "one entry of the conntrack table";
/// The kernel shows whole seconds, cut off, in both readings.
const ROUNDING: Duration = Duration::from_secs(2);

/// An entry that was judged to have nothing behind it, and when it would expire.
#[derive(Debug, Clone, Copy)]
pub struct DeadSlot {
    key: FlowKey,
    expires: Instant,
}

/// What became of dead slots that were to be deleted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Buried {
    /// Deleted.
    pub deleted: u64,
    /// Spared: a packet had come, another connection had taken the tuple, the state was another, or a socket is there.
    pub revived: u64,
    /// Gone by themselves.
    pub absent: u64,
    /// Entries that the kernel would not delete, and its first errno.
    pub failed: Option<(u64, i32)>,
}

impl DeadSlot {
    /// A slot out of a dump, seen just now. None: the entry has no timeout.
    pub fn of(flow: &Flow) -> Option<DeadSlot> {
        let left = Duration::from_secs(u64::from(flow.timeout?));
        Some(DeadSlot { key: flow.key(), expires: Instant::now() + left })
    }

    /// What names it.
    pub fn key(&self) -> FlowKey {
        self.key
    }

    /// Whether `flow`, read now, is still what was judged.
    fn is_still(&self, flow: &Flow) -> bool {
        let Some(left) = flow.timeout else { return false };
        let expires = Instant::now() + Duration::from_secs(u64::from(left));
        let moved = expires.max(self.expires) - expires.min(self.expires);
        self.key.names(flow) && flow.state == State::Tcp(TcpState::Established) && moved <= ROUNDING
    }
}

impl Table {
    /// The entry that `key` names by tuple and zone, if there is one now. Its id may be another's. Costs 2.5 µs.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get(&mut self, key: &FlowKey) -> Result<Option<Flow>, Error> {
        let sequence = self.link.next_sequence();
        self.requests.clear();
        self.requests.message(CT_GET, NLM_F_ACK, sequence, |r| {
            r.raw(&[key.nfgen_family(), 0, 0, 0]);
            key.write(r);
        });
        let mut found = None;
        let read = |message: crate::netlink::Message<'_>| {
            found = decode::flow(message.payload)?;
            Ok(())
        };
        match self.link.ask(&self.requests, ASKED, read, || ()) {
            Ok(_) => Ok(found),
            Err(Error::Refused { source, .. }) if Errno::from_io_error(&source) == Some(Errno::NOENT) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes dead slots, each re-read just before. Costs about 10 µs a slot.
    ///
    /// # Errors
    /// See [`Error`]; those before it are deleted by then.
    pub fn bury(&mut self, slots: impl IntoIterator<Item = DeadSlot>) -> Result<Buried, Error> {
        let mut buried = Buried::default();
        let mut sockets = Sockets::open()?;
        for slot in slots {
            match self.get(&slot.key)? {
                None => buried.absent += 1,
                Some(flow) if slot.is_still(&flow) && !has_socket(&mut sockets, &flow)? => {
                    buried.add(self.delete([slot.key])?);
                }
                Some(_) => buried.revived += 1,
            }
        }
        Ok(buried)
    }
}

impl Buried {
    fn add(&mut self, outcome: Deleted) {
        self.deleted += outcome.deleted;
        self.absent += outcome.absent;
        if let Some((count, errno)) = outcome.failed {
            let (before, first) = self.failed.unwrap_or((0, errno));
            self.failed = Some((before + count, first));
        }
    }
}

/// Whether either end of an entry has a socket on this host, whichever addresses are its own.
fn has_socket(sockets: &mut Sockets, flow: &Flow) -> Result<bool, Error> {
    for (local, peer) in [ends(&flow.reply), ends(&flow.original)].into_iter().flatten() {
        if sockets.find(local, peer)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
