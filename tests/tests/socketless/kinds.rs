//! Connections of every kind that must never be taken for dead slots, and a few dead slots beside them.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::net::sockopt;
use tests::{
    Result,
    listing::list,
    netns::Namespace,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
};

use crate::{connect, exchange, joined, listener};

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// Idle keep-alive connections in each family: a thousand.
const KEPT: usize = 500;
/// Connections of each of the other kinds, in each family.
pub(crate) const EACH: usize = 5;

/// An entry of a connection that may be busy has at most so many seconds left.
pub(crate) const BUSY: u32 = 900;

/// A connection's kind is the port it is made to.
pub(crate) mod port {
    pub(crate) const KEPT: u16 = 80;
    pub(crate) const TO_CONTAINER: u16 = 8081;
    pub(crate) const ROUTED: u16 = 8082;
    pub(crate) const FROM_CONTAINER: u16 = 8083;
    pub(crate) const REDIRECTED: u16 = 8084;
    pub(crate) const DUAL_STACK: u16 = 8085;
    pub(crate) const INPUT_SNAT: u16 = 8086;
    pub(crate) const CALLED: u16 = 8087;
    pub(crate) const CALLED_SNAT: u16 = 8088;
    pub(crate) const ANY_IP: u16 = 8089;
    pub(crate) const LOOPBACK: u16 = 8090;
    pub(crate) const DEFERRED: u16 = 8091;
    pub(crate) const DUAL_DEFERRED: u16 = 8092;
    pub(crate) const CLIENT_HALF_CLOSED: u16 = 8093;
    pub(crate) const SERVER_HALF_CLOSED: u16 = 8094;
    pub(crate) const PICKED_UP: u16 = 8095;
    pub(crate) const VANISHED: u16 = 8096;
    pub(crate) const CHURN: u16 = 8097;
    pub(crate) const REDIRECTED_TO: u16 = 8098;
    pub(crate) const DEAD: u16 = 8099;
}

/// What a kind of connection is once it has been idle for the grace. Half-closed ones are in states of their own.
pub(crate) const EXPECTED: [(u16, &str, usize); 18] = [
    (port::KEPT, "socket", 2 * KEPT),
    (port::TO_CONTAINER, "not judged", 2 * EACH),
    (port::ROUTED, "not judged", 2 * EACH),
    (port::FROM_CONTAINER, "not judged", 2 * EACH),
    (port::REDIRECTED, "socket", 2 * EACH),
    (port::DUAL_STACK, "socket", 2 * EACH),
    (port::INPUT_SNAT, "socket", 2 * EACH),
    (port::CALLED, "socket", 2 * EACH),
    (port::CALLED_SNAT, "socket", 2 * EACH),
    (port::ANY_IP, "socket", 2 * EACH),
    (port::LOOPBACK, "socket", 2 * EACH),
    (port::DEFERRED, "request", 2 * EACH),
    (port::DUAL_DEFERRED, "request", 2 * EACH),
    (port::CLIENT_HALF_CLOSED, "not judged", 2 * EACH),
    (port::SERVER_HALF_CLOSED, "not judged", 2 * EACH),
    (port::PICKED_UP, "not judged", 2 * EACH),
    (port::VANISHED, "not judged", 2 * EACH),
    (port::DEAD, "nothing", 2 * EACH),
];

const ANY_IP: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 9))];

/// A server with connections of every kind, all of them idle from now on.
pub(crate) struct Kinds {
    pub(crate) scene: Topology,
    held: Held,
}

impl Kinds {
    pub(crate) fn new() -> Result<Self> {
        let scene = Topology::direct(&["client", "container"])?;
        prepare(&scene)?;
        let mut held = Held::default();
        for family in FAMILIES {
            served_by_the_host(&scene, family, &mut held)?;
            not_by_the_host(&scene, family, &mut held)?;
            called_by_the_host(&scene, family, &mut held);
            closing(&scene, family, &mut held)?;
        }
        dual_stack(&scene, &mut held);
        Ok(Self { scene, held })
    }

