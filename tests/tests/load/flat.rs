//! Memory over fifty thousand scrapes: what a program keeps is there after the first ten thousand, and the others add nothing.

use std::{fs, path::Path};

use tempfile::tempdir;
use tests::{
    Result,
    netns::Namespace,
    programs::{Program, Running},
};

use super::{
    filled,
    prometheis::{Over, Round},
};

/// Looks at what is resident, one after each so many scrapes.
const STEP: usize = 1_000;
/// Until then the allocator finds out how much a hundred scrapes at once need.
const WARM: usize = 10;
const STEPS: usize = 50;
/// What the other forty thousand may add. The smallest allocation of glibc takes 32 bytes: one of them lost for each scrape would be
/// 1,250 KiB. At most 172 KiB were measured (docs/soak.md).
const MOST: u64 = 1_024;

#[test]
#[ignore = "make load: 50,000 scrapes"]
fn scrapes_of_the_exporter_over_connections_that_stay_leave_nothing() -> Result<()> {
    flat(Program::Exporter, Over::One)
}

#[test]
#[ignore = "make load: 50,000 scrapes"]
fn scrapes_of_the_exporter_over_new_connections_leave_nothing() -> Result<()> {
    flat(Program::Exporter, Over::Another)
}

#[test]
#[ignore = "make load: 50,000 scrapes"]
fn scrapes_of_the_actioner_over_connections_that_stay_leave_nothing() -> Result<()> {
    flat(Program::Actioner, Over::One)
}

#[test]
#[ignore = "make load: 50,000 scrapes"]
fn scrapes_of_the_actioner_over_new_connections_leave_nothing() -> Result<()> {
    flat(Program::Actioner, Over::Another)
}

fn flat(program: Program, over: Over) -> Result<()> {
    let namespace = filled()?;
    // New connections do not make the table larger from step to step.
    namespace.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")?;
    namespace.sysctl("net/netfilter/nf_conntrack_tcp_timeout_close", "1")?;
    let directory = tempdir().unwrap();
    let running = started(program, &namespace, directory.path())?;
    let resident = namespace.run(|| {
        let looks = (0..STEPS).map(|_| {
            Round { program, over }.of(STEP);
            Ok(running.process.anonymous_memory()? >> 10)
        });
        looks.collect::<Result<Vec<u64>>>()
    })?;
    println!("{program:?}, {over:?}: resident after each {STEP} scrapes, KiB: {resident:?}");
    // Answers that are under way when it is looked come and go: the least of some looks is what is kept.
    let least = |looks: &[u64]| looks.iter().min().copied().unwrap_or_default();
    let (before, after) = (least(&resident[WARM / 2..WARM]), least(&resident[STEPS - WARM..]));
    assert!(
        after <= before + MOST,
        "{before} KiB after the warm-up, {after} at the end, and {MOST} more are allowed"
    );
    Ok(())
}

fn started(program: Program, namespace: &Namespace, directory: &Path) -> Result<Running> {
    let path = |name: &str| directory.join(name).display().to_string();
    let mut flags = vec!["--web.max-requests=0".to_owned()];
    if program == Program::Actioner {
        fs::write(path("policy.yaml"), "never_ban: []\n").unwrap();
        for (flag, name) in
            [("policy.file", "policy.yaml"), ("storage.path", "storage"), ("admin.socket", "admin.sock")]
        {
            flags.push(format!("--{flag}={}", path(name)));
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    program.start(namespace, program.default_address(), &flags)
}
