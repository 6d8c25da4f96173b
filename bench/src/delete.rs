//! Deleting the entries of sources, beside the kernel's charge and `conntrack -D`.

use std::net::IpAddr;

use conntrack::own::OwnAddresses;
use conntrack_actioner::{
    removal::remove,
    survey::{Ask, KEY_ROOM, Survey, take},
};
use ipnet::IpNet;
use tests::{
    Result,
    entries::{Wanted, delete, insert},
    netns::Namespace,
};

use crate::{
    Size,
    measure::{Cost, Work, in_turn, ms, on_this_thread},
    report::Part,
    scrape::PIPELINE,
    table::{FIRST, empty, nth},
};

const BY_SOURCE: u32 = 300;
/// Above those whose entries are deleted.
const OTHERS: u32 = 0x0100_0000;

/// Entries of `sources` with so many each.
fn his(sources: u32, by_source: u32) -> impl Iterator<Item = Wanted> {
    (0..sources * by_source).map(move |number| nth(number, sources, 0))
}

/// The same in no order, as a dump shows them, which follows the kernel's hash: entries that were made one after the other lie side
/// by side in memory, and deleting them so costs a third less.
fn in_no_order(sources: u32, by_source: u32) -> impl Iterator<Item = Wanted> {
    let all = u64::from(sources * by_source);
    // A prime that divides no size of ours visits each place once.
    (0..all).map(move |place| nth((place * 7919 % all) as u32, sources, 0))
}

/// A table of so many entries, of which the first `sources` hold `by_source` each.
pub(crate) fn filled(entries: u32, sources: u32, by_source: u32) -> Result<Namespace> {
    let namespace = empty()?;
    namespace.run(|| {
        insert(his(sources, by_source));
        let others = (0..entries - sources * by_source).map(|number| nth(number, 70_000, 0));
        insert(others.map(|mut entry| {
            entry.source.set_ip((entry.source.ip().to_bits() + OTHERS).into());
            entry
        }));
    });
    Ok(namespace)
}

fn survey() -> Survey {
    let own = OwnAddresses::read().expect("this host's addresses");
    take(&own, &Ask { key_room: KEY_ROOM, ..Ask::default() }).expect("a dump")
}

fn nets(sources: u32) -> impl Iterator<Item = IpNet> {
    (0..sources).map(|number| IpAddr::V4((FIRST + number).into()).into())
}

/// How long it took until they were gone.
fn removed(sources: u32, by_source: u32, survey: &Survey) -> Cost {
    let removal = remove(nets(sources), 50_000, Some(survey)).expect("a deletion");
    assert_eq!(removal.deleted.deleted, u64::from(sources * by_source), "{removal:?}");
    Cost { wall: removal.shown_gone, ..Cost::default() }
}

/// A survey, and how long it took from there until they were gone.
fn found_and_removed(sources: u32, by_source: u32) -> Cost {
    let (dump, survey) = on_this_thread(survey);
    let gone = removed(sources, by_source, &survey);
    Cost { wall: dump.wall + gone.wall, ..Cost::default() }
}

/// A dump and the deletion of what it saw, as the actioner does both.
pub(crate) fn one_source(by_source: u32) -> Cost {
    found_and_removed(1, by_source)
}

pub(crate) fn part(size: Size) -> Result<Part> {
    let mut part = Part::new("Deleting");
    part.before.push("No policy is involved: the actioner's own `survey::take` and `removal::remove` are called (nice 10, sockets of the source \
         looked for first, the table's count asked for afterwards). The raw loop knows the tuples, in no order, as a dump shows them, and sends DELETEs, 200 a `sendmsg`.".into());
    many(&mut part, size)?;
    one(&mut part, size)?;
    part.after.push("Our times are until the entries are gone that the dump had shown. Where that dump began more than a second before, as at 1,000,000 entries, the same call \
         then dumps once more, for what was made meanwhile: the ban is in force and the slots are free, and the answer to the webhook waits for it. That dump is not in these rows.".into());
    Ok(part)
}

