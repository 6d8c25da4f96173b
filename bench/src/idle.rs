//! What both programs cost a host on which nothing happens.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use tests::{Result, guard::Guard, process::Process, programs::workspace};

use crate::{
    Size,
    measure::mib,
    report::Part,
    scrape::{exporter, scrape},
    table::empty,
};

const BETWEEN: Duration = Duration::from_secs(15);
const ENTRIES: u32 = 10_000;

pub(crate) fn part(size: Size) -> Result<Part> {
    let mut part = Part::new("Idle");
    let clock = Duration::from_secs(size.idle);
    part.before.push(format!("{ENTRIES} entries of 1,000 sources, the exporter scraped every 15 s, the actioner with the packaged policy (its watch looks every second). \
         Clock: CLOCK_MONOTONIC, {} s; CPU by CLOCK_PROCESS_CPUTIME_ID of each process.", size.idle));
    let namespace = empty()?;
    let policy = fs::read_to_string(workspace().join("packaging/policy.yaml")).expect("the packaged policy");
    let (running, guard) = (exporter(&namespace, &[])?, Guard::start(&namespace, &policy)?);
    let processes = [&running.process, &guard.running.process];
    let fresh = resident(processes)?;
    namespace.run(|| tests::entries::insert((0..ENTRIES).map(|number| crate::table::nth(number, 1000, 0))));
    let (started, before) = (Instant::now(), cpu(processes)?);
    let mut due = Duration::ZERO;
    while due < clock {
        scrape(&running, &namespace)?;
        due += BETWEEN;
        thread::sleep(due.min(clock).saturating_sub(started.elapsed()));
    }
    let (elapsed, after, loaded) = (started.elapsed(), cpu(processes)?, resident(processes)?);
    for (place, name) in ["exporter", "actioner"].into_iter().enumerate() {
        let share = (after[place] - before[place]).as_secs_f64() / elapsed.as_secs_f64() * 100.0;
        part.row(
            [&format!("{name}: time on CPUs"), "", &format!("{share:.3} % of a core"), "", "", "≤ 0.3 %"],
            Some(share <= 0.3),
        );
        part.row(
            [
                &format!("{name}: peak resident before load ({} after)", mib(loaded[place])),
                "",
                &mib(fresh[place]),
                "",
                "",
                "≤ 10 MiB",
            ],
            Some(fresh[place] <= 10 << 20),
        );
    }
    Ok(part)
}

fn cpu(processes: [&Process; 2]) -> Result<[Duration; 2]> {
    Ok([processes[0].cpu_time()?, processes[1].cpu_time()?])
}

fn resident(processes: [&Process; 2]) -> Result<[u64; 2]> {
    Ok([processes[0].peak_memory()?, processes[1].peak_memory()?])
}
