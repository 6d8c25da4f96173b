//! A and B in turn, and what is made of their times.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tests::Result;

/// Wall time, and time on CPUs, the kernel's work included.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Wall time of what was still to be done when this clock stopped.
    pub(crate) then: Duration,
}

/// What the calling thread spends on `work`.
pub(crate) fn on_this_thread<T>(work: impl FnOnce() -> T) -> (Cost, T) {
    let (wall, cpu) = (Instant::now(), thread_cpu());
    let done = work();
    let cost = Cost { wall: wall.elapsed(), cpu: thread_cpu().saturating_sub(cpu), ..Cost::default() };
    (cost, done)
}

/// Wall time of `work`.
pub(crate) fn timed(work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let started = Instant::now();
    work()?;
    Ok(Cost { wall: started.elapsed(), ..Cost::default() })
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// What is measured in turn.
pub(crate) type Work<'w> = Box<dyn FnMut() -> Result<Cost> + 'w>;

/// The costs of several works, round by round.
#[derive(Debug)]
pub(crate) struct Rounds(Vec<Vec<Cost>>);

/// Runs the works in turn, once without counting and then `rounds` times.
pub(crate) fn in_turn(rounds: usize, works: &mut [Work<'_>]) -> Result<Rounds> {
    works.iter_mut().try_for_each(|work| work().map(drop))?;
    let round = |_| works.iter_mut().map(|work| work()).collect();
    (0..rounds).map(round).collect::<Result<_>>().map(Rounds)
}

impl Rounds {
    /// The median wall time of a work.
    pub(crate) fn wall(&self, work: usize) -> Duration {
        median(self.0.iter().map(|round| round[work].wall))
    }

    /// Its median time on CPUs.
    pub(crate) fn cpu(&self, work: usize) -> Duration {
        median(self.0.iter().map(|round| round[work].cpu))
    }

    /// The median of a time of each round.
    pub(crate) fn median(&self, of: impl Fn(&[Cost]) -> Duration) -> Duration {
        median(self.0.iter().map(|round| of(round)))
    }

    /// The median of a work's time over another's, pair by pair.
    pub(crate) fn ratio(&self, of: impl Fn(&[Cost]) -> (Duration, Duration)) -> f64 {
        let mut ratios: Vec<f64> = self.0.iter().map(|round| over(of(round))).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }

    /// The same of wall times.
    pub(crate) fn walls(&self, work: usize, other: usize) -> f64 {
        self.ratio(|round| (round[work].wall, round[other].wall))
    }
}

fn over((a, b): (Duration, Duration)) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// The median.
pub(crate) fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Milliseconds, as many digits as matter.
pub(crate) fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        _ if ms < 1.0 => format!("{ms:.3} ms"),
        _ if ms < 100.0 => format!("{ms:.1} ms"),
        _ => format!("{ms:.0} ms"),
    }
}

/// Mebibytes.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
