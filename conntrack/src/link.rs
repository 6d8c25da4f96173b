//! A netlink socket to the kernel: send, receive, ask. All of this crate's I/O passes here.

use crate::netlink::{Malformed, Message, Messages, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, Requests};
use crate::pace::thread_cpu;
use netlink_sys::{Socket, SocketAddr, protocols};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io;
use std::time::Duration;

mod error;

pub use error::{Error, REASONS};

const MSG_DONTWAIT: i32 = 0x40;
const MSG_TRUNC: i32 = 0x20;
/// The kernel fills at most 32 KiB of it in a dump (`netlink_dump`); the rest is room for odd messages.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// The kernel answers while it works: silence for so long means that no answer comes.
const SILENCE: Duration = Duration::from_secs(10);

/// Which of the kernel's netlink families a link speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// ctnetlink, ipset.
    Netfilter,
    /// Sockets: inet_diag.
    SockDiag,
    /// Routes and addresses.
    Route,
}

impl Channel {
    fn protocol(self) -> isize {
        match self {
            Channel::Netfilter => protocols::NETLINK_NETFILTER,
            Channel::SockDiag => protocols::NETLINK_SOCK_DIAG,
            Channel::Route => protocols::NETLINK_ROUTE,
        }
    }
}

/// A netlink socket, connected to the kernel of the namespace that the opening thread was in.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
    buffer: Box<[u8]>,
    sequence: u32,
    times_calls: bool,
}

impl Link {
    /// Opens a socket to one family. Errors: [`Error::Open`].
    pub fn open(channel: Channel, asked: &'static str) -> Result<Link, Error> {
        Link::open_with_room(channel, asked, RECEIVE_BUFFER)
    }

    /// The same, which receives at most so many bytes at once. The kernel fills a dump's datagrams up to what was ever offered to it.
    pub(crate) fn open_with_room(channel: Channel, asked: &'static str, room: usize) -> Result<Link, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(channel.protocol())?;
            socket.bind_auto()?;
            // Connected to port 0, the socket takes messages from the kernel alone (netlink_getsockbyportid).
            socket.connect(&SocketAddr::new(0, 0))?;
            // Errors come without a copy of the request, so that a batch's failures fit the queue.
            socket.set_cap_ack(true)?;
            set_socket_timeout(&socket, Timeout::Recv, Some(SILENCE))?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::Open { asked, source })?;
        Ok(Link { socket, buffer: vec![0; room].into_boxed_slice(), sequence: 0, times_calls: false })
    }

    /// Also receives what the kernel announces to a multicast group (`RTNLGRP_*` and the like), between answers.
    pub fn subscribe(&mut self, group: u32, asked: &'static str) -> Result<(), Error> {
        self.socket.add_membership(group).map_err(|source| Error::Open { asked, source })
    }

    /// Has [`Answer::longest_call`] measured: two system calls more for each receive call.
    pub(crate) fn time_calls(&mut self) {
        self.times_calls = true;
    }

    pub(crate) fn times_calls(&self) -> bool {
        self.times_calls
    }

    /// How long a datagram may be.
    pub(crate) fn room(&self) -> usize {
        self.buffer.len()
    }

    /// The sequence number of the last question.
    pub(crate) fn sequence(&self) -> u32 {
        self.sequence
    }

    /// The next sequence number, never 0.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        self.sequence
    }

    /// Sends what was written, in one `sendmsg`.
    pub fn send(&mut self, requests: &Requests, asked: &'static str) -> Result<(), Error> {
        let sent = uninterrupted(|| self.socket.send(requests.bytes(), 0));
        sent.map(drop).map_err(|error| Error::from_io(asked, error))
    }

    /// Receives one datagram. Blocks up to ten seconds.
    pub fn receive(&mut self, asked: &'static str) -> Result<&[u8], Error> {
        let len = self.read(0).map_err(|error| Error::from_io(asked, error))?;
        self.received(len, asked)
    }

    /// Receives one datagram into `room`, and says how long it is. Blocks up to ten seconds.
    pub(crate) fn receive_into(&self, room: &mut [u8], asked: &'static str) -> Result<usize, Error> {
        let bytes = receive(&self.socket, room, 0).map_err(|error| Error::from_io(asked, error))?;
        if bytes > room.len() { Err(Error::Truncated { asked, bytes }) } else { Ok(bytes) }
    }

    /// Receives one datagram if one waits.
    pub fn receive_waiting(&mut self, asked: &'static str) -> Result<Option<&[u8]>, Error> {
        match self.read(MSG_DONTWAIT) {
            Ok(len) => self.received(len, asked).map(Some),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(Error::from_io(asked, error)),
        }
    }

    fn read(&mut self, flags: i32) -> io::Result<usize> {
        receive(&self.socket, &mut self.buffer, flags)
    }

    fn received(&self, len: usize, asked: &'static str) -> Result<&[u8], Error> {
        self.buffer.get(..len).ok_or(Error::Truncated { asked, bytes: len })
    }

    /// Sends a request with `NLM_F_DUMP` (or one that has a single answer and `NLM_F_ACK`) and hands each message of the answer to `each`.
    /// `between` runs after each receive call.
    pub fn ask(
        &mut self,
        requests: &Requests,
        asked: &'static str,
        mut each: impl FnMut(Message<'_>) -> Result<(), Malformed>,
        mut between: impl FnMut(),
    ) -> Result<Answer, Error> {
        let (sequence, times) = (self.sequence, self.times_calls);
        self.send(requests, asked)?;
        let mut answer = Answer::default();
        loop {
            let received = timed(times, &mut answer.longest_call, || self.receive(asked))?;
            let end = read_answer(received, sequence, &mut answer.interrupted, &mut each)
                .map_err(|source| Error::Malformed { asked, source })?;
            match end {
                None => between(),
                Some(errno) => return ended(errno, asked).map(|()| answer),
            }
        }
    }
}

