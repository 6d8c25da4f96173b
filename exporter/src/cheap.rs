//! The collectors that need no dump. They answer in microseconds, so they never miss a deadline.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::collector::{Collector, Collectors};
use crate::stat::{Stat, Totals};
use crate::sysctl::{Size, Sysctls, Timeout};

/// How a collector fared in a scrape.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) collector: Collector,
    /// Or why it failed.
    pub(crate) result: Result<(), String>,
    pub(crate) took: Duration,
}

/// What they read.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    pub(crate) size: Option<Size>,
    pub(crate) totals: Option<Totals>,
    pub(crate) timeouts: Option<Vec<Timeout>>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Reads them; remembers what unwrapped counters need.
#[derive(Debug)]
pub(crate) struct Cheap {
    sysctls: Sysctls,
    stat: Stat,
}

impl Cheap {
    /// Below this mount of procfs.
    pub(crate) fn below(procfs: &Path) -> Cheap {
        Cheap { sysctls: Sysctls::below(procfs), stat: Stat::below(procfs) }
    }

    /// Reads those of `collectors` that need no dump. One that fails costs nothing but itself.
    pub(crate) fn read(&mut self, collectors: Collectors) -> Readings {
        let mut readings = Readings::default();
        for collector in collectors.iter() {
            let started = Instant::now();
            let result = match collector {
                Collector::Table => keep(&mut readings.size, self.sysctls.size()),
                Collector::Stat => keep(&mut readings.totals, self.stat.read()),
                Collector::Timeouts => keep(&mut readings.timeouts, self.sysctls.timeouts()),
                Collector::Flows | Collector::Sources | Collector::Sockets => continue,
            };
            readings.outcomes.push(Outcome { collector, result, took: started.elapsed() });
        }
        readings
    }
}

fn keep<T, E: ToString>(place: &mut Option<T>, read: Result<T, E>) -> Result<(), String> {
    *place = Some(read.map_err(|error| error.to_string())?);
    Ok(())
}
