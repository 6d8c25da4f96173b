//! Limit against buckets against memory.

use super::facts::{BUCKET, Facts};
use super::judgement::{Advice, Topic, Urgency};

pub(super) const MAX: &str = "net.netfilter.nf_conntrack_max";
pub(super) const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";

/// The table may take this part of the memory when full: nobody needs it, and an attacker can make us pay it.
const AFFORDABLE: u64 = 16;
/// Above this part a full table is itself the attack.
const DANGEROUS: u64 = 4;
/// An eviction looks at the entries of eight buckets. With fewer than a quarter of an entry a bucket it often finds none to evict, and a
/// half-open flood locks everybody out (DOMAIN.md 1: 1 of 20 new connections succeeded).
const SPARSE: u64 = 4;

/// What a full table takes in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Memory {
    /// limit × size of an entry; its extensions (NAT, accounting, labels) come on top where they are used.
    pub(super) entries: u64,
    /// 8 bytes each.
    pub(super) buckets: u64,
}

impl Memory {
    pub(super) fn when_full(facts: &Facts, limit: u64, buckets: Option<u64>) -> Memory {
        Memory { entries: limit * facts.entry.bytes, buckets: buckets.unwrap_or(0) * BUCKET }
    }

    pub(super) fn total(self) -> u64 {
        self.entries + self.buckets
    }
}

/// Entries in each hash chain, on average, when the table is full: each entry stands in two, one for each direction.
pub(super) fn chain_when_full(limit: u64, buckets: u64) -> f64 {
    2.0 * limit as f64 / buckets.max(1) as f64
}

/// All about limit and buckets: one advice, for one depends on the other.
pub(super) fn size(facts: &Facts) -> Option<Advice> {
    let mut plan = Plan::of(facts);
    plan.limit(facts);
    plan.hash(facts);
    plan.advice(facts)
}

struct Plan {
    urgency: Urgency,
    title: Option<String>,
    why: Vec<String>,
    limit: u64,
    buckets: Option<u64>,
}

impl Plan {
    fn of(facts: &Facts) -> Plan {
        let (limit, buckets) = (facts.size.limit, facts.size.buckets);
        Plan { urgency: Urgency::Could, title: None, why: Vec::new(), limit, buckets }
    }

    /// The first reason is the title.
    fn reason(&mut self, urgency: Urgency, title: String, why: String) {
        self.urgency = self.urgency.min(urgency);
        self.title.get_or_insert(title);
        self.why.push(why);
    }

    fn limit(&mut self, facts: &Facts) {
        let (entries, limit) = (facts.size.entries, facts.size.limit);
        let affordable = affordable(facts);
        // Never below what is in use: that would lock everybody out.
        let bounded = affordable.max((entries * 2).next_power_of_two());
        let percent = entries * 100 / limit.max(1);
        let counters = facts.counters.unwrap_or_default();
        let dropped = counters.drop.saturating_sub(counters.insert_failed);
        if limit == 0 {
            self.limit = bounded;
            let why = format!(
                "0 means no limit: whoever opens connections decides how much kernel memory they take. A sixteenth of this machine's \
                 memory holds {affordable} entries."
            );
            self.reason(Urgency::Should, "The table has no limit".into(), why);
        } else if counters.early_drop > 0 || dropped > 0 || percent >= 50 {
            self.limit = wanted(facts, affordable);
            let urgency = if percent < 80 && counters.early_drop == 0 && dropped == 0 {
                Urgency::Should
            } else {
                Urgency::Now
            };
            let (title, why) = pressed(percent, counters.early_drop, dropped, self.limit > limit);
            self.reason(urgency, title, why);
        } else if let Some(memory) = facts.memory
            && Memory::when_full(facts, limit, self.buckets).total() > memory / DANGEROUS
        {
            self.limit = bounded.min(limit);
            let why = format!(
                "Full, it takes {}, more than a quarter of this machine's memory, and kernel memory is never swapped out: an attacker \
                 who fills the table can make the machine kill its programs. A sixteenth of it holds {affordable} entries.",
                bytes(Memory::when_full(facts, limit, self.buckets).total())
            );
            self.reason(Urgency::Should, "The limit is more than this machine can hold".into(), why);
        }
    }

