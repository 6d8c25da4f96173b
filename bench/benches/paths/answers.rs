//! From a summary to the text of a scrape's answer.

use crate::entries::summary;
use conntrack_exporter::answer::Answer;
use criterion::Criterion;

pub(crate) fn paths(criterion: &mut Criterion) {
    let summary = summary(1_000_000, 95_000);
    for top in [10, 1_000] {
        criterion.bench_function(&format!("rank/the top {top} of 95,000 sources"), |bencher| {
            bencher.iter(|| Answer::of(&summary, top));
        });
        let answer = Answer::of(&summary, top);
        criterion.bench_function(&format!("encode/top-N {top}"), |bencher| bencher.iter(|| answer.encode()));
    }
}
