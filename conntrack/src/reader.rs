//! The messages of a dump, whole or one half of it. Pure.

use crate::decode;
use crate::flow::{Flow, Status};
use crate::link::Answer;
use crate::netlink::{Malformed, Message, Requests};
use crate::table::{CTNETLINK, Dump};
use std::time::Duration;

const CT_NEW: u16 = CTNETLINK;
/// `NLM_F_DUMP_FILTERED`: the kernel says that it shows only what was asked for.
const NLM_F_DUMP_FILTERED: u16 = 0x20;
const CTA_STATUS: u16 = 3;
const CTA_STATUS_MASK: u16 = 26;

/// One of the two classes that a dump can be split into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// A packet came back.
    Replied,
    /// None did.
    Unreplied,
}

impl Half {
    fn of(status: Status) -> Half {
        if status.seen_reply() { Half::Replied } else { Half::Unreplied }
    }

    /// Both attributes: the mask alone is silently unfiltered (DOMAIN.md, 2).
    fn write(self, r: &mut Requests) {
        let status = if self == Half::Replied { Status::SEEN_REPLY } else { 0 };
        r.attribute(CTA_STATUS, &status.to_be_bytes());
        r.attribute(CTA_STATUS_MASK, &Status::SEEN_REPLY.to_be_bytes());
    }
}

/// Entries that a dump showed, by half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Classes {
    pub(crate) replied: u64,
    pub(crate) unreplied: u64,
}

impl Classes {
    /// A dump for a class that is small stalls its CPU while the kernel looks for entries to fill a message with: 16–28 ms in one
    /// call at 200,000 entries. With a twentieth in the smaller one it stays below 2 ms. And a small table is not worth a thread.
    pub(crate) fn worth_two(&self) -> bool {
        const SMALLEST: u64 = 20_000;
        let all = self.replied + self.unreplied;
        all >= SMALLEST && self.replied.min(self.unreplied) * 20 >= all
    }
}

/// Shows the entries of a dump's messages, each checked against the half that was asked for: a kernel before 5.15 does not know the
/// question and shows all, and would have every entry counted twice.
#[derive(Debug)]
pub(crate) struct Reader<E> {
    half: Option<Half>,
    /// The entry that is being read.
    flow: Flow,
    each: E,
    classes: Classes,
    malformed: Option<(u64, Malformed)>,
    unfiltered: bool,
}

impl<E: FnMut(&Flow)> Reader<E> {
    /// For all entries.
    pub(crate) fn whole(each: E) -> Reader<E> {
        Reader {
            half: None,
            flow: Flow::BLANK,
            each,
            classes: Classes::default(),
            malformed: None,
            unfiltered: false,
        }
    }

    /// For one half of them.
    pub(crate) fn half(half: Half, each: E) -> Reader<E> {
        Reader { half: Some(half), ..Reader::whole(each) }
    }

    /// The attributes of its request.
    pub(crate) fn write(&self, r: &mut Requests) {
        if let Some(half) = self.half {
            half.write(r);
        }
    }

    /// Takes one message in. An error ends the reading: the kernel shows more than was asked for, and nothing was shown.
    pub(crate) fn see(&mut self, message: Message<'_>) -> Result<(), Malformed> {
        if message.kind != CT_NEW {
            return Ok(());
        }
        if self.half.is_some() && message.flags & NLM_F_DUMP_FILTERED == 0 {
            self.unfiltered = true;
            return Err(Malformed("a dump of all entries where one half was asked for"));
        }
        let flow = &mut self.flow;
        match decode::flow_into(message.payload, flow) {
            // A packet that comes back meanwhile takes an entry from one half to the other.
            Ok(true) if self.half.is_some_and(|half| half != Half::of(flow.status)) => {}
            Ok(true) => {
                match Half::of(flow.status) {
                    Half::Replied => self.classes.replied += 1,
                    Half::Unreplied => self.classes.unreplied += 1,
                }
                (self.each)(flow);
            }
            Ok(false) => {}
            Err(error) => {
                self.malformed = Some(self.malformed.map_or((1, error), |(count, first)| (count + 1, first)));
            }
        }
        Ok(())
    }

    /// The kernel does not know the question.
    pub(crate) fn unfiltered(&self) -> bool {
        self.unfiltered
    }

    pub(crate) fn classes(&self) -> Classes {
        self.classes
    }

    pub(crate) fn dump(&self, answer: Answer, elapsed: Duration) -> Dump {
        let Answer { interrupted, longest_call } = answer;
        let entries = self.classes.replied + self.classes.unreplied;
        Dump { entries, malformed: self.malformed, interrupted, elapsed, longest_call }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
