//! Waiting for a condition instead of sleeping.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use crate::{Failure, Result};

const POLL: Duration = Duration::from_millis(15);

/// Polls until `look` answers `Ok`, which is returned; `Err` is the state seen instead.
///
/// # Errors
/// [`Failure::TimedOut`] with `what` and the state seen last.
pub fn wait_until<T, S: Display>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<T, S>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(reached) => return Ok(reached),
            Err(seen) if start.elapsed() >= timeout => {
                return Err(Failure::TimedOut { what: what.into(), waited: timeout, last: seen.to_string() });
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}
