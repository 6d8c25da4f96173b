//! What strangers write into a request, and a web configuration that somebody has bent: what must hold whatever is in them. The
//! bodies of the fuzz targets in `fuzz/`; `make test` calls them with everything that was ever found worth keeping there.
//! Not for programs.

use crate::exposition::Format;
use crate::negotiate::negotiate;
use crate::query::pairs;
use crate::security::read_hostile;

/// An `Accept` header: only who names a type that OpenMetrics is of gets it; case and order of the ranges change nothing.
pub fn accept(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let format = negotiate(Some(text));
    assert!(format == Format::Classic || text.contains('/'), "{text:?}");
    let reversed: Vec<&str> = text.split(',').rev().collect();
    assert_eq!(negotiate(Some(&reversed.join(","))), format, "{text:?}");
    assert_eq!(negotiate(Some(&text.to_ascii_uppercase())), format, "{text:?}");
}

/// A query string: no pair is lost, and none is longer than what was sent.
pub fn query(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let read: Vec<(String, String)> = pairs(text).collect();
    assert_eq!(read.len(), text.split('&').filter(|pair| !pair.is_empty()).count());
    // A replacement character takes three bytes, for one that was encoded in as many.
    let longest = read.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    assert!(longest <= text.len() * 3);
}

/// The text of a web configuration, read with what it holds itself; what it names is not read here. No message holds a value.
pub fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    read_hostile(text);
}
