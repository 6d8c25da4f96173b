//! A whole scrape beside the kernel's floor and beside what people run instead.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use tests::{
    Result, http,
    http::Server,
    netns::Namespace,
    process::Process,
    programs::{Program, Running, workspace},
    wait::wait_until,
};

use crate::{
    Size,
    floor::{counted, counted_as_few, raw, walked},
    measure::{Cost, Work, in_turn, mib, ms},
    report::Part,
    table::filled,
};

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
/// What people copy to see who fills the table.
pub(crate) const PIPELINE: &str = "conntrack -L 2>/dev/null | awk '{for(i=1;i<=NF;i++) if($i ~ /^src=/){print substr($i,5); break}}' | sort | uniq -c | sort -rn >/dev/null";
const NODE_EXPORTER: &str = "target/servers/neighbours/usr/bin/prometheus-node-exporter";
/// A neighbour that has not done by then what it is waited for fails the bench.
const LONGEST: Duration = Duration::from_secs(20);
const HIVECO: &str = "target/servers/neighbours/hiveco/conntrack_exporter";

/// Scrapes once: what the program spends, and how long it takes to answer.
pub(crate) fn scrape(exporter: &Running, namespace: &Namespace) -> Result<Cost> {
    scrape_of(&exporter.process, &exporter.address, namespace)
}

/// The same, and how long the exporter says that its dump took.
pub(crate) fn scrape_and_dump(exporter: &Running, namespace: &Namespace) -> Result<(Cost, Duration)> {
    const DUMP: &str = "nf_conntrack_scrape_collector_duration_seconds{collector=\"flows\"} ";
    let (cost, text) = answer_of(&exporter.process, &exporter.address, namespace)?;
    let took = text.lines().find_map(|line| line.strip_prefix(DUMP)?.parse().ok());
    Ok((cost, took.map(Duration::from_secs_f64).expect("the exporter says how long its dump took")))
}

fn scrape_of(process: &Process, at: &Server, namespace: &Namespace) -> Result<Cost> {
    answer_of(process, at, namespace).map(|(cost, _)| cost)
}

fn answer_of(process: &Process, at: &Server, namespace: &Namespace) -> Result<(Cost, String)> {
    namespace.run(|| {
        let (cpu, wall) = (process.cpu_time()?, Instant::now());
        let answer = http::get(at, "/metrics", &[])?;
        let wall = wall.elapsed();
        assert_eq!(answer.status, 200, "{}", answer.text());
        Ok((Cost { wall, cpu: process.cpu_time()? - cpu, ..Cost::default() }, answer.text()))
    })
}

pub(crate) fn exporter(namespace: &Namespace, flags: &[&str]) -> Result<Running> {
    Program::Exporter.start(namespace, Program::Exporter.default_address(), flags)
}

pub(crate) fn part(size: Size) -> Result<Part> {
    let mut part = Part::new("Reading");
    part.before.push(format!(
        "The floor: a raw ctnetlink dump in one thread, its bytes thrown away. The pipeline: `{}`.",
        PIPELINE.replace('|', "\\|")
    ));
    let tables =
        if size.short { vec![(100_000, 10_000)] } else { vec![(100_000, 10_000), (size.large, 95_000)] };
    for (entries, sources) in &tables {
        answered(&mut part, size, *entries, *sources)?;
    }
    for (entries, sources) in &tables {
        halves(&mut part, size, *entries, *sources)?;
    }
    memory(&mut part, 100_000, 10_000, 16)?;
    if !size.short {
        memory(&mut part, size.large, size.large, 48)?;
    }
    encoder(&mut part, size)?;
    Ok(part)
}

