//! Looks as lines of text. Pure.

use std::time::Duration;

use conntrack::summary::Mark;

use super::bans::Ban;
use super::growth::Growth;
use super::look::Look;
use super::rows::{Row, Sort, rows};
use super::view::View;

const BAR: usize = 30;
const KEYS: &str = "q quit  space freeze  / filter  Esc all  sort by: e entries  a assured  h half-open  s socketless  g growth";

/// How a line is to be seen, where there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Heading of the table.
    Heading,
    /// Below half.
    Calm,
    /// Half full or fuller, or something is odd.
    Warning,
    /// 80 % or fuller.
    Alarm,
}

/// A line of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) tone: Tone,
}

fn line(tone: Tone, text: impl Into<String>) -> Line {
    Line { text: text.into(), tone }
}

/// What is printed where there is no terminal.
pub(super) fn report(look: &Look, growth: &Growth, view: &View, most: usize) -> Vec<Line> {
    let mut lines = summary(look, growth);
    lines.extend(sources(look, growth, view, most));
    lines
}

/// A screen of so many lines: summary, sources, keys. `trouble` is why the last look failed.
pub(super) fn screen(
    look: &Look,
    growth: &Growth,
    view: &View,
    trouble: Option<&str>,
    height: usize,
) -> Vec<Line> {
    let mut lines = summary(look, growth);
    if let Some(trouble) = trouble {
        lines.push(line(Tone::Alarm, format!("The last look failed, this is the one before: {trouble}")));
    }
    let room = height.saturating_sub(lines.len() + 4);
    lines.extend(sources(look, growth, view, room));
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), line(Tone::Plain, ""));
    lines.push(match (view.typing, view.frozen) {
        (true, _) => {
            line(Tone::Heading, format!("filter, a network or a part of the address: {}_", view.filter))
        }
        (false, true) => line(Tone::Warning, format!("FROZEN  {KEYS}")),
        (false, false) => line(Tone::Plain, KEYS),
    });
    lines
}

fn summary(look: &Look, growth: &Growth) -> Vec<Line> {
    let summary = &look.summary;
    let judged = match (&look.sockets, summary.judged) {
        (Ok(()), Some(judged)) => format!("socketless {} (deferred {})", judged.socketless, judged.deferred),
        _ => "socketless not known".to_owned(),
    };
    let mut lines = vec![
        fill(look, growth),
        line(
            Tone::Plain,
            format!(
                "dumped   {}: assured {}, half-open {}, unreplied {}, {judged}",
                summary.entries,
                look.marked(Mark::Assured),
                summary.half_open(),
                look.marked(Mark::Unreplied),
            ),
        ),
        line(
            Tone::Plain,
            format!("sources  {} remote; opened by this host: {}", summary.sources.distinct(), summary.local),
        ),
    ];
    lines.push(match look.dropped {
        Some((0, 0)) => line(Tone::Plain, "dropped  0 packets, 0 entries evicted early, since boot"),
        Some((drop, early)) => {
            line(Tone::Warning, format!("dropped  {drop} packets, {early} entries evicted early, since boot"))
        }
        None => line(Tone::Plain, "dropped  not known: this kernel does not say"),
    });
    lines.push(match &look.bans {
        Ok(bans) => in_force(bans),
        Err(why) => line(Tone::Plain, format!("bans     not known: {why}")),
    });
    if let Err(why) = &look.sockets {
        lines.push(line(Tone::Warning, format!("sockets  not known: {why}")));
    }
    if let Err(why) = &look.own {
        lines.push(line(Tone::Warning, format!("this host's own addresses stand among the sources: {why}")));
    }
    lines
}

