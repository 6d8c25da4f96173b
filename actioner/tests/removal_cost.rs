//! What a deletion by kept keys costs beside a raw loop. Measured, not tested: it wants an optimised build and a quiet machine.
//!
//! `cargo test --release -p conntrack-actioner --test removal_cost -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use conntrack::own::OwnAddresses;
use conntrack::{FlowKeys, Table};
use conntrack_actioner::removal::remove;
use conntrack_actioner::survey::{Ask, KEY_ROOM, take};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tests::Result;
use tests::entries::{Wanted, insert};
use tests::netns::Namespace;

const ENTRIES: u32 = 240_000;
const SOURCES: u32 = 250;
const BY_SOURCE: u32 = 300;

/// 250 sources with 300 entries, and others with 10.
fn fill() {
    let his = (0..SOURCES * BY_SOURCE).map(|number| Wanted::nth(number, BY_SOURCE, true));
    let others = (0..ENTRIES - SOURCES * BY_SOURCE).map(|number| Wanted::nth(20_000 + number, 10, true));
    insert(his);
    insert(others.map(|mut wanted| {
        wanted.source.set_ip((wanted.source.ip().to_bits() + 0x0100_0000).into());
        wanted
    }));
}

fn raw() -> Duration {
    let mut table = Table::open().unwrap();
    let mut keys = FlowKeys::bounded(usize::MAX);
    table
        .visit(|flow| {
            if matches!(flow.original.src, IpAddr::V4(source) if source.octets()[0] == 198) {
                keys.push(flow.key());
            }
        })
        .unwrap();
    let started = Instant::now();
    assert_eq!(table.delete(keys.iter()).unwrap().deleted, u64::from(SOURCES * BY_SOURCE));
    started.elapsed()
}

fn kept() -> (Duration, Duration, u32) {
    let own = OwnAddresses::read().unwrap();
    let survey = take(&own, &Ask { key_room: KEY_ROOM, ..Ask::default() }).unwrap();
    let nets =
        (0..SOURCES).map(|number| IpAddr::from(Wanted::nth(number, 1, true).source.ip().octets()).into());
    let started = Instant::now();
    let removal = remove(nets, 50_000, Some(&survey)).unwrap();
    assert_eq!(removal.deleted.deleted, u64::from(SOURCES * BY_SOURCE));
    (started.elapsed(), survey.dump.elapsed, removal.dumps)
}

#[test]
#[ignore = "a measurement"]
fn cost() -> Result<()> {
    let per_entry = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(SOURCES * BY_SOURCE);
    for _ in 0..5 {
        let namespace = Namespace::new("kept")?;
        namespace.track_connections()?;
        let (raw, (kept, dump, dumps)) = namespace.run(|| {
            fill();
            let raw = raw();
            insert((0..SOURCES * BY_SOURCE).map(|number| Wanted::nth(number, BY_SOURCE, true)));
            (raw, kept())
        });
        println!(
            "{} of {ENTRIES}: raw loop {:.2} µs an entry, removal {:.2} µs ({dumps} dumps after it; the survey's took {dump:?})",
            SOURCES * BY_SOURCE,
            per_entry(raw),
            per_entry(kept)
        );
    }
    Ok(())
}
