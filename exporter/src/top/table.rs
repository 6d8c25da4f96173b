//! The table of sources, as wide as the terminal. Pure.

use std::time::Duration;

use super::bans::Ban;
use super::growth::Growth;
use super::look::Look;
use super::rows::{Row, Sort, rows};
use super::screen::{Line, Tone, line, span};
use super::view::View;

/// As wide as an IPv4 address.
const SOURCE: usize = 15;
/// Numbers, in the order in which they stand; each with the space before it, and room for the mark.
const COLUMNS: [(Sort, &str, usize); 5] = [
    (Sort::Entries, "ENTRIES", 9),
    (Sort::Growth, "GROWTH", 8),
    (Sort::Assured, "ASSURED", 9),
    (Sort::HalfOpen, "HALF-OPEN", 11),
    (Sort::Socketless, "SOCKETLESS", 12),
];
/// In which order they are given up, where the terminal is narrow; what is sorted by stays, and so does how many.
const GIVEN_UP: [Sort; 4] = [Sort::Assured, Sort::HalfOpen, Sort::Growth, Sort::Socketless];
/// `  9 min, hoarder`: what is cut off of a ban is its rule's name.
const BANNED: usize = 16;

pub(super) fn sources(
    look: &Look,
    growth: &Growth,
    view: &View,
    most: usize,
    width: Option<usize>,
) -> Vec<Line> {
    let (rows, passed) = rows(look, growth, view.sort, &view.filter(), most);
    let bans: Vec<Option<&Ban>> = rows.iter().map(|row| ban(row, look)).collect();
    let reserved = if bans.iter().any(Option::is_some) { BANNED } else { 0 };
    let longest = rows.iter().map(|row| row.source.to_string().len()).max().unwrap_or(0).max(SOURCE);
    let columns = columns(view.sort, width.map(|width| width.saturating_sub(longest + reserved)));
    let taken: usize = columns.iter().map(|(_, _, width)| width).sum();
    // Numbers before the whole of an address.
    let source = width.map_or(longest, |width| longest.min(width.saturating_sub(taken).max(SOURCE)));
    let mut heading = format!("{:source$}", "SOURCE");
    for (sort, name, width) in &columns {
        let marked = if *sort == view.sort { format!("{name}*") } else { (*name).to_owned() };
        heading += &format!("{marked:>width$}");
    }
    if width.is_none_or(|width| heading.len() + "  BANNED".len() <= width) {
        heading += "  BANNED";
    }
    let mut lines = vec![line(Tone::Heading, heading)];
    let all = rows.iter().zip(bans);
    lines.extend(all.map(|(row, ban)| one(row, look, ban, &columns, source)));
    if rows.is_empty() {
        let none = match view.sort {
            Sort::Entries => "no remote source has an entry",
            _ => "no source has any of these",
        };
        lines.push(line(Tone::Plain, none));
    }
    if view.filters() {
        let all = look.summary.sources.iter().count();
        lines
            .push(line(Tone::Plain, format!("filter {:?} lets {passed} of {all} sources pass", view.filter)));
    }
    lines
}

/// Those that have room beside the source and its ban.
fn columns(by: Sort, room: Option<usize>) -> Vec<(Sort, &'static str, usize)> {
    let mut columns = COLUMNS.to_vec();
    for sort in GIVEN_UP.into_iter().filter(|sort| *sort != by) {
        let taken: usize = columns.iter().map(|(_, _, width)| width).sum();
        if room.is_none_or(|room| taken <= room) {
            break;
        }
        columns.retain(|(column, _, _)| *column != sort);
    }
    columns
}

fn ban<'a>(row: &Row, look: &'a Look) -> Option<&'a Ban> {
    look.bans.iter().flatten().find(|ban| ban.holds(row.source))
}

/// Its beginning and its end: hosts of one network differ there.
fn shortened(address: String, room: usize) -> String {
    match address.len().checked_sub(room) {
        None | Some(0) => address,
        Some(_) => {
            let end = room / 3;
            format!("{}…{}", &address[..room - end - 1], &address[address.len() - end..])
        }
    }
}

fn one(row: &Row, look: &Look, ban: Option<&Ban>, columns: &[(Sort, &str, usize)], source: usize) -> Line {
    let counts = row.counts;
    let mut text = format!("{:source$}", shortened(row.source.to_string(), source));
    for (sort, _, width) in columns {
        let number = match sort {
            Sort::Entries => counts.entries.to_string(),
            Sort::Growth => row.grown.map_or_else(|| "-".to_owned(), |grown| format!("{grown:+}")),
            Sort::Assured => counts.assured.to_string(),
            Sort::HalfOpen => counts.half_open.to_string(),
            Sort::Socketless if look.summary.judged.is_none() => "-".to_owned(),
            Sort::Socketless => counts.socketless.to_string(),
        };
        text += &format!("{number:>width$}");
    }
    text += &ban.map(|ban| format!("  {}", banned(ban))).unwrap_or_default();
    line(Tone::Plain, text)
}

/// `9 min, hoarder`
fn banned(ban: &Ban) -> String {
    let how = match (ban.dry_run, ban.in_kernel) {
        (true, _) => "dry run, ",
        (false, true) => "",
        (false, false) => "MISSING in the kernel, ",
    };
    let left = left(ban);
    format!("{how}{left}{}", ban.rule.as_deref().map(|rule| format!(", {rule}")).unwrap_or_default())
}

/// How long it lasts.
pub(super) fn left(ban: &Ban) -> String {
    ban.remaining_seconds.map_or_else(|| "for ever".into(), |left| span(Duration::from_secs(left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(by: Sort, room: usize) -> String {
        let names: Vec<_> = columns(by, Some(room)).into_iter().map(|(_, name, _)| name).collect();
        names.join(" ").to_lowercase()
    }

    #[test]
    fn a_narrow_terminal_has_fewer_columns_and_always_the_one_that_is_sorted_by() {
        assert_eq!(columns(Sort::Entries, None).len(), 5, "a file is as wide as it needs");
        assert_eq!(names(Sort::Entries, 49), "entries growth assured half-open socketless");
        assert_eq!(names(Sort::Entries, 48), "entries growth half-open socketless");
        assert_eq!(names(Sort::Entries, 29), "entries growth socketless");
        assert_eq!(names(Sort::Assured, 29), "entries assured");
        assert_eq!(names(Sort::Entries, 9), "entries");
        assert_eq!(names(Sort::Socketless, 9), "entries socketless");
    }

    #[test]
    fn an_address_without_room_keeps_both_ends() {
        let address = || "2001:db8:1234:5678:9abc:def0:1111:28".to_owned();
        assert_eq!(shortened(address(), 36), address());
        assert_eq!(shortened(address(), 24), "2001:db8:1234:5…:1111:28");
        assert_eq!(shortened("198.51.100.7".into(), 15), "198.51.100.7");
    }
}