/// A table whose every entry was answered: one thread dumps it.
fn answered(part: &mut Part, size: Size, entries: u32, sources: u32) -> Result<()> {
    let what = format!("{entries} entries, {sources} sources, all replied");
    let large = entries == 1_000_000;
    let namespace = filled(entries, sources, 0)?;
    let running = exporter(&namespace, &[])?;
    let mut works: Vec<Work<'_>> = vec![
        Box::new(|| Ok(namespace.run(raw))),
        Box::new(|| Ok(namespace.run(|| counted(entries)))),
        Box::new(|| scrape(&running, &namespace)),
        Box::new(|| crate::measure::timed(|| namespace.command(&["sh", "-c", PIPELINE]).map(drop))),
        Box::new(|| Ok(namespace.run(walked))),
        Box::new(|| Ok(namespace.run(|| counted_as_few(entries)))),
    ];
    let rounds = in_turn(size.rounds, &mut works)?;
    drop(works);
    let cpu = |work: usize| rounds.ratio(|round| (round[work].cpu, round[0].cpu));
    let (dump, whole) = (cpu(1), cpu(2));
    let floor = format!("{} CPU", ms(rounds.cpu(0)));
    part.row(
        [
            &format!("{what}: CPU of the dump"),
            "floor",
            &format!("{} CPU", ms(rounds.cpu(1))),
            &floor,
            &format!("{dump:.3}"),
            if large { "≤ 1.06" } else { "" },
        ],
        large.then_some(dump <= 1.06),
    );
    part.row(
        [
            &format!("{what}: CPU of the exporter, sockets' verdicts, HTTP and encoding included"),
            "floor",
            &format!("{} CPU", ms(rounds.cpu(2))),
            &floor,
            &format!("{whole:.3}"),
            "",
        ],
        None,
    );
    for (work, how) in [(4, "and nothing is counted"), (5, "counted as if there were eight sources")] {
        part.row(
            [
                &format!("{what}: CPU of a dump whose entries are read, {how}"),
                "floor",
                &format!("{} CPU", ms(rounds.cpu(work))),
                &floor,
                &format!("{:.3}", cpu(work)),
                "",
            ],
            None,
        );
    }
    if large {
        let each = |of: Duration| of.as_secs_f64() * 1e6 / f64::from(entries);
        let more = |work: usize, than: usize| each(rounds.cpu(work).saturating_sub(rounds.cpu(than)));
        part.after.push(format!(
            "Where the rest goes, at {entries} entries: beside the kernel's {:.2} µs an entry, reading it takes {:.2} of ours, counting it as one of eight sources {:.2} more, and as one of \
             {sources} again {:.2}; asking whether it is a dead slot, ranking and answering {:.2}. Reading is one comparison of its attribute headers with what kernels write, 20 ns without the \
             kernel (docs/hot-paths.md); and pieces of 28 KiB where the floor has the kernel's most, 32, cost a five-hundredth of the dump, so that packets come in more often (*What packets feel*). The counts of the \
             sources are megabytes that the kernel's own walk, a kilobyte for each entry, takes out of every cache: each entry waits for memory. 128 are added at a time, so that these waits overlap \
             (one by one they cost a tenth of the dump). To spend less, a kernel would have to show fewer bytes or entries in the order of their sources; no request makes it. Tried and no better: a \
             hash of our own whose lines are fetched a batch ahead, by loads or by prefetch instructions, and huge pages.",
            each(rounds.cpu(0)),
            more(4, 0),
            more(5, 4),
            more(1, 5),
            more(2, 1)
        ));
    }
    let wall = rounds.walls(2, 0);
    part.row(
        [
            &format!("{what}: a whole scrape"),
            "floor",
            &ms(rounds.wall(2)),
            &ms(rounds.wall(0)),
            &format!("{wall:.2}"),
            if large { "≤ 1.10" } else { "" },
        ],
        large.then_some(wall <= 1.10),
    );
    let pipeline = 1.0 / rounds.walls(2, 3);
    part.row(
        [
            &format!("{what}: a whole scrape"),
            "the pipeline",
            &ms(rounds.wall(2)),
            &ms(rounds.wall(3)),
            &format!("{pipeline:.1} × faster"),
            "",
        ],
        None,
    );
    neighbours(part, &namespace, &what, &running)
}

/// Half of the table is unanswered: two threads dump it.
fn halves(part: &mut Part, size: Size, entries: u32, sources: u32) -> Result<()> {
    let namespace = filled(entries, sources, 2)?;
    let running = exporter(&namespace, &[])?;
    let mut works: Vec<Work<'_>> = vec![
        Box::new(|| Ok(namespace.run(raw))),
        Box::new(|| scrape(&running, &namespace)),
        Box::new(|| crate::measure::timed(|| namespace.command(&["sh", "-c", PIPELINE]).map(drop))),
    ];
    let rounds = in_turn(size.rounds, &mut works)?;
    drop(works);
    let what = format!("{entries} entries, {sources} sources, half unreplied: a whole scrape");
    let large = entries == 1_000_000;
    let ratio = rounds.walls(1, 0);
    part.row(
        [
            &what,
            "floor",
            &ms(rounds.wall(1)),
            &ms(rounds.wall(0)),
            &format!("{ratio:.2}"),
            if large { "≤ 0.70" } else { "" },
        ],
        large.then_some(ratio <= 0.70),
    );
    let ratio = 1.0 / rounds.walls(1, 2);
    part.row(
        [
            &what,
            "the pipeline",
            &ms(rounds.wall(1)),
            &ms(rounds.wall(2)),
            &format!("{ratio:.1} × faster"),
            "≥ 2.8 ×",
        ],
        Some(ratio >= 2.8),
    );
    Ok(())
}

