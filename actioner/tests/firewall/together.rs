//! Two clients at once.

use std::thread;

use conntrack_actioner::firewall::{Ban, Config};

use crate::{Open, about, ban, for_each_client, on_a_guarded_host};

for_each_client!(two_clients_at_once_do_not_corrupt, a_longer_ban_wins_over_a_simultaneous_shorter_one);

fn two_clients_at_once_do_not_corrupt(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        let work = |third: u8| {
            let mut firewall = open(Config::default()).unwrap();
            let mine: Vec<Ban> =
                (0..=255).map(|last| ban(&format!("198.18.{third}.{last}/32"), 600)).collect();
            let nets: Vec<_> = mine.iter().map(|ban| ban.net).collect();
            for _ in 0..5 {
                assert!(firewall.ban(&mine).unwrap().iter().all(Result::is_ok));
                assert!(firewall.list().unwrap().len() >= 256);
                assert_eq!(firewall.unban(&nets).unwrap(), 256);
            }
            assert!(firewall.ban(&mine).unwrap().iter().all(Result::is_ok));
        };
        thread::scope(|scope| {
            scope.spawn(|| work(0));
            scope.spawn(|| work(1));
        });
        assert_eq!(firewall.list().unwrap().len(), 512);
    });
}

/// The one that finds the other's element there looks again and writes the longer time.
fn a_longer_ban_wins_over_a_simultaneous_shorter_one(open: Open) {
    on_a_guarded_host(open, |_, firewall| {
        for round in 0..20 {
            let address = format!("192.0.2.{round}/32");
            thread::scope(|scope| {
                for seconds in [60, 6000] {
                    let bans = [ban(&address, seconds)];
                    scope.spawn(move || {
                        open(Config::default()).unwrap().ban(&bans).unwrap().remove(0).unwrap()
                    });
                }
            });
        }
        for element in firewall.list().unwrap() {
            assert!(about(element.remaining, 6000), "{element:?}");
        }
    });
}
