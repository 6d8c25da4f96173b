//! A connection tracking table that knows of each entry only when it ends: entries that came together stand together.

use std::collections::BTreeMap;

/// What an entry is, as the exporter counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A living TCP connection.
    Established,
    /// Established to conntrack, still `SYN_RECV` to the listener that defers; or dead for less than the grace.
    Deferred,
    /// Established, idle and without a socket.
    Dead,
    /// Closed, and kept for 120 s.
    TimeWait,
    /// The handshake is not complete.
    HalfOpen,
    /// Refused with a RST.
    Close,
    /// UDP without an answer.
    Unreplied,
    /// UDP, asked and answered.
    Replied,
    /// UDP that goes on.
    Stream,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Established,
        Self::Deferred,
        Self::Dead,
        Self::TimeWait,
        Self::HalfOpen,
        Self::Close,
        Self::Unreplied,
        Self::Replied,
        Self::Stream,
    ];

    /// Whether the kernel spares it when the table is full.
    pub fn assured(self) -> bool {
        match self {
            Self::Established | Self::Deferred | Self::Dead | Self::TimeWait | Self::Stream => true,
            Self::HalfOpen | Self::Close | Self::Unreplied | Self::Replied => false,
        }
    }

    /// The labels `protocol` and `state` of `nf_conntrack_state_entries`.
    pub fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Established | Self::Deferred | Self::Dead => ("tcp", "established"),
            Self::TimeWait => ("tcp", "time_wait"),
            Self::HalfOpen => ("tcp", "syn_recv"),
            Self::Close => ("tcp", "close"),
            Self::Unreplied => ("udp", "unreplied"),
            Self::Replied => ("udp", "replied"),
            Self::Stream => ("udp", "assured"),
        }
    }
}

/// What becomes of an entry: kinds, and the seconds it is each.
pub type Life = &'static [(Kind, u32)];

/// Entries by kind.
pub type Counts = [f64; Kind::ALL.len()];

/// Entries that came together, of one owner.
#[derive(Debug, Clone, Copy)]
struct Cohort {
    owner: usize,
    life: Life,
    stage: usize,
    entries: f64,
}

impl Cohort {
    fn kind(&self) -> Kind {
        self.life[self.stage].0
    }
}

/// The table of one host. Owner 0 is everybody who is not told apart.
#[derive(Debug)]
pub struct Table {
    limit: f64,
    now: u32,
    /// By the second in which their stage ends: those that the kernel may evict, and those it may not.
    evictable: BTreeMap<u32, Vec<Cohort>>,
    assured: BTreeMap<u32, Vec<Cohort>>,
    held: Vec<Counts>,
    totals: Counts,
    /// Entries evicted to make room, ever.
    pub early_drop: f64,
    /// New entries for which there was no room, ever.
    pub drop: f64,
}

impl Table {
    /// An empty one for `owners` owners.
    pub fn new(limit: u64, owners: usize) -> Self {
        Self {
            limit: limit as f64,
            now: 0,
            evictable: BTreeMap::new(),
            assured: BTreeMap::new(),
            held: vec![Counts::default(); owners],
            totals: Counts::default(),
            early_drop: 0.0,
            drop: 0.0,
        }
    }

    /// Entries by kind of each owner.
    pub fn held(&self) -> &[Counts] {
        &self.held
    }

    /// All entries.
    pub fn entries(&self) -> f64 {
        self.totals.iter().sum()
    }

    /// All entries of a kind.
    pub fn of(&self, kind: Kind) -> f64 {
        self.totals[kind as usize]
    }

    /// Lets time pass: what has lived a stage to its end goes on to the next, or goes.
    pub fn advance(&mut self, now: u32) {
        self.now = now;
        for of in [false, true] {
            let due = if of { &mut self.assured } else { &mut self.evictable };
            let later = due.split_off(&(now + 1));
            for cohort in std::mem::replace(due, later).into_values().flatten() {
                count(&mut self.held, &mut self.totals, &cohort, -cohort.entries);
                if cohort.stage + 1 < cohort.life.len() {
                    self.place(Cohort { stage: cohort.stage + 1, ..cohort });
                }
            }
        }
    }

