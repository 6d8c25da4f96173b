//! What stands behind an entry, on the real kernel: every dead slot is found, and no living connection is taken for one.

mod alive;
mod bury;
mod churn;
mod cost;
mod fill;
mod kinds;
mod many;
mod programs;
mod shared;
mod timeouts;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use conntrack::{
    Flow, L4, Table,
    dead::DeadSlot,
    own::OwnAddresses,
    socketless::{Behind, CannotJudge, Connected, Judge, TcpTimeouts},
};
use tests::{netns::Namespace, wait::wait_until};

/// Short, so that the tests are; far longer than both dumps take.
const GRACE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);

/// One dump with its verdicts, and the slots that it would delete.
#[derive(Debug, Default)]
struct Verdicts {
    flows: Vec<(Flow, Behind)>,
    dead: Vec<DeadSlot>,
}

impl Verdicts {
    /// As the programs take them: addresses and timeouts, then the sockets, then the table.
    fn of(namespace: &Namespace) -> Self {
        Self::with_grace(namespace, GRACE)
    }

    /// The same, with a grace of its own: a crowded machine may need longer than [`GRACE`] for many sockets. Dumps that took longer than
    /// the grace give no verdict, neither here nor in the programs, and the next ones do.
    fn with_grace(namespace: &Namespace, grace: Duration) -> Self {
        wait_until("dumps within the grace", PATIENCE, || Self::taken(namespace, grace, || ())).unwrap()
    }

    /// The same, where everything is young; `between` runs when the sockets have been read and the table has not.
    fn with_between(namespace: &Namespace, between: impl FnOnce() + Send) -> Self {
        Self::taken(namespace, PATIENCE, between).unwrap()
    }

    fn taken(
        namespace: &Namespace,
        grace: Duration,
        between: impl FnOnce() + Send,
    ) -> Result<Self, CannotJudge> {
        namespace.run(|| {
            let own = OwnAddresses::read().unwrap();
            let timeouts = TcpTimeouts::read(Path::new("/proc")).unwrap();
            let sockets = Connected::read().unwrap();
            between();
            let mut judge = Judge::new(&sockets, &own, timeouts, grace).unwrap();
            let mut verdicts = Self::default();
            let visit = |flow: &Flow| {
                let behind = judge.judge(flow);
                verdicts.flows.push((*flow, behind));
                if behind == Behind::Nothing {
                    verdicts.dead.push(DeadSlot::of(flow).unwrap());
                }
            };
            let dump = Table::open().unwrap().visit(visit).unwrap();
            assert_eq!((dump.malformed, dump.interrupted), (None, false));
            judge.in_time().map(|()| verdicts)
        })
    }

    /// How many entries with that service port have what behind them. A flow that was picked up in the middle may be turned round.
    fn at(&self, port: u16) -> BTreeMap<&'static str, usize> {
        let mut found = BTreeMap::new();
        for (_, behind) in self.flows.iter().filter(|(flow, _)| has_port(flow, &[port])) {
            *found.entry(word(*behind)).or_default() += 1;
        }
        found
    }

    /// Fails if a dead slot was seen other than at the ports given.
    fn assert_dead_only_at(&self, dead: &[u16]) {
        let wrong: Vec<_> = self
            .flows
            .iter()
            .filter(|(flow, behind)| *behind == Behind::Nothing && !has_port(flow, dead))
            .map(|(flow, _)| flow)
            .collect();
        assert!(wrong.is_empty(), "{} living connections taken for dead: {:#?}", wrong.len(), wrong.first());
    }
}

fn word(behind: Behind) -> &'static str {
    match behind {
        Behind::Socket => "socket",
        Behind::Request => "request",
        Behind::Nothing => "nothing",
        Behind::NotJudged => "not judged",
    }
}

fn has_port(flow: &Flow, ports: &[u16]) -> bool {
    matches!(flow.original.l4, L4::Ports { src, dst } if ports.contains(&src) || ports.contains(&dst))
}

fn listener(namespace: &Namespace, at: SocketAddr) -> TcpListener {
    namespace.run(|| TcpListener::bind(at)).unwrap_or_else(|error| panic!("listening at {at}: {error}"))
}

fn connect(namespace: &Namespace, to: SocketAddr) -> TcpStream {
    let connected = namespace.run(|| TcpStream::connect_timeout(&to, PATIENCE));
    let stream = connected.unwrap_or_else(|error| panic!("{} to {to}: {error}", namespace.name()));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Both ends of a new connection, after one exchange.
fn joined(namespace: &Namespace, to: SocketAddr, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = connect(namespace, to);
    let (server, _) = listener.accept().unwrap();
    server.set_nodelay(true).unwrap();
    let mut ends = (client, server);
    exchange(&mut ends);
    ends
}

/// A question and an answer: nothing is lost, nothing is left unacknowledged for long.
fn exchange((client, server): &mut (TcpStream, TcpStream)) {
    client.write_all(b"?").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
}
