//! A banned network's entries leave a real table: by the keys that the survey kept, and by a dump where those may not be all.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use conntrack::own::OwnAddresses;
use conntrack_actioner::removal::{Removal, look_again, remove, remove_whole};
use conntrack_actioner::survey::{Ask, KEY_ROOM, Survey, take};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use tests::netns::Namespace;

const HIM: &str = "198.51.100.66";
const HIM_SIX: &str = "2001:db8:bad::1";
const OTHER: &str = "198.51.100.7";
const LIMIT: u64 = 50_000;

fn insert(host: &Namespace, from: &str, to: &str, ports: std::ops::Range<u16>) {
    let line = |port| {
        format!(
            "-I -s {from} -d {to} -p tcp --sport {port} --dport 80 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 4000\n"
        )
    };
    let lines: String = ports.map(line).collect();
    host.command_with_input(&["conntrack", "--load-file", "-"], &lines).unwrap();
}

/// His entries with him at the source, with him at the destination, behind a DNAT, and IPv6; and an honest one's.
fn filled(name: &str) -> Namespace {
    let host = Namespace::new(name).unwrap();
    host.track_connections().unwrap();
    insert(&host, HIM, "192.0.2.1", 1000..1030);
    insert(&host, "192.0.2.1", HIM, 2000..2005);
    insert(&host, HIM_SIX, "2001:db8::1", 1000..1007);
    insert(&host, OTHER, "192.0.2.1", 1000..1010);
    let translated = "-I -s 203.0.113.9 -d 192.0.2.1 -r 198.51.100.66 -q 203.0.113.9 -p tcp --sport 9 --dport 80 --reply-port-src 8080 --reply-port-dst 9 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 4000\n";
    host.command_with_input(&["conntrack", "--load-file", "-"], translated).unwrap();
    host
}

fn survey(key_room: usize) -> Survey {
    take(&OwnAddresses::read().unwrap(), &Ask { key_room, ..Ask::default() }).unwrap()
}

fn remove_both(survey: Option<&Survey>) -> Removal {
    let nets = [HIM, HIM_SIX].map(|address| address.parse::<std::net::IpAddr>().unwrap().into());
    remove(nets.into_iter(), LIMIT, survey).unwrap()
}

/// What is left of each: his, as he may be written, and all others'.
fn left(host: &Namespace) -> (usize, usize) {
    let listed = host.output(&["conntrack", "-L", "-f", "ipv4"]).unwrap()
        + &host.output(&["conntrack", "-L", "-f", "ipv6"]).unwrap();
    let his = |line: &&str| [HIM, HIM_SIX].iter().any(|him| line.contains(&format!("={him} ")));
    let (his, others): (Vec<&str>, Vec<&str>) = listed.lines().partition(his);
    (his.len(), others.len())
}

#[test]
fn the_kept_keys_are_enough_where_nothing_new_was_made() {
    // On a busy machine the survey can be too old by then to be trusted, and a dump is right.
    for attempt in 1.. {
        let host = filled("kept");
        let (removal, took) = host.run(|| {
            let survey = survey(KEY_ROOM);
            (remove_both(Some(&survey)), survey.began.elapsed())
        });
        assert_eq!((removal.deleted.deleted, removal.unfinished), (43, false), "{removal:?}");
        let his: u64 = removal.by_net[&"198.51.100.66/32".parse().unwrap()].deleted;
        assert_eq!(his, 36, "both ends, and the translated one");
        assert_eq!(left(&host), (0, 10));
        if removal.dumps == 0 {
            return;
        }
        assert!(took > Duration::from_secs(1) && attempt < 20, "{removal:?} in {took:?}");
    }
}

#[test]
fn what_was_made_after_the_survey_is_found_by_a_dump() {
    let host = filled("later");
    let survey = host.run(|| survey(KEY_ROOM));
    insert(&host, HIM, "192.0.2.1", 5000..5003);
    let removal = host.run(|| remove_both(Some(&survey)));
    assert_eq!((removal.deleted.deleted, removal.unfinished), (46, false), "{removal:?}");
    assert_eq!(removal.dumps, 2, "one that finds them and one that finds no more");
    assert_eq!(left(&host), (0, 10));
}

