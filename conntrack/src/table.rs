//! The table of the calling thread's network namespace: visit its entries, read its counts.

use crate::flow::Flow;
use crate::link::{Answer, Channel, Error, Link};
use crate::netlink::{Malformed, NLM_F_ACK, NLM_F_DUMP, Requests};
use crate::pace::Pace;
use crate::reader::{Classes, Reader};
use crate::stats::{self, CpuStats, Limits};
use std::thread;
use std::time::{Duration, Instant};

/// `NFNL_SUBSYS_CTNETLINK << 8`.
pub(crate) const CTNETLINK: u16 = 1 << 8;
const CT_GET: u16 = CTNETLINK | 1;
const CT_GET_STATS_CPU: u16 = CTNETLINK | 4;
const CT_GET_STATS: u16 = CTNETLINK | 5;
/// What a dump asks for, in errors.
pub(crate) const DUMP: &str = "a dump of the conntrack table";
/// So much of a dump the kernel writes in one call, in which it lets neither another thread nor a packet onto the CPU. It would fill
/// 32 KiB: a ping-pong on the same CPU then had a p99 of 0.25 ms while the exporter dumped 1,000,000 entries in a loop, of 0.23 with 28 KiB, of
/// 0.14 with 24 (0.11 without a dump), and at 100,000 entries 0.21, 0.19 and 0.18. A dump took 5.7, 5.9 and 6.6 % more CPU than one whose
/// bytes are thrown away. Linux 6.18, medians of two, three and 21 runs.
const PIECE: usize = 28 * 1024;
const AF_UNSPEC: u8 = 0;
const BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";

/// An open link to ctnetlink.
#[derive(Debug)]
pub struct Table {
    pub(crate) link: Link,
    pub(crate) requests: Requests,
    pub(crate) pace: Option<Pace>,
    /// What the last dump showed.
    pub(crate) classes: Classes,
    /// This kernel does not answer the question for a half.
    pub(crate) never_in_two: bool,
    /// A plain dump takes no second thread.
    pub(crate) in_one_thread: bool,
}

/// What one dump was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dump {
    /// Entries visited.
    pub entries: u64,
    /// Entries that could not be read and were passed over, and why the first could not.
    pub malformed: Option<(u64, Malformed)>,
    /// The table changed its shape underneath, so entries can be missing or double: `NLM_F_DUMP_INTR`, or the number of
    /// buckets differs (ctnetlink never sets the flag when the hash is resized).
    pub interrupted: bool,
    /// From the request to the last message.
    pub elapsed: Duration,
    /// The most time that one receive call kept its CPU: the kernel fills the next piece in it and lets nobody else in meanwhile.
    /// By the thread's CPU clock, so that it does not grow when others take the CPU away between two packets of work. 0 unless
    /// [`Table::timing_calls`] asked for it.
    pub longest_call: Duration,
}

impl Table {
    /// Opens the table of the calling thread's network namespace. Errors: [`Error::Open`].
    pub fn open() -> Result<Table, Error> {
        let link = Link::open_with_room(Channel::Netfilter, "the conntrack table", PIECE)?;
        Ok(Table {
            link,
            requests: Requests::new(),
            pace: None,
            classes: Classes::default(),
            never_in_two: false,
            in_one_thread: false,
        })
    }

    /// Lets dumps use no other thread than the caller's, as they do by themselves where the table is small or one CPU is all there is.
    pub fn in_one_thread(self) -> Table {
        Table { never_in_two: true, in_one_thread: true, ..self }
    }

    /// Measures [`Dump::longest_call`], which costs two system calls for each receive call.
    pub fn timing_calls(mut self) -> Table {
        self.link.time_calls();
        self
    }

    /// Lets the dumps of this table run at a pace of their own. `pace` belongs to the calling thread, so must the table from now on.
    pub fn at_pace(mut self, pace: Pace) -> Table {
        self.pace = Some(pace);
        self
    }

