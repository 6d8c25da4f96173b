//! `docs/day.md`.

use std::fmt::Write;

use super::{
    rules::{NEIGHBOURS, Severity},
    verdict::{Row, Verdict},
};

const HEAD: &str = "\
# A day of traffic, judged by the rules

Written by `make day`. Does a rule cry on an ordinary day, and does it call a slow attack in time? Twenty-three hosts live through two days that are modelled entry by entry:
each stays as long as the kernel's timeouts keep it (120 s in `TIME_WAIT`, 30 s after a name lookup, five days for a silent connection). Visitors follow the hour, three
deployments make every worker connect anew, a backup runs at night, the exporter is restarted at 11:20 and a scrape goes missing at 16:40 (seen as `up` 0, on every host). The attack
is the article's, at its pace: 19 connections a minute from each host. What an exporter would have said each minute, by name and label, goes as OpenMetrics through
`promtool tsdb create-blocks-from`, a real Prometheus is asked every rule's expression over the second day, and `for` and `keep_firing_for` are applied as its rule manager does.

*First* is when an alert first fired, *ahead* the hours from then until the table would be full if nobody acted. Only *critical* pages. Beside ours stand what others ship,
asked of the same day as node_exporter would have told it: ";

const MODEL: &str = "\
A campaign that adds half as many visitors again, a weekly job and a Monday after a quiet Sunday are called once, by a warning: in the sum of all entries, hours of honest growth to a record cannot be told from an attack.
It pages nobody, and what comes each week is not called from the second week on: the rule compares with a week ago as well (`alerts/tests/fills-weekly.yml`), of which these two days know nothing.

`weekly`, `office`, `office-monday`, `covered`, `covered-busy` and `connections` came after the rules had been tuned on the others. As the rules were then they called the weekly job and the Monday too, `covered` an hour later
than now, and nobody was woken for `connections` before the table was full.

## What this is not

It is a model, and the traffic is ours. The rules are asked once a minute; with a scrape each 15 seconds they are some seconds faster. Alertmanager's grouping and the actioner's own
watch, which needs no Prometheus, are not in it. Where an actioner enforces, the model deletes dead slots a minute after there are a thousand, as the packaged policy does; that the real one
does is proven on the real kernel (`make test`, `make demo`). Entries of a forged flood live a minute or two, so it fills the table within that time or never, faster than scrapes and rules follow: there the question is what is
said, not when. Real connections stay, so that fill takes minutes and is paged before (`connections`).

`tests/src/day/` has the model, its hosts, and what must hold: no page on a quiet day or where the attack is contained, and each slow attack called more than ten hours before the table is full.
";

fn clock(second: u32) -> String {
    format!("{:02}:{:02}", second % super::DAY / 3600, second % 3600 / 60)
}

fn full(second: u32) -> String {
    let later = if second < 2 * super::DAY { "" } else { " a day later" };
    clock(second) + later
}

fn loud(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "**critical: pages**",
        other => other.name(),
    }
}

/// The page.
pub fn page(verdicts: &[Verdict]) -> String {
    let mut text = HEAD.to_owned();
    for (index, (name, expression, hold)) in NEIGHBOURS.into_iter().enumerate() {
        let and = if index == 0 { "" } else { " and " };
        let _ = write!(text, "{and}{name}'s `{expression}` (for {} min)", hold / 60);
    }
    text += ".\n\n![Fill of the table over the day](pictures/day.svg)\n\n## In short\n\n";
    text += "| host | its day | table full | we call it | pages | node-mixin | awesome |\n|---|---|---|---|---|---|---|\n";
    for verdict in verdicts {
        text += &in_short(verdict);
    }
    text += "\n## Every alert\n\n| host | alert | severity | first | ahead | fired for |\n|---|---|---|---|---|---|\n";
    for verdict in verdicts {
        for row in &verdict.rows {
            text += &line(verdict, row);
        }
    }
    text + "\nWhat is not in this table never fired: all other rules, on all of these hosts.\n\n" + MODEL
}

fn in_short(verdict: &Verdict) -> String {
    let ahead = |second: u32| match verdict.hours_ahead(second) {
        Some(hours) if hours > 0.0 => format!("{}, {hours:.1} h ahead", clock(second)),
        _ => clock(second),
    };
    let first = |of: &dyn Fn(&Row) -> bool| verdict.rows.iter().find(|row| of(row)).map(|row| row.first);
    let cell = |second: Option<u32>| second.map_or("–".to_owned(), ahead);
    let named = |name: &'static str| cell(first(&|row: &Row| row.alert == name));
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |\n",
        verdict.host.name,
        verdict.host.about,
        verdict.full_at.map_or("never".to_owned(), full),
        cell(verdict.called_at()),
        cell(first(&|row: &Row| row.severity == Severity::Critical)),
        named(NEIGHBOURS[0].0),
        named(NEIGHBOURS[1].0),
    )
}

fn line(verdict: &Verdict, row: &Row) -> String {
    let ahead = verdict.hours_ahead(row.first).map_or("–".to_owned(), |hours| format!("{hours:.1} h"));
    format!(
        "| {} | {} | {} | {} | {ahead} | {} min |\n",
        verdict.host.name,
        row.alert,
        loud(row.severity),
        clock(row.first),
        row.seconds / 60,
    )
}
