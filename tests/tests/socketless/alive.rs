//! No false positive: connections of every kind that must never be taken for dead slots, all at once.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use conntrack::{State, TcpState};
use rustix::net::sockopt;
use tests::{
    Result,
    netns::Namespace,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::{Verdicts, connect, exchange, has_port, joined, listener};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const KEPT: usize = 150;
const CHURNED: usize = 3000;
/// Connections of each of the other kinds, in each family.
const EACH: usize = 5;

/// A connection's kind is the port it is made to.
mod port {
    pub(super) const KEPT: u16 = 80;
    pub(super) const TO_CONTAINER: u16 = 8081;
    pub(super) const ROUTED: u16 = 8082;
    pub(super) const FROM_CONTAINER: u16 = 8083;
    pub(super) const REDIRECTED: u16 = 8084;
    pub(super) const DUAL_STACK: u16 = 8085;
    pub(super) const INPUT_SNAT: u16 = 8086;
    pub(super) const CALLED: u16 = 8087;
    pub(super) const CALLED_SNAT: u16 = 8088;
    pub(super) const ANY_IP: u16 = 8089;
    pub(super) const LOOPBACK: u16 = 8090;
    pub(super) const DEFERRED: u16 = 8091;
    pub(super) const DUAL_DEFERRED: u16 = 8092;
    pub(super) const CLIENT_HALF_CLOSED: u16 = 8093;
    pub(super) const SERVER_HALF_CLOSED: u16 = 8094;
    pub(super) const PICKED_UP: u16 = 8095;
    pub(super) const VANISHED: u16 = 8096;
    pub(super) const CHURN: u16 = 8097;
    pub(super) const REDIRECTED_TO: u16 = 8098;
    pub(super) const DEAD: u16 = 8099;
}

/// What a kind of connection is once it has been idle for the grace. Half-closed ones are in states of their own.
const EXPECTED: [(u16, &str, usize); 18] = [
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

/// What is held open so that it is alive, and what is held deaf.
#[derive(Default)]
struct Held {
    ends: Vec<(TcpStream, TcpStream)>,
    silent: Vec<TcpStream>,
    listeners: Vec<TcpListener>,
    responders: Vec<Responder>,
}

#[test]
fn nothing_alive_is_taken_for_dead() -> Result<()> {
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

    let churn = Churn::start(&scene)?;
    let mut looks = 0;
    while looks < 50 || churn.made.load(Ordering::Relaxed) < CHURNED {
        let verdicts = Verdicts::of(&scene.server);
        verdicts.assert_dead_only_at(&[port::DEAD]);
        assert!(!verdicts.at(port::CHURN).is_empty());
        looks += 1;
    }
    churn.end();

    let verdicts = wait_until("each kind to be what it is when idle", Duration::from_secs(10), || {
        let verdicts = Verdicts::of(&scene.server);
        verdicts.assert_dead_only_at(&[port::DEAD]);
        for (port, word, count) in EXPECTED {
            let found = verdicts.at(port);
            if found.get(word) != Some(&count) || found.len() != 1 {
                return Err(format!("port {port}: {found:?}, not {count} {word}"));
            }
        }
        Ok(verdicts)
    })?;
    for (flow, _) in
        verdicts.flows.iter().filter(|(flow, _)| has_port(flow, &[port::VANISHED, port::PICKED_UP]))
    {
        let busy = flow.state == State::Tcp(TcpState::Established) && flow.timeout.unwrap() <= 300;
        assert!(busy, "established, and not judged because it may be busy: {flow:?}");
    }
    assert_still_connected(held);
    Ok(())
}

/// Routes and translations, on the server and around it.
fn prepare(scene: &Topology) -> Result<()> {
    let server = &scene.server;
    server.sysctl("net/ipv4/ip_forward", "1")?;
    server.sysctl("net/ipv6/conf/all/forwarding", "1")?;
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

/// A listener that waits 30 s for data, so that honest pre-connects stay deferred for the whole test. 6 is
/// `IPPROTO_TCP`, 9 `TCP_DEFER_ACCEPT`, which no crate sets without `unsafe`; the option belongs to the shared socket.
fn deferring(namespace: &Namespace, at: SocketAddr) -> TcpListener {
    let listener = listener(namespace, at);
    let set = Command::new("perl")
        .args(["-e", "setsockopt(STDIN, 6, 9, pack('i', 30)) or die $!"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())))
        .status();
    assert!(set.expect("perl (apt-get install perl-base)").success());
    listener
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// Short connections as fast as they go, over both families: closed by the client, or thrown away by it.
struct Churn {
    made: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Churn {
    fn start(scene: &Topology) -> Result<Self> {
        let (made, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let start = |family| -> Result<_> {
            let at = scene.server_socket(family, port::CHURN);
            let responder = Responder::start(&scene.server, at, Accept::AtOnce, KeepAlive::Off)?;
            let (made, stop) = (made.clone(), stop.clone());
            scene.peer("client").namespace.thread("churn", move || {
                let _responder = responder;
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect(at).unwrap();
                    ask(&mut stream);
                    // Faster, and the dumps of a test on two cores starve.
                    thread::sleep(Duration::from_millis(1));
                    if made.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                    }
                }
            })
        };
        let threads = FAMILIES.into_iter().map(start).collect::<Result<_>>()?;
        Ok(Self { made, stop, threads })
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// What was judged alive is: each pair that can still talk does.
fn assert_still_connected(held: Held) {
    let mut talked = 0;
    for mut ends in held.ends {
        let port = ends.0.peer_addr().unwrap().port();
        let closing = [port::CLIENT_HALF_CLOSED, port::SERVER_HALF_CLOSED, port::PICKED_UP, port::VANISHED];
        if !closing.contains(&port) {
            exchange(&mut ends);
            talked += 1;
        }
    }
    // To the container, routed, from it; two kinds of calls; dual stack.
    assert_eq!(talked, 6 * 2 * EACH);
    for mut stream in held.silent {
        match stream.peer_addr().unwrap().port() {
            port::DEAD => {}
            port::DEFERRED | port::DUAL_DEFERRED => stream.write_all(b"!").unwrap(),
            _ => ask(&mut stream),
        }
    }
    drop((held.listeners, held.responders));
}
