//! Everything that fuzzing ever found worth keeping (`fuzz/corpus/TARGET`), read by the same functions as there, in the time and memory
//! that hostile bytes may cost. `make fuzz` finds more.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

type Target = (&'static str, fn(&[u8]));

/// As in fuzz/fuzz_targets.
const TARGETS: [Target; 12] = [
    ("table", conntrack::hostile::table),
    ("sockets", conntrack::hostile::sockets),
    ("routes", conntrack::hostile::routes),
    ("sets", conntrack_actioner::hostile::sets),
    ("webhook", conntrack_actioner::hostile::webhook),
    ("policy", conntrack_actioner::hostile::policy),
    ("matchers", conntrack_actioner::hostile::matchers),
    ("store", conntrack_actioner::hostile::store),
    ("audit", conntrack_actioner::hostile::audit),
    ("accept", web::hostile::accept),
    ("query", web::hostile::query),
    ("config", web::hostile::config),
];

/// What one input may take of memory beyond itself, at most, and of time: bounds that only a defect reaches.
const MEMORY: usize = 64 << 20;
const TIME: Duration = Duration::from_secs(10);

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let corpus = fuzz().join("corpus").join(target);
    let read = std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    let mut inputs: Vec<PathBuf> = read.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

/// One test, for the allocator counts for all threads.
#[test]
fn nothing_that_was_ever_found_panics_hangs_or_takes_memory() {
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        assert!(inputs.len() >= 3, "the corpus of {name} has {} inputs", inputs.len());
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            let (before, began) = (ALLOCATED.current_usage(), Instant::now());
            ALLOCATED.reset_peak_usage();
            // A panic shows no input by itself.
            let panicked = std::panic::catch_unwind(|| target(&bytes)).is_err();
            assert!(!panicked, "{} panics", input.display());
            let took = ALLOCATED.peak_usage().saturating_sub(before);
            assert!(took < MEMORY, "{}: {took} bytes", input.display());
            assert!(began.elapsed() < TIME, "{}: {:?}", input.display(), began.elapsed());
        }
    }
}

/// Otherwise one would be fuzzed and never replayed, or the other way round.
#[test]
fn the_targets_are_those_that_are_fuzzed() {
    let read = std::fs::read_dir(fuzz().join("fuzz_targets")).unwrap();
    let mut fuzzed: Vec<String> =
        read.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    fuzzed.sort();
    let mut replayed = TARGETS.map(|(name, _)| name);
    replayed.sort_unstable();
    assert_eq!(fuzzed, replayed);
}
