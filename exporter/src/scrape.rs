//! What a scrape asks for, and until when. Pure.

use std::time::Duration;

use crate::collector::{Collector, Collectors};

/// What Prometheus needs to send, read and parse the answer.
const RESERVE: Duration = Duration::from_millis(500);

/// A scrape's wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scrape {
    /// Which collectors it wants.
    pub(crate) collectors: Collectors,
    /// How long it can wait; None: as long as it takes.
    pub(crate) patience: Option<Duration>,
}

/// A `collect[]` that cannot be obeyed: the words of the 400.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No collector has this name.
    #[error("collect[]={0}: there is no such collector; those there are: {names}", names = names())]
    Unknown(String),
    /// It was switched off.
    #[error("collect[]={name}: this collector is disabled (--no-collector.{name})", name = .0.name())]
    Disabled(Collector),
}

impl Scrape {
    /// Reads the query's pairs and the header `X-Prometheus-Scrape-Timeout-Seconds`.
    ///
    /// Without `collect[]` all that are enabled are meant, as in node_exporter. A timeout that is no positive number is
    /// none: a scraper's slip must not cost the scrape.
    pub(crate) fn read(
        query: impl IntoIterator<Item = (String, String)>,
        timeout: Option<&str>,
        enabled: Collectors,
    ) -> Result<Scrape, Refusal> {
        let asked = query.into_iter().filter(|(key, _)| key == "collect[]").map(|(_, name)| {
            let collector = Collector::named(&name).ok_or(Refusal::Unknown(name))?;
            if enabled.has(collector) { Ok(collector) } else { Err(Refusal::Disabled(collector)) }
        });
        let asked = asked.collect::<Result<Collectors, _>>()?;
        let collectors = if asked == Collectors::default() { enabled } else { asked };
        Ok(Scrape { collectors, patience: timeout.and_then(patience) })
    }
}

fn patience(timeout: &str) -> Option<Duration> {
    let timeout = timeout.trim().parse().ok().filter(|seconds: &f64| *seconds > 0.0)?;
    Duration::try_from_secs_f64(timeout).ok().map(|timeout| timeout.saturating_sub(RESERVE))
}

fn names() -> String {
    Collector::ALL.map(Collector::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str], timeout: Option<&str>, enabled: Collectors) -> Result<Scrape, Refusal> {
        let query = names.iter().map(|name| ("collect[]".to_owned(), (*name).to_owned()));
        Scrape::read(query, timeout, enabled)
    }

    #[test]
    fn without_a_wish_all_that_are_enabled() {
        let enabled = [Collector::Table, Collector::Flows].into_iter().collect();
        assert_eq!(read(&[], None, enabled).unwrap(), Scrape { collectors: enabled, patience: None });
        let asked = read(&["flows", "flows"], None, enabled).unwrap();
        assert_eq!(asked.collectors.iter().collect::<Vec<_>>(), [Collector::Flows]);
        let other = [("exclude[]".to_owned(), "x".to_owned())];
        assert_eq!(Scrape::read(other, None, enabled).unwrap().collectors, enabled);
    }

    #[test]
    fn a_name_that_is_unknown_or_off_is_named() {
        let enabled = [Collector::Table].into_iter().collect();
        let error = read(&["table", "hosts"], None, enabled).unwrap_err().to_string();
        assert_eq!(
            error,
            "collect[]=hosts: there is no such collector; those there are: table, stat, flows, sources, sockets, timeouts"
        );
        let error = read(&["flows"], None, enabled).unwrap_err().to_string();
        assert_eq!(error, "collect[]=flows: this collector is disabled (--no-collector.flows)");
    }

    #[test]
    fn the_deadline_leaves_half_a_second() {
        let patience =
            |timeout| read(&[], Some(timeout), Collector::ALL.into_iter().collect()).unwrap().patience;
        assert_eq!(patience("10"), Some(Duration::from_millis(9500)));
        assert_eq!(patience("0.25"), Some(Duration::ZERO));
        for odd in ["", "abc", "0", "-1", "NaN", "inf", "1e300"] {
            assert_eq!(patience(odd), None, "{odd}");
        }
    }
}
