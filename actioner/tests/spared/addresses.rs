//! Own addresses and gateways: of all tables, and always as they are now.

use conntrack::follow::Followed;
use conntrack::own::OwnAddresses;
use std::net::IpAddr;
use std::time::Duration;
use tests::{netns::Namespace, wait::wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace with a link that is up at both ends. The kernel makes addresses of IPv6 by work queues of its own: theirs are there.
fn lab() -> Namespace {
    let lab = Namespace::new("addresses").unwrap();
    lab.sysctl("net/ipv6/conf/default/accept_dad", "0").unwrap();
    lab.ip("link add d0 type veth peer name d1\nlink set d0 up\nlink set d1 up\n\
         addr add 192.0.2.1/24 dev d0\naddr add 2001:db8::1/64 dev d0 nodad\n")
        .unwrap();
    wait_until("the local routes of both ends and of the address", PATIENCE, || {
        let shown = lab.command(&["ip", "-6", "route", "show", "table", "local"]).unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let ours =
            shown.lines().filter(|line| line.starts_with("local ") && !line.contains("dev lo")).count();
        if ours == 3 { Ok(()) } else { Err(shown) }
    })
    .unwrap();
    lab
}

fn is_gateway(own: &OwnAddresses, address: &str) -> bool {
    let address: IpAddr = address.parse().unwrap();
    own.gateways().any(|gateway| gateway == address)
}

fn owns(own: &OwnAddresses, address: &str) -> bool {
    own.contains(address.parse().unwrap())
}

/// Gateways stand in other tables than the main one, in multipath routes, in another family, and in objects of their own.
const ROUTES: &str = "\
route add default via 192.0.2.10
route add 203.0.113.0/25 via 192.0.2.11 table 100
route add 203.0.113.128/25 nexthop via 192.0.2.12 nexthop via 192.0.2.13 weight 5
route add 198.51.100.0/25 via inet6 2001:db8::14 dev d0
nexthop add id 7 via 192.0.2.15 dev d0
route add 198.51.100.128/25 nhid 7
nexthop add id 8 via 192.0.2.16 dev d0
nexthop add id 9 group 7/8
-6 route add 2001:db8:1::/48 via 2001:db8::17 table 200
-6 route add 2001:db8:2::/48 nexthop via 2001:db8::18 nexthop via 2001:db8::19
-6 nexthop add id 10 via fe80::20 dev d0
route add local 198.18.0.0/24 dev lo table 300
";
const GATEWAYS: [&str; 10] = [
    "192.0.2.10",
    "192.0.2.11",
    "192.0.2.12",
    "192.0.2.13",
    "2001:db8::14",
    "192.0.2.15",
    "192.0.2.16",
    "2001:db8::17",
    "2001:db8::19",
    "fe80::20",
];

fn add_routes(lab: &Namespace) {
    // `ip -batch` knows no -6 within a line.
    for line in ROUTES.lines() {
        let words: Vec<&str> = std::iter::once("ip").chain(line.split_whitespace()).collect();
        lab.command(&words).unwrap();
    }
}

#[test]
fn gateways_of_every_table_and_kind() {
    for compatible in ["1", "0"] {
        let lab = lab();
        // With 0 a route that uses a nexthop object does not show the gateway.
        lab.sysctl("net/ipv4/nexthop_compat_mode", compatible).unwrap();
        add_routes(&lab);
        let own = lab.run(|| OwnAddresses::read().unwrap());
        for gateway in GATEWAYS {
            assert!(is_gateway(&own, gateway), "{gateway}, nexthop_compat_mode={compatible}: {own:?}");
        }
        assert!(owns(&own, "198.18.0.200"), "a local route of another table");
        assert!(owns(&own, "192.0.2.1") && owns(&own, "2001:db8::1") && !owns(&own, "192.0.2.2"));
    }
}

/// To the kernel they are addresses of IPv6 like any other; to us, as all connections over them, of IPv4.
#[test]
fn a_local_route_to_mapped_addresses_is_read_as_one_to_ipv4_ones() {
    let lab = lab();
    let mut followed = lab.run(|| Followed::open().unwrap());
    for (route, kept) in
        [("::ffff:203.0.113.1/128", true), ("::ffff:198.18.7.0/120", true), ("::ffff:0.0.0.0/95", false)]
    {
        lab.command(&["ip", "-6", "route", "add", "local", route, "dev", "lo"]).unwrap();
        let shown = lab.command(&["ip", "-6", "route", "show", "table", "local"]).unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(!kept || shown.contains(route.trim_end_matches("/128")), "the kernel took it: {shown}");
    }
    for own in [lab.run(|| OwnAddresses::read().unwrap()), (*followed.current().unwrap()).clone()] {
        assert!(
            owns(&own, "203.0.113.1") && owns(&own, "198.18.7.200") && owns(&own, "192.0.2.1"),
            "{own:?}"
        );
        assert!(!owns(&own, "203.0.113.2") && !owns(&own, "198.18.8.1"), "{own:?}");
    }
}

#[test]
fn what_is_added_is_known_at_the_next_look_without_reading_everything() {
    let lab = lab();
    let mut followed = lab.run(|| Followed::open().unwrap());
    let readings = followed.readings();
    assert!(!is_gateway(&followed.current().unwrap(), "192.0.2.10"));
    add_routes(&lab);
    let own = followed.current().unwrap();
    for gateway in GATEWAYS {
        assert!(is_gateway(&own, gateway), "{gateway}: {own:?}");
    }
    assert!(owns(&own, "198.18.0.200"));
    // A route less takes nothing away at once: a gateway too many does no harm, and a router loses hundreds a second.
    lab.command(&["ip", "route", "del", "203.0.113.0/25", "table", "100"]).unwrap();
    assert!(is_gateway(&followed.current().unwrap(), "192.0.2.11"));
    assert_eq!(followed.readings(), readings);
}

#[test]
fn an_address_comes_and_goes() {
    let lab = lab();
    let mut followed = lab.run(|| Followed::open().unwrap());
    for address in ["192.0.2.77", "2001:db8::77"] {
        let prefix = format!("{address}/{}", if address.contains(':') { 64 } else { 24 });
        assert!(!owns(&followed.current().unwrap(), address));
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        lab.command(&[&["ip", "addr", "add", &prefix, "dev", "d0"], nodad].concat()).unwrap();
        // For IPv6 the local route comes from a work queue.
        wait_until("the address to be known", PATIENCE, || {
            match owns(&followed.current().unwrap(), address) {
                true => Ok(()),
                false => Err("not yet own"),
            }
        })
        .unwrap();
        lab.command(&["ip", "addr", "del", &prefix, "dev", "d0"]).unwrap();
        wait_until("the address to be forgotten", PATIENCE, || {
            match owns(&followed.current().unwrap(), address) {
                true => Err("still own"),
                false => Ok(()),
            }
        })
        .unwrap();
    }
    // IPv4 routes that go with their link are announced for the link alone.
    lab.command(&["ip", "route", "add", "default", "via", "192.0.2.10"]).unwrap();
    assert!(is_gateway(&followed.current().unwrap(), "192.0.2.10"));
    lab.command(&["ip", "link", "set", "d0", "down"]).unwrap();
    wait_until("the gateway to be forgotten", PATIENCE, || {
        match is_gateway(&followed.current().unwrap(), "192.0.2.10") {
            true => Err("still a gateway"),
            false => Ok(()),
        }
    })
    .unwrap();
}

/// More announcements than the socket holds: ENOBUFS, and everything is read anew.
#[test]
fn lost_announcements_lose_no_address() {
    let lab = lab();
    let mut followed = lab.run(|| Followed::open().unwrap());
    let readings = followed.readings();
    let routes: String = (0..4000)
        .map(|n| format!("route add 10.{}.{}.0/24 via 192.0.2.{}\n", n / 250, n % 250, 10 + n % 200))
        .collect();
    lab.ip(&format!("{routes}addr add 192.0.2.250/32 dev d0\nroute add 203.0.113.0/24 via 192.0.2.251\n"))
        .unwrap();
    let own = followed.current().unwrap();
    assert!(followed.readings() > readings, "nothing was lost: the test proves nothing");
    assert!(owns(&own, "192.0.2.250") && is_gateway(&own, "192.0.2.251"));
    assert!((10..210).all(|host| is_gateway(&own, &format!("192.0.2.{host}"))));
}

/// What it is for: nothing happened, so nothing is asked.
#[test]
fn a_look_at_many_routes_is_cheap() {
    let lab = lab();
    let routes: String =
        (0..20_000).map(|n| format!("route add 10.{}.{}.0/24 via 192.0.2.10\n", n / 250, n % 250)).collect();
    lab.ip(&routes).unwrap();
    let mut followed = lab.run(|| Followed::open().unwrap());
    let whole = lab.run(|| {
        let began = std::time::Instant::now();
        OwnAddresses::read().unwrap();
        began.elapsed()
    });
    let began = std::time::Instant::now();
    (0..1000).for_each(|_| drop(followed.current().unwrap()));
    let look = began.elapsed() / 1000;
    println!("20,000 routes: read {whole:?}, a look {look:?}");
    assert_eq!(followed.readings(), 1);
    assert!(look * 20 < whole, "{look:?} of {whole:?}");
}
