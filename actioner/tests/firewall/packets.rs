//! What it is all for: a banned source's packets no longer arrive, and make no entries.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use conntrack_actioner::firewall::{Config, Firewall};
use tests::{
    listing,
    tools::{Tool, require},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::{Open, ban, ban_one, for_each_client, net};

for_each_client!(
    a_banned_source_is_not_heard_and_makes_no_entry,
    a_banned_prefix_is_not_heard,
    who_is_unbanned_is_heard_again,
    whose_ban_ends_is_heard_again,
);

const PORT: u16 = 4000;

/// A server that listens, and an attacker with a prefix of each family to send from.
struct Scene {
    topology: Topology,
    server: [UdpSocket; 2],
}

fn prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "198.18.7.0/24",
        Family::V6 => "2001:db8:77::/64",
    }
}

fn source(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => [198, 18, 7, host].into(),
        Family::V6 => [0x2001, 0xdb8, 0x77, 0, 0, 0, 0, u16::from(host)].into(),
    }
}

fn host(family: Family, last: u8) -> String {
    format!("{}/{}", source(family, last), if family == Family::V4 { 32 } else { 128 })
}

/// Runs a test in the server's namespace, for each family, with the firewall in place.
fn on_a_server(open: Open, test: impl Fn(&Scene, Family, &mut dyn Firewall) + Sync) {
    require(&[Tool::Ipset, Tool::Iptables, Tool::Conntrack]).unwrap();
    let topology = Topology::direct(&["attacker"]).unwrap();
    let server = [Family::V4, Family::V6].map(|family| {
        topology.give_prefix("attacker", net(prefix(family))).unwrap();
        let socket = topology.server.run(|| UdpSocket::bind(topology.server_socket(family, PORT))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    });
    let scene = Scene { topology, server };
    scene.topology.server.run(|| {
        let mut firewall = open(Config::default()).unwrap();
        firewall.ensure().unwrap().ipv6.unwrap();
        for family in [Family::V4, Family::V6] {
            test(&scene, family, firewall.as_mut());
        }
    });
}

impl Scene {
    fn send(&self, family: Family, from: u8) {
        let to = self.topology.server_socket(family, PORT);
        let attacker = &self.topology.peer("attacker").namespace;
        let socket = attacker.run(|| UdpSocket::bind(SocketAddr::new(source(family, from), 0))).unwrap();
        socket.send_to(&[from], to).unwrap();
    }

    fn heard(&self, family: Family) -> IpAddr {
        self.server[usize::from(family == Family::V6)].recv_from(&mut [0; 1]).unwrap().1.ip()
    }

    /// Sends from `from` and then from a source that nobody bans, over the same link: what arrived of the first is there when the second is.
    fn is_heard(&self, family: Family, from: u8) -> bool {
        const NEVER_BANNED: &str = "attacker";
        self.send(family, from);
        let attacker = self.topology.peer(NEVER_BANNED);
        let marker = attacker.address(family);
        let socket = attacker.namespace.run(|| UdpSocket::bind(SocketAddr::new(marker, 0))).unwrap();
        socket.send_to(&[0], self.topology.server_socket(family, PORT)).unwrap();
        let first = self.heard(family);
        if first == marker {
            return false;
        }
        assert_eq!((first, self.heard(family)), (source(family, from), marker));
        true
    }

    fn entries_of(&self, family: Family, host: u8) -> usize {
        let source = source(family, host);
        let is_its = |entry: &listing::Entry| entry.source().parse() == Ok(source);
        listing::list(&self.topology.server).unwrap().iter().filter(|entry| is_its(entry)).count()
    }
}

fn a_banned_source_is_not_heard_and_makes_no_entry(open: Open) {
    on_a_server(open, |scene, family, firewall| {
        assert!(scene.is_heard(family, 66));
        assert_eq!(scene.entries_of(family, 66), 1, "tracking is on");
        ban_one(firewall, ban(&host(family, 67), 600)).unwrap();
        assert!(!scene.is_heard(family, 67));
        assert_eq!(scene.entries_of(family, 67), 0);
        assert!(scene.is_heard(family, 68), "its neighbour is");
    });
}

fn a_banned_prefix_is_not_heard(open: Open) {
    on_a_server(open, |scene, family, firewall| {
        ban_one(firewall, ban(prefix(family), 600)).unwrap();
        for host in [1, 66, 254] {
            assert!(!scene.is_heard(family, host), "{host}");
        }
        firewall.unban(&[net(&host(family, 66))]).unwrap();
        assert!(!scene.is_heard(family, 66), "its prefix is still banned");
    });
}

fn who_is_unbanned_is_heard_again(open: Open) {
    on_a_server(open, |scene, family, firewall| {
        ban_one(firewall, ban(&host(family, 66), 600)).unwrap();
        assert!(!scene.is_heard(family, 66));
        assert_eq!(firewall.unban(&[net(&host(family, 66))]).unwrap(), 1);
        assert!(scene.is_heard(family, 66));
        ban_one(firewall, ban(&host(family, 66), 600)).unwrap();
        assert!(!scene.is_heard(family, 66));
        firewall.teardown().unwrap();
        assert!(scene.is_heard(family, 66));
        firewall.ensure().unwrap();
    });
}

fn whose_ban_ends_is_heard_again(open: Open) {
    on_a_server(open, |scene, family, firewall| {
        ban_one(firewall, ban(&host(family, 66), 1)).unwrap();
        let heard = wait_until("the ban's end", Duration::from_secs(30), || {
            if scene.is_heard(family, 66) { Ok(()) } else { Err("not heard") }
        });
        heard.unwrap();
        assert_eq!(firewall.list().unwrap(), []);
    });
}
