//! Single values: switches, numbers, durations, words, networks. Each says what it wanted and what it found.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::fields::Field;
use super::network;
use super::problem::Log;
use super::rule::BanAction;
use super::tree::Kind;
use crate::foreign::shorten;

impl<'n> Field<'n> {
    /// A word or text, quoted or not, but not nothing.
    pub(super) fn text(&self, what: &str, log: &mut Log<'_>) -> Option<&'n str> {
        match &self.node.kind {
            Kind::Text { text, .. } if !self.node.is_nothing() => Some(text),
            _ => {
                self.expected(what, log);
                None
            }
        }
    }

    /// A text without quotes, as numbers and switches are written.
    fn plain(&self) -> Option<&'n str> {
        match &self.node.kind {
            Kind::Text { text, plain: true } => Some(text),
            _ => None,
        }
    }

    /// `true` or `false`: YAML 1.1's yes and no mean nothing here, for half of all readers take them for texts.
    pub(super) fn switch(&self, log: &mut Log<'_>) -> Option<bool> {
        let plain = self.plain();
        match plain {
            Some("true") => return Some(true),
            Some("false") => return Some(false),
            _ => {}
        }
        let meant = match plain.map(str::to_lowercase).as_deref() {
            Some("yes" | "y" | "on" | "true" | "1") => " (write true)",
            Some("no" | "n" | "off" | "false" | "0") => " (write false)",
            _ => ", without quotes",
        };
        self.expected(&format!("true or false{meant}"), log);
        None
    }

    /// A whole number within the range.
    pub(super) fn number<N>(&self, range: RangeInclusive<N>, log: &mut Log<'_>) -> Option<N>
    where
        N: FromStr + PartialOrd + std::fmt::Display,
    {
        let digits = self.plain().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| range.contains(number));
        if number.is_none() {
            self.expected(&format!("a whole number from {} to {}", range.start(), range.end()), log);
        }
        number
    }

    /// Per cent, above 0 and at most 100.
    pub(super) fn percent(&self, log: &mut Log<'_>) -> Option<f64> {
        let digits =
            self.plain().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
        let percent =
            digits.and_then(|digits| digits.parse().ok()).filter(|number| *number > 0.0 && *number <= 100.0);
        if percent.is_none() {
            self.expected("a number of per cent above 0 and at most 100, such as 50", log);
        }
        percent
    }

    /// A length of time such as `10m`, at least `shortest`, at most what ipset can hold.
    pub(super) fn duration(&self, shortest: Duration, log: &mut Log<'_>) -> Option<Duration> {
        let shape = "a length of time with its unit, such as 30s, 10m, 1h 30m or 24h";
        let text = self.text(shape, log)?;
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            log.error(
                self.place(),
                format!("`{}` lacks a unit: is `{text}` {text}s, {text}m or {text}h?", self.path),
            );
            return None;
        }
        let Ok(duration) = humantime::parse_duration(text) else {
            self.expected(shape, log);
            return None;
        };
        let bound = if duration < shortest {
            format!("at least {}", humantime::format_duration(shortest))
        } else if duration > BanAction::LONGEST {
            let days = humantime::format_duration(BanAction::LONGEST);
            format!("at most {}s ({days}), the longest timeout ipset can hold", BanAction::LONGEST.as_secs())
        } else {
            return Some(duration);
        };
        self.expected(&bound, log);
        None
    }

    /// An address or a network.
    pub(super) fn network(&self, also: &str, log: &mut Log<'_>) -> Option<IpNet> {
        let text = self.text(&format!("an address, a network{also}"), log)?;
        match network::parse(text) {
            Ok(network) => Some(network),
            Err(error) => {
                log.error(self.place(), format!("`{}`: {error}", self.path));
                None
            }
        }
    }

    /// One of a few words; `words` lists them for the message.
    pub(super) fn word<T>(&self, words: &[(&str, T)], log: &mut Log<'_>) -> Option<T>
    where
        T: Copy,
    {
        let list = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" or ");
        let text = self.text(&list, log)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            self.expected(&list, log);
        }
        found
    }

    /// A name made of letters, digits, `_`, `-` and `.`, beginning with a letter or digit.
    pub(super) fn name(&self, longest: usize, log: &mut Log<'_>) -> Option<&'n str> {
        let what = format!(
            "a name of at most {longest} letters, digits, _, - and ., beginning with a letter or digit"
        );
        let text = self.text(&what, log)?;
        let sane = text.len() <= longest
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        if !sane {
            log.error(self.place(), format!("`{}` must be {what}, found `{}`", self.path, shorten(text, 60)));
        }
        sane.then_some(text)
    }
}
