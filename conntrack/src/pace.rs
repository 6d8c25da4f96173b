//! How hard a dumping thread presses on its CPU.
//!
//! Measured with both cores busy: a dump at nice 0 costs its neighbours a p99 of 3.6 ms, at nice 10 of 17 µs, and at
//! nice 19 it starves itself for 5–13 s, which would disarm us just when it matters.

use rustix::process::{getpriority_process, setpriority_process};
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

const POLITE: i32 = 10;
/// At nice 10 a dump has a tenth of a CPU that somebody else wants as well, at nice 0 a half: a million entries, 1.4 s of a CPU, are read
/// in 3 s only if it does not wait longer than this for better times.
const PATIENCE: Duration = Duration::from_millis(250);

/// The calling thread at nice 10, until a quarter of a second has passed in which it got less than half a CPU; then it is back
/// where it was. Use it on threads of your own only: the thread is not raised when this is dropped.
#[derive(Debug)]
pub struct Pace {
    before: i32,
    started: Instant,
    cpu: Duration,
    given_up: bool,
    refused: bool,
}

impl Pace {
    /// Lowers the calling thread to nice 10, or leaves it where it is when that is lower.
    pub fn lower_this_thread() -> Pace {
        // PRIO_PROCESS with 0 is the calling thread on Linux (setpriority(2), "C library/kernel differences").
        let before = getpriority_process(None).unwrap_or(0);
        if before < POLITE {
            // Lowering is always permitted.
            let _ = setpriority_process(None, POLITE);
        }
        Pace { before, started: Instant::now(), cpu: thread_cpu(), given_up: false, refused: false }
    }

    /// The nice value that a starved thread is raised to.
    pub(crate) fn before(&self) -> i32 {
        self.before
    }

    /// For another thread of the same dump, which inherits the low priority of the one that starts it.
    pub(crate) fn lower_this_thread_from(before: i32) -> Pace {
        Pace { before, ..Pace::lower_this_thread() }
    }

    /// Begins a new measurement: to be called when a dump begins. Lowers the thread again if it had been raised.
    pub(crate) fn begin(&mut self) {
        let refused = self.refused;
        if self.given_up && !refused {
            *self = Pace { before: self.before, ..Pace::lower_this_thread() };
        } else {
            (self.started, self.cpu) = (Instant::now(), thread_cpu());
        }
    }

    /// Raises the thread if it is being starved.
    pub(crate) fn check(&mut self) {
        let waited = self.started.elapsed();
        if self.given_up || waited < PATIENCE {
            return;
        }
        if thread_cpu().saturating_sub(self.cpu) * 2 < waited {
            self.given_up = true;
            self.refused = setpriority_process(None, self.before).is_err();
        } else {
            (self.started, self.cpu) = (Instant::now(), thread_cpu());
        }
    }

    /// Whether the thread was starved and the kernel refused to raise it again (`LimitNICE=+0` permits it).
    pub fn raise_refused(&self) -> bool {
        self.refused
    }
}

/// Time that the calling thread had a CPU.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_thread_alone_is_lowered() {
        let before = getpriority_process(None).unwrap();
        let lowered = std::thread::spawn(|| {
            let _pace = Pace::lower_this_thread();
            getpriority_process(None).unwrap()
        });
        assert_eq!(lowered.join().unwrap(), before.max(POLITE));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }

    #[test]
    fn a_starved_thread_raises_itself() {
        std::thread::spawn(|| {
            let before = getpriority_process(None).unwrap();
            let mut pace = Pace::lower_this_thread();
            // A second of wall time in which no CPU was had.
            pace.started = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
            pace.check();
            assert!(pace.given_up);
            assert_eq!(pace.refused, getpriority_process(None).unwrap() != before);
        })
        .join()
        .unwrap();
    }
}
