//! Looks as lines of text. Pure.

use std::time::Duration;

use conntrack::summary::Mark;

use super::bans::Ban;
use super::growth::Growth;
use super::look::Look;
use super::table;
use super::view::View;

/// The longest and the shortest that says anything.
const BAR: (usize, usize) = (30, 8);
/// The last line, from the widest terminal to the narrowest.
const KEYS: [&str; 3] = [
    "q quit  space freeze  / filter  Esc all  sort by: e entries  a assured  h half-open  s socketless  g growth",
    "q quit  space freeze  / filter  Esc all  sort by: e a h s g",
    "q quit  space  /  Esc  e a h s g",
];
/// So many sources show who it is: where they have no room, what is calm gives way.
const ENOUGH: usize = 5;
/// Of the bans so many are named; all are told by `conntrack-actioner bans`.
const NAMED: usize = 3;
/// Summary lines go on below their first word.
const INDENT: usize = 9;

/// How a line is to be seen, where there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// The first to go where there is little room.
    Quiet,
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

pub(super) fn line(tone: Tone, text: impl Into<String>) -> Line {
    Line { text: text.into(), tone }
}

/// What is printed where there is no terminal: as wide as it is.
pub(super) fn report(look: &Look, growth: &Growth, view: &View, most: usize) -> Vec<Line> {
    let mut lines = summary(look, growth, None);
    lines.push(line(Tone::Plain, ""));
    lines.extend(table::sources(look, growth, view, most, None));
    lines
}

/// A screen of so many lines and columns: summary, sources, keys. `trouble` is why the last look failed.
pub(super) fn screen(
    look: &Look,
    growth: &Growth,
    view: &View,
    trouble: Option<&str>,
    (height, width): (usize, usize),
) -> Vec<Line> {
    let mut lines = summary(look, growth, Some(width));
    if let Some(trouble) = trouble {
        lines.push(line(Tone::Alarm, format!("The last look failed, this is the one before: {trouble}")));
    }
    lines = lines.iter().flat_map(|line| wrapped(line, width)).collect();
    let listed = look.summary.sources.iter().take(ENOUGH).count().max(1);
    // An empty line, the table's heading, and the keys.
    if lines.len() + listed + 3 > height {
        lines.retain(|line| line.tone != Tone::Quiet);
    } else {
        lines.push(line(Tone::Plain, ""));
    }
    let room = height.saturating_sub(lines.len() + 2 + usize::from(view.filters()));
    lines.extend(table::sources(look, growth, view, room, Some(width)));
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), line(Tone::Plain, ""));
    lines.push(last(view, width));
    lines
}

fn last(view: &View, width: usize) -> Line {
    let frozen = if view.frozen { "FROZEN  " } else { "" };
    let room = width.saturating_sub(frozen.len());
    let keys = KEYS.into_iter().find(|keys| keys.len() <= room).unwrap_or(KEYS[KEYS.len() - 1]);
    match (view.typing, view.frozen) {
        (true, _) => {
            let asked = if width < 60 { "filter" } else { "filter, a network or a part of the address" };
            line(Tone::Heading, format!("{asked}: {}_", view.filter))
        }
        (false, true) => line(Tone::Warning, format!("{frozen}{keys}")),
        (false, false) => line(Tone::Plain, keys),
    }
}

/// A line that is too long, continued below its first word where a space allows it.
fn wrapped(line: &Line, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rest = line.text.as_str();
    let mut indent = "";
    loop {
        let room = width.saturating_sub(indent.len());
        let cut = match rest.char_indices().nth(room) {
            Some((end, _)) => rest[..end].rfind(' ').filter(|cut| *cut > INDENT || !indent.is_empty()),
            None => None,
        };
        let (now, later) = cut.map_or((rest, ""), |cut| (&rest[..cut], rest[cut..].trim_start()));
        lines.push(Line { text: format!("{indent}{now}"), tone: line.tone });
        if later.is_empty() {
            return lines;
        }
        (rest, indent) = (later, &"         "[..INDENT]);
    }
}

fn summary(look: &Look, growth: &Growth, width: Option<usize>) -> Vec<Line> {
    let summary = &look.summary;
    let judged = match (&look.sockets, summary.judged) {
        (Ok(()), Some(judged)) if judged.deferred > 0 => {
            format!("socketless {}, deferred {}", judged.socketless, judged.deferred)
        }
        (Ok(()), Some(judged)) => format!("socketless {}", judged.socketless),
        _ => "socketless not known".to_owned(),
    };
    let mut lines = vec![
        fill(look, growth, width),
        line(
            Tone::Quiet,
            format!(
                "dumped   {}: assured {}, half-open {}, unreplied {}, {judged}",
                summary.entries,
                look.marked(Mark::Assured),
                summary.half_open(),
                look.marked(Mark::Unreplied),
            ),
        ),
        line(
            Tone::Quiet,
            format!("sources  {} remote; opened by this host: {}", summary.sources.distinct(), summary.local),
        ),
    ];
    lines.push(match look.dropped {
        Some((0, 0)) => line(Tone::Quiet, "dropped  0 packets, 0 entries evicted early, since boot"),
        Some((drop, early)) => {
            line(Tone::Warning, format!("dropped  {drop} packets, {early} entries evicted early, since boot"))
        }
        None => line(Tone::Quiet, "dropped  not known: this kernel does not say"),
    });
    lines.push(match &look.bans {
        Ok(bans) => in_force(bans),
        Err(why) => line(Tone::Quiet, format!("bans     not known: {why}")),
    });
    if let Some(banned) = look.bans.as_ref().ok().and_then(|bans| banned(bans)) {
        lines.push(banned);
    }
    if let Err(why) = &look.sockets {
        lines.push(line(Tone::Warning, format!("sockets  not known: {why}")));
    }
    if let Err(why) = &look.own {
        lines.push(line(Tone::Warning, format!("this host's own addresses stand among the sources: {why}")));
    }
    lines
}

