//! The state as the store keeps it: the same boot's clock goes on, another boot's is told by the wall clock, once.

use super::bucket::Bucket;
use super::ledger::{Cause, Ledger, Offences, Row};
use super::{Breaker, Grace, Pause, State};
use crate::now::Now;
use crate::spared::{Memory, Remembered};
use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::time::Duration;

/// What the file is, so that another program's is not taken for it.
pub const FORMAT: &str = "conntrack-guard state";
/// Raised when an older program could not read it rightly.
pub const VERSION: u32 = 1;

/// Which machine, which boot, which moment.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Tells machines apart; empty where the machine has no id.
    pub machine: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The moment.
    pub now: Now,
}

/// The first fields of the file, which every version has.
#[derive(Debug, Deserialize)]
pub struct Head {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the program that wrote it.
    pub version: u32,
    /// The machine it was written on.
    #[serde(default)]
    pub machine: String,
}

/// The whole file. Times are deadlines on the boot clock of `boot_id`, in milliseconds.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved<'s> {
    format: String,
    version: u32,
    machine: String,
    boot_id: String,
    #[serde(with = "super::milliseconds")]
    boot: Duration,
    /// Milliseconds since 1970.
    wall: u64,
    enforced: SavedLedger<'s>,
    dry_run: SavedLedger<'s>,
    grace: Vec<SavedGrace>,
    breaker: Breaker,
    pause: Option<Pause>,
    remembered: Vec<Memory>,
}

impl Saved<'_> {
    /// Whether its boot clock is the one that goes on now. One that was ahead is another, whatever the boot id says: a time
    /// namespace's, or that of a machine that was put back to an earlier moment.
    pub fn is_of(&self, clock: &Clock) -> bool {
        self.boot_id == clock.boot_id && self.boot <= clock.now.boot
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SavedLedger<'s> {
    bans: Vec<SavedBan<'s>>,
    offences: Vec<SavedOffences<'s>>,
    minute: Bucket,
    hour: Bucket,
}

/// A [`Row`]. There can be 65,536 of them, and somebody waits for each to be written: nothing of it is copied, and none of its fields
/// flattened, which serde reads twice.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SavedBan<'s> {
    #[serde(serialize_with = "whole")]
    net: IpNet,
    cause: Cow<'s, Cause>,
    #[serde(with = "super::milliseconds::optional")]
    until: Option<Duration>,
    since: u64,
}

/// [`Offences`].
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SavedOffences<'s> {
    #[serde(serialize_with = "whole")]
    net: IpNet,
    rule: Cow<'s, str>,
    count: u32,
    #[serde(with = "super::milliseconds")]
    forgotten: Duration,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SavedGrace {
    net: IpNet,
    #[serde(flatten)]
    grace: Grace,
}

/// In one piece: ipnet's own way gives serde_json eight, each of which is looked through for what has to be escaped.
fn whole<S: Serializer>(net: &IpNet, serializer: S) -> Result<S::Ok, S::Error> {
    let IpNet::V4(four) = net else { return serializer.serialize_str(&net.to_string()) };
    // By hand: 65,536 of them take 1.7 ms so and 8.7 ms by `fmt` (release build), and a ban has two.
    let mut text = Digits { bytes: [0; 18], len: 0 };
    for (octet, end) in four.addr().octets().into_iter().zip(*b".../") {
        text.number(octet);
        text.byte(end);
    }
    text.number(four.prefix_len());
    let text = std::str::from_utf8(&text.bytes[..text.len]);
    serializer.serialize_str(text.map_err(serde::ser::Error::custom)?)
}

/// `255.255.255.255/32` at most.
struct Digits {
    bytes: [u8; 18],
    len: usize,
}

impl Digits {
    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn number(&mut self, number: u8) {
        if number >= 100 {
            self.byte(b'0' + number / 100);
        }
        if number >= 10 {
            self.byte(b'0' + number / 10 % 10);
        }
        self.byte(b'0' + number % 10);
    }
}