    /// The pace, if one was set.
    pub fn pace(&self) -> Option<&Pace> {
        self.pace.as_ref()
    }

    /// Closes the table and gives its pace back, for the next table that the calling thread opens: after an error a dump may be
    /// under way on the old one.
    pub fn into_pace(self) -> Option<Pace> {
        self.pace
    }

    /// Shows every entry, IPv4 and IPv6, to `each`. Nothing is kept and nothing allocated per entry. The kernel walks its
    /// hash while we read, so an entry made or gone meanwhile may be seen or not.
    ///
    /// Errors: see [`Error`]; what `each` saw before an error is not the whole table.
    pub fn visit(&mut self, each: impl FnMut(&Flow)) -> Result<Dump, Error> {
        let started = Instant::now();
        let buckets = buckets();
        let mut reader = Reader::whole(each);
        let ahead = !self.in_one_thread && self.worth_a_thread();
        let answer = self.read(&mut reader, ahead)?;
        let interrupted = answer.interrupted || buckets != self::buckets();
        self.classes = reader.classes();
        Ok(reader.dump(Answer { interrupted, ..answer }, started.elapsed()))
    }

    /// Sends the reader's request and hands it the answer.
    pub(crate) fn read<E: FnMut(&Flow)>(
        &mut self,
        reader: &mut Reader<E>,
        ahead: bool,
    ) -> Result<Answer, Error> {
        let Table { link, requests, pace, .. } = self;
        if let Some(pace) = pace {
            pace.begin();
        }
        let sequence = link.next_sequence();
        requests.clear();
        requests.message(CT_GET, NLM_F_DUMP, sequence, |r| {
            r.raw(&[AF_UNSPEC, 0, 0, 0]);
            reader.write(r);
        });
        let mut pace = || {
            if let Some(pace) = pace {
                pace.check();
            }
        };
        if ahead
            && let Some(answer) = link.ask_ahead(requests, DUMP, |message| reader.see(message), &mut pace)?
        {
            return Ok(answer);
        }
        link.ask(requests, DUMP, |message| reader.see(message), pace)
    }

    /// Whether a dump takes long enough for a thread of its own that receives, and there is a CPU for it.
    fn worth_a_thread(&mut self) -> bool {
        const SMALLEST: u32 = 20_000;
        // Whatever keeps the kernel from telling is told by the dump.
        let large = self.limits().is_ok_and(|limits| limits.entries >= SMALLEST);
        large && thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1)
    }

    /// How many entries there are and may be. Costs 2.5 µs.
    pub fn limits(&mut self) -> Result<Limits, Error> {
        let mut limits = None;
        self.ask(CT_GET_STATS, NLM_F_ACK, "the table's entry count", |payload| {
            limits = Some(stats::limits(payload)?);
            Ok(())
        })?;
        limits.ok_or(Error::Malformed {
            asked: "the table's entry count",
            source: Malformed("an answer without statistics"),
        })
    }

    /// The counters of each CPU. Costs 4.9 µs.
    pub fn cpu_stats(&mut self) -> Result<Vec<CpuStats>, Error> {
        let mut cpus = Vec::new();
        self.ask(CT_GET_STATS_CPU, NLM_F_DUMP, "the per-CPU statistics", |payload| {
            cpus.push(stats::cpu(payload)?);
            Ok(())
        })?;
        Ok(cpus)
    }

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        asked: &'static str,
        mut each: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Error> {
        let sequence = self.link.next_sequence();
        self.requests.clear();
        self.requests.message(kind, flags, sequence, |r| r.raw(&[AF_UNSPEC, 0, 0, 0]));
        self.link.ask(&self.requests, asked, |message| each(message.payload), || ()).map(|_| ())
    }
}

/// The size of the hash; None where procfs does not show it.
pub(crate) fn buckets() -> Option<u64> {
    std::fs::read_to_string(BUCKETS).ok()?.trim().parse().ok()
}