    pub(crate) fn server(&self) -> &Namespace {
        &self.scene.server
    }

    /// From now on a connection whose entry is deleted cannot be picked up again: it breaks.
    pub(crate) fn make_deletion_fatal(&self) -> Result<()> {
        make_deletion_fatal(self.server())
    }

    /// The entries of all that is alive, each by its id and ports.
    pub(crate) fn living_entries(&self) -> Result<BTreeSet<(u32, u32, u32)>> {
        let living =
            |port: u32| EXPECTED.iter().any(|(kind, ..)| *kind != port::DEAD && u32::from(*kind) == port);
        let entries = list(self.server())?;
        let named = entries.iter().filter(|entry| entry.protocol == 6).map(|entry| {
            let number = |field: &str| entry.original[field].parse().unwrap();
            (entry.number("id").unwrap(), number("sport"), number("dport"))
        });
        Ok(named.filter(|(_, sport, dport)| living(*sport) || living(*dport)).collect())
    }

    /// What was judged alive is: each pair that can still talk does, in the direction in which it can.
    pub(crate) fn assert_still_connected(self) {
        still_connected(self.held);
    }
}

/// Without an entry, nothing passes but the first packet of a connection.
pub(crate) fn make_deletion_fatal(server: &Namespace) -> Result<()> {
    server.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")?;
    server.nft(
        "table inet strict {\n\
           chain in { type filter hook input priority 0; ct state invalid drop; }\n\
           chain through { type filter hook forward priority 0; ct state invalid drop; }\n\
         }\n",
    )
}

/// What is held open so that it is alive, and what is held deaf.
#[derive(Default)]
struct Held {
    ends: Vec<(TcpStream, TcpStream)>,
    silent: Vec<TcpStream>,
    listeners: Vec<TcpListener>,
    responders: Vec<Responder>,
}

/// Routes and translations, on the server and around it.
fn prepare(scene: &Topology) -> Result<()> {
    let server = &scene.server;
    server.sysctl("net/ipv4/ip_forward", "1")?;
    server.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    // So that entries of half-closed, picked-up and busy connections outlive the test, and their ids can be compared.
    for state in ["fin_wait", "close_wait", "last_ack", "unacknowledged", "max_retrans"] {
        server.sysctl(&format!("net/netfilter/nf_conntrack_tcp_timeout_{state}"), &BUSY.to_string())?;
    }
    server.ip("route add local 192.0.2.128/25 dev lo\n\
               route add local 2001:db8:a::/64 dev lo\n\
               route add 198.18.0.9/32 dev client\n\
               route add 2001:db8:18::9/128 dev client\n")?;
    let container = scene.peer("container");
    for (family, container, caller, called) in [
        ("ip", container.v4.to_string(), "198.18.0.9", "192.0.2.99"),
        ("ip6", format!("[{}]", container.v6), "2001:db8:18::9", "2001:db8:2::99"),
    ] {
        server.nft(&format!(
            "table {family} kinds {{\n\
               chain to {{ type nat hook prerouting priority dstnat;\n\
                 tcp dport {} dnat to {container}:80\n\
                 tcp dport {} redirect to :{}\n\
               }}\n\
               chain in {{ type nat hook input priority 100;\n\
                 tcp dport {} snat to {caller}\n\
               }}\n\
               chain from {{ type nat hook postrouting priority srcnat;\n\
                 tcp dport {} snat to {called}\n\
                 tcp dport {} masquerade\n\
               }}\n\
               chain mute {{ type filter hook output priority raw;\n\
                 tcp sport {} tcp flags & (fin | rst) != 0 drop\n\
               }}\n\
             }}\n",
            port::TO_CONTAINER,
            port::REDIRECTED,
            port::REDIRECTED_TO,
            port::INPUT_SNAT,
            port::CALLED_SNAT,
            port::FROM_CONTAINER,
            port::DEAD,
        ))?;
    }
    Ok(())
}

