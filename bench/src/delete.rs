//! Deleting the entries of sources, beside the kernel's charge and `conntrack -D`.

use std::{net::IpAddr, time::Duration};

use conntrack::own::OwnAddresses;
use conntrack_actioner::{
    removal::{look_again, remove},
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
    measure::{Cost, Rounds, Work, in_turn, ms, on_this_thread},
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

/// Until the entries that the survey had shown were gone, when who asked is answered; and what it took then to look at the table once
/// more, for what was made meanwhile, where that had to be.
fn removed(sources: u32, by_source: u32, survey: &Survey) -> Cost {
    let (shown, mut removal) =
        on_this_thread(|| remove(nets(sources), 50_000, Some(survey)).expect("a deletion"));
    assert_eq!(removal.deleted.deleted, u64::from(sources * by_source), "{removal:?}");
    let (again, ()) = on_this_thread(|| {
        if let Some(rest) = removal.rest.take() {
            look_again(rest).expect("a second look");
        }
    });
    Cost { wall: shown.wall, then: again.wall, ..Cost::default() }
}

/// A survey, and the deletion of what it showed.
fn found_and_removed(sources: u32, by_source: u32) -> Cost {
    let (dump, survey) = on_this_thread(survey);
    let gone = removed(sources, by_source, &survey);
    Cost { wall: dump.wall + gone.wall, ..gone }
}

/// A dump and the deletion of what it saw, as the actioner does both.
pub(crate) fn one_source(by_source: u32) -> Cost {
    found_and_removed(1, by_source)
}

/// What it stops at, and what it shows.
type Clock = (&'static str, fn(&Cost) -> Duration);

/// The clocks that a deletion of ours is told by, each in a row of its own.
const CLOCKS: [Clock; 2] = [
    ("until those entries are gone and the webhook is answered", |ours| ours.wall),
    ("until the table was looked at again after the answer", |ours| ours.wall + ours.then),
];

/// A comparison with somebody else's deletion, who also deletes what he saw once: the first clock is judged by the target.
struct Compared<'c> {
    what: &'c str,
    against: &'c str,
    rounds: &'c Rounds,
    ours: usize,
    theirs: &'c dyn Fn(&[Cost]) -> Duration,
    /// At least so many times faster.
    target: Option<f64>,
}

impl Compared<'_> {
    fn rows(&self, part: &mut Part) {
        for (clock, ours) in CLOCKS {
            let target = self.target.filter(|_| clock == CLOCKS[0].0);
            let faster = self.rounds.ratio(|round| ((self.theirs)(round), ours(&round[self.ours])));
            let places = if faster < 100.0 { 1 } else { 0 };
            part.row(
                [
                    &format!("{}: {clock}", self.what),
                    self.against,
                    &ms(self.rounds.median(|round| ours(&round[self.ours]))),
                    &ms(self.rounds.median(self.theirs)),
                    &format!("{faster:.places$} × faster"),
                    &target.map_or_else(String::new, |target| format!("≥ {target} ×")),
                ],
                target.map(|target| faster >= target),
            );
        }
    }
}

pub(crate) fn part(size: Size) -> Result<Part> {
    let mut part = Part::new("Deleting");
    part.before.push("No policy is involved: the actioner's own `survey::take` and `removal::remove` are called (nice 10, sockets of the source \
         looked for first, the table's count asked for afterwards). The raw loop knows the tuples, in no order, as a dump shows them, and sends DELETEs, 200 a `sendmsg`.".into());
    many(&mut part, size)?;
    one(&mut part, size)?;
    part.after.push("Each deletion of ours is told by two clocks. The first stops when the entries are gone that the dump had shown: the ban is in force, the slots are free, and the webhook \
         is answered. Where that dump was of more than 200,000 entries the table is then dumped once more, for what was made between the dump and the ban; the second clock stops after that. \
         The targets are judged by the first, for nobody else looks a second time: `conntrack -D` and the raw loop leave what is made meanwhile.".into());
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
    let each = |time: Duration| {
        format!("{}, {:.2} µs an entry", ms(time), time.as_secs_f64() * 1e6 / f64::from(all))
    };
    let what = format!("{all} entries of {sources} sources out of {entries}");
    for (number, (clock, ours)) in CLOCKS.iter().enumerate() {
        let ratio = rounds.ratio(|round| (ours(&round[1]), round[0].wall));
        part.row(
            [
                &format!("{what}, tuples kept from the detecting dump: {clock}"),
                "the raw loop",
                &each(rounds.median(|round| ours(&round[1]))),
                &each(rounds.wall(0)),
                &format!("{ratio:.2}"),
                if number == 0 { "≤ 1.2" } else { "" },
            ],
            (number == 0).then_some(ratio <= 1.2),
        );
    }
    let theirs = theirs(&namespace, 0)?.max(theirs(&namespace, 1)?) * sources;
    namespace.run(|| insert(his(sources, BY_SOURCE).filter(|entry| entry.source.ip().to_bits() < FIRST + 2)));
    let from_nothing = Compared {
        what: &format!("{what}, from nothing, dump and deletion"),
        against: "`conntrack -D --src` once a source (two measured, the rest extrapolated)",
        rounds: &rounds,
        ours: 2,
        theirs: &|_| theirs,
        target: (!size.short).then_some(1000.0),
    };
    from_nothing.rows(part);
    Ok(())
}

fn theirs(namespace: &Namespace, number: u32) -> Result<Duration> {
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
    let what = |how: &str| format!("one source, {ENTRIES} entries out of {}, {how}", size.large);
    let compared = |how, against, ours, theirs: &dyn Fn(&[Cost]) -> Duration, target, part: &mut Part| {
        Compared { what: &what(how), against, rounds: &rounds, ours, theirs, target }.rows(part);
    };
    let command = "`conntrack -D --src`";
    let alone = |round: &[Cost]| round[2].wall;
    compared("tuples kept from the detecting dump", command, 0, &alone, Some(2.0), part);
    let both = |round: &[Cost]| round[2].wall + round[3].wall;
    let pipeline = "the pipeline of *Reading* and `conntrack -D --src`";
    compared("found out and deleted", pipeline, 1, &both, Some(2.0), part);
    compared("dump and deletion where the source is known", command, 1, &alone, None, part);
    part.after.push("Where the source is known and no dump has shown its tuples, both sides pay for one dump, which is nine tenths of ours: twice as fast would \
         be below the floor. The actioner never is in that place: it bans on what a dump has shown.".into());
    Ok(())
}