    fn hash(&mut self, facts: &Facts) {
        let Some(buckets) = self.buckets else { return };
        let too_long = facts.counters.unwrap_or_default().chain_too_long;
        let chain = chain_when_full(self.limit, buckets);
        if self.limit > 2 * buckets || too_long > 0 {
            self.buckets = Some(self.limit.max(if too_long > 0 { buckets.saturating_mul(2) } else { 0 }));
            let urgency = if too_long > 0 { Urgency::Now } else { Urgency::Should };
            let dropped = match too_long {
                0 => String::new(),
                packets => {
                    format!(" {packets} packets have been dropped since boot because a chain was too long.")
                }
            };
            let why = format!(
                "A full table has {chain:.0} entries in each hash chain (each entry stands in two), and every packet walks one: as many \
                 buckets as the limit make it 2, for 8 bytes a bucket.{dropped} The kernel moves all entries when the number changes, \
                 so not at the busiest hour."
            );
            self.reason(urgency, format!("Too few buckets: {chain:.0} entries in a chain"), why);
        } else if self.limit > 0 && self.limit * SPARSE < buckets {
            let (limit, affordable) = (self.limit, affordable(facts));
            let raise = buckets <= affordable;
            (self.limit, self.buckets) = if raise { (buckets, Some(buckets)) } else { (limit, Some(limit)) };
            let why = format!(
                "When the table is full the kernel looks for an entry to evict in 8 buckets, and with {buckets} buckets for {limit} entries \
                 finds few or none: half-open entries alone then lock everybody out, which they cannot where both are equal (1 of 20 new \
                 connections succeeded, against 20 of 20)."
            );
            self.reason(Urgency::Should, "The limit is far below the number of buckets".into(), why);
        }
    }

    fn advice(mut self, facts: &Facts) -> Option<Advice> {
        let title = self.title.take()?;
        let size = facts.size;
        let mut advice = Advice::new(self.urgency, Topic::Size, title);
        advice.why = self.why;
        let changed = self.limit != size.limit || self.buckets != size.buckets;
        if changed {
            let memory = Memory::when_full(facts, self.limit, self.buckets);
            advice = advice.because(format!(
                "Memory of the full table: {} before, {} after ({} for entries, {} for buckets).",
                if size.limit == 0 {
                    "without bound".into()
                } else {
                    bytes(Memory::when_full(facts, size.limit, size.buckets).total())
                },
                bytes(memory.total()),
                bytes(memory.entries),
                bytes(memory.buckets),
            ));
        }
        if changed && !facts.sizes_are_ours {
            return Some(advice.step(format!(
                "Limit and buckets are one for all network namespaces and cannot be written in this one. On the host: {MAX} = {}, {BUCKETS} = {}.",
                self.limit,
                self.buckets.unwrap_or(self.limit)
            )));
        }
        if let (Some(now), Some(value)) = (size.buckets, self.buckets)
            && now != value
        {
            advice = advice.set(BUCKETS, now, value);
        }
        if self.limit != size.limit {
            advice = advice.set(MAX, size.limit, self.limit);
        }
        Some(advice)
    }
}

/// What to say of a table that is or was full.
fn pressed(percent: u64, early_drop: u64, dropped: u64, raised: bool) -> (String, String) {
    let title = match (early_drop, dropped) {
        (0, 0) => format!("The table is {percent} % full"),
        _ => "The table has been full since boot".to_owned(),
    };
    let counted = match (early_drop, dropped) {
        (0, 0) => String::new(),
        _ => format!(
            "{early_drop} entries were evicted early, which happens at the limit only, and {dropped} packets were dropped beyond races for \
             one entry. "
        ),
    };
    let cure = if raised {
        "A higher limit buys time for growth and against short floods. It does not stop a slow fill: find out who fills it \
         (nf_conntrack_source_entries, `conntrack-exporter top`) and shorten what they can hold."
    } else {
        "A higher limit would take more than a sixteenth of this machine's memory, so it is not the cure: find out who fills it \
         (nf_conntrack_source_entries, `conntrack-exporter top`) and shorten what they can hold."
    };
    (title, format!("{counted}It is {percent} % full now. {cure}"))
}

/// Twice the limit if it was reached, and twice what is there: a power of two, within the memory.
fn wanted(facts: &Facts, affordable: u64) -> u64 {
    let (entries, limit) = (facts.size.entries, facts.size.limit);
    let wanted = (entries * 2).max(limit * 2).next_power_of_two();
    wanted.min(affordable).max(limit)
}

/// The largest power of two of entries, with as many buckets, in a sixteenth of the memory; 65,536 where memory is not known.
fn affordable(facts: &Facts) -> u64 {
    let Some(memory) = facts.memory else { return 65_536 };
    let entries = memory / AFFORDABLE / (facts.entry.bytes + BUCKET);
    // The kernel itself never has fewer than 1024 buckets.
    entries.checked_ilog2().map_or(1024, |power| 1 << power).max(1024)
}

