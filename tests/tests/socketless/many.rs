//! A large socket table is read whole, and what reading it costs.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use conntrack::{
    Flow, Summary, Table,
    own::OwnAddresses,
    socketless::{Connected, Judge, TcpTimeouts},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::{Result, netns::Namespace, wait::wait_until};

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