#[test]
fn in_a_large_table_what_was_made_after_the_survey_is_found_when_nobody_waits_any_more() {
    let nets =
        || [HIM, HIM_SIX].map(|address| address.parse::<std::net::IpAddr>().unwrap().into()).into_iter();
    let of_a_large_table = |host: &Namespace| {
        let mut survey = host.run(|| survey(KEY_ROOM));
        survey.dump.entries = 1_000_000;
        insert(host, HIM, "192.0.2.1", 5000..5003);
        survey
    };
    let host = filled("large");
    let survey = of_a_large_table(&host);
    host.run(|| {
        let mut removal = remove(nets(), 37, Some(&survey)).unwrap();
        assert_eq!((removal.deleted.deleted, removal.dumps), (43, 0), "what the survey showed: {removal:?}");
        assert!(nets().all(|net| removal.is_yet_to_look_again(&net)));
        let found = look_again(removal.rest.take().unwrap()).unwrap();
        let his = found.by_net[&nets().next().unwrap()];
        assert_eq!(
            (found.deleted.deleted, his.deleted, his.clipped),
            (1, 1, true),
            "36 of 37 before: {found:?}"
        );
    });
    assert_eq!(left(&host), (2, 10), "the limit is for both together");

    let host = filled("person");
    let survey = of_a_large_table(&host);
    let removal = host.run(|| remove_whole(nets(), LIMIT, Some(&survey))).unwrap();
    assert!(removal.deleted.deleted == 46 && removal.rest.is_none(), "{removal:?}");
    assert_eq!(left(&host), (0, 10));
}

#[test]
fn a_tuple_that_another_entry_took_is_not_passed_over() {
    let host = filled("again");
    let survey = host.run(|| survey(KEY_ROOM));
    host.output(&["conntrack", "-D", "-s", HIM, "-p", "tcp", "--sport", "1000"]).unwrap();
    insert(&host, HIM, "192.0.2.1", 1000..1001);
    // The count is what it was.
    let removal = host.run(|| remove_both(Some(&survey)));
    assert!(!removal.unfinished, "{removal:?}");
    assert_eq!(left(&host), (0, 10));
}

#[test]
fn keys_that_found_no_room_cost_a_dump() {
    let host = filled("room");
    host.run(|| {
        let survey = survey(20 * 10);
        let removal = remove_both(Some(&survey));
        assert_eq!((removal.deleted.deleted, removal.unfinished), (43, false), "{removal:?}");
        assert!(removal.dumps >= 2);
    });
    assert_eq!(left(&host), (0, 10));
}

#[test]
fn without_kept_keys_dumps_find_them_and_the_limit_clips() {
    let host = filled("limit");
    host.run(|| {
        let nets = || std::iter::once("198.51.100.66/32".parse().unwrap());
        for (kept, deleted) in [(false, 20), (true, 16)] {
            let survey = kept.then(|| survey(KEY_ROOM));
            let removal = remove(nets(), 20, survey.as_ref()).unwrap();
            let removed = removal.by_net[&nets().next().unwrap()];
            assert_eq!((removed.deleted, removed.clipped), (deleted, !kept), "{removal:?}");
        }
    });
    assert_eq!(left(&host), (7, 10), "the IPv6 ones were not asked for");
}

#[test]
fn a_destroyed_socket_makes_the_table_be_looked_at() {
    let host = Namespace::new("socket").unwrap();
    host.track_connections().unwrap();
    host.run(|| {
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let _client = TcpStream::connect("127.0.0.1:8080").unwrap();
        let _served = listener.accept().unwrap();
        let survey = survey(KEY_ROOM);
        let removal = remove(std::iter::once("127.0.0.1/32".parse().unwrap()), LIMIT, Some(&survey)).unwrap();
        assert!(removal.sockets.destroyed >= 1 && removal.dumps >= 1, "{removal:?}");
        assert!(!removal.unfinished, "{removal:?}");
    });
    assert_eq!(host.read_sysctl("net/netfilter/nf_conntrack_count").unwrap(), "0");
}