impl State {
    /// As it is written down.
    pub fn save(&self, clock: &Clock) -> Saved<'_> {
        let grace = self.grace.iter().map(|(net, grace)| SavedGrace { net: *net, grace: grace.clone() });
        Saved {
            format: FORMAT.to_owned(),
            version: VERSION,
            machine: clock.machine.clone(),
            boot_id: clock.boot_id.clone(),
            boot: clock.now.boot,
            wall: clock.now.milliseconds(),
            enforced: SavedLedger::of(&self.enforced),
            dry_run: SavedLedger::of(&self.shadow),
            grace: grace.collect(),
            breaker: self.breaker.clone(),
            pause: self.pause.clone(),
            // The wall clock may have been set since they were remembered.
            remembered: self.remembered.iter().map(|memory| memory.told_at(clock.now)).collect(),
        }
    }

    /// As it was, less what has ended since. After a reboot only the wall clock knows how long that took; one that was set back
    /// says nothing has passed, for protection does not end because of a clock.
    pub fn restore(saved: Saved<'_>, clock: &Clock) -> State {
        let passed = clock.now.milliseconds().saturating_sub(saved.wall);
        let offset = saved.boot + Duration::from_millis(passed);
        let same_boot = saved.is_of(clock);
        let now = clock.now;
        let to = |deadline: Duration| {
            let left = deadline.checked_sub(if same_boot { now.boot } else { offset })?;
            (!left.is_zero()).then(|| now.boot + left)
        };
        let mut remembered = Remembered::default();
        remembered.restore(&saved.remembered, same_boot, now);
        let grace = saved
            .grace
            .into_iter()
            .filter_map(|SavedGrace { net, grace }| Some((net, Grace { until: to(grace.until)?, ..grace })));
        let pause = saved.pause.and_then(|pause| match pause.until {
            None => Some(pause),
            Some(until) => Some(Pause { until: Some(to(until)?), ..pause }),
        });
        State {
            enforced: saved.enforced.moved(to),
            shadow: saved.dry_run.moved(to),
            grace: grace.collect(),
            breaker: saved.breaker.moved(to),
            pause,
            panicked: None,
            remembered: remembered.rows(now),
            revision: 0,
        }
    }
}

