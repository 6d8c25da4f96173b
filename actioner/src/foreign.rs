//! Text that others wrote, made fit to stand in a message of ours: short, on one line, without control characters.

/// At most `limit` characters of a foreign text, control characters written out; an ellipsis says
/// that some are left out.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == limit {
            shown.push('…');
            break;
        }
        match c {
            '\'' | '"' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn keeps_what_fits_and_marks_what_does_not() {
        assert_eq!(shorten("192.0.2.1", 9), "192.0.2.1");
        assert_eq!(shorten("192.0.2.10", 9), "192.0.2.1…");
        assert_eq!(shorten("a\n\x1b[31m'\"", 60), "a\\n\\u{1b}[31m'\"");
    }
}
