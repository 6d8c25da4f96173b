//! Query strings.

use std::iter;

/// The pairs of a query string in their order, percent-decoded, `+` a space; repeated keys stay, a key without `=` has
/// an empty value. What is no percent-encoding stands for itself, as in browsers (WHATWG URL, 5.1).
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

fn decode(text: &str) -> String {
    let mut rest = text.as_bytes();
    let bytes: Vec<u8> = iter::from_fn(|| {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(*high) << 4 | hex(*low), after)
            }
            [b'+', after @ ..] => (b' ', after),
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        rest = after;
        Some(byte)
    })
    .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(query: &str, expected: &[(&str, &str)]) {
        let pairs: Vec<_> = pairs(query).collect();
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, expected);
    }

    #[test]
    fn repeated_and_encoded_keys() {
        reads("collect[]=table&collect%5B%5D=stat&", &[("collect[]", "table"), ("collect[]", "stat")]);
        reads("", &[]);
        reads("a&b=&=c&d=e=f", &[("a", ""), ("b", ""), ("", "c"), ("d", "e=f")]);
    }

    #[test]
    fn broken_encodings_stand_for_themselves() {
        reads(
            "a=%&b=%4&c=%zz&d=1%2B1+%E2%82%ac&e=%ff",
            &[("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "1+1 \u{20ac}"), ("e", "\u{fffd}")],
        );
    }
}
