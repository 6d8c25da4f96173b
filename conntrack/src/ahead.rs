//! A dump of which one thread receives while another reads what came before.
//!
//! Nine tenths of a dump is the kernel's own work, done inside the receive calls (DOMAIN.md, 2). With a CPU to spare, decoding and
//! counting the last batch costs no time beside it.

use crate::link::{Answer, Error, Link, ended, read_answer, timed};
use crate::netlink::{Malformed, Message, Messages, NLMSG_DONE, NLMSG_ERROR, Requests};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// Datagrams are handed over several at a time: waking the other thread costs microseconds, and the kernel fills one in a hundred.
const BATCH: usize = 256 * 1024;

/// Some datagrams of an answer, one after the other.
#[derive(Debug)]
struct Batch {
    bytes: Box<[u8]>,
    /// Where each datagram ends.
    ends: Vec<usize>,
}

impl Batch {
    fn new() -> Batch {
        Batch { bytes: vec![0; BATCH].into_boxed_slice(), ends: Vec::new() }
    }

    /// Receives until the answer ends or there is no room for another datagram. True: it ended.
    fn fill(
        &mut self,
        mut receive: impl FnMut(&mut [u8]) -> Result<usize, Error>,
        room: usize,
        sequence: u32,
    ) -> Result<bool, Error> {
        self.ends.clear();
        let mut filled = 0;
        while BATCH - filled >= room {
            let free = &mut self.bytes[filled..filled + room];
            let len = receive(free)?;
            let ended = is_last(&free[..len], sequence);
            filled += len;
            self.ends.push(filled);
            if ended {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }
}

/// Nothing comes after this datagram, or nothing that could be read. Pure.
fn is_last(datagram: &[u8], sequence: u32) -> bool {
    Messages(datagram).any(|message| {
        message.map_or(true, |message| {
            message.sequence == sequence && matches!(message.kind, NLMSG_DONE | NLMSG_ERROR)
        })
    })
}

/// What was asked, and how its answer is told from others.
#[derive(Debug, Clone, Copy)]
struct Question<'a> {
    requests: &'a Requests,
    asked: &'static str,
    sequence: u32,
}

impl Link {
    /// As [`Link::ask`], with a thread of its own for the receive calls and for `between`, which runs after each. It inherits the
    /// calling thread's priority; `each` runs on the calling thread. None: there is no thread to be had, and nothing was asked.
    pub(crate) fn ask_ahead(
        &mut self,
        requests: &Requests,
        asked: &'static str,
        mut each: impl FnMut(Message<'_>) -> Result<(), Malformed>,
        between: impl FnMut() + Send,
    ) -> Result<Option<Answer>, Error> {
        let question = Question { requests, asked, sequence: self.sequence() };
        let (fill, filled) = sync_channel(1);
        let (give_back, empty) = channel();
        thread::scope(|scope| {
            let receiving = move || self.receive_batches(question, between, &fill, &empty);
            let thread = thread::Builder::new().name("receive".to_owned()).spawn_scoped(scope, receiving);
            let Ok(thread) = thread else { return Ok(None) };
            let mut interrupted = false;
            let end = read_batches(&filled, &give_back, question.sequence, &mut interrupted, &mut each);
            // Who receives waits for room, or for an answer that nobody reads.
            drop(filled);
            let longest_call = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            match end.map_err(|source| Error::Malformed { asked, source })? {
                Some(errno) => ended(errno, asked).map(|()| Some(Answer { interrupted, longest_call })),
                None => Err(Error::Malformed { asked, source: Malformed("an answer without an end") }),
            }
        })
    }

    /// Receives the whole answer, or until nobody reads it. The most CPU time that one call took.
    fn receive_batches(
        &mut self,
        question: Question<'_>,
        mut between: impl FnMut(),
        fill: &SyncSender<Batch>,
        empty: &Receiver<Batch>,
    ) -> Result<Duration, Error> {
        let Question { requests, asked, sequence } = question;
        self.send(requests, asked)?;
        let (room, times, mut longest) = (self.room(), self.times_calls(), Duration::ZERO);
        let mut receive = |room: &mut [u8]| {
            let len = timed(times, &mut longest, || self.receive_into(room, asked))?;
            between();
            Ok(len)
        };
        loop {
            let mut batch = empty.try_recv().unwrap_or_else(|_| Batch::new());
            let ended = batch.fill(&mut receive, room, sequence)?;
            if fill.send(batch).is_err() || ended {
                return Ok(longest);
            }
        }
    }
}

/// Reads batches until the answer ends: the errno that it ended with, or None where the batches end before.
fn read_batches(
    filled: &Receiver<Batch>,
    give_back: &Sender<Batch>,
    sequence: u32,
    interrupted: &mut bool,
    each: &mut impl FnMut(Message<'_>) -> Result<(), Malformed>,
) -> Result<Option<i32>, Malformed> {
    for batch in filled {
        for datagram in batch.datagrams() {
            let end = read_answer(datagram, sequence, interrupted, each)?;
            if end.is_some() {
                return Ok(end);
            }
        }
        // It may have ended, and needs none.
        let _ = give_back.send(batch);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQUENCE: u32 = 7;
    const ROOM: usize = 64 * 1024;
    const DATA: u16 = 256;

    fn datagram(kinds: &[u16], sequence: u32) -> Vec<u8> {
        let mut requests = Requests::new();
        for &kind in kinds {
            requests.message(kind, 0, sequence, |r| r.raw(&[0; 4]));
        }
        requests.bytes().to_vec()
    }

    /// The batches that these datagrams make, and whether the last of them ended the answer.
    fn batches(datagrams: &[Vec<u8>]) -> (Vec<Batch>, bool) {
        let mut coming = datagrams.iter();
        let mut receive = |room: &mut [u8]| {
            let datagram = coming.next().ok_or(Error::Silent { asked: "an answer" })?;
            room[..datagram.len()].copy_from_slice(datagram);
            Ok(datagram.len())
        };
        let mut batches = Vec::new();
        loop {
            let mut batch = Batch::new();
            let ended = batch.fill(&mut receive, ROOM, SEQUENCE);
            batches.push(batch);
            match ended {
                Ok(false) => {}
                Ok(true) => return (batches, true),
                Err(_) => return (batches, false),
            }
        }
    }

    /// What is read of batches: how many messages, and the end.
    fn read(batches: Vec<Batch>) -> (usize, Result<Option<i32>, Malformed>) {
        let (fill, filled) = channel();
        batches.into_iter().for_each(|batch| fill.send(batch).unwrap());
        drop(fill);
        let (mut seen, mut interrupted) = (0, false);
        let mut each = |_: Message<'_>| {
            seen += 1;
            Ok(())
        };
        let end = read_batches(&filled, &channel().0, SEQUENCE, &mut interrupted, &mut each);
        (seen, end)
    }

    #[test]
    fn an_answer_of_many_batches_is_read_whole_and_once() {
        let full = datagram(&[DATA; 1000], SEQUENCE);
        let mut answer = vec![full; 40];
        answer.push(datagram(&[DATA, DATA, NLMSG_DONE], SEQUENCE));
        let (batches, ended) = batches(&answer);
        assert!(ended && batches.len() > 3, "{}", batches.len());
        assert_eq!(read(batches), (40_002, Ok(Some(0))));
    }

    #[test]
    fn another_questions_end_is_not_this_ones() {
        let answer = [datagram(&[NLMSG_DONE], SEQUENCE - 1), datagram(&[DATA, NLMSG_DONE], SEQUENCE)];
        assert_eq!(read(batches(&answer).0), (1, Ok(Some(0))));
    }

    #[test]
    fn an_answer_that_stops_has_no_end() {
        let (batches, ended) = batches(&[datagram(&[DATA], SEQUENCE)]);
        assert!(!ended);
        assert_eq!(read(batches), (1, Ok(None)));
    }

    #[test]
    fn what_cannot_be_read_ends_the_receiving_and_is_malformed() {
        let mut cut = datagram(&[DATA, DATA], SEQUENCE);
        cut.pop();
        let (batches, ended) = batches(&[cut]);
        assert!(ended, "or it would wait for ten seconds");
        assert!(read(batches).1.is_err());
    }
}