/// `entries  83 of 262144 (0.0 %) [||        ] +12.0/s, full in 6 h`
fn fill(look: &Look, growth: &Growth) -> Line {
    let (entries, limit) = (look.size.entries, look.size.limit);
    let slope = match (growth.per_second(), growth.full_in()) {
        (None, _) => String::new(),
        (Some(slope), None) => format!(" {slope:+.1}/s"),
        (Some(slope), Some(time)) => format!(" {slope:+.1}/s, full in {}", span(time)),
    };
    if limit == 0 {
        return line(Tone::Warning, format!("entries  {entries}, no limit{slope}"));
    }
    let part = entries as f64 / limit as f64;
    let full = ((part * BAR as f64).round() as usize).min(BAR);
    let tone = match part {
        0.8.. => Tone::Alarm,
        0.5.. => Tone::Warning,
        _ => Tone::Calm,
    };
    let bar = format!("{}{}", "|".repeat(full), " ".repeat(BAR - full));
    line(tone, format!("entries  {entries} of {limit} ({:.1} %) [{bar}]{slope}", part * 100.0))
}

/// How many, and whether the kernel holds them.
fn in_force(bans: &[Ban]) -> Line {
    let dry = bans.iter().filter(|ban| ban.dry_run).count();
    let missing = bans.iter().filter(|ban| !ban.dry_run && !ban.in_kernel).count();
    let dry =
        if dry > 0 { format!(", {dry} more in dry run: nobody is kept out by them") } else { String::new() };
    let in_force = bans.iter().filter(|ban| !ban.dry_run).count() - missing;
    match missing {
        0 => line(Tone::Plain, format!("bans     {in_force} in force{dry}")),
        _ => line(Tone::Alarm, format!("bans     {in_force} in force, {missing} MISSING in the kernel{dry}")),
    }
}

fn sources(look: &Look, growth: &Growth, view: &View, most: usize) -> Vec<Line> {
    let (rows, passed) = rows(look, growth, view.sort, &view.filter(), most);
    let width = rows.iter().map(|row| row.source.to_string().len()).max().unwrap_or(0).max(15);
    let mark = |sort: Sort, name: &str| if sort == view.sort { format!("{name}*") } else { name.to_owned() };
    let mut lines = vec![
        line(Tone::Plain, ""),
        line(
            Tone::Heading,
            format!(
                "{:width$} {:>9} {:>9} {:>9} {:>10} {:>11}  {}",
                "SOURCE",
                mark(Sort::Entries, "ENTRIES"),
                mark(Sort::Growth, "GROWTH"),
                mark(Sort::Assured, "ASSURED"),
                mark(Sort::HalfOpen, "HALF-OPEN"),
                mark(Sort::Socketless, "SOCKETLESS"),
                "BANNED"
            ),
        ),
    ];
    lines.extend(rows.iter().map(|row| one(row, look, width)));
    if rows.is_empty() {
        lines.push(line(Tone::Plain, "no source has any"));
    } else if view.filter.trim() != "" {
        lines.push(line(
            Tone::Plain,
            format!(
                "filter {:?} lets {passed} of {} sources pass",
                view.filter,
                look.summary.sources.iter().count()
            ),
        ));
    }
    lines
}

fn one(row: &Row, look: &Look, width: usize) -> Line {
    let counts = row.counts;
    let grown = row.grown.map_or_else(|| "-".to_owned(), |grown| format!("{grown:+}"));
    let socketless = match look.summary.judged {
        Some(_) => counts.socketless.to_string(),
        None => "-".to_owned(),
    };
    let ban = look.bans.iter().flatten().find(|ban| ban.holds(row.source));
    let text = format!(
        "{:width$} {:>9} {grown:>9} {:>9} {:>10} {socketless:>11}  {}",
        row.source.to_string(),
        counts.entries,
        counts.assured,
        counts.half_open,
        ban.map(banned).unwrap_or_default(),
    );
    line(Tone::Plain, text.trim_end())
}

