//! Many elements in few messages. Pure: what is sent next depends on what the kernel said last.
//!
//! A bad element keeps those after it in its message from being looked at, and its number comes back (`call_ad`,
//! ip_set_core.c): the next message begins behind it.

use std::ops::Range;

use conntrack::netlink::Malformed;
use rustix::io::Errno;

use super::{KernelError, client::ASKED, reply::End, wire::MOST_ELEMENTS};

/// After so many in a row that found the set full, the rest is not tried: each would cost a message, to no avail.
const FULL_ENOUGH: usize = 32;

/// Why a batch was given up.
#[derive(Debug)]
pub(super) enum Error {
    /// The kernel refused a message as a whole.
    Refused(KernelError),
    Link(conntrack::Error),
}

/// The number that the first element of a message carries: they are numbered from 1 over the whole batch.
pub(super) fn first_line(range: &Range<usize>) -> u32 {
    u32::try_from(range.start + 1).unwrap_or(u32::MAX)
}

/// Sends `total` elements, a range of them at a time, and returns those that were refused, in their order.
pub(super) fn send_all(
    total: usize,
    mut send: impl FnMut(Range<usize>) -> Result<End, conntrack::Error>,
) -> Result<Vec<(usize, KernelError)>, Error> {
    let mut bad = Vec::new();
    let (mut next, mut most, mut full) = (0, MOST_ELEMENTS, 0);
    while next < total {
        let range = next..total.min(next + most);
        match send(range.clone()) {
            Ok(End::Ok) => (next, full) = (range.end, 0),
            Ok(End::Refused { error, line: Some(line) }) => {
                let index = element(line, &range)?;
                bad.push((index, error));
                full = match error {
                    KernelError::HashFull if index == next => full + 1,
                    KernelError::HashFull => 1,
                    _ => 0,
                };
                next = index + 1;
                if full == FULL_ENOUGH {
                    bad.extend((next..total).map(|index| (index, KernelError::HashFull)));
                    return Ok(bad);
                }
            }
            Ok(End::Refused { error, line: None }) => return Err(Error::Refused(error)),
            // Sending the first half again does no harm: what was written is written again, or refused as existing.
            Err(error) if range.len() > 1 && too_big(&error) => most = range.len() / 2,
            Err(error) => return Err(Error::Link(error)),
        }
    }
    Ok(bad)
}

fn element(line: u32, sent: &Range<usize>) -> Result<usize, Error> {
    let source = Malformed("an ipset error about an element that was not sent");
    let index = (line as usize).checked_sub(1).filter(|index| sent.contains(index));
    index.ok_or(Error::Link(conntrack::Error::Malformed { asked: ASKED, source }))
}

/// The message did not fit into the socket's buffer, or the answer with its copy did not.
fn too_big(error: &conntrack::Error) -> bool {
    match error {
        conntrack::Error::Overrun { .. } => true,
        conntrack::Error::Refused { source, .. } => Errno::from_io_error(source) == Some(Errno::MSGSIZE),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Sends to a kernel that finds fault as `fault` says; what was sent, and what came of it.
    fn sent(
        total: usize,
        fault: impl Fn(usize) -> Option<KernelError>,
    ) -> (Vec<Range<usize>>, Vec<(usize, KernelError)>) {
        let mut messages = Vec::new();
        let bad = send_all(total, |range| {
            messages.push(range.clone());
            let fault = range.clone().find_map(|index| fault(index).map(|error| (index, error)));
            Ok(fault.map_or(End::Ok, |(index, error)| End::Refused {
                error,
                line: Some(first_line(&(index..index + 1))),
            }))
        });
        (messages, bad.unwrap())
    }

    #[test]
    fn a_thousand_go_in_one_message() {
        assert!(sent(0, |_| None).0.is_empty());
        assert_eq!(sent(1000, |_| None).0.len(), 1);
        assert_eq!(sent(2001, |_| None).0, [0..1000, 1000..2000, 2000..2001]);
    }

    #[test]
    fn sending_goes_on_behind_a_bad_element() {
        let fault = |index| [0, 700, 701, 1499].contains(&index).then_some(KernelError::Exist);
        let (messages, bad) = sent(1500, fault);
        assert_eq!(bad, [0, 700, 701, 1499].map(|index| (index, KernelError::Exist)));
        assert_eq!(messages, [0..1000, 1..1001, 701..1500, 702..1500]);
    }

    #[test]
    fn a_full_set_is_not_asked_for_ever() {
        let (messages, bad) = sent(50_000, |index| (index >= 10).then_some(KernelError::HashFull));
        assert_eq!(bad.len(), 49_990);
        assert_eq!(messages.len(), FULL_ENOUGH);
    }

    #[test]
    fn room_that_comes_and_goes_is_used() {
        let (_, bad) = sent(3000, |index| (index % 2 == 0).then_some(KernelError::HashFull));
        assert_eq!(bad.len(), 1500);
    }

    #[test]
    fn what_is_too_big_is_halved() {
        for too_big in [libc_error(90), conntrack::Error::Overrun { asked: ASKED }].map(Some) {
            let (mut messages, mut too_big) = (Vec::new(), too_big);
            let bad = send_all(1600, |range| {
                messages.push(range.clone());
                if range.len() > 500 {
                    Err(too_big.take().unwrap_or_else(|| libc_error(90)))
                } else {
                    Ok(End::Ok)
                }
            });
            assert_eq!(bad.unwrap(), []);
            assert_eq!(messages, [0..1000, 0..500, 500..1000, 1000..1500, 1500..1600]);
        }
        let one = send_all(1, |_| Err(libc_error(90)));
        assert!(matches!(one, Err(Error::Link(_))), "one element cannot be halved: {one:?}");
    }

    #[test]
    fn what_the_kernel_cannot_mean_is_an_error() {
        for line in [0, 5, 1000] {
            let answer = send_all(4, |_| Ok(End::Refused { error: KernelError::Exist, line: Some(line) }));
            assert!(
                matches!(answer, Err(Error::Link(conntrack::Error::Malformed { .. }))),
                "{line}: {answer:?}"
            );
        }
        let gone = send_all(4, |_| Ok(End::Refused { error: KernelError::NO_SUCH_SET, line: None }));
        assert!(matches!(gone, Err(Error::Refused(KernelError::NO_SUCH_SET))), "{gone:?}");
    }

    fn libc_error(errno: i32) -> conntrack::Error {
        conntrack::Error::Refused { asked: ASKED, source: io::Error::from_raw_os_error(errno) }
    }
}
