//! The collectors by name: what can be switched off by a flag and asked for by `collect[]`.

/// A group of metrics that succeeds or fails together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Collector {
    /// Entries, limit, buckets: three files, 10 µs.
    Table,
    /// The kernel's counters: one message, 5 µs.
    Stat,
    /// Entries by state and mark: a dump.
    Flows,
    /// Who holds the entries: the same dump.
    Sources,
    /// Whether sockets stand behind the entries: the same dump, and one of the sockets before it.
    Sockets,
    /// How long the kernel remembers: a file for each state.
    Timeouts,
}

impl Collector {
    /// All, in the order in which they are shown.
    pub(crate) const ALL: [Collector; 6] = [
        Collector::Table,
        Collector::Stat,
        Collector::Flows,
        Collector::Sources,
        Collector::Sockets,
        Collector::Timeouts,
    ];

    /// The word in flags, in `collect[]` and in the label `collector`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Collector::Table => "table",
            Collector::Stat => "stat",
            Collector::Flows => "flows",
            Collector::Sources => "sources",
            Collector::Sockets => "sockets",
            Collector::Timeouts => "timeouts",
        }
    }

    /// The words of `--help`.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Collector::Table => "entries, limit and buckets of the table",
            Collector::Stat => "the kernel's counters",
            Collector::Flows => "entries by state, from a dump of the table",
            Collector::Sources => "the sources that hold most entries, from the same dump",
            Collector::Sockets => "the established entries that no socket stands behind, from the same dump",
            Collector::Timeouts => "the timeout of each state",
        }
    }

    /// Whether it needs a dump of the table, and so may miss a scrape's deadline.
    pub(crate) fn needs_dump(self) -> bool {
        matches!(self, Collector::Flows | Collector::Sources | Collector::Sockets)
    }

    /// The collector of that name.
    pub(crate) fn named(name: &str) -> Option<Collector> {
        Collector::ALL.into_iter().find(|collector| collector.name() == name)
    }
}

/// Some of the collectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Collectors([bool; Collector::ALL.len()]);

impl Collectors {
    /// Whether it is among them.
    pub(crate) fn has(self, collector: Collector) -> bool {
        self.0[collector as usize]
    }

    /// Whether any of them needs a dump.
    pub(crate) fn need_dump(self) -> bool {
        self.iter().any(Collector::needs_dump)
    }

    /// They, in the order of [`Collector::ALL`].
    pub(crate) fn iter(self) -> impl Iterator<Item = Collector> {
        Collector::ALL.into_iter().filter(move |collector| self.has(*collector))
    }
}

impl FromIterator<Collector> for Collectors {
    fn from_iter<I: IntoIterator<Item = Collector>>(collectors: I) -> Collectors {
        let mut some = Collectors::default();
        collectors.into_iter().for_each(|collector| some.0[collector as usize] = true);
        some
    }
}
