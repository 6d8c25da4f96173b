//! On a quiet host: under 0.1 % of a core and under 12 MiB resident.

use std::{
    thread,
    time::{Duration, Instant},
};

use tests::{
    Result,
    attack::{Pace, hoard},
    guard::Guard,
    programs::as_released,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::packaged;

const IDLE: usize = 100;
const SOON: Duration = Duration::from_secs(30);
/// Parts of a core, of the program as released; one that is not optimised takes more.
fn most_cpu() -> f64 {
    if as_released() { 0.001 } else { 0.002 }
}

const MOST_MEMORY: u64 = 12 << 20;

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
    let [peak, made] = [process.peak_memory()?, process.anonymous_memory()?];
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "a quiet host for {lasting:?}: {own:?} of its own and {children:?} of programs it started, {:.4} % of a core; {:.1} MiB resident at most, {:.1} MiB without its code",
        part * 100.0,
        mebibytes(peak),
        mebibytes(made)
    );
    assert!(part < most_cpu(), "{:.3} % of a core", part * 100.0);
    // Of a program that is not optimised the code alone takes as much, and how much of it is resident is the kernel's choice.
    let held = if as_released() { peak } else { made };
    assert!(held < MOST_MEMORY, "{held} bytes resident");
    Ok(())
}

#[test]
fn a_quiet_host_hardly_notices_the_watch() -> Result<()> {
    measured(Duration::from_secs(if as_released() { 20 } else { 10 }))
}

#[test]
#[ignore = "a measurement of ten minutes: cargo test --release -p tests --test watch -- --ignored --nocapture ten_minutes"]
fn ten_minutes_on_a_quiet_host() -> Result<()> {
    measured(Duration::from_secs(600))
}
