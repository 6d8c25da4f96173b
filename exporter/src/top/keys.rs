//! What a terminal sends for a key. Pure.

/// The keys that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    /// Ctrl-C or Ctrl-D: in raw mode they are bytes like any other.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
}

/// The keys in what was read at once. Escape sequences (arrows and the like) mean nothing here.
pub(super) fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((first, mut tail)) = rest.split_first() {
        match first {
            0x03 | 0x04 => keys.push(Key::Interrupt),
            0x1a => keys.push(Key::Suspend),
            b'\r' | b'\n' => keys.push(Key::Enter),
            0x08 | 0x7f => keys.push(Key::Backspace),
            0x1b => match tail.first() {
                // CSI ends with a letter or ~; SS3 has one letter.
                Some(b'[') => {
                    let end = tail.iter().skip(1).position(|byte| (0x40..=0x7e).contains(byte));
                    tail = &tail[end.map_or(tail.len(), |end| end + 2)..];
                }
                Some(b'O') => tail = tail.get(2..).unwrap_or_default(),
                _ => keys.push(Key::Escape),
            },
            0x20..=0x7e => keys.push(Key::Char(char::from(*first))),
            _ => {}
        }
        rest = tail;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_keys_and_arrows_are_none() {
        assert_eq!(keys(b"q"), [Key::Char('q')]);
        assert_eq!(keys(b"/1\x7f\r"), [Key::Char('/'), Key::Char('1'), Key::Backspace, Key::Enter]);
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(keys(b"\x1b[Aq\x1b[15~s\x1bOPe"), [Key::Char('q'), Key::Char('s'), Key::Char('e')]);
        assert_eq!(keys(b"\x1b[1;"), []);
        assert_eq!(keys(b"\x03\x1a"), [Key::Interrupt, Key::Suspend]);
        assert_eq!(keys("ü".as_bytes()), []);
    }
}
