//! How long the kernel keeps a CPU for one receive call of a dump: it lets nobody else in meanwhile, packets neither.

use std::time::Duration;

use conntrack::{Dump, Table};
use tests::Result;

use crate::{
    Size,
    measure::{median, ms},
    report::Part,
    table::filled,
};

const MOST: Duration = Duration::from_millis(2);
/// Every so manieth entry is unanswered: a smaller class than that is not asked for by itself.
const NARROWEST: u32 = 20;

pub(crate) fn rows(part: &mut Part, size: Size) -> Result<()> {
    let namespace = filled(size.large, 95_000, NARROWEST)?;
    let mut table = namespace.run(Table::open).expect("a table").timing_calls();
    let mut longest = |how: &str, mut dump: Box<dyn FnMut(&mut Table) -> Dump + Send>| {
        let calls: Vec<Duration> =
            (0..size.rounds).map(|_| namespace.run(|| dump(&mut table)).longest_call).collect();
        let most = calls.iter().copied().max().unwrap_or_default();
        let what = format!(
            "the longest receive call of a dump of {} entries, {how}, in {} dumps",
            size.large,
            calls.len()
        );
        let ours = format!("{}, median of the dumps' longest {}", ms(most), ms(median(calls.into_iter())));
        part.row([&what, "", &ours, "", "", "≤ 2 ms"], Some(most <= MOST));
    };
    longest("one thread", Box::new(|table| table.visit(|_| ()).expect("a dump")));
    longest(
        "two threads of which one asks for a twentieth of the entries",
        Box::new(|table| {
            let (parts, dump) = table.visit_in_two(|| (), |(), _| ()).expect("a dump");
            assert_eq!(parts.len(), 2, "a twentieth is enough for two threads");
            dump
        }),
    );
    part.after.push("A receive call is told by the CPU clock of its thread, so that it is not longer where others take the CPU away in between.".into());
    Ok(())
}
