//! How the cost of a scrape grows with entries and with sources.

use std::fs;

use tests::{Result, programs::workspace};

use crate::{
    Size,
    measure::{median, mib, ms},
    plot::{Panel, Series, svg},
    report::{Part, directory},
    scrape::{exporter, scrape},
    table::filled,
};

const ENTRIES: [u32; 7] = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000];
const SOURCES: [u32; 4] = [10, 1_000, 100_000, 1_000_000];

pub(crate) fn part(size: Size) -> Result<Part> {
    let mut part = Part::new("How cost grows");
    let (mut times, mut memories) = (Vec::new(), Vec::new());
    for sources in SOURCES {
        let name = format!("{sources} sources");
        let (mut time, mut memory) =
            (Series { name: name.clone(), points: vec![] }, Series { name, points: vec![] });
        // With fewer entries than sources it is the line above.
        for entries in ENTRIES.into_iter().filter(|entries| *entries >= sources && *entries <= size.large) {
            let namespace = filled(entries, sources, 0)?;
            let running = exporter(&namespace, &[])?;
            let costs = (0..3).map(|_| scrape(&running, &namespace)).collect::<Result<Vec<_>>>()?;
            let (wall, peak) = (median(costs.iter().map(|cost| cost.wall)), running.process.peak_memory()?);
            part.row(
                [
                    &format!("{entries} entries, {sources} sources"),
                    "",
                    &format!("{}, peak {}", ms(wall), mib(peak)),
                    "",
                    "",
                    "",
                ],
                None,
            );
            time.points.push((f64::from(entries), wall.as_secs_f64() * 1e3));
            memory.points.push((f64::from(entries), peak as f64 / f64::from(1 << 20)));
        }
        times.push(time);
        memories.push(memory);
    }
    let panels = [
        Panel { title: "a whole scrape, ms", series: times },
        Panel { title: "peak resident memory, MiB", series: memories },
    ];
    let path =
        if size.short { directory(true).join("growth.svg") } else { workspace().join("docs/growth.svg") };
    fs::create_dir_all(path.parent().expect("a directory"))
        .and_then(|()| fs::write(&path, svg(&panels)))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    part.after.push(
        "![scrape time and memory over entries, a line for each number of sources](docs/growth.svg)".into(),
    );
    Ok(part)
}
