//! Whether a kernel can be asked for halves, and what is done when it cannot: its answers come from recorded bytes.

use super::*;
use crate::link::read_answer;
use crate::netlink::{Message, Messages, NLMSG_DONE, NLMSG_ERROR, Requests};

const RECORDED: &[u8] = include_bytes!("testdata/dump-6.18.bin");
const NLM_F_DUMP_FILTERED: u16 = 0x20;
const ENTRIES: u64 = 13;
const SEQUENCE: u32 = 7;
const EINVAL: i32 = 22;
const EPERM: i32 = 1;

/// A kernel, by what it answers to the question for one half.
#[derive(Clone, Copy)]
enum Kernel {
    /// 5.15 and later: the half, each message marked as filtered.
    Filters,
    /// Before 5.15: all of the table, unmarked.
    Ignores,
    /// One that answers with an errno.
    Refuses(i32),
}

impl Kernel {
    /// The bytes of its answer: the recorded dump's messages and an end, or the errno.
    fn answer(self) -> Vec<u8> {
        let mut bytes = Requests::new();
        let flags = match self {
            Kernel::Filters => NLM_F_DUMP_FILTERED,
            Kernel::Ignores => 0,
            Kernel::Refuses(errno) => {
                bytes.message(NLMSG_ERROR, 0, SEQUENCE, |r| r.raw(&(-errno).to_ne_bytes()));
                return bytes.bytes().to_vec();
            }
        };
        for Message { kind, payload, .. } in Messages(RECORDED).map(Result::unwrap) {
            bytes.message(kind, flags, SEQUENCE, |r| r.raw(payload));
        }
        bytes.message(NLMSG_DONE, flags, SEQUENCE, |r| r.raw(&[0; 4]));
        bytes.bytes().to_vec()
    }

    /// What [`Table::half`] makes of it.
    fn asked_for(self, half: Half) -> Result<Read<u64>, Error> {
        let mut seen = 0;
        let mut reader = Reader::half(half, |_: &Flow| seen += 1);
        let end = read_answer(&self.answer(), SEQUENCE, &mut false, &mut |message| reader.see(message));
        let answer = match end {
            Ok(Some(0)) => Ok(Answer::default()),
            Ok(Some(errno)) => Err(Error::from_io(DUMP, std::io::Error::from_raw_os_error(errno))),
            Ok(None) => panic!("the answer has an end"),
            Err(source) => Err(Error::Malformed { asked: DUMP, source }),
        };
        let read = outcome(answer, &reader, Duration::ZERO)?;
        Ok(match read {
            Read::Whole((), dump, classes) => Read::Whole(seen, dump, classes),
            Read::Unknown => {
                assert_eq!(seen, 0, "a plain dump follows: nothing may have been counted");
                Read::Unknown
            }
        })
    }
}

fn asked(ours: Kernel, theirs: Kernel) -> Result<Option<[Shown<u64>; 2]>, Error> {
    both([ours.asked_for(Half::Replied)?, theirs.asked_for(Half::Unreplied)?])
}

#[test]
fn a_kernel_that_filters_gives_both_halves() {
    let [(ours, a, of_ours), (theirs, b, of_theirs)] =
        asked(Kernel::Filters, Kernel::Filters).unwrap().unwrap();
    assert_eq!((ours, theirs), (a.entries, b.entries));
    assert_eq!(a.entries + b.entries, ENTRIES, "each entry in one of them");
    assert_eq!((of_ours.unreplied, of_theirs.replied), (0, 0));
    assert!(ours > 0 && theirs > 0);
}

#[test]
fn a_kernel_before_5_15_or_one_that_refuses_is_asked_for_all_instead() {
    for kernel in [Kernel::Ignores, Kernel::Refuses(EINVAL)] {
        assert!(asked(kernel, kernel).unwrap().is_none());
    }
    assert!(asked(Kernel::Ignores, Kernel::Refuses(EINVAL)).unwrap().is_none());
}

#[test]
fn what_was_counted_is_not_counted_again() {
    for (ours, theirs) in [(Kernel::Filters, Kernel::Refuses(EINVAL)), (Kernel::Ignores, Kernel::Filters)] {
        assert!(matches!(asked(ours, theirs), Err(Error::Malformed { .. })));
    }
}

#[test]
fn a_missing_capability_is_no_reason_to_ask_again() {
    let refused = asked(Kernel::Refuses(EPERM), Kernel::Refuses(EPERM));
    assert!(matches!(refused, Err(Error::NotPermitted { .. })));
}