/// For people.
pub(super) fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    match bytes {
        GIB.. => format!("{:.1} GiB", bytes as f64 / GIB as f64),
        MIB.. => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        _ => format!("{:.0} KiB", bytes as f64 / KIB as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::facts::tests::as_it_comes;
    use crate::advise::facts::{Counters, EntryBytes};
    use crate::sysctl::Size;

    fn host(entries: u64, limit: u64, buckets: u64) -> Facts {
        Facts { size: Size { entries, limit, buckets: Some(buckets) }, ..as_it_comes() }
    }

    /// What limit and buckets should be; None: as they are.
    fn advised(facts: &Facts) -> (Option<u64>, Option<u64>) {
        let settings = size(facts).map(|advice| advice.settings).unwrap_or_default();
        let value = |key| settings.iter().find(|setting| setting.key == key).map(|setting| setting.value);
        (value(MAX), value(BUCKETS))
    }

    #[test]
    fn limit_and_buckets_go_together() {
        let cases = [
            ("as the kernel has it since 5.15", host(83, 262_144, 262_144), (None, None)),
            ("as it had it before", host(83, 262_144, 65_536), (None, Some(262_144))),
            ("as hashsize= leaves it", host(83, 262_144, 32_768), (None, Some(262_144))),
            ("chains of four are borne", host(83, 262_144, 131_072), (None, None)),
            ("half full", host(131_072, 262_144, 262_144), (Some(524_288), None)),
            ("half full, and few buckets", host(131_072, 262_144, 65_536), (Some(524_288), Some(524_288))),
            ("49 %", host(131_071, 262_144, 262_144), (None, None)),
            ("sparse", host(83, 16_384, 262_144), (Some(262_144), None)),
            ("without a limit", host(83, 0, 262_144), (Some(1_048_576), Some(1_048_576))),
            ("beyond the memory", host(83, 16_777_216, 16_777_216), (Some(1_048_576), Some(1_048_576))),
            (
                "beyond the memory, and in use",
                host(3_000_000, 16_777_216, 16_777_216),
                (Some(8_388_608), None),
            ),
        ];
        for (what, facts, expected) in cases {
            assert_eq!(advised(&facts), expected, "{what}");
        }
    }

    #[test]
    fn a_limit_is_not_raised_beyond_the_memory() {
        let small = |facts: Facts| Facts { memory: Some(512 << 20), ..facts };
        let full = small(host(65_000, 65_536, 65_536));
        assert_eq!(advised(&full), (None, None), "65,536 is what 512 MiB should spend");
        let advice = size(&full).unwrap();
        assert_eq!(advice.urgency, Urgency::Now);
        assert!(
            advice.why[0].contains("99 % full") && advice.why[0].contains("it is not the cure"),
            "{advice:?}"
        );
        assert_eq!(advised(&small(host(83, 16_384, 262_144))), (None, Some(16_384)), "fewer buckets then");
        let larger = Facts { entry: EntryBytes { bytes: 512, measured: true }, ..full };
        assert_eq!(affordable(&larger), 32_768);
    }

    #[test]
    fn memory_is_entries_and_buckets() {
        let memory = Memory::when_full(&as_it_comes(), 262_144, Some(262_144));
        assert_eq!((bytes(memory.entries).as_str(), bytes(memory.buckets).as_str()), ("64.0 MiB", "2.0 MiB"));
        let why = size(&host(131_072, 262_144, 262_144)).unwrap().why.join("\n");
        assert!(
            why.contains("66.0 MiB before, 130.0 MiB after (128.0 MiB for entries, 2.0 MiB for buckets)"),
            "{why}"
        );
    }

    #[test]
    fn the_kernels_counters_tell_that_it_was_full() {
        let with = |counters| Facts { counters: Some(counters), ..host(83, 262_144, 262_144) };
        let evicted = size(&with(Counters { early_drop: 7, ..Counters::default() })).unwrap();
        assert_eq!(
            (evicted.urgency, evicted.title.as_str()),
            (Urgency::Now, "The table has been full since boot")
        );
        let races = with(Counters { drop: 5, insert_failed: 5, ..Counters::default() });
        assert_eq!(size(&races), None, "races for one entry are no lack of room");
        let long = with(Counters { chain_too_long: 2, ..Counters::default() });
        assert_eq!(advised(&long), (None, Some(524_288)));
    }

    #[test]
    fn what_this_namespace_cannot_write_is_a_step_for_the_host() {
        let advice = size(&Facts { sizes_are_ours: false, ..host(83, 262_144, 65_536) }).unwrap();
        assert!(advice.settings.is_empty());
        assert!(advice.steps[0].contains("nf_conntrack_buckets = 262144"), "{advice:?}");
    }
}
