//! The hot paths alone, without kernel, disk and HTTP: time by criterion, and instructions by callgrind where time is unsteady.
//!
//! `make bench-paths`; what came of it: docs/hot-paths.md. A word after `--` picks: `cargo bench -p bench --bench paths -- decide`.

mod answers;
mod bans;
mod document;
mod entries;
mod instructions;

use criterion::Criterion;
use std::{env, time::Duration};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["document"] => document::write(),
        ["instructions", path, kind, dumps] => instructions::spend(path, kind, dumps),
        _ => {
            let criterion = Criterion::default()
                .output_directory(&document::output())
                .sample_size(20)
                .warm_up_time(Duration::from_millis(500))
                .measurement_time(Duration::from_secs(2));
            let mut criterion = criterion.configure_from_args();
            entries::paths(&mut criterion);
            answers::paths(&mut criterion);
            bans::paths(&mut criterion);
            criterion.final_summary();
        }
    }
}