fn served_by_the_host(scene: &Topology, family: Family, held: &mut Held) -> Result<()> {
    let client = &scene.peer("client").namespace;
    let at = |port| scene.server_socket(family, port);
    let (v4, any, localhost, any_ip): (_, IpAddr, IpAddr, _) = match family {
        Family::V4 => (true, Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into(), ANY_IP[0]),
        Family::V6 => (false, Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into(), ANY_IP[1]),
    };
    // REDIRECT goes to the address of the link, so its target listens at all of them.
    let redirected_to = SocketAddr::new(any, port::REDIRECTED_TO);
    for (from, to, at, count) in [
        (client, at(port::KEPT), at(port::KEPT), KEPT),
        (client, at(port::REDIRECTED), redirected_to, EACH),
        (client, at(port::INPUT_SNAT), at(port::INPUT_SNAT), EACH),
        (client, SocketAddr::new(any_ip, port::ANY_IP), SocketAddr::new(any, port::ANY_IP), EACH),
        (
            &scene.server,
            SocketAddr::new(localhost, port::LOOPBACK),
            SocketAddr::new(any, port::LOOPBACK),
            EACH,
        ),
    ] {
        held.responders.push(Responder::start(&scene.server, at, Accept::AtOnce, KeepAlive::Off)?);
        for _ in 0..count {
            let mut stream = connect(from, to);
            assert_eq!(stream.local_addr().unwrap().is_ipv4(), v4);
            ask(&mut stream);
            held.silent.push(stream);
        }
    }
    let deferring = deferring(&scene.server, at(port::DEFERRED));
    held.silent.extend((0..EACH).map(|_| connect(client, at(port::DEFERRED))));
    held.listeners.push(deferring);
    Ok(())
}

fn not_by_the_host(scene: &Topology, family: Family, held: &mut Held) -> Result<()> {
    let (client, container) = (scene.peer("client"), scene.peer("container"));
    let inside = |port| SocketAddr::new(container.address(family), port);
    let translated = scene.server_socket(family, port::TO_CONTAINER);
    let outside = SocketAddr::new(client.address(family), port::FROM_CONTAINER);
    for (from, to, at) in [
        (client, translated, inside(80)),
        (client, inside(port::ROUTED), inside(port::ROUTED)),
        (container, outside, outside),
    ] {
        let on = if at == outside { client } else { container };
        let listener = listener(&on.namespace, at);
        held.ends.extend((0..EACH).map(|_| joined(&from.namespace, to, &listener)));
        held.listeners.push(listener);
    }
    Ok(())
}

fn called_by_the_host(scene: &Topology, family: Family, held: &mut Held) {
    let container = scene.peer("container");
    for port in [port::CALLED, port::CALLED_SNAT] {
        let at = SocketAddr::new(container.address(family), port);
        let listener = listener(&container.namespace, at);
        held.ends.extend((0..EACH).map(|_| joined(&scene.server, at, &listener)));
        held.listeners.push(listener);
    }
}

