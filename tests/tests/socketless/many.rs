//! A large socket table is read whole.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use conntrack::{
    socketless::Connected,
    sockets::{Socket, Sockets},
};
use rustix::{
    net::sockopt,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tests::{
    Result,
    netns::Namespace,
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::{PATIENCE, Verdicts, listener};

/// What other tests in this process may have open.
const OTHERS: u64 = 5_000;
/// For how many sockets there must be descriptors; with more, there are up to 50,000.
const AT_LEAST: usize = 20_000;

/// How many connections this process may hold, its limit raised as far as it goes.
fn room() -> usize {
    let wanted = 25_000 + OTHERS;
    let raised = Rlimit { current: Some(wanted), maximum: Some(wanted) };
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) && setrlimit(Resource::Nofile, raised).is_err() {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    }
    let now = getrlimit(Resource::Nofile).current.map_or(wanted, |now| now.min(wanted));
    now.saturating_sub(OTHERS) as usize
}

/// A namespace with so many loopback connections: two sockets each, and one descriptor, for nobody accepts them.
fn connected(count: usize) -> Result<(Namespace, TcpListener, Vec<TcpStream>)> {
    let namespace = Namespace::new("many")?;
    namespace.sysctl("net/core/somaxconn", "65535")?;
    namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    let listener = listener(&namespace, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80));
    rustix::net::listen(&listener, 65_535).unwrap();
    namespace.track_connections()?;
    let streams = namespace.run(|| {
        let to = |number: usize| SocketAddr::new([127, 0, 0, 1 + (number % 4) as u8].into(), 80);
        (0..count).map(|number| TcpStream::connect(to(number)).unwrap()).collect()
    });
    Ok((namespace, listener, streams))
}

#[test]
fn a_table_of_many_sockets_is_read_whole() -> Result<()> {
    let count = room();
    assert!(2 * count >= AT_LEAST, "this test needs a limit of {} open files", AT_LEAST as u64 / 2 + OTHERS);
    let (namespace, _listener, streams) = connected(count)?;
    // The last ACK of each may still be on its way through the backlog.
    wait_until("every connection to be established at both ends", PATIENCE, || {
        let sockets = namespace.run(|| Connected::read().unwrap());
        if sockets.len() == 2 * count { Ok(()) } else { Err(format!("{} of {}", sockets.len(), 2 * count)) }
    })?;
    wait_until("every entry to be judged by its socket", PATIENCE, || {
        let found = Verdicts::of(&namespace).at(80);
        assert_eq!(found.get("nothing"), None, "{found:?}");
        if found == [("socket", count)].into() { Ok(()) } else { Err(format!("{found:?}")) }
    })?;
    drop(streams);
    Ok(())
}

/// A dump of sockets resumes by counting within a hash bucket, so it passes over a living socket when another of its bucket
/// closes between two messages. With few buckets that is seen at once; a small server has 4,096.
#[test]
fn sockets_that_a_dump_passes_over_are_found_all_the_same() -> Result<()> {
    let outer = Namespace::new("outer")?;
    outer.sysctl("net/ipv4/tcp_child_ehash_entries", "64")?;
    let scene = outer.run(|| Topology::direct(&["client"]))?;
    assert_eq!(scene.server.read_sysctl("net/ipv4/tcp_ehash_entries")?, "64");
    let (server, client) = (&scene.server, &scene.peer("client").namespace);
    server.sysctl("net/core/somaxconn", "65535")?;
    server.nft(
        "table inet churn {\n\
           chain in { type filter hook prerouting priority raw; tcp dport 81 notrack; }\n\
           chain out { type filter hook output priority raw; tcp sport 81 notrack; }\n\
         }\n",
    )?;
    let at = |port| scene.server_socket(Family::V4, port);
    let [kept, churned] = [80, 81].map(|port| listener(server, at(port)));
    rustix::net::listen(&kept, 65_535).unwrap();
    let count = 1000;
    let held: Vec<_> = client.run(|| (0..count).map(|_| TcpStream::connect(at(80)).unwrap()).collect());
    wait_until("each connection to be idle for the grace", PATIENCE, || {
        let found = Verdicts::of(server).at(80);
        if found == [("socket", count)].into() { Ok(()) } else { Err(format!("{found:?}")) }
    })?;

    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, to) = (stop.clone(), at(81));
    let churn = client.thread("churn", move || {
        while !stopped.load(Ordering::Relaxed) {
            for stream in [(); 20].map(|()| TcpStream::connect(to).unwrap()) {
                sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                drop((stream, churned.accept()));
            }
        }
    })?;
    let (start, mut passed_over, mut looks) = (Instant::now(), 0, 0);
    while looks < 50 || (passed_over < 3 && start.elapsed() < PATIENCE) {
        looks += 1;
        let mut seen = HashSet::new();
        let visit = |socket: &Socket| seen.extend([socket.peer]);
        server.run(|| Sockets::open().unwrap().visit(visit).unwrap());
        passed_over += held.iter().filter(|stream| !seen.contains(&stream.local_addr().unwrap())).count();
        assert_eq!(Verdicts::of(server).at(80), [("socket", count)].into());
    }
    stop.store(true, Ordering::Relaxed);
    churn.join().unwrap();
    assert!(passed_over > 0, "no dump of {looks} passed over any socket: this run shows nothing");
    Ok(())
}
