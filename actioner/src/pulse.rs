//! Whether the effects thread gets on, as systemd's watchdog asks.
//!
//! State and audit log are written by threads of their own, so a disk that hangs does not stop this pulse: enforcement goes
//! on without it, and a restart would only lose what the disk did not take.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A round of the loop is a survey and a batch: seconds at the worst, with a rule tool that waits for its lock. One that
/// takes so long hangs.
const STUCK: Duration = Duration::from_secs(120);

/// When the loop last came round.
#[derive(Debug)]
pub struct Pulse(Mutex<Instant>);

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse(Mutex::new(Instant::now()))
    }
}

impl Pulse {
    /// The loop comes round.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether it did so not too long ago.
    pub fn beats(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < STUCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_does_not_come_round_is_seen_and_one_that_does_again_too() {
        let begun = Instant::now().checked_sub(STUCK).expect("this host has run for two minutes");
        let pulse = Pulse(Mutex::new(begun));
        assert!(!pulse.beats());
        pulse.beat();
        assert!(pulse.beats());
    }
}
