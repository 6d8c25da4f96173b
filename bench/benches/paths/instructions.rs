//! Instructions per entry: the difference between two dumps and one, so that what comes before and after is in neither.

use crate::entries::dump;
use conntrack::{Kept, Room, Summary, recorded};
use std::{env, hint::black_box, process::Command};

const ENTRIES: u32 = 100_000;
const SOURCES: u32 = 10_000;
/// What is done with an entry; each does what the one before it does.
const PATHS: [&str; 3] = ["walk", "count", "keep"];

/// Prints them, as callgrind counts them in programs of this one.
pub(crate) fn report() {
    println!("instructions per entry, {ENTRIES} entries of {SOURCES} sources (valgrind --tool=callgrind):");
    for path in PATHS {
        let [one, two] = ["1", "2"].map(|dumps| counted(path, dumps));
        println!("{path:8} {:.1}", (two - one) as f64 / f64::from(ENTRIES));
    }
}

fn counted(path: &str, dumps: &str) -> u64 {
    let this = env::current_exe().expect("this program's path");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(this);
    let output = valgrind.args(["instructions", path, dumps]).output().expect("valgrind, which apt installs");
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("{path}: callgrind ends with {} and says:\n{said}", output.status))
}

/// What is counted.
pub(crate) fn spend(path: &str, dumps: &str) {
    let bytes = dump(ENTRIES, SOURCES);
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
