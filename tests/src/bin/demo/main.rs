//! `make demo`: the slow fill, stopped before your eyes, with and without Prometheus. Everything happens in network
//! namespaces that vanish with this process. It exits with 1 when the loop did not hold what it promises.

mod screen;

use std::{
    io,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use tests::{
    Failure, Result,
    scenario::{SLOW_FILL, Scenario, Seer, Story},
    topology::Family,
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

use crate::screen::Screen;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    if let Err(error) = hear_signals() {
        eprintln!("demo: {error}");
        return ExitCode::FAILURE;
    }
    let screen = Screen::new();
    screen.opening();
    match both(&screen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if INTERRUPTED.load(Ordering::Relaxed) => {
            eprintln!("\ndemo: interrupted; its namespaces, programs and files are gone");
            ExitCode::from(130)
        }
        Err(failure) => {
            eprintln!("\ndemo: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A thread waits for signals, so that what was made is dropped in order whatever ends us. They are caught and not blocked:
/// the programs we start would inherit a mask, and no longer hear SIGTERM.
fn hear_signals() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let [mut interrupt, mut terminate, mut hangup] = {
        let _inside = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

fn both(screen: &Screen) -> Result<bool> {
    let watch = play(screen, Seer::Watch)?;
    let prometheus = play(screen, Seer::Prometheus)?;
    screen.times(&watch, &prometheus);
    let well = watch.broken().is_empty() && prometheus.broken().is_empty();
    screen.closing(well);
    Ok(well)
}

fn play(screen: &Screen, seer: Seer) -> Result<Story> {
    screen.act(seer);
    let begun = Instant::now();
    let scenario = Scenario::start(Family::V4, seer)?;
    screen.ready(begun.elapsed());
    let attack = scenario.slow_fill(SLOW_FILL)?;
    let mut rows = screen.rows(&scenario);
    let story = scenario.follow(&attack, |progress| {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Err(Failure::Answer { what: "the demo".into(), detail: "interrupted".into() });
        }
        rows.show(&progress)
    })?;
    drop(attack);
    screen.outcome(&scenario, &story)?;
    Ok(story)
}
