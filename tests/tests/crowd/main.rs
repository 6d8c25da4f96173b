//! The mixed crowd: two hundred honest clients of many kinds, five kinds of attackers among them, both programs at work. No
//! honest connection is lost, no honest address banned, and each attacker banned, or named with the reason why a ban would be wrong.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod attackers;
mod client;
mod honest;
mod record;
mod scene;

use std::{env, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tests::{
    Result,
    tools::{Tool, require},
};

use crate::{attackers::Attackers, honest::Honest, record::Record, scene::Scene};

/// What a short form must shorten.
struct Length {
    /// It goes on at least so long.
    total: Duration,
    /// `socketless_grace`.
    grace: Duration,
    /// Of the server; none: as the kernel has it, 63 seconds until a deferred request dies.
    synack_retries: Option<&'static str>,
    /// Between two connections of one client.
    short: Duration,
    /// Between two exchanges of idle clients: longer than the grace.
    idle: Duration,
    /// Forged sources.
    flood: usize,
    /// For the example rules' copy.
    directory: TempDir,
}

/// Everything of the long form, in half a minute.
#[test]
fn a_mixed_crowd_in_short() -> Result<()> {
    crowd(&Length {
        total: Duration::ZERO,
        grace: Duration::from_secs(3),
        synack_retries: Some("1"),
        short: Duration::from_secs(2),
        idle: Duration::from_secs(5),
        flood: 15_000,
        directory: tempfile::tempdir().unwrap(),
    })
}

#[test]
#[ignore = "ten minutes (CROWD_SECONDS says otherwise): make crowd"]
fn a_mixed_crowd() -> Result<()> {
    let seconds =
        env::var("CROWD_SECONDS").map_or(600, |text| text.parse().expect("CROWD_SECONDS: a number"));
    crowd(&Length {
        total: Duration::from_secs(seconds),
        grace: Duration::from_secs(30),
        synack_retries: None,
        short: Duration::from_secs(3),
        idle: Duration::from_secs(45),
        flood: 40_000,
        directory: tempfile::tempdir().unwrap(),
    })
}

fn crowd(length: &Length) -> Result<()> {
    require(&Tool::ALL)?;
    // Both ends of every connection are in this process.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let scene = Scene::new(length)?;
    let honest = Honest::start(&scene, length)?;
    println!("two hundred honest clients are at work");
    let record = Record::new(&scene);
    let attackers = Attackers::attack(&scene, length, &record)?;
    honest.all_go_on(length)?;
    let table = attackers.end(&record)?;
    println!("{}", honest.finish());
    println!("{table}");
    record.only_attackers_were_touched()
}