fn closing(scene: &Topology, family: Family, held: &mut Held) -> Result<()> {
    let client = &scene.peer("client").namespace;
    let at = |port| scene.server_socket(family, port);
    let made = |port| {
        let listener = listener(&scene.server, at(port));
        let ends: Vec<_> = (0..EACH).map(|_| joined(client, at(port), &listener)).collect();
        (listener, ends)
    };
    let (first, client_half) = made(port::CLIENT_HALF_CLOSED);
    client_half.iter().for_each(|(client, _)| client.shutdown(Shutdown::Write).unwrap());
    let (second, server_half) = made(port::SERVER_HALF_CLOSED);
    server_half.iter().for_each(|(_, server)| server.shutdown(Shutdown::Write).unwrap());

    // Half closed, forgotten by the table as after its 60 seconds, and picked up in the middle.
    let (third, mut picked_up) = made(port::PICKED_UP);
    picked_up.iter().for_each(|(client, _)| client.shutdown(Shutdown::Write).unwrap());
    let (port, word) = (port::PICKED_UP.to_string(), if family == Family::V4 { "ipv4" } else { "ipv6" });
    scene.server.command(&["conntrack", "-D", "-f", word, "-p", "tcp", "--dport", &port])?;
    for (client, server) in &mut picked_up {
        server.write_all(b"more").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
    }

    // Gone without a word in the middle of a response, which stays unacknowledged.
    let (fourth, mut vanished) = made(port::VANISHED);
    let table = if family == Family::V4 { "ip" } else { "ip6" };
    let gone = port::VANISHED;
    client.nft(&format!(
        "table {table} gone {{ chain out {{ type filter hook output priority 0; tcp dport {gone} drop; }}; }}"
    ))?;
    vanished.iter_mut().for_each(|(_, server)| server.write_all(&[7; 20_000]).unwrap());

    // Truly dead: the server threw them away, and its RST is lost before the table sees it.
    let (fifth, dead) = made(port::DEAD);
    for (client, server) in dead {
        sockopt::set_socket_linger(&server, Some(Duration::ZERO)).unwrap();
        drop(server);
        held.silent.push(client);
    }
    held.ends.extend([client_half, server_half, picked_up, vanished].into_iter().flatten());
    held.listeners.extend([first, second, third, fourth, fifth]);
    Ok(())
}

/// IPv4 connections to IPv6 sockets, whose addresses are then v4-mapped.
fn dual_stack(scene: &Topology, held: &mut Held) {
    let client = &scene.peer("client").namespace;
    let any = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let listener = listener(&scene.server, any(port::DUAL_STACK));
    let deferring = deferring(&scene.server, any(port::DUAL_DEFERRED));
    for family in FAMILIES {
        let to = scene.server_socket(family, port::DUAL_STACK);
        held.ends.extend((0..EACH).map(|_| joined(client, to, &listener)));
        let to = scene.server_socket(family, port::DUAL_DEFERRED);
        held.silent.extend((0..EACH).map(|_| connect(client, to)));
    }
    held.listeners.extend([listener, deferring]);
}

/// A listener that waits a quarter of an hour for data, so that honest pre-connects stay deferred for the whole test. 6 is
/// `IPPROTO_TCP`, 9 `TCP_DEFER_ACCEPT`, which no crate sets without `unsafe`; the option belongs to the shared socket.
fn deferring(namespace: &Namespace, at: SocketAddr) -> TcpListener {
    let listener = listener(namespace, at);
    let set = Command::new("perl")
        .args(["-e", "setsockopt(STDIN, 6, 9, pack('i', 900)) or die $!"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())))
        .status();
    assert!(set.expect("perl (apt-get install perl-base)").success());
    listener
}

pub(crate) fn ask(stream: &mut TcpStream) {
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

fn still_connected(held: Held) {
    let (mut talked, mut half) = (0, 0);
    for mut ends in held.ends {
        let (client, server) = (&mut ends.0, &mut ends.1);
        match client.peer_addr().unwrap().port() {
            // Its client is gone, and the server does not know yet.
            port::VANISHED => {}
            port::CLIENT_HALF_CLOSED | port::PICKED_UP => {
                server.write_all(b"!").unwrap();
                client.read_exact(&mut [0]).unwrap();
                half += 1;
            }
            port::SERVER_HALF_CLOSED => {
                client.write_all(b"?").unwrap();
                server.read_exact(&mut [0]).unwrap();
                half += 1;
            }
            _ => {
                exchange(&mut ends);
                talked += 1;
            }
        }
    }
    // To the container, routed, from it; two kinds of calls; dual stack.
    assert_eq!((talked, half), (6 * 2 * EACH, 3 * 2 * EACH));
    for mut stream in held.silent {
        match stream.peer_addr().unwrap().port() {
            port::DEAD => {}
            port::DEFERRED | port::DUAL_DEFERRED => stream.write_all(b"!").unwrap(),
            _ => ask(&mut stream),
        }
    }
    drop((held.listeners, held.responders));
}
