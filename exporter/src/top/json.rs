//! A look as an object, for scripts. Pure. What is not known is null, and why stands beside it.

use std::time::SystemTime;

use conntrack::summary::Mark;
use serde_json::{Value, json};

use super::growth::Growth;
use super::look::Look;
use super::rows::{Row, rows};
use super::view::View;

pub(super) fn object(look: &Look, growth: &Growth, view: &View, most: usize) -> Value {
    let (sources, _) = rows(look, growth, view.sort, &view.filter(), most);
    let time = look.clock.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    json!({
        "time": time.as_millis() as f64 / 1000.0,
        "entries": look.size.entries,
        "entries_limit": look.size.limit,
        "buckets": look.size.buckets,
        "growth_per_second": growth.per_second(),
        "full_in_seconds": growth.full_in().map(|time| time.as_secs()),
        "dumped_entries": look.summary.entries,
        "assured_entries": look.marked(Mark::Assured),
        "half_open_entries": look.summary.half_open(),
        "unreplied_entries": look.marked(Mark::Unreplied),
        "socketless_entries": look.summary.judged.map(|judged| judged.socketless),
        "deferred_entries": look.summary.judged.map(|judged| judged.deferred),
        "socketless_not_known": look.sockets.as_ref().err(),
        "local_entries": look.summary.local,
        "local_not_known": look.own.as_ref().err(),
        "distinct_sources": look.summary.sources.distinct(),
        "drop": look.dropped.map(|(drop, _)| drop),
        "early_drop": look.dropped.map(|(_, early)| early),
        "bans": look.bans.as_ref().ok(),
        "bans_not_known": look.bans.as_ref().err(),
        "sources": sources.iter().map(|row| source(row, look)).collect::<Vec<_>>(),
    })
}

fn source(row: &Row, look: &Look) -> Value {
    json!({
        "source": row.source,
        "entries": row.counts.entries,
        "assured": row.counts.assured,
        "half_open": row.counts.half_open,
        "socketless": look.summary.judged.map(|_| row.counts.socketless),
        "grown": row.grown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::growth::tests::after;
    use crate::top::rows::Sort;

    #[test]
    fn what_is_not_known_is_null_and_says_why() {
        let growth = after(&[(0, 100, &[10, 30])]);
        let object = object(growth.latest().unwrap(), &growth, &View::new(Sort::Entries, ""), 1);
        assert_eq!((&object["entries"], &object["dumped_entries"]), (&json!(40), &json!(40)));
        assert_eq!(
            (&object["socketless_entries"], &object["socketless_not_known"]),
            (&Value::Null, &json!("not asked"))
        );
        assert_eq!(
            (&object["bans"], &object["bans_not_known"]),
            (&Value::Null, &json!("no actioner runs here"))
        );
        assert_eq!((&object["full_in_seconds"], &object["growth_per_second"]), (&Value::Null, &Value::Null));
        let source = json!({"source": "198.51.100.1", "entries": 30, "assured": 30, "half_open": 0, "socketless": null, "grown": null});
        assert_eq!(object["sources"], json!([source]));
    }
}
