//! The watch's cheap look, and whether what it shows is worth a dump.

use crate::evidence::TableFill;
use crate::now::Now;
use crate::policy::{Thresholds, Watch};
use conntrack::{STATS, Table, Unwrapped};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// A dump may take this part of the time, not more.
const DUTY: u32 = 5;

/// What is read at each look, kept open. Together it costs under ten microseconds.
#[derive(Debug)]
pub struct Gauge {
    count: File,
    limit: File,
    stats: Option<(Table, Unwrapped)>,
}

/// What one look shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// How full the table is.
    pub fill: TableFill,
    /// None: the kernel does not say.
    pub losses: Option<Losses>,
}

/// What the kernel had to throw away since it began, in this namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Entries evicted to make room.
    pub early_drop: u64,
    /// Packets dropped, because the table was full or an entry could not be inserted.
    pub drop: u64,
    /// Entries that could not be inserted.
    pub insert_failed: u64,
}

impl Losses {
    /// Whether the table was full in between. Two packets of one new flow that meet cost a `drop` too, on any busy host, but then an
    /// `insert_failed` with it (`__nf_conntrack_confirm`).
    fn more_than(&self, before: &Losses) -> bool {
        let more = |now: u64, before: u64| now.saturating_sub(before);
        more(self.early_drop, before.early_drop) > 0
            || more(self.drop, before.drop) > more(self.insert_failed, before.insert_failed)
    }
}

impl Gauge {
    /// Opens the count, limit and counters of the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel has no connection tracking, or procfs does not show it.
    pub fn open() -> io::Result<Gauge> {
        let open = |name: &str| {
            let path = format!("/proc/sys/net/netfilter/{name}");
            File::open(&path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
        };
        let stats = Table::open().ok().map(|table| (table, Unwrapped::new()));
        Ok(Gauge { count: open("nf_conntrack_count")?, limit: open("nf_conntrack_max")?, stats })
    }

    /// How full the table is. Costs under two microseconds.
    ///
    /// # Errors
    /// The files went away.
    pub fn read(&self) -> io::Result<TableFill> {
        Ok(TableFill { entries: number(&self.count)?, limit: number(&self.limit)? })
    }

    /// All that it shows.
    ///
    /// # Errors
    /// The files went away.
    pub fn look(&mut self) -> io::Result<Look> {
        Ok(Look { fill: self.read()?, losses: self.losses() })
    }

    /// What the kernel had to throw away. Costs about five microseconds.
    pub fn losses(&mut self) -> Option<Losses> {
        let (table, unwrapped) = self.stats.as_mut()?;
        let Ok(cpus) = table.cpu_stats() else {
            // Its answer may still be under way.
            self.stats = Table::open().ok().map(|table| (table, Unwrapped::new()));
            return None;
        };
        let totals = unwrapped.fold(&cpus);
        let of =
            |name| STATS.iter().zip(totals).find(|(stat, _)| stat.name == name).and_then(|(_, total)| total);
        Some(Losses { early_drop: of("early_drop")?, drop: of("drop")?, insert_failed: of("insert_failed")? })
    }
}

fn number(file: &File) -> io::Result<u64> {
    let mut text = [0; 24];
    let len = file.read_at(&mut text, 0)?;
    let digits = std::str::from_utf8(&text[..len]).unwrap_or_default().trim();
    digits.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{digits:?} is no number")))
}

/// When the table was read last, and how it was then.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastDump {
    /// On the boot clock.
    pub at: Duration,
    /// How long the dump took.
    pub took: Duration,
    /// Entries then.
    pub entries: u64,
    /// From just before it.
    pub losses: Option<Losses>,
}

/// Whether the table is to be read now: at least every `every`; sooner
/// - when it is as full as an alert asks for,
/// - when it grew by a tenth of its limit, or, where an alert asks for no fill, by as many entries as that alert is about,
/// - when the kernel had to evict entries or drop packets,
///
/// since the last dump. Under pressure that lasts never for more than a fifth of the time; a fill that is new since the last dump
/// does not wait for that, or who makes a dump slow would buy himself time.
pub fn due(watch: &Watch, last: Option<LastDump>, look: Look, now: Now) -> bool {
    let Some(last) = last else { return true };
    let Look { fill, losses } = look;
    let since = now.boot.saturating_sub(last.at);
    if since >= watch.every {
        return true;
    }
    let pressed = |entries| {
        let fill = TableFill { entries, ..fill };
        let tables = watch.alerts.iter().map(|alert| &alert.table);
        tables.filter(|table| !table.is_empty()).any(|table| fill.meets(table).is_ok())
    };
    let growth = fill.entries.saturating_sub(last.entries);
    let grown = fill.limit > 0 && growth.saturating_mul(10) >= fill.limit;
    let enough = growth_asked(watch).is_some_and(|asked| growth >= asked);
    let lost = losses.zip(last.losses).is_some_and(|(now, before)| now.more_than(&before));
    let now_pressed = pressed(fill.entries);
    let part = if now_pressed && !pressed(last.entries) { 1 } else { DUTY };
    (now_pressed || grown || enough || lost) && since >= watch.interval.max(last.took * part)
}

/// The fewest new entries that can raise an alert which asks for no fill.
fn growth_asked(watch: &Watch) -> Option<u64> {
    let of = |thresholds: &Thresholds| {
        let Thresholds { entries, assured, half_open, socketless } = *thresholds;
        [entries, assured, half_open, socketless].into_iter().flatten().max()
    };
    let without_fill = watch.alerts.iter().filter(|alert| alert.table.is_empty());
    without_fill.filter_map(|alert| of(&alert.host).max(of(&alert.source))).min().map(|asked| asked.max(1))
}
