//! A large socket table is read whole.

use std::{
    collections::HashSet,
    env,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{self, Command, Stdio},
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

use crate::{GRACE, PATIENCE, Verdicts, listener};

/// Each has two sockets on the loopback: 50,000 of them.
const CONNECTIONS: usize = 25_000;
/// What a process has open beside its connections.
const OTHERS: usize = 100;
const HOW_MANY: &str = "CONNECTIONS_OF_THIS_CHILD";

/// A process that holds connections to port 80 until it is told to end, or until we end.
struct Child(process::Child);

impl Child {
    fn start(namespace: &Namespace, count: usize) -> Self {
        let own = env::current_exe().unwrap();
        let start = || {
            Command::new(own)
                .args(["--ignored", "--exact", "--nocapture", "many::child_that_connects"])
                .env(HOW_MANY, count.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
        };
        Self(namespace.run(start).unwrap())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The end of its input is its sign.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Run by [`a_table_of_50_000_sockets_is_read_whole`], for no process may have so many files open.
#[test]
#[ignore = "the child of another test"]
fn child_that_connects() {
    let count: usize = env::var(HOW_MANY).expect("started by another test").parse().unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let to = |number: usize| SocketAddr::new([127, 0, 0, 1 + (number % 4) as u8].into(), 80);
    let _held: Vec<_> = (0..count).map(|number| TcpStream::connect(to(number)).unwrap()).collect();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// How many connections a child may hold.
fn room() -> usize {
    let limit = getrlimit(Resource::Nofile).maximum.map_or(CONNECTIONS, |limit| limit as usize);
    limit.saturating_sub(OTHERS).clamp(1000, CONNECTIONS)
}

#[test]
fn a_table_of_50_000_sockets_is_read_whole() -> Result<()> {
    let namespace = Namespace::new("many")?;
    namespace.sysctl("net/core/somaxconn", "65535")?;
    namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    // Nobody accepts them, so a connection costs its process one descriptor.
    let listener = listener(&namespace, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80));
    rustix::net::listen(&listener, 65_535).unwrap();
    namespace.track_connections()?;
    let starts = (0..CONNECTIONS).step_by(room());
    let children: Vec<_> =
        starts.map(|start| Child::start(&namespace, room().min(CONNECTIONS - start))).collect();
    wait_until("every connection to be established at both ends", Duration::from_secs(60), || {
        let sockets = namespace.run(|| Connected::read().unwrap());
        if sockets.len() == 2 * CONNECTIONS { Ok(()) } else { Err(format!("{} sockets", sockets.len())) }
    })?;
    wait_until("every entry to be judged by its socket", PATIENCE, || {
        let found = Verdicts::with_grace(&namespace, 3 * GRACE).at(80);
        assert_eq!(found.get("nothing"), None, "{found:?}");
        if found == [("socket", CONNECTIONS)].into() { Ok(()) } else { Err(format!("{found:?}")) }
    })?;
    drop(children);
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
