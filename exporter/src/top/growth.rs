//! How the table grows: the looks so far, as far as they are needed.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::look::Look;

/// A slope is taken over so long: shorter, and one burst is a trend.
const WINDOW: Duration = Duration::from_secs(60);
/// Nobody waits for what comes later.
const HORIZON: f64 = 365.0 * 86_400.0;

/// The latest look, the one before, and how many entries there were.
#[derive(Debug, Default)]
pub(super) struct Growth {
    latest: Option<Look>,
    before: Option<Look>,
    entries: VecDeque<(Instant, u64)>,
}

impl Growth {
    /// Takes a look in.
    pub(super) fn add(&mut self, look: Look) {
        self.entries.push_back((look.at, look.size.entries));
        while self.entries.len() > 2 && look.at.duration_since(self.entries[1].0) >= WINDOW {
            self.entries.pop_front();
        }
        self.before = self.latest.replace(look);
    }

    pub(super) fn latest(&self) -> Option<&Look> {
        self.latest.as_ref()
    }

    /// Entries a second, over the last minute; None before the second look.
    pub(super) fn per_second(&self) -> Option<f64> {
        let ((began, first), (ended, last)) = (self.entries.front()?, self.entries.back()?);
        let seconds = ended.duration_since(*began).as_secs_f64();
        (seconds > 0.0).then(|| (*last as f64 - *first as f64) / seconds)
    }

    /// When the table is full if it goes on like this; None: never, not within a year, or not known.
    pub(super) fn full_in(&self) -> Option<Duration> {
        let (slope, size) = (self.per_second()?, self.latest.as_ref()?.size);
        let seconds = size.limit.saturating_sub(size.entries) as f64 / slope;
        (slope > 0.0 && size.limit > 0 && seconds < HORIZON).then(|| Duration::from_secs_f64(seconds))
    }

    /// Entries of a source more than at the look before; None at the first look, or where it is not known.
    pub(super) fn of(&self, source: IpAddr) -> Option<i64> {
        let entries = |look: &Look| look.summary.sources.get(source).map(|counts| i64::from(counts.entries));
        Some(entries(self.latest.as_ref()?)? - entries(self.before.as_ref()?)?)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sample::{ASSURED, flow};
    use crate::sysctl::Size;
    use conntrack::{Protocol, State, Summary, TcpState};
    use std::time::SystemTime;

    /// A look at a table in which host n of 198.51.100.0/24 holds `held[n]` established entries.
    pub(in crate::top) fn look(at: Instant, limit: u64, held: &[u32]) -> Look {
        let mut summary = Summary::new();
        for (host, entries) in (0..).zip(held) {
            for _ in 0..*entries {
                summary.add(&flow(
                    [198, 51, 100, host],
                    Protocol::TCP,
                    State::Tcp(TcpState::Established),
                    ASSURED,
                ));
            }
        }
        let size = Size { entries: summary.entries, limit, buckets: Some(limit) };
        Look {
            at,
            clock: SystemTime::UNIX_EPOCH,
            size,
            summary,
            sockets: Err("not asked".into()),
            own: Ok(()),
            dropped: Some((3, 2)),
            bans: Err("no actioner runs here".into()),
        }
    }

    pub(in crate::top) fn after(looks: &[(u64, u64, &[u32])]) -> Growth {
        let began = Instant::now();
        let mut growth = Growth::default();
        for (second, limit, held) in looks {
            growth.add(look(began + Duration::from_secs(*second), *limit, held));
        }
        growth
    }

    #[test]
    fn time_to_full_is_what_the_last_minute_says() {
        let full_in = |looks: &[(u64, u64, &[u32])]| after(looks).full_in().map(|time| time.as_secs());
        assert_eq!(full_in(&[(0, 100, &[10])]), None, "one look tells no growth");
        assert_eq!(full_in(&[(0, 100, &[10]), (10, 100, &[20])]), Some(80));
        assert_eq!(full_in(&[(0, 100, &[20]), (10, 100, &[10])]), None, "shrinking");
        assert_eq!(full_in(&[(0, 100, &[20]), (10, 100, &[20])]), None, "steady");
        assert_eq!(full_in(&[(0, 0, &[10]), (10, 0, &[20])]), None, "no limit");
        assert_eq!(full_in(&[(0, 100, &[0]), (10, 100, &[100])]), Some(0), "full");
        let burst_long_ago: &[(u64, u64, &[u32])] =
            &[(0, 200, &[0]), (10, 200, &[100]), (70, 200, &[100]), (80, 200, &[102])];
        assert_eq!(full_in(burst_long_ago), Some(98 * 70 / 2), "only from second 10 on");
    }

    #[test]
    fn a_source_grows_from_look_to_look() {
        let growth = after(&[(0, 100, &[10, 5]), (2, 100, &[12, 0, 7])]);
        let of = |host: u8| growth.of([198, 51, 100, host].into());
        assert_eq!([of(0), of(1), of(2), of(9)], [Some(2), Some(-5), Some(7), Some(0)]);
        assert_eq!(after(&[(0, 100, &[10])]).of([198, 51, 100, 0].into()), None);
    }
}
