//! The kernel's own counters: entries and limit, and ten counters on each CPU.

use crate::netlink::{Attributes, Malformed};
use std::collections::BTreeMap;

const NFGENMSG: usize = 4;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;

/// One of the kernel's counters, under each of the names that it goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// In our metrics: as `enum ctattr_stats_cpu` has it.
    pub name: &'static str,
    /// The heading of its column in `/proc/net/stat/nf_conntrack` (`ct_cpu_seq_show`). `clashres` and `chainlength` had other
    /// headings, and other meanings, before 5.10 and 5.15.
    pub column: &'static str,
    /// `CTA_STATS_*`.
    kind: u16,
}

/// Every counter, in the order of [`CpuStats::values`].
pub const STATS: [Stat; 10] = [
    stat("found", "found", 2),
    stat("invalid", "invalid", 4),
    stat("insert", "insert", 8),
    stat("insert_failed", "insert_failed", 9),
    stat("drop", "drop", 10),
    stat("early_drop", "early_drop", 11),
    stat("error", "icmp_error", 12),
    stat("search_restart", "search_restart", 13),
    stat("clash_resolve", "clashres", 14),
    stat("chain_too_long", "chainlength", 15),
];

const fn stat(name: &'static str, column: &'static str, kind: u16) -> Stat {
    Stat { name, column, kind }
}

/// How full the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of this network namespace, unconfirmed and expired ones included.
    pub entries: u32,
    /// `nf_conntrack_max`; 0 is unlimited. None on a kernel before 4.18, which does not say.
    pub max: Option<u32>,
}

/// The counters of one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuStats {
    /// The CPU's number.
    pub cpu: u16,
    /// In the order of [`STATS`]; None: this kernel does not have it. They wrap at 2³².
    pub values: [Option<u32>; STATS.len()],
}

fn attributes(payload: &[u8]) -> Result<(&[u8; NFGENMSG], Attributes<'_>), Malformed> {
    let (header, rest) =
        payload.split_first_chunk().ok_or(Malformed("statistics shorter than their nfgenmsg"))?;
    Ok((header, Attributes(rest)))
}

pub(crate) fn limits(payload: &[u8]) -> Result<Limits, Malformed> {
    let (mut entries, mut max) = (None, None);
    for attribute in attributes(payload)?.1 {
        let attribute = attribute?;
        match attribute.kind {
            CTA_STATS_GLOBAL_ENTRIES => entries = Some(attribute.be32()?),
            CTA_STATS_GLOBAL_MAX_ENTRIES => max = Some(attribute.be32()?),
            _ => {}
        }
    }
    Ok(Limits { entries: entries.ok_or(Malformed("statistics without the number of entries"))?, max })
}

pub(crate) fn cpu(payload: &[u8]) -> Result<CpuStats, Malformed> {
    let (header, attributes) = attributes(payload)?;
    // chain_too_long came with 5.15, clash_resolve with 5.10.
    let mut values = [None; STATS.len()];
    for attribute in attributes {
        let attribute = attribute?;
        if let Some(place) = STATS.iter().position(|stat| stat.kind == attribute.kind) {
            values[place] = Some(attribute.be32()?);
        }
    }
    // ctnetlink_ct_stat_cpu_fill_info puts the CPU into nfgenmsg's res_id, in network order.
    Ok(CpuStats { cpu: u16::from_be_bytes([header[2], header[3]]), values })
}

/// The sums over all CPUs as u64, which do not go back when a CPU's u32 wraps.
#[derive(Debug, Default)]
pub struct Unwrapped {
    last: BTreeMap<u16, [u32; STATS.len()]>,
    totals: [Option<u64>; STATS.len()],
}

impl Unwrapped {
    /// Nothing seen yet: the first fold gives the kernel's own sums.
    pub fn new() -> Unwrapped {
        Unwrapped::default()
    }

    /// Takes in a reading and returns the totals in the order of [`STATS`]; None: no CPU has that counter.
    ///
    /// A step of less than 2³¹ modulo 2³² is an increase, wrapped or not; a larger one is a counter that began anew.
    pub fn fold(&mut self, cpus: &[CpuStats]) -> [Option<u64>; STATS.len()] {
        for stats in cpus {
            let last = self.last.entry(stats.cpu).or_default();
            for ((value, last), total) in stats.values.iter().zip(last.iter_mut()).zip(&mut self.totals) {
                let Some(value) = *value else { continue };
                let step = value.wrapping_sub(*last);
                *total.get_or_insert(0) += u64::from(if step < 1 << 31 || *last == 0 { step } else { value });
                *last = value;
            }
        }
        self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Requests;

    fn reading(cpu: u16, drop: u32) -> CpuStats {
        let mut values = [None; STATS.len()];
        values[4] = Some(drop);
        CpuStats { cpu, values }
    }

    #[test]
    fn a_wrap_goes_on_and_a_reset_counts_from_zero() {
        let mut unwrapped = Unwrapped::new();
        assert_eq!(
            unwrapped.fold(&[reading(0, u32::MAX - 1), reading(1, 5)])[4],
            Some(u64::from(u32::MAX) + 4)
        );
        assert_eq!(unwrapped.fold(&[reading(0, 3), reading(1, 5)])[4], Some(u64::from(u32::MAX) + 4 + 5));
        assert_eq!(unwrapped.fold(&[reading(0, 3), reading(1, 2)])[4], Some(u64::from(u32::MAX) + 4 + 5 + 2));
    }

    #[test]
    fn the_first_reading_is_the_kernels_own_even_above_half() {
        assert_eq!(Unwrapped::new().fold(&[reading(0, 3_000_000_000)])[4], Some(3_000_000_000));
    }

    #[test]
    fn a_counter_that_the_kernel_does_not_have_is_not_taken_for_zero() {
        // 5.10: everything but CTA_STATS_CHAIN_TOOLONG.
        let mut requests = Requests::new();
        requests.raw(&[0; 4]);
        for Stat { kind, .. } in &STATS[..9] {
            requests.attribute(*kind, &7_u32.to_be_bytes());
        }
        let totals = Unwrapped::new().fold(&[cpu(requests.bytes()).unwrap()]);
        assert_eq!((totals[8], totals[9]), (Some(7), None));
    }

    #[test]
    fn every_cut_of_an_answer_is_an_error_or_less() {
        let mut requests = Requests::new();
        requests.raw(&[0, 0, 0, 3]);
        for Stat { kind, .. } in STATS {
            requests.attribute(kind, &u32::from(kind).to_be_bytes());
        }
        let whole = cpu(requests.bytes()).unwrap();
        assert_eq!((whole.cpu, whole.values[0], whole.values[9]), (3, Some(2), Some(15)));
        for cut in 0..requests.bytes().len() {
            match cpu(&requests.bytes()[..cut]) {
                Ok(stats) => assert_eq!((cut - 4) % 8, 0, "{stats:?}"),
                Err(error) => assert!(cut < 4 || (cut - 4) % 8 != 0, "{error}"),
            }
        }
    }
}
