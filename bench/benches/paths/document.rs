//! docs/hot-paths.md, written from what criterion left below target/criterion and from what callgrind counts.

use crate::instructions;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};
use tests::programs::workspace;

#[path = "../../src/machine.rs"]
#[expect(dead_code, reason = "how busy it is, `make bench` says")]
mod machine;

/// A path by criterion's name for it, what it is in words, and what it is counted by.
const PATHS: [(&str, &str, Option<&str>); 21] = [
    (
        "walk/1,000 plain entries",
        "walk: decode 1,000 entries as nearly all are, IPv4, TCP, without counters",
        Some("an entry"),
    ),
    (
        "walk/1,000 entries",
        "the same of 1,000 recorded ones of every kind (TCP, UDP, ICMP, SCTP, both families, zones, counters)",
        Some("an entry"),
    ),
    (
        "count/1,000,000 entries of 10 sources",
        "count: 1,000,000 decoded entries of 10 sources",
        Some("an entry"),
    ),
    ("count/1,000,000 entries of 95000 sources", "the same, of 95,000 sources", Some("an entry")),
    (
        "count/1,000,000 entries of 1000000 sources",
        "the same, of 1,000,000 sources (the bounded map full, the others in the bit set)",
        Some("an entry"),
    ),
    ("keep/1,000,000 keys", "keep: the keys of 1,000,000 entries", Some("an entry")),
    ("keep/find those of 1 sources", "find the kept keys of 1 source in 1,000,000", Some("a key")),
    ("keep/find those of 1000 sources", "the same, of 1,000 sources", Some("a key")),
    ("rank/the top 10 of 95,000 sources", "rank and list 95,000 sources, the top 10", None),
    ("rank/the top 1000 of 95,000 sources", "the same, the top 1,000", None),
    ("encode/top-N 10", "encode an answer at top-N 10", None),
    ("encode/top-N 1000", "encode an answer at top-N 1,000 (target: under 5 ms)", None),
    ("policy/parse the packaged one", "parse the packaged policy", None),
    ("webhook/parse 1 alerts", "webhook: parse a message of 1 alert", None),
    ("webhook/parse 500 alerts", "the same, of 500 alerts", Some("an alert")),
    ("decide/1 alerts, 0 bans in force", "decide: 1 alert, no ban in force", None),
    ("decide/1 alerts, 65000 bans in force", "the same, 65,000 bans in force", None),
    ("decide/500 alerts, 0 bans in force", "500 alerts, no ban in force", Some("an alert")),
    ("decide/500 alerts, 65000 bans in force", "the same, 65,000 bans in force", Some("an alert")),
    ("store/encode 65000 bans", "store: encode 65,000 bans", Some("a ban")),
    ("store/read 65000 bans", "read them back", Some("a ban")),
];

/// Writes it.
pub(crate) fn write() {
    let measured = measured();
    let mut text = format!(
        "# What the hot paths cost by themselves\n\n\
         Written by `make bench-paths`. Do not edit: run it.\n\n\
         Without kernel, disk and HTTP; the whole of it beside the neighbours is in [BENCHMARKS.md](../BENCHMARKS.md). criterion measures time, callgrind counts instructions, which\n\
         do not depend on what else the machine does. The code is in `bench/benches/paths`.\n\n\
         Machine: {}.\n\n| path | time | for one |\n|---|---|---|\n",
        machine::described()
    );
    for (name, words, one) in PATHS {
        let Some((median, elements)) = measured.get(name) else {
            panic!("{name} was not measured: `make bench-paths` without PATHS measures all");
        };
        let each = one.map(|one| format!("{} {one}", time(median / elements.unwrap_or(1.0))));
        let _ = writeln!(text, "| {words} | {} | {} |", time(*median), each.unwrap_or_default());
    }
    text += &format!(
        "\n{}\n| path | plain entries | recorded ones, of every kind |\n|---|---|---|\n",
        instructions::DESCRIBED
    );
    for (path, [plain, mixed]) in instructions::counted_all() {
        let _ = writeln!(text, "| {path} | {plain:.0} | {mixed:.0} |");
    }
    text += "\nA plain entry is recognised by comparing its attribute headers all at once with what kernels write (`decode/plain.rs`); whatever is laid out otherwise is walked attribute by attribute.\n";
    let path = workspace().join("docs/hot-paths.md");
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("{} is written", path.display());
}

/// Nanoseconds at the median by name, and the number of elements that is for.
fn measured() -> BTreeMap<String, (f64, Option<f64>)> {
    let mut measured = BTreeMap::new();
    let mut directories = vec![output()];
    while let Some(directory) = directories.pop() {
        directories.extend(
            fs::read_dir(&directory)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
        let read = |name: &str| serde_json::from_slice::<Value>(&fs::read(directory.join(name)).ok()?).ok();
        if directory.ends_with("new")
            && let (Some(benchmark), Some(estimates)) = (read("benchmark.json"), read("estimates.json"))
            && let (Some(name), Some(median)) =
                (benchmark["full_id"].as_str(), estimates["median"]["point_estimate"].as_f64())
        {
            measured.insert(name.to_owned(), (median, benchmark["throughput"]["Elements"].as_f64()));
        }
    }
    measured
}

/// Where criterion leaves what it measured.
pub(crate) fn output() -> PathBuf {
    workspace().join("target/criterion")
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.1} µs", n / 1e3),
        n if n < 1e8 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.0} ms", n / 1e6),
    }
}
