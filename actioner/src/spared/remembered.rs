//! Peers who once passed authentication are spared for a day: an administrator whose line broke, an Alertmanager between two
//! alerts. Nobody gets in here without a key or a password, and there is room for so many only.

use crate::now::Now;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A peer is spared so long after he was seen last, at least.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What is seen all the time is written down anew so often only, so that a store need not be.
const HOUR: Duration = Duration::from_secs(3600);
/// Of each kind; the one seen longest ago makes room.
const MOST: usize = 4096;

/// What a peer passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A remote session was opened for him.
    SshSession,
    /// His webhook was authenticated.
    WebhookPeer,
}

/// One peer, as a store keeps him.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What he passed.
    pub why: Why,
    /// His address.
    pub address: IpAddr,
    /// Spared until then, in seconds of CLOCK_BOOTTIME: what counts within one boot.
    pub until_boot: u64,
    /// The same in seconds since 1970: what counts after a reboot.
    pub until_wall: u64,
}

impl Memory {
    /// The same with the wall clock of a moment of the same boot: it may have been set since.
    pub fn told_at(&self, now: Now) -> Memory {
        Memory { until_wall: seconds(now.wall_at(Duration::from_secs(self.until_boot))), ..*self }
    }
}

fn seconds(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Peers who passed authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Until when, on the boot clock.
    until: BTreeMap<(Why, IpAddr), Duration>,
}

impl Remembered {
    /// He passed just now. Returns whether that is worth writing down.
    pub fn remember(&mut self, why: Why, address: IpAddr, now: Now) -> bool {
        let key = (why, address.to_canonical());
        if self.until.get(&key).is_some_and(|until| *until >= now.boot + DAY) {
            return false;
        }
        self.until.insert(key, now.boot + DAY + HOUR);
        self.make_room(why);
        true
    }

    /// Who is spared for that reason now.
    pub fn addresses(&self, why: Why, now: Now) -> BTreeSet<IpAddr> {
        let of_it = self.until.iter().filter(|((kind, _), until)| *kind == why && **until > now.boot);
        of_it.map(|((_, address), _)| *address).collect()
    }

    /// Forgets those whose time is over. Returns whether there were any.
    pub fn expire(&mut self, now: Now) -> bool {
        let before = self.until.len();
        self.until.retain(|_, until| *until > now.boot);
        self.until.len() < before
    }

    /// What a store keeps.
    pub fn rows(&self, now: Now) -> Vec<Memory> {
        let row = |(&(why, address), &until): (&(Why, IpAddr), &Duration)| Memory {
            why,
            address,
            until_boot: until.as_secs(),
            until_wall: seconds(now.wall_at(until)),
        };
        self.until.iter().map(row).collect()
    }

    /// Takes in what a store kept. `same_boot`: whether it was written since this boot, so that its boot clock is ours. A
    /// day and an hour is the longest that anything is believed.
    pub fn restore(&mut self, rows: &[Memory], same_boot: bool, now: Now) {
        for row in rows {
            let left = if same_boot {
                Duration::from_secs(row.until_boot).saturating_sub(now.boot)
            } else {
                let wall: Option<SystemTime> = UNIX_EPOCH.checked_add(Duration::from_secs(row.until_wall));
                wall.and_then(|wall| wall.duration_since(now.wall).ok()).unwrap_or_default()
            };
            let until = now.boot + left.min(DAY + HOUR);
            if !left.is_zero() {
                let known = self.until.entry((row.why, row.address.to_canonical())).or_insert(until);
                *known = until.max(*known);
            }
        }
        [Why::SshSession, Why::WebhookPeer].into_iter().for_each(|why| self.make_room(why));
    }

    fn make_room(&mut self, why: Why) {
        let of_it = |until: &BTreeMap<(Why, IpAddr), Duration>| {
            until.iter().filter(|((kind, _), _)| *kind == why).map(|(key, until)| (*until, *key)).collect()
        };
        let mut all: Vec<(Duration, (Why, IpAddr))> = of_it(&self.until);
        if all.len() > MOST {
            all.sort_unstable();
            for (_, key) in &all[..all.len() - MOST] {
                self.until.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn now(seconds: u64) -> Now {
        let boot = Duration::from_secs(seconds);
        Now { boot, wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000) + boot }
    }

    const HIM: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

    #[test]
    fn a_day_after_he_was_seen_last_he_is_forgotten_and_not_before() {
        let mut remembered = Remembered::default();
        assert!(remembered.remember(Why::SshSession, "::ffff:198.51.100.7".parse().unwrap(), now(0)));
        assert!(!remembered.remember(Why::SshSession, HIM, now(3600)), "not written down each time");
        assert!(remembered.remember(Why::SshSession, HIM, now(3601)));
        let last = 3601 + 24 * 3600;
        assert!(remembered.addresses(Why::SshSession, now(last)).contains(&HIM));
        assert!(remembered.addresses(Why::WebhookPeer, now(last)).is_empty());
        assert!(!remembered.expire(now(last)));
        assert!(remembered.expire(now(last + 3600)));
        assert!(remembered.addresses(Why::SshSession, now(last)).is_empty());
    }

    #[test]
    fn he_survives_a_restart_and_a_reboot_for_no_longer() {
        let mut before = Remembered::default();
        before.remember(Why::WebhookPeer, HIM, now(1_000_000));
        let rows = before.rows(now(1_000_000));
        let text = serde_json::to_string(&rows).unwrap();
        assert!(text.contains("\"webhook_peer\"") && text.contains("\"198.51.100.7\""), "{text}");
        let rows: Vec<Memory> = serde_json::from_str(&text).unwrap();

        let mut again = Remembered::default();
        again.restore(&rows, true, now(1_000_100));
        assert_eq!(again, before);
        // A reboot: the boot clock starts anew, the wall clock goes on.
        let rebooted = |after: u64| Now { boot: Duration::from_secs(60), wall: now(1_000_000 + after).wall };
        let restored = |after: u64| {
            let mut again = Remembered::default();
            again.restore(&rows, false, rebooted(after));
            again.addresses(Why::WebhookPeer, rebooted(after)).contains(&HIM)
        };
        assert!(restored(24 * 3600));
        assert!(!restored(25 * 3600 + 1));
        // A wall clock that was set back a year makes nobody immune for a year.
        let mut again = Remembered::default();
        let set_back = Now { boot: Duration::from_secs(60), wall: UNIX_EPOCH };
        again.restore(&rows, false, set_back);
        let later = Now { boot: Duration::from_secs(60 + 25 * 3600 + 1), ..set_back };
        assert!(again.addresses(Why::WebhookPeer, later).is_empty());
    }

    #[test]
    fn there_is_room_for_so_many_and_the_oldest_goes() {
        let mut remembered = Remembered::default();
        for host in 0..MOST as u32 + 10 {
            let address = Ipv4Addr::from_bits(0xc633_0000 + host).into();
            remembered.remember(Why::SshSession, address, now(u64::from(host)));
        }
        let kept = remembered.addresses(Why::SshSession, now(5000));
        assert_eq!(kept.len(), MOST);
        assert!(!kept.contains(&IpAddr::V4(Ipv4Addr::from_bits(0xc633_0009))));
        assert!(kept.contains(&IpAddr::V4(Ipv4Addr::from_bits(0xc633_000a))));
    }
}