/// The datagram's true length, which can be more than there was room for.
fn receive(socket: &Socket, mut room: &mut [u8], flags: i32) -> io::Result<usize> {
    uninterrupted(|| socket.recv(&mut room, flags | MSG_TRUNC))
}

/// A call that a signal interrupts is made again. With a receive timeout, SIGSTOP and SIGCONT are enough for EINTR (signal(7)).
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Makes a call, and keeps the most CPU time that one took, if it is to be measured.
pub(crate) fn timed<T>(measured: bool, longest: &mut Duration, call: impl FnOnce() -> T) -> T {
    if !measured {
        return call();
    }
    let before = thread_cpu();
    let made = call();
    *longest = (*longest).max(thread_cpu().saturating_sub(before));
    made
}

/// What an answer's last errno amounts to; 0 is its proper end.
pub(crate) fn ended(errno: i32, asked: &'static str) -> Result<(), Error> {
    match errno {
        0 => Ok(()),
        errno => Err(Error::from_io(asked, io::Error::from_raw_os_error(errno))),
    }
}

/// What an answer was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// The kernel marked it: `NLM_F_DUMP_INTR`.
    pub interrupted: bool,
    /// The most CPU time that one receive call took; 0 where that was not measured.
    pub longest_call: Duration,
}

/// Reads one datagram of the answer to `sequence`; the errno that ended it, if it ended.
pub(crate) fn read_answer(
    received: &[u8],
    sequence: u32,
    interrupted: &mut bool,
    each: &mut impl FnMut(Message<'_>) -> Result<(), Malformed>,
) -> Result<Option<i32>, Malformed> {
    for message in Messages(received) {
        let message = message?;
        // The tail of an answer that an earlier caller gave up on.
        if message.sequence != sequence {
            continue;
        }
        *interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.kind {
            NLMSG_DONE | NLMSG_ERROR => return message.errno().map(Some),
            _ => each(message)?,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    fn recorded(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut requests = Requests::new();
        requests.message(kind, flags, sequence, |r| r.raw(payload));
        requests.bytes().to_vec()
    }

    #[test]
    fn an_interrupted_dump_says_so() {
        let mut bytes = recorded(256, NLM_F_DUMP_INTR, 5, &[0; 4]);
        bytes.extend(recorded(NLMSG_DONE, 0, 5, &[0; 4]));
        let mut interrupted = false;
        let mut seen = 0;
        let end = read_answer(&bytes, 5, &mut interrupted, &mut |_| {
            seen += 1;
            Ok(())
        });
        assert_eq!((end, interrupted, seen), (Ok(Some(0)), true, 1));
    }

    #[test]
    fn another_questions_answer_is_passed_over() {
        let bytes = recorded(NLMSG_ERROR, 0, 4, &(-1i32).to_ne_bytes());
        assert_eq!(read_answer(&bytes, 5, &mut false, &mut |_| Ok(())), Ok(None));
    }

    #[test]
    fn errors_keep_their_errno_and_cuts_are_malformed() {
        let bytes = recorded(NLMSG_ERROR, 0, 5, &(-1i32).to_ne_bytes());
        assert_eq!(read_answer(&bytes, 5, &mut false, &mut |_| Ok(())), Ok(Some(1)));
        for cut in 1..bytes.len() {
            assert!(read_answer(&bytes[..cut], 5, &mut false, &mut |_| Ok(())).is_err(), "cut at {cut}");
        }
        assert!(matches!(
            Error::from_io("x", io::Error::from_raw_os_error(1)),
            Error::NotPermitted { asked: "x" }
        ));
        assert!(matches!(Error::from_io("x", io::Error::from_raw_os_error(105)), Error::Overrun { .. }));
    }

    #[test]
    fn what_a_signal_interrupts_is_done_again_and_nothing_else_is() {
        let errno = io::Error::from_raw_os_error;
        let (interrupted, no_memory) = (Errno::INTR.raw_os_error(), Errno::NOMEM.raw_os_error());
        let mut calls = [Err(errno(interrupted)), Err(errno(interrupted)), Ok(7)].into_iter();
        assert_eq!(uninterrupted(|| calls.next().unwrap()).unwrap(), 7);
        let mut calls = [Err(errno(interrupted)), Err(errno(no_memory)), Ok(7)].into_iter();
        let refused = uninterrupted(|| calls.next().unwrap()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(no_memory));
        assert_eq!(calls.next().unwrap().unwrap(), 7, "not tried again by us");
    }

    #[test]
    fn each_failure_has_its_sentence_and_its_reason() {
        let asked = "the connection tracking table";
        for (errno, reason, words) in [
            (Errno::PERM, "not_permitted", "CAP_NET_ADMIN is missing"),
            (
                Errno::NOBUFS,
                "overrun",
                "dropped part of its answer to the connection tracking table (ENOBUFS)",
            ),
            (
                Errno::NOMEM,
                "no_memory",
                "no memory left for the connection tracking table (ENOMEM): this host is out of memory",
            ),
            (Errno::AGAIN, "silent", "no answer to the connection tracking table in 10 s"),
            (Errno::BUSY, "refused", "refuses the connection tracking table: Device or resource busy"),
        ] {
            // As the socket's own error, and as the one that the kernel's answer carries.
            let code = errno.raw_os_error();
            let answer = recorded(NLMSG_ERROR, 0, 5, &(-code).to_ne_bytes());
            assert_eq!(read_answer(&answer, 5, &mut false, &mut |_| Ok(())), Ok(Some(code)));
            let error = Error::from_io(asked, io::Error::from_raw_os_error(code));
            assert_eq!(error.reason(), reason);
            assert!(REASONS.contains(&reason));
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
