//! The two clocks of a decision, read once and passed in.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME: what deadlines and budgets count. It goes on through suspend and is never set.
    pub boot: Duration,
    /// The wall clock: for people only.
    pub wall: SystemTime,
}

impl Now {
    /// The present.
    pub fn read() -> Now {
        let time = clock_gettime(ClockId::Boottime);
        let boot = Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32);
        Now { boot, wall: SystemTime::now() }
    }

    /// Milliseconds since 1970 by the wall clock; 0 before that.
    pub fn milliseconds(&self) -> u64 {
        let since = self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The wall clock at a moment of the boot clock, as seen from now: for people.
    pub fn wall_at(&self, boot: Duration) -> SystemTime {
        match boot.checked_sub(self.boot) {
            Some(ahead) => self.wall + ahead,
            None => self.wall - (self.boot - boot),
        }
    }
}
