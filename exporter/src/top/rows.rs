//! Which sources are shown, in which order. Pure.

use std::net::IpAddr;

use conntrack::summary::SourceCounts;
use ipnet::IpNet;

use super::growth::Growth;
use super::look::Look;
use crate::rank::Top;

/// What sources are sorted by; of equals the lower address first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sort {
    /// All entries.
    Entries,
    /// Those that are not evicted early.
    Assured,
    /// TCP handshakes that are not complete.
    HalfOpen,
    /// Established, and no socket stands behind them.
    Socketless,
    /// Entries more than at the look before.
    Growth,
}

/// A source as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) source: IpAddr,
    pub(super) counts: SourceCounts,
    pub(super) grown: Option<i64>,
}

/// Which addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    All,
    Net(IpNet),
    Text(String),
}

impl Filter {
    pub(super) fn of(text: &str) -> Filter {
        match (text.trim(), text.trim().parse()) {
            ("", _) => Filter::All,
            (_, Ok(net)) => Filter::Net(net),
            (text, Err(_)) => Filter::Text(text.to_lowercase()),
        }
    }

    fn lets(&self, source: IpAddr) -> bool {
        match self {
            Filter::All => true,
            Filter::Net(net) => net.contains(&source),
            Filter::Text(text) => source.to_string().contains(text),
        }
    }
}

/// The largest sources, at most `most`, and how many the filter let pass. Those that count nothing in the column are not shown.
pub(super) fn rows(
    look: &Look,
    growth: &Growth,
    sort: Sort,
    filter: &Filter,
    most: usize,
) -> (Vec<Row>, u64) {
    let mut top = Top::new(most);
    let mut passed = 0;
    for (source, counts) in look.summary.sources.iter().filter(|(source, _)| filter.lets(*source)) {
        passed += 1;
        top.offer(weight(sort, &counts, || growth.of(source)), source);
    }
    let counts = |source| look.summary.sources.get(source).unwrap_or_default();
    let row = |source| Row { source, counts: counts(source), grown: growth.of(source) };
    let mut rows: Vec<Row> = top.into_keys().map(row).collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(weight(sort, &row.counts, || row.grown)), row.source));
    (rows, passed)
}

fn weight(sort: Sort, counts: &SourceCounts, grown: impl FnOnce() -> Option<i64>) -> u64 {
    match sort {
        Sort::Entries => counts.entries.into(),
        Sort::Assured => counts.assured.into(),
        Sort::HalfOpen => counts.half_open.into(),
        Sort::Socketless => counts.socketless.into(),
        Sort::Growth => grown().unwrap_or(0).max(0).unsigned_abs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::growth::tests::after;

    fn shown(sort: Sort, filter: &str, most: usize) -> (Vec<u8>, u64) {
        let growth = after(&[(0, 100, &[10, 5, 1, 0]), (2, 100, &[10, 6, 1, 4])]);
        let (rows, passed) = rows(growth.latest().unwrap(), &growth, sort, &Filter::of(filter), most);
        let last = |row: &Row| match row.source {
            IpAddr::V4(four) => four.octets()[3],
            IpAddr::V6(_) => unreachable!(),
        };
        (rows.iter().map(last).collect(), passed)
    }

    #[test]
    fn the_largest_come_first_by_whatever_is_asked() {
        assert_eq!(shown(Sort::Entries, "", 9), (vec![0, 1, 3, 2], 4));
        assert_eq!(shown(Sort::Entries, "", 2), (vec![0, 1], 4));
        assert_eq!(shown(Sort::Growth, "", 9), (vec![3, 1], 4), "who does not grow is not shown");
        assert_eq!(shown(Sort::HalfOpen, "", 9), (vec![], 4));
    }

    #[test]
    fn a_filter_is_a_network_or_a_text() {
        assert_eq!(shown(Sort::Entries, "198.51.100.2/31", 9), (vec![3, 2], 2));
        assert_eq!(shown(Sort::Entries, " 100.1", 9), (vec![1], 1));
        assert_eq!(shown(Sort::Entries, "2001:DB8", 9), (vec![], 0));
    }
}
