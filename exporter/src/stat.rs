//! The kernel's counters, from ctnetlink, or from procfs where we may not ask.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use conntrack::{CpuStats, STATS, Table, Unwrapped};

/// The sums over all CPUs, in the order of [`STATS`]; None: this kernel does not say.
pub(crate) type Totals = [Option<u64>; STATS.len()];

/// Reads the counters and unwraps them.
#[derive(Debug)]
pub(crate) struct Stat {
    table: Option<Table>,
    procfs: PathBuf,
    unwrapped: Unwrapped,
}

/// Neither way led to the counters.
#[derive(Debug, thiserror::Error)]
#[error("{netlink}; and {}: {procfs}", .path.display())]
pub(crate) struct Unknown {
    netlink: conntrack::Error,
    path: PathBuf,
    procfs: io::Error,
}

impl Stat {
    /// Below this mount of procfs.
    pub(crate) fn below(procfs: &Path) -> Stat {
        // Not `self`: that shows the namespace of the main thread.
        let procfs = procfs.join("thread-self/net/stat/nf_conntrack");
        Stat { table: None, procfs, unwrapped: Unwrapped::new() }
    }

    /// Reads them all.
    pub(crate) fn read(&mut self) -> Result<Totals, Unknown> {
        let cpus = match self.ask() {
            Ok(cpus) => cpus,
            Err(netlink) => {
                self.table = None;
                let read = fs::read_to_string(&self.procfs).and_then(|text| parse(&text));
                read.map_err(|procfs| Unknown { netlink, path: self.procfs.clone(), procfs })?
            }
        };
        Ok(self.unwrapped.fold(&cpus))
    }

    fn ask(&mut self) -> Result<Vec<CpuStats>, conntrack::Error> {
        let table = match &mut self.table {
            Some(table) => table,
            closed => closed.insert(Table::open()?),
        };
        table.cpu_stats()
    }
}

/// Reads the table of procfs: a heading, then a line of hexadecimal numbers for each CPU.
fn parse(text: &str) -> io::Result<Vec<CpuStats>> {
    let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut lines = text.lines();
    let heading: Vec<_> = lines.next().ok_or_else(|| odd("an empty file"))?.split_whitespace().collect();
    // A column that is not there is not shown: its name, and its meaning, was another once.
    let places = STATS.map(|stat| heading.iter().position(|name| *name == stat.column));
    let mut cpus = Vec::new();
    for (cpu, line) in (0..).zip(lines) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let mut values = [None; STATS.len()];
        for (value, place) in values.iter_mut().zip(places) {
            let Some(place) = place else { continue };
            let field = fields.get(place).ok_or_else(|| odd("a line shorter than its heading"))?;
            let read =
                u32::from_str_radix(field, 16).map_err(|_| odd(&format!("{field:?} is not hexadecimal")))?;
            *value = Some(read);
        }
        cpus.push(CpuStats { cpu, values });
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel of 6.18 with two CPUs.
    const RECENT: &str = "\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
00000007  00000001 00000002 00000000 00000004 00000000 00000000 00000008 00000010 00000020 fffffffe 00000080 00000100  00000000 00000000 00000000 00000200
00000007  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000005 00000000 00000000  00000000 00000000 00000000 00000000
";

    fn totals(text: &str, stat: &mut Stat) -> Totals {
        stat.unwrapped.fold(&parse(text).unwrap())
    }

    #[test]
    fn procfs_is_read_by_the_names_of_its_columns() {
        let cpus = parse(RECENT).unwrap();
        assert_eq!(cpus[0].values, [2, 4, 0x10, 0x20, 0xffff_fffe, 0x80, 0x100, 0x200, 1, 8].map(Some));
        assert_eq!((cpus.len(), cpus[1].cpu, cpus[1].values[4]), (2, 1, Some(5)));
        let older = RECENT.replacen("clashres", "searched", 1).replacen("chainlength", "delete_list", 1);
        let cpus = parse(&older).unwrap();
        assert_eq!(cpus[0].values.iter().filter(|value| value.is_none()).count(), 2);
    }

    #[test]
    fn a_counter_that_wraps_goes_on() {
        let mut stat = Stat::below(Path::new("/proc"));
        let before = totals(RECENT, &mut stat)[4].unwrap();
        assert_eq!(before, 0xffff_fffe + 5);
        let wrapped = RECENT.replace("fffffffe", "00000003");
        assert_eq!(totals(&wrapped, &mut stat)[4], Some(before + 5));
    }

    #[test]
    fn a_cut_file_is_an_error() {
        for cut in [0, RECENT.len() - 20, RECENT.len() - 12] {
            assert!(parse(&RECENT[..cut]).is_err(), "{cut}");
        }
    }
}