/// `hoarder, 9 min left`
fn banned(ban: &Ban) -> String {
    let how = match (ban.dry_run, ban.in_kernel) {
        (true, _) => "dry run, ",
        (false, true) => "",
        (false, false) => "MISSING in the kernel, ",
    };
    let left = ban
        .remaining_seconds
        .map_or_else(|| "for ever".into(), |left| format!("{} left", span(Duration::from_secs(left))));
    format!("{how}{}{left}", ban.rule.as_deref().map(|rule| format!("{rule}, ")).unwrap_or_default())
}

/// Two units at most: `6 h 3 min`.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::growth::tests::after;

    fn text(lines: &[Line]) -> String {
        lines.iter().map(|line| format!("{}\n", line.text)).collect()
    }

    #[test]
    fn a_report_says_how_full_who_and_when() {
        let growth = after(&[(0, 1000, &[60, 5]), (10, 1000, &[75, 5])]);
        let view = View::new(Sort::Entries, "");
        let expected = "\
entries  80 of 1000 (8.0 %) [||                            ] +1.5/s, full in 10 min
dumped   80: assured 80, half-open 0, unreplied 0, socketless not known
sources  2 remote; opened by this host: 0
dropped  3 packets, 2 entries evicted early, since boot
bans     not known: no actioner runs here
sockets  not known: not asked

SOURCE           ENTRIES*    GROWTH   ASSURED  HALF-OPEN  SOCKETLESS  BANNED
198.51.100.0           75       +15        75          0           -
198.51.100.1            5        +0         5          0           -
";
        let lines = report(growth.latest().unwrap(), &growth, &view, 20);
        assert_eq!(text(&lines), expected);
        assert_eq!((lines[0].tone, lines[3].tone), (Tone::Calm, Tone::Warning));
    }

    #[test]
    fn bans_are_shown_with_what_the_kernel_holds() {
        let mut growth = after(&[(0, 10, &[4, 5])]);
        let ban = |net: &str, in_kernel, dry_run| Ban {
            net: net.parse().unwrap(),
            rule: Some("hoarder".into()),
            remaining_seconds: Some(540),
            in_kernel,
            dry_run,
        };
        let mut look = crate::top::growth::tests::look(std::time::Instant::now(), 10, &[4, 5]);
        look.bans = Ok(vec![
            ban("198.51.100.1/32", true, false),
            ban("198.51.100.0/32", false, false),
            ban("::/0", false, true),
        ]);
        growth.add(look);
        let lines = report(growth.latest().unwrap(), &growth, &View::new(Sort::Entries, ""), 20);
        let text = text(&lines);
        assert!(text.contains("bans     1 in force, 1 MISSING in the kernel, 1 more in dry run"), "{text}");
        assert!(text.contains("  hoarder, 9 min left\n"), "{text}");
        assert!(text.contains("  MISSING in the kernel, hoarder, 9 min left\n"), "{text}");
        assert_eq!(lines[0].tone, Tone::Alarm, "90 % full");
    }

    #[test]
    fn a_screen_is_as_high_as_the_terminal_and_ends_with_its_keys() {
        let growth = after(&[(0, 1000, &[1; 100])]);
        let look = growth.latest().unwrap();
        let mut view = View::new(Sort::Entries, "");
        for height in [1, 5, 12, 24, 60] {
            let lines = screen(look, &growth, &view, None, height);
            assert_eq!(lines.len(), height);
            assert!(lines[height - 1].text.starts_with("q quit"));
        }
        view.frozen = true;
        assert!(screen(look, &growth, &view, None, 24)[23].text.starts_with("FROZEN"));
        view.typing = true;
        view.filter = "100.9".into();
        let lines = screen(look, &growth, &view, Some("no memory"), 40);
        let text = text(&lines);
        assert!(text.contains("filter \"100.9\" lets 11 of 100 sources pass"), "{text}");
        assert!(text.contains("The last look failed") && text.contains("no memory"), "{text}");
        assert!(lines[39].text.ends_with("100.9_"));
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [(5, "5 s"), (60, "1 min"), (21_780, "6 h 3 min"), (180_000, "2 d 2 h")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
