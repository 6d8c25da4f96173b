//! The recorded dump of [`crate::decode`]'s tests, answered as a kernel with the filter would and as one without did.

use super::*;
use crate::netlink::Messages;

const DUMP: &[u8] = include_bytes!("testdata/dump-6.18.bin");
const ENTRIES: u64 = 13;

/// What `half` reads of the recorded answer, `flags` set in each of its messages: entries seen, and whether it went through.
fn read(half: Option<Half>, flags: u16) -> (Vec<Flow>, Result<(), bool>, Classes) {
    let mut seen = Vec::new();
    let each = |flow: &Flow| seen.push(*flow);
    let mut reader = match half {
        Some(half) => Reader::half(half, each),
        None => Reader::whole(each),
    };
    let result = Messages(DUMP).map(Result::unwrap).try_for_each(|message| {
        reader.see(Message { flags: message.flags & !NLM_F_DUMP_FILTERED | flags, ..message })
    });
    let (result, classes) = (result.map_err(|_| reader.unfiltered()), reader.classes());
    (seen, result, classes)
}

#[test]
fn each_entry_is_in_one_half_even_where_the_kernel_shows_all_to_both() {
    let (whole, Ok(()), classes) = read(None, 0) else { panic!("a plain dump") };
    assert_eq!(whole.len() as u64, ENTRIES);
    // The recorded answer holds every entry, so the second look at each is all that keeps them apart.
    let (replied, Ok(()), _) = read(Some(Half::Replied), NLM_F_DUMP_FILTERED) else { panic!() };
    let (unreplied, Ok(()), _) = read(Some(Half::Unreplied), NLM_F_DUMP_FILTERED) else { panic!() };
    assert!(replied.iter().all(|flow| flow.status.seen_reply()));
    assert!(!unreplied.iter().any(|flow| flow.status.seen_reply()));
    assert_eq!((replied.len() + unreplied.len()) as u64, ENTRIES);
    assert_eq!((replied.len() as u64, unreplied.len() as u64), (classes.replied, classes.unreplied));
    assert!(!replied.is_empty() && !unreplied.is_empty());
}

#[test]
fn a_kernel_that_ignores_the_question_is_found_out_before_an_entry_is_counted() {
    for half in [Half::Replied, Half::Unreplied] {
        let (seen, result, classes) = read(Some(half), 0);
        assert_eq!((seen.len(), result, classes), (0, Err(true), Classes::default()), "{half:?}");
    }
}

#[test]
fn the_request_has_status_and_mask_in_network_order() {
    let written = |half: Half| {
        let mut r = Requests::new();
        half.write(&mut r);
        r.bytes().to_vec()
    };
    assert_eq!(written(Half::Replied), [8, 0, 3, 0, 0, 0, 0, 2, 8, 0, 26, 0, 0, 0, 0, 2]);
    assert_eq!(written(Half::Unreplied), [8, 0, 3, 0, 0, 0, 0, 0, 8, 0, 26, 0, 0, 0, 0, 2]);
}

#[test]
fn two_are_worth_it_where_neither_class_is_small() {
    for (replied, unreplied, expected) in [
        (0, 0, false),
        (5_000, 5_000, false),
        (10_000, 10_000, true),
        (950_000, 50_000, true),
        (950_001, 49_999, false),
        (49_999, 950_001, false),
        (200_000, 0, false),
    ] {
        assert_eq!(Classes { replied, unreplied }.worth_two(), expected, "{replied} and {unreplied}");
    }
}