fn memory(part: &mut Part, entries: u32, sources: u32, most: u64) -> Result<()> {
    let namespace = filled(entries, sources, 0)?;
    let running = exporter(&namespace, &[])?;
    let before = running.process.peak_memory()?;
    let cost = scrape(&running, &namespace)?;
    let peak = running.process.peak_memory()?;
    part.row([&format!("peak resident memory of the exporter, one scrape of {entries} entries, {sources} sources ({})", ms(cost.wall)),
        "before it", &mib(peak), &mib(before), "", &format!("≤ {most} MiB")], Some(peak <= most << 20));
    Ok(())
}

/// Scrapes that share one dump pay for encoding and HTTP alone.
fn encoder(part: &mut Part, size: Size) -> Result<()> {
    let namespace = filled(100_000, 2_000, 0)?;
    for top in [10, 1000] {
        let running = exporter(
            &namespace,
            &[
                "--collector.flows.max-age=1h",
                &format!("--collector.sources.top={top}"),
                "--collector.sources.min-entries=1",
            ],
        )?;
        let mut works: Vec<Work<'_>> = vec![Box::new(|| scrape(&running, &namespace))];
        let rounds = in_turn(size.rounds * 3, &mut works)?;
        let wall = rounds.wall(0);
        part.row(
            [
                &format!("a scrape that shares a dump already made: encoding and HTTP, top {top}"),
                "",
                &ms(wall),
                "",
                "",
                if top == 1000 { "< 5 ms" } else { "" },
            ],
            (top == 1000).then_some(wall < Duration::from_millis(5)),
        );
    }
    Ok(())
}

/// What other exporters give for the same table.
fn neighbours(part: &mut Part, namespace: &Namespace, what: &str, ours: &Running) -> Result<()> {
    let peak = |process: &Process| process.peak_memory().map(mib);
    part.row(
        [&format!("{what}: peak memory after these scrapes"), "", &peak(&ours.process)?, "", "", ""],
        None,
    );
    node_exporter(part, namespace, what)?;
    hiveco(part, namespace, what)
}

/// A neighbour's program, or a line in the report that it is missing.
fn had(part: &mut Part, name: &str, program: &str) -> Option<PathBuf> {
    let program = workspace().join(program);
    if program.exists() {
        return Some(program);
    }
    part.after.push(format!("{name}: not to be had here ({} is missing).", program.display()));
    None
}

fn node_exporter(part: &mut Part, namespace: &Namespace, what: &str) -> Result<()> {
    let name = "node_exporter 1.5 (Debian), its collector conntrack: two totals and the kernel's counters, no source, no state";
    let Some(program) = had(part, name, NODE_EXPORTER) else { return Ok(()) };
    let mut command = Command::new(program);
    command.args([
        "--collector.disable-defaults",
        "--collector.conntrack",
        "--web.listen-address=127.0.0.1:9100",
    ]);
    let process = namespace.spawn(command)?;
    let server = Server::from(SocketAddr::from((LOOPBACK, 9100)));
    wait_until(name, LONGEST, || {
        let answer =
            namespace.run(|| http::get(&server, "/metrics", &[])).map_err(|error| error.to_string())?;
        let read = answer.text().lines().any(|line| line.starts_with("node_nf_conntrack_entries "));
        if read { Ok(()) } else { Err("it answers without the table".to_owned()) }
    })?;
    let cost = scrape_of(&process, &server, namespace)?;
    let theirs = format!("{}, {} CPU, {}", ms(cost.wall), ms(cost.cpu), mib(process.peak_memory()?));
    part.row([&format!("{what}: a scrape"), name, "", &theirs, "", ""], None);
    Ok(())
}

/// It asks the kernel to forget everything before it reads (`NFCT_Q_FLUSH` in `ConnectionTable::makeConntrackHandle`), so it is the last
/// to see a table.
fn hiveco(part: &mut Part, namespace: &Namespace, what: &str) -> Result<()> {
    let Some(program) = had(part, "hiveco/conntrack_exporter", HIVECO) else { return Ok(()) };
    let entries = || {
        let count =
            namespace.read_sysctl("net/netfilter/nf_conntrack_count").map_err(|error| error.to_string())?;
        count.parse::<u64>().map_err(|error| error.to_string())
    };
    let before = wait_until("the count of entries", LONGEST, entries)?;
    let mut command = Command::new(program);
    command.args(["--bind-address", "127.0.0.1", "--listen-port", "9318"]);
    let process = namespace.spawn(command)?;
    let after = wait_until("its flush to end", LONGEST, || match entries()? {
        left if left < before / 100 => Ok(left),
        left => Err(format!("{left} of {before} are left")),
    })?;
    let theirs = format!("{before} entries before its start, {after} after; {}", mib(process.peak_memory()?));
    let name = "hiveco/conntrack_exporter 0.3.1 (its newest source, built with Debian's libraries): it begins with a flush of the whole table, IPv6 included, so there is nothing to compare";
    part.row([&format!("{what}: what it does at its start"), name, "", &theirs, "", ""], None);
    Ok(())
}
