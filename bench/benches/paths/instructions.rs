//! Instructions per entry: the difference between two dumps and one, so that what comes before and after is in neither.

use crate::entries::{Kind, dump};
use conntrack::{Kept, Room, Summary, recorded};
use std::{env, hint::black_box, process::Command};

const ENTRIES: u32 = 100_000;
const SOURCES: u32 = 10_000;
/// What is done with an entry; each does what the one before it does.
const PATHS: [&str; 3] = ["walk", "count", "keep"];

/// What [`counted_all`] counts.
pub(crate) const DESCRIBED: &str = "Instructions per entry, 100,000 entries of 10,000 sources (`valgrind --tool=callgrind`, the difference between two dumps and one):\n";

/// Each path with its instructions per entry, plain ones and recorded ones, as callgrind counts them in programs of this one.
pub(crate) fn counted_all() -> Vec<(&'static str, [f64; 2])> {
    let of = |path| {
        Kind::ALL.map(|kind| {
            let [one, two] = ["1", "2"].map(|dumps| counted(path, kind, dumps));
            (two - one) as f64 / f64::from(ENTRIES)
        })
    };
    let names = ["walk", "walk and count", "walk, count and keep the key"];
    PATHS.iter().zip(names).map(|(path, name)| (name, of(path))).collect()
}

fn counted(path: &str, kind: Kind, dumps: &str) -> u64 {
    let this = env::current_exe().expect("this program's path");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(this);
    let output = valgrind
        .args(["instructions", path, kind.word(), dumps])
        .output()
        .expect("valgrind, which apt installs");
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("{path}: callgrind ends with {} and says:\n{said}", output.status))
}

/// What is counted.
pub(crate) fn spend(path: &str, kind: &str, dumps: &str) {
    let kind = Kind::ALL.into_iter().find(|known| known.word() == kind).expect("a kind of entries");
    let bytes = dump(kind, ENTRIES, SOURCES);
    for _ in 0..dumps.parse().expect("a number of dumps") {
        let (mut summary, mut kept) = (Summary::new(), Kept::within(&Room::of(1 << 30)));
        let dump = match path {
            "walk" => recorded::visit(&bytes, |flow| _ = black_box(flow)),
            "count" => recorded::visit(&bytes, |flow| summary.add(flow)),
            "keep" => recorded::visit(&bytes, |flow| {
                summary.add(flow);
                kept.keep(flow);
            }),
            unknown => panic!("{unknown} is none of {PATHS:?}"),
        };
        assert_eq!((dump.entries, dump.malformed), (u64::from(ENTRIES), None));
        if path != "walk" {
            assert_eq!(summary.sources.distinct(), u64::from(SOURCES));
        }
        black_box((summary, kept));
    }
}