    /// New entries. In a full table each takes the place of an evictable one, and where there is none it is dropped.
    ///
    /// The kernel looks in eight neighbouring buckets only; with as many buckets as the limit it found one each time
    /// (`early_drop` +65,578, drop 0).
    pub fn add(&mut self, owner: usize, life: Life, entries: f64) {
        let over = (self.entries() + entries - self.limit).max(0.0);
        let evicted = self.evict(over);
        let dropped = over - evicted;
        self.early_drop += evicted;
        self.drop += dropped;
        let entries = entries - dropped;
        if entries > 0.0 {
            self.place(Cohort { owner, life, stage: 0, entries });
        }
    }

    /// Takes out what `which` says of owner and kind, and returns how many.
    pub fn delete(&mut self, which: impl Fn(usize, Kind) -> bool) -> f64 {
        let mut deleted = 0.0;
        for cohort in self.evictable.values_mut().chain(self.assured.values_mut()).flatten() {
            if which(cohort.owner, cohort.kind()) {
                count(&mut self.held, &mut self.totals, cohort, -cohort.entries);
                deleted += cohort.entries;
                cohort.entries = 0.0;
            }
        }
        deleted
    }

    fn place(&mut self, cohort: Cohort) {
        let (kind, seconds) = cohort.life[cohort.stage];
        count(&mut self.held, &mut self.totals, &cohort, cohort.entries);
        let due = if kind.assured() { &mut self.assured } else { &mut self.evictable };
        due.entry(self.now + seconds).or_default().push(cohort);
    }

    fn evict(&mut self, wanted: f64) -> f64 {
        if wanted == 0.0 {
            return 0.0;
        }
        let there: f64 = self.evictable.values().flatten().map(|cohort| cohort.entries).sum();
        let evicted = wanted.min(there);
        if evicted > 0.0 {
            let kept = 1.0 - evicted / there;
            for cohort in self.evictable.values_mut().flatten() {
                count(&mut self.held, &mut self.totals, cohort, -cohort.entries * (1.0 - kept));
                cohort.entries *= kept;
            }
        }
        evicted
    }
}

fn count(held: &mut [Counts], totals: &mut Counts, cohort: &Cohort, entries: f64) {
    let kind = cohort.kind() as usize;
    held[cohort.owner][kind] += entries;
    totals[kind] += entries;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Life = &[(Kind::Established, 10), (Kind::TimeWait, 120)];
    const HALF_OPEN: Life = &[(Kind::HalfOpen, 60)];

    #[test]
    fn an_entry_is_each_kind_for_its_time_and_then_gone() {
        let mut table = Table::new(1000, 2);
        table.add(1, SHORT, 5.0);
        table.advance(9);
        assert_eq!(table.of(Kind::Established), 5.0);
        table.advance(10);
        assert_eq!((table.of(Kind::Established), table.held()[1][Kind::TimeWait as usize]), (0.0, 5.0));
        table.advance(130);
        assert_eq!(table.entries(), 0.0);
    }

    #[test]
    fn a_full_table_evicts_what_is_not_assured_and_then_drops() {
        let mut table = Table::new(100, 1);
        table.add(0, HALF_OPEN, 30.0);
        table.add(0, SHORT, 90.0);
        assert_eq!((table.entries(), table.early_drop, table.drop), (100.0, 20.0, 0.0));
        table.add(0, SHORT, 15.0);
        let dropped = [table.entries(), table.early_drop, table.drop].map(|number| number.round() as u32);
        assert_eq!(dropped, [100, 30, 5]);
    }

    #[test]
    fn what_is_deleted_is_gone_and_nothing_else() {
        let mut table = Table::new(1000, 3);
        table.add(1, SHORT, 5.0);
        table.add(2, SHORT, 7.0);
        assert_eq!(table.delete(|owner, kind| owner == 2 && kind == Kind::Established), 7.0);
        table.advance(10);
        assert_eq!((table.entries(), table.of(Kind::TimeWait)), (5.0, 5.0));
    }
}
