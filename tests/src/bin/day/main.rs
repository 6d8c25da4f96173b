//! `make day`: two days of all hosts, judged by the shipped rules; writes docs/day.md and docs/pictures/day.svg.
//! With names of hosts as arguments it judges these and writes nothing. It exits with 1 when what must hold does not.

use std::{env, fs, process::ExitCode};

use tests::{
    Failure, Result,
    day::{
        chart::{Curve, svg},
        host::{HOSTS, Host},
        page::page,
        replay::Replay,
        rules,
        scrapes::{full_at, scrapes},
        verdict::Verdict,
    },
    programs::workspace,
};

/// Seconds from scrape to scrape.
const INTERVAL: u32 = 60;
/// Whose fill is drawn.
const DRAWN: [&str; 5] = ["quiet-small", "sawtooth", "contained", "endless", "endless-busy"];

fn main() -> ExitCode {
    let names: Vec<String> = env::args().skip(1).collect();
    match run(&names) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            faults.iter().for_each(|fault| eprintln!("day: {fault}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("day: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(names: &[String]) -> Result<Vec<String>> {
    let file = workspace().join("alerts/conntrack-guard.rules.yml");
    let mut judged = rules::read(&file)?;
    judged.extend(rules::neighbours());
    let hosts: Vec<&Host> =
        HOSTS.iter().filter(|host| names.is_empty() || names.iter().any(|name| name == host.name)).collect();
    let outcomes = Replay::prepare(&hosts, INTERVAL, &file)?.judge(&judged)?;
    let verdict = |host: &&'static Host| Verdict::new(host, full_at(host), &judged, &outcomes);
    let verdicts: Vec<Verdict> = hosts.iter().map(verdict).collect();
    let page = page(&verdicts);
    if names.is_empty() {
        write("docs/day.md", &page)?;
        write("docs/pictures/day.svg", &drawn())?;
    } else {
        println!("{page}");
    }
    Ok(verdicts.iter().flat_map(Verdict::faults).collect())
}

fn drawn() -> String {
    let of = |name: &str| Host::named(name).map(|host| (host, scrapes(host, INTERVAL)));
    let seen: Vec<_> = DRAWN.into_iter().filter_map(of).collect();
    let curves: Vec<_> =
        seen.iter().map(|(host, seen)| Curve { name: host.name, limit: host.limit, seen }).collect();
    svg(&curves, INTERVAL)
}

fn write(path: &str, text: &str) -> Result<()> {
    let whole = workspace().join(path);
    fs::write(&whole, text).map_err(|source| Failure::Io { what: whole.display().to_string(), source })?;
    println!("{path}");
    Ok(())
}