fn many(part: &mut Part, size: Size) -> Result<()> {
    let (entries, sources) = (size.large, size.large / 1000);
    let namespace = filled(entries, sources, BY_SOURCE)?;
    let back = || insert(his(sources, BY_SOURCE));
    let mut works: Vec<Work<'_>> = vec![
        Box::new(|| {
            Ok(namespace.run(|| {
                let cost = on_this_thread(|| delete(in_no_order(sources, BY_SOURCE))).0;
                back();
                cost
            }))
        }),
        Box::new(|| {
            Ok(namespace.run(|| {
                let survey = survey();
                let cost = removed(sources, BY_SOURCE, &survey);
                back();
                cost
            }))
        }),
        Box::new(|| {
            Ok(namespace.run(|| {
                let cost = found_and_removed(sources, BY_SOURCE);
                back();
                cost
            }))
        }),
    ];
    let rounds = in_turn(size.rounds, &mut works)?;
    drop(works);
    let all = sources * BY_SOURCE;
    let each = |work| {
        format!(
            "{}, {:.2} µs an entry",
            ms(rounds.wall(work)),
            rounds.wall(work).as_secs_f64() * 1e6 / f64::from(all)
        )
    };
    let what = format!("{all} entries of {sources} sources out of {entries}");
    let ratio = rounds.walls(1, 0);
    part.row(
        [
            &format!("{what}, tuples kept from the detecting dump"),
            "the raw loop",
            &each(1),
            &each(0),
            &format!("{ratio:.2}"),
            "≤ 1.2",
        ],
        Some(ratio <= 1.2),
    );
    let theirs = theirs(&namespace, 0)?.max(theirs(&namespace, 1)?) * sources;
    namespace.run(|| insert(his(sources, BY_SOURCE).filter(|entry| entry.source.ip().to_bits() < FIRST + 2)));
    let ratio = theirs.as_secs_f64() / rounds.wall(2).as_secs_f64();
    part.row(
        [
            &format!("{what}, from nothing: dump and deletion"),
            "`conntrack -D --src` once a source (two measured, the rest extrapolated)",
            &ms(rounds.wall(2)),
            &ms(theirs),
            &format!("{ratio:.0} × faster"),
            if size.short { "" } else { "≥ 1,000 ×" },
        ],
        (!size.short).then_some(ratio >= 1000.0),
    );
    Ok(())
}

fn theirs(namespace: &Namespace, number: u32) -> Result<std::time::Duration> {
    let source = std::net::Ipv4Addr::from(FIRST + number).to_string();
    Ok(crate::measure::timed(|| namespace.command(&["conntrack", "-D", "--src", &source]).map(drop))?.wall)
}

/// One source: as the product does it, whose detecting dump has the tuples; and found out from nothing, as the neighbours have to.
fn one(part: &mut Part, size: Size) -> Result<()> {
    const ENTRIES: u32 = 1000;
    let namespace = filled(size.large, 1, ENTRIES)?;
    let back = || namespace.run(|| insert(his(1, ENTRIES)));
    let mut works: Vec<Work<'_>> = vec![
        Box::new(|| {
            let cost = namespace.run(|| {
                let survey = survey();
                removed(1, ENTRIES, &survey)
            });
            back();
            Ok(cost)
        }),
        Box::new(|| {
            let cost = namespace.run(|| one_source(ENTRIES));
            back();
            Ok(cost)
        }),
        Box::new(|| {
            let wall = theirs(&namespace, 0)?;
            back();
            Ok(Cost { wall, ..Cost::default() })
        }),
        Box::new(|| crate::measure::timed(|| namespace.command(&["sh", "-c", PIPELINE]).map(drop))),
    ];
    let rounds = in_turn(size.rounds, &mut works)?;
    let what = format!("one source, {ENTRIES} entries out of {}", size.large);
    let kept = 1.0 / rounds.walls(0, 2);
    part.row(
        [
            &format!("{what}, tuples kept from the detecting dump"),
            "`conntrack -D --src`",
            &ms(rounds.wall(0)),
            &ms(rounds.wall(2)),
            &format!("{kept:.0} × faster"),
            "≥ 2 ×",
        ],
        Some(kept >= 2.0),
    );
    let found = rounds.ratio(|round| (round[2].wall + round[3].wall, round[1].wall));
    part.row(
        [
            &format!("{what}, found out and deleted"),
            "the pipeline of *Reading* and `conntrack -D --src`",
            &ms(rounds.wall(1)),
            &ms(rounds.wall(2) + rounds.wall(3)),
            &format!("{found:.1} × faster"),
            "≥ 2 ×",
        ],
        Some(found >= 2.0),
    );
    let dumped = 1.0 / rounds.walls(1, 2);
    part.row(
        [
            &format!("{what}, dump and deletion where the source is known"),
            "`conntrack -D --src`",
            &ms(rounds.wall(1)),
            &ms(rounds.wall(2)),
            &format!("{dumped:.1} × faster"),
            "",
        ],
        None,
    );
    part.after.push("Where the source is known and no dump has shown its tuples, both sides pay for one dump, which is nine tenths of ours: twice as fast would \
         be below the floor. The actioner never is in that place: it bans on what a dump has shown.".into());
    Ok(())
}