/// `entries  83 of 262144 (0.0 %) [||        ] +12.0/s, full in 6 h`; the bar is as long as there is room for it.
fn fill(look: &Look, growth: &Growth, width: Option<usize>) -> Line {
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
    let tone = match part {
        0.8.. => Tone::Alarm,
        0.5.. => Tone::Warning,
        _ => Tone::Calm,
    };
    let head = format!("entries  {entries} of {limit} ({:.1} %)", part * 100.0);
    // A space and two brackets.
    let room = width.map_or(BAR.0, |width| width.saturating_sub(head.len() + slope.len() + 3));
    line(tone, format!("{head}{}{slope}", bar(part, room.min(BAR.0))))
}

fn bar(part: f64, long: usize) -> String {
    if long < BAR.1 {
        return String::new();
    }
    let full = ((part * long as f64).round() as usize).min(long);
    format!(" [{}{}]", "|".repeat(full), " ".repeat(long - full))
}

/// `banned   198.51.100.66 9 min, 203.0.113.9 2 h 5 min, and 8 more`: who is kept out has no entries, and so no row.
fn banned(bans: &[Ban]) -> Option<Line> {
    let held: Vec<&Ban> = bans.iter().filter(|ban| ban.in_kernel && !ban.dry_run).collect();
    let named = held.iter().take(NAMED).map(|ban| format!("{} {}", ban.whom(), table::left(ban)));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match held.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    (!held.is_empty()).then(|| line(Tone::Quiet, format!("banned   {named}{more}")))
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

/// Two units at most: `6 h 3 min`.
pub(super) fn span(time: Duration) -> String {
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
    use crate::top::rows::Sort;

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

SOURCE          ENTRIES*  GROWTH  ASSURED  HALF-OPEN  SOCKETLESS  BANNED
198.51.100.0          75     +15       75          0           -
198.51.100.1           5      +0        5          0           -
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
        assert!(text.contains("\nbanned   198.51.100.1 9 min\n"), "{text}");
        assert!(text.contains("  9 min, hoarder\n"), "{text}");
        assert!(text.contains("  MISSING in the kernel, 9 min, hoarder\n"), "{text}");
        assert_eq!(lines[0].tone, Tone::Alarm, "90 % full");
    }

    #[test]
    fn a_screen_is_as_high_as_the_terminal_and_ends_with_its_keys() {
        let growth = after(&[(0, 1000, &[1; 100])]);
        let look = growth.latest().unwrap();
        let mut view = View::new(Sort::Entries, "");
        for height in [1, 5, 12, 24, 60] {
            let lines = screen(look, &growth, &view, None, (height, 120));
            assert_eq!(lines.len(), height);
            assert!(lines[height - 1].text.starts_with("q quit"));
        }
        view.frozen = true;
        assert!(screen(look, &growth, &view, None, (24, 120))[23].text.starts_with("FROZEN"));
        view.typing = true;
        view.filter = "100.9".into();
        let lines = screen(look, &growth, &view, Some("no memory"), (40, 120));
        let text = text(&lines);
        assert!(text.contains("filter \"100.9\" lets 11 of 100 sources pass"), "{text}");
        assert!(text.contains("The last look failed") && text.contains("no memory"), "{text}");
        assert!(lines[39].text.ends_with("100.9_"));
    }

    #[test]
    fn a_small_screen_still_says_how_full_when_and_who() {
        let growth = after(&[(0, 1000, &[60, 5]), (10, 1000, &[75, 5])]);
        let look = growth.latest().unwrap();
        let shown = |size| text(&screen(look, &growth, &View::new(Sort::Entries, ""), None, size));
        let expected = "\
entries  80 of 1000 (8.0 %) +1.5/s,
         full in 10 min
dropped  3 packets, 2 entries evicted
         early, since boot
sockets  not known: not asked
SOURCE          ENTRIES*  SOCKETLESS
198.51.100.0          75           -
198.51.100.1           5           -

q quit  space  /  Esc  e a h s g
";
        assert_eq!(shown((10, 40)), expected);
        assert!(shown((24, 80)).starts_with(
            "entries  80 of 1000 (8.0 %) [||                         ] +1.5/s, full in 10 min\ndumped"
        ));
        for width in 1..200 {
            let wide = shown((24, width)).lines().map(|line| line.chars().count()).max();
            assert!(width < 40 || wide <= Some(width), "{width}: {wide:?}");
        }
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [(5, "5 s"), (60, "1 min"), (21_780, "6 h 3 min"), (180_000, "2 d 2 h")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