impl SavedLedger<'_> {
    fn of(ledger: &Ledger) -> SavedLedger<'_> {
        let rows = ledger.bans.iter().flat_map(|(net, rows)| rows.iter().map(|row| (*net, row)));
        let bans = rows.map(|(net, row)| SavedBan {
            net,
            cause: Cow::Borrowed(&row.cause),
            until: row.until,
            since: row.since,
        });
        let offences = ledger.offences.iter().map(|((net, rule), offences)| SavedOffences {
            net: *net,
            rule: Cow::Borrowed(rule),
            count: offences.count,
            forgotten: offences.forgotten,
        });
        SavedLedger {
            bans: bans.collect(),
            offences: offences.collect(),
            minute: ledger.minute,
            hour: ledger.hour,
        }
    }

    fn moved(self, to: impl Fn(Duration) -> Option<Duration> + Copy) -> Ledger {
        let mut ledger =
            Ledger { minute: self.minute.moved(to), hour: self.hour.moved(to), ..Ledger::default() };
        for SavedBan { net, cause, until, since } in self.bans {
            let until = match until {
                None => None,
                Some(until) => match to(until) {
                    None => continue,
                    some => some,
                },
            };
            let row = Row { cause: cause.into_owned(), until, since };
            ledger.add(net, row);
        }
        for SavedOffences { net, rule, count, forgotten } in self.offences {
            if let Some(forgotten) = to(forgotten) {
                ledger.offences.insert((net, rule.into_owned()), Offences { count, forgotten });
            }
        }
        ledger
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spared::Why;
    use std::time::SystemTime;

    fn clock(boot_id: &str, boot: u64, wall: u64) -> Clock {
        let now =
            Now { boot: Duration::from_secs(boot), wall: SystemTime::UNIX_EPOCH + Duration::from_secs(wall) };
        Clock { machine: "m".into(), boot_id: boot_id.into(), now }
    }

    /// Banned for an hour at boot + 1000 s, wall 50,000 s; unbanned another; paused for two hours.
    fn state() -> State {
        let mut state = State::new();
        let now = clock("a", 1000, 50_000).now;
        state.ban_by_hand("192.0.2.7/32".parse().unwrap(), Duration::from_secs(3600), "root", "because", now);
        state.unban_by_hand("192.0.2.8/32".parse().unwrap(), "root", now);
        state.set_pause(Some(Duration::from_secs(7200)), "root", now);
        state
    }

    /// Seconds left of the ban, over a store written at 1000 s, read at `clock`.
    fn left(clock: &Clock) -> Option<u64> {
        let saved = serde_json::to_string(&state().save(&self::clock("a", 1000, 50_000))).unwrap();
        let state = State::restore(serde_json::from_str(&saved).unwrap(), clock);
        state.enforced(clock.now).next().map(|ban| ban.timeout.as_secs())
    }

    #[test]
    fn within_a_boot_the_wall_clock_says_nothing() {
        for wall in [50_010, 0, 50_000 + 365 * 86_400] {
            assert_eq!(left(&clock("a", 1010, wall)), Some(3590), "wall {wall}");
        }
        assert_eq!(left(&clock("a", 4600, 50_000)), None, "it has ended");
    }

    #[test]
    fn after_a_reboot_the_wall_clock_says_how_long_it_took_and_never_less_than_nothing() {
        assert_eq!(left(&clock("b", 20, 50_600)), Some(3000));
        assert_eq!(left(&clock("b", 20, 10)), Some(3600), "a clock without a battery");
        assert_eq!(left(&clock("b", 20, 53_600)), None);
    }

    #[test]
    fn a_boot_clock_that_is_behind_lengthens_no_ban() {
        assert_eq!(left(&clock("a", 10, 50_600)), Some(3000), "as after a reboot");
    }

    #[test]
    fn grace_and_pause_are_carried_over() {
        let state = state();
        let saved = state.save(&clock("a", 1000, 50_000));
        let later = clock("b", 5, 50_100);
        let state = State::restore(saved, &later);
        let refused = state.grace(&"192.0.2.8/32".parse().unwrap(), later.now).unwrap_err();
        assert_eq!(refused.reason(), "unbanned_by_hand");
        assert_eq!(state.paused(later.now).unwrap().until, Some(Duration::from_secs(5 + 7100)));
    }

    #[test]
    fn a_peer_is_spared_as_long_over_a_clock_that_is_set_a_reboot_and_a_restart() {
        let mut remembered = Remembered::default();
        let passed = clock("a", 1000, 1000);
        remembered.remember(Why::SshSession, "192.0.2.9".parse().unwrap(), passed.now);
        let mut state = State::new();
        state.remember(remembered.rows(passed.now));
        let left = |state: &State, now: u64| state.remembered().first().map(|peer| peer.until_boot - now);
        assert_eq!(left(&state, 1000), Some(25 * 3600));
        let [set, rebooted, again] =
            [clock("a", 1010, 50_000), clock("b", 20, 50_020), clock("b", 50, 50_050)];
        let state = State::restore(state.save(&set), &rebooted);
        assert_eq!(left(&state, 20), Some(25 * 3600 - 10 - 20));
        let state = State::restore(state.save(&rebooted), &again);
        assert_eq!(left(&state, 50), Some(25 * 3600 - 10 - 20 - 30));
    }

    proptest::proptest! {
        #[test]
        fn a_network_is_written_as_everybody_writes_it(four: u32, six: u128, bits in 0u8..=32) {
            for net in [IpNet::new(std::net::Ipv4Addr::from_bits(four).into(), bits), IpNet::new(std::net::Ipv6Addr::from_bits(six).into(), bits)] {
                let net = net.unwrap();
                let mut written = Vec::new();
                whole(&net, &mut serde_json::Serializer::new(&mut written)).unwrap();
                proptest::prop_assert_eq!(String::from_utf8(written).unwrap(), format!("\"{net}\""));
            }
        }
    }

    #[test]
    fn what_is_saved_twice_is_the_same() {
        let clock = clock("a", 1000, 50_000);
        let state = state();
        let saved = state.save(&clock);
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(State::restore(serde_json::from_str(&text).unwrap(), &clock).save(&clock), saved);
    }
}
