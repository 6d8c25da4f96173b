//! A dump in two threads on the real kernel: every entry once, used where neither class is small and nowhere else. And what it costs:
//!
//! `cargo test --release -p tests --test in_two -- --ignored --nocapture`

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use conntrack::{
    Channel, FlowKey, Link, Summary, Table,
    netlink::{Messages, NLM_F_DUMP, NLMSG_DONE, Requests},
    summary::Shared,
};
use tests::{
    Result,
    entries::{Wanted, insert},
    netns::Namespace,
};

/// Entries of a table, every `unreplied`th of them unanswered.
fn filled(entries: u32, unreplied: u32) -> Result<Namespace> {
    let namespace = Namespace::new("in two")?;
    namespace.track_connections()?;
    namespace.run(|| {
        insert((0..entries).map(|number| Wanted::nth(number, 10, unreplied == 0 || number % unreplied != 0)));
    });
    Ok(namespace)
}

/// One look: the keys seen by each thread.
fn keys(table: &mut Table) -> Vec<Vec<FlowKey>> {
    let (keys, dump) = table.visit_in_two(Vec::new, |keys, flow| keys.push(flow.key())).unwrap();
    assert_eq!((dump.malformed, dump.interrupted), (None, false));
    assert_eq!(dump.entries, keys.iter().map(Vec::len).sum::<usize>() as u64);
    keys
}

#[test]
fn two_threads_see_every_entry_once() -> Result<()> {
    const ENTRIES: usize = 21_000;
    let namespace = filled(ENTRIES as u32, 3)?;
    namespace.run(|| {
        let mut table = Table::open().unwrap();
        let first = keys(&mut table);
        assert_eq!(first.len(), 1, "nothing is known of the table yet");
        for _ in 0..3 {
            let both = keys(&mut table);
            assert_eq!(both.iter().map(Vec::len).collect::<Vec<_>>(), [ENTRIES * 2 / 3, ENTRIES / 3]);
            let distinct: HashSet<FlowKey> = both.into_iter().flatten().collect();
            assert_eq!(distinct, first[0].iter().copied().collect());
        }
    });
    Ok(())
}

#[test]
fn a_small_class_is_not_asked_for_alone() -> Result<()> {
    let namespace = filled(21_000, 21)?;
    namespace.run(|| {
        let mut table = Table::open().unwrap();
        for _ in 0..3 {
            assert_eq!(keys(&mut table).len(), 1);
        }
    });
    Ok(())
}

#[test]
fn a_thread_that_receives_ahead_changes_nothing_of_what_is_seen() -> Result<()> {
    const ENTRIES: usize = 21_000;
    let namespace = filled(ENTRIES as u32, 0)?;
    namespace.run(|| {
        let alone: HashSet<FlowKey> =
            keys(&mut Table::open().unwrap().in_one_thread()).into_iter().flatten().collect();
        assert_eq!(alone.len(), ENTRIES);
        let mut table = Table::open().unwrap();
        for _ in 0..3 {
            let (mut ahead, reader) = (Vec::new(), std::thread::current().id());
            table
                .visit(|flow| {
                    assert_eq!(std::thread::current().id(), reader);
                    ahead.push(flow.key());
                })
                .unwrap();
            assert_eq!(ahead.len(), ENTRIES, "each once");
            assert_eq!(ahead.into_iter().collect::<HashSet<_>>(), alone);
        }
    });
    Ok(())
}

/// The kernel's share: a dump, of all or of one class, whose bytes are thrown away. How long it took, and the longest single wait
/// for the kernel.
fn floor(seen_reply: Option<bool>) -> (Duration, Duration) {
    const SEEN_REPLY: u32 = 2;
    let mut link = Link::open(Channel::Netfilter, "a dump").unwrap();
    let sequence = link.next_sequence();
    let mut request = Requests::new();
    request.message(1 << 8 | 1, NLM_F_DUMP, sequence, |r| {
        r.raw(&[0; 4]);
        if let Some(seen) = seen_reply {
            r.attribute(3, &if seen { SEEN_REPLY } else { 0 }.to_be_bytes());
            r.attribute(26, &SEEN_REPLY.to_be_bytes());
        }
    });
    let started = Instant::now();
    link.send(&request, "a dump").unwrap();
    let mut longest = Duration::ZERO;
    loop {
        let before = Instant::now();
        let received = link.receive("a dump").unwrap();
        longest = longest.max(before.elapsed());
        if Messages(received).next().is_none_or(|message| message.unwrap().kind == NLMSG_DONE) {
            return (started.elapsed(), longest);
        }
    }
}

fn summary(table: &mut Table) -> (Duration, usize, Summary) {
    let started = Instant::now();
    let shared = Shared::new();
    let (parts, _) = table.visit_in_two(|| shared.part(), |part, flow| part.add(flow)).unwrap();
    let counts: Vec<_> = parts.into_iter().map(conntrack::summary::Part::finish).collect();
    let threads = counts.len();
    (started.elapsed(), threads, shared.whole(counts))
}

#[test]
#[ignore = "a measurement"]
fn cost() -> Result<()> {
    const ENTRIES: u32 = 240_000;
    for (what, unreplied, alone) in [
        ("half unreplied", 2, false),
        ("a twentieth unreplied", 20, false),
        ("all replied", 0, false),
        ("all replied, by one thread", 0, true),
    ] {
        let namespace = filled(ENTRIES, unreplied)?;
        namespace.run(|| {
            let mut table = Table::open().unwrap();
            if alone {
                table = table.in_one_thread();
            }
            summary(&mut table);
            let mut took = [Vec::new(), Vec::new()];
            let (mut longest, mut threads) = (Duration::ZERO, 0);
            for _ in 0..7 {
                let (raw, mut wait) = floor(None);
                if threads == 2 {
                    wait = wait.max(floor(Some(true)).1).max(floor(Some(false)).1);
                }
                let (ours, used, summary) = summary(&mut table);
                assert_eq!(summary.entries, u64::from(ENTRIES));
                took[0].push(raw);
                took[1].push(ours);
                (longest, threads) = (longest.max(wait), used);
            }
            let [raw, ours] = took.map(|mut took| {
                took.sort_unstable();
                took[3]
            });
            let ratio = ours.as_secs_f64() / raw.as_secs_f64();
            println!("{ENTRIES} entries, {what}: floor {raw:.1?} (longest receive {longest:.1?}), summary {ours:.1?} of {threads} part(s): {ratio:.2}");
        });
    }
    Ok(())
}
