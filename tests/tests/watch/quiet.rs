//! On a quiet host: under 0.1 % of a core and under 12 MiB resident.

use std::{
    thread,
    time::{Duration, Instant},
};

use tests::{
    Result,
    attack::{Pace, hoard},
    guard::Guard,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::packaged;

const IDLE: usize = 100;
const SOON: Duration = Duration::from_secs(10);
/// Parts of a core.
const MOST_CPU: f64 = 0.001;
/// What is promised is the released program; the code of one that is not optimised alone takes some MiB more.
const MOST_MEMORY: u64 = if cfg!(debug_assertions) { 24 << 20 } else { 12 << 20 };

/// Lets the packaged policy be enforced for so long on a server with a hundred idle connections, and measures.
fn measured(lasting: Duration) -> Result<()> {
    let scene = Topology::direct(&["client"])?;
    let at = scene.server_socket(Family::V4, 80);
    let _responder = Responder::start(&scene.server, at, Accept::AtOnce, KeepAlive::Off)?;
    let client = scene.peer("client");
    let pace = Pace { count: IDLE, per_second: 1000, within: SOON };
    let idle = hoard(&client.namespace, vec![client.address(Family::V4)], at, pace)?;
    wait_until("the idle connections", SOON, || match idle.made() {
        IDLE => Ok(()),
        made => Err(made),
    })?;
    let guard = Guard::start(&scene.server, &packaged())?;
    wait_until("its first look", SOON, || match guard.dumps() {
        Ok(looks) if looks >= 1.0 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    // It looks at its rules twice before it knows that nobody else changes them.
    thread::sleep(Duration::from_secs(7));
    let process = &guard.running.process;
    let used = || Ok([process.cpu_time()?, process.children_cpu_time()?]);
    let ([own, children], start) = (used()?, Instant::now());
    // What it costs for so long is the question, so there is nothing else to wait for.
    thread::sleep(lasting);
    let [own, children] = {
        let now = used()?;
        [now[0] - own, now[1] - children]
    };
    let part = (own + children).as_secs_f64() / start.elapsed().as_secs_f64();
    let peak = process.peak_memory()?;
    println!(
        "a quiet host for {lasting:?}: {own:?} of its own and {children:?} of programs it started, {:.4} % of a core; {:.1} MiB resident at most",
        part * 100.0,
        peak as f64 / f64::from(1 << 20)
    );
    assert!(part < MOST_CPU, "{:.3} % of a core", part * 100.0);
    assert!(peak < MOST_MEMORY, "{peak} bytes resident");
    Ok(())
}

#[test]
fn a_quiet_host_hardly_notices_the_watch() -> Result<()> {
    measured(Duration::from_secs(20))
}

#[test]
#[ignore = "a measurement of ten minutes: cargo test --release -p tests --test watch -- --ignored --nocapture ten_minutes"]
fn ten_minutes_on_a_quiet_host() -> Result<()> {
    measured(Duration::from_secs(600))
}
