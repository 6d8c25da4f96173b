//! Deletion, one entry at a time, many to a `sendmsg`.
//!
//! A `IPCTNL_MSG_CT_DELETE` without a full tuple empties whole families on some kernels, and the kernel's filter is
//! inverted for IPv6 (6.18): so there is none here, and the only way to name an entry is a [`FlowKey`].

use crate::key::FlowKey;
use crate::link::Error;
use crate::netlink::{Malformed, Messages, NLMSG_ERROR};
use crate::table::{CTNETLINK, Table};
use std::io;

const CT_DELETE: u16 = CTNETLINK | 2;
const ENOENT: i32 = 2;
const ASKED: &str = "a deletion from the conntrack table";
/// The errors of a batch must fit the receive queue (212,992 bytes by default, about 768 of truesize each): 1,000 in one
/// batch overran it and lost the count.
const BATCH: usize = 200;

/// What became of a deletion.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Entries that the kernel deleted.
    pub deleted: u64,
    /// Entries that were gone already, or had been replaced under the same tuple (ENOENT).
    pub absent: u64,
    /// Entries that the kernel would not delete, and its first errno.
    pub failed: Option<(u64, i32)>,
}

impl Table {
    /// Deletes each entry that `keys` name: tuple, zone and id must all match.
    ///
    /// Errors: [`Error::NotPermitted`] and the like; entries of earlier batches are deleted by then.
    pub fn delete(&mut self, keys: impl IntoIterator<Item = FlowKey>) -> Result<Deleted, Error> {
        let mut outcome = Deleted::default();
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            self.requests.clear();
            let mut sent = 0;
            for key in keys.by_ref().take(BATCH) {
                let sequence = self.link.next_sequence();
                self.requests.message(CT_DELETE, 0, sequence, |r| {
                    r.raw(&[key.nfgen_family(), 0, 0, 0]);
                    key.write(r);
                });
                sent += 1;
            }
            self.link.send(&self.requests, ASKED)?;
            let before = outcome;
            // The kernel works while `sendmsg` runs: its errors wait when it returns.
            while let Some(received) = self.link.receive_waiting(ASKED)? {
                count(received, &mut outcome).map_err(|source| Error::Malformed { asked: ASKED, source })?;
            }
            let failures = outcome.absent - before.absent + failures(&outcome) - failures(&before);
            if failures == sent && outcome.failed.is_some_and(|(_, errno)| errno == 1) {
                return Err(Error::NotPermitted { asked: ASKED });
            }
            outcome.deleted += sent.saturating_sub(failures);
        }
        Ok(outcome)
    }
}

fn failures(outcome: &Deleted) -> u64 {
    outcome.failed.map_or(0, |(count, _)| count)
}

/// Counts the errors in one datagram.
pub(crate) fn count(received: &[u8], outcome: &mut Deleted) -> Result<(), Malformed> {
    for message in Messages(received) {
        let message = message?;
        if message.kind != NLMSG_ERROR {
            continue;
        }
        match message.errno()? {
            0 => {}
            ENOENT => outcome.absent += 1,
            errno => {
                let (count, first) = outcome.failed.unwrap_or((0, errno));
                outcome.failed = Some((count + 1, first));
            }
        }
    }
    Ok(())
}

impl Deleted {
    /// The kernel's first refusal in words, if there was one.
    pub fn refusal(&self) -> Option<(u64, io::Error)> {
        self.failed.map(|(count, errno)| (count, io::Error::from_raw_os_error(errno)))
    }
}
