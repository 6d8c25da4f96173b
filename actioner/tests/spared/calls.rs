//! Whom this host called, on a real kernel: also where the table has it the other way round.

use conntrack::own::OwnAddresses;
use conntrack_actioner::spared::Called;
use conntrack_actioner::survey::{self, Ask};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tests::listing::{Entry, list};
use tests::netns::Namespace;
use tests::responder::{Accept, KeepAlive, Responder};
use tests::topology::{Family, Topology};
use tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(30);
const EVERY_SECOND: KeepAlive = KeepAlive::Every(Duration::from_secs(1));

fn called(server: &Namespace) -> Arc<Called> {
    server.run(|| survey::take(&OwnAddresses::read().unwrap(), &Ask::default()).unwrap().called)
}

fn knows(called: &Called, peer: IpAddr) -> (bool, bool) {
    (called.outbound_in(&peer.into()).is_some(), called.peer_in(&peer.into()).is_some())
}

/// Waits until the only entries are assured and come from `source`.
fn wait_for_entry_from(server: &Namespace, source: IpAddr) {
    let source = source.to_string();
    wait_until("an assured entry from that source", SOON, || {
        let entries = list(server).unwrap();
        match entries.iter().any(|entry| entry.source() == source && entry.is("ASSURED")) {
            true => Ok(()),
            false => Err(format!("{entries:?}")),
        }
    })
    .unwrap();
}

fn forget_entries(server: &Namespace) {
    // In a namespace of our own.
    let _ = server.command(&["conntrack", "-F"]);
}

#[test]
fn a_database_is_known_even_when_its_entry_is_turned_round() {
    for family in [Family::V4, Family::V6] {
        let topology = Topology::direct(&["database"]).unwrap();
        let (server, database) = (&topology.server, topology.peer("database"));
        let address = database.address(family);
        let at = SocketAddr::new(address, 5432);
        let _database = Responder::start(&database.namespace, at, Accept::AtOnce, EVERY_SECOND).unwrap();
        let connection = server.run(|| TcpStream::connect(at).unwrap());
        wait_for_entry_from(server, connection.local_addr().unwrap().ip());
        assert_eq!(knows(&called(server), address), (true, true));
        // It speaks first after a deletion, and is the source from then on.
        forget_entries(server);
        wait_for_entry_from(server, address);
        assert_eq!(knows(&called(server), address), (false, true), "known by its socket");
        drop(connection);
    }
}

#[test]
fn a_visitor_is_not_even_when_the_servers_keep_alives_turn_his_entry_round() {
    for family in [Family::V4, Family::V6] {
        let topology = Topology::direct(&["visitor"]).unwrap();
        let (server, visitor) = (&topology.server, topology.peer("visitor"));
        let target = topology.server_socket(family, 80);
        let _service = Responder::start(server, target, Accept::AtOnce, EVERY_SECOND).unwrap();
        let connection = visitor.namespace.run(|| TcpStream::connect(target).unwrap());
        let address = visitor.address(family);
        wait_for_entry_from(server, address);
        assert_eq!(knows(&called(server), address), (false, false));
        forget_entries(server);
        wait_for_entry_from(server, target.ip());
        assert_eq!(knows(&called(server), address), (false, false), "turned round");
        drop(connection);
    }
}

/// Passive FTP and the like: the listener takes one call and goes. The table saw who sent the SYN.
#[test]
fn a_visitor_of_a_listener_that_is_gone_is_not_either() {
    for family in [Family::V4, Family::V6] {
        let topology = Topology::direct(&["visitor"]).unwrap();
        let (server, visitor) = (&topology.server, topology.peer("visitor"));
        let target = topology.server_socket(family, 40_021);
        let listener = server.run(|| TcpListener::bind(target).unwrap());
        let connection = visitor.namespace.run(|| TcpStream::connect(target).unwrap());
        let accepted = listener.accept().unwrap();
        drop(listener);
        let address = visitor.address(family);
        wait_for_entry_from(server, address);
        assert_eq!(knows(&called(server), address), (false, false));
        drop((connection, accepted));
    }
}

#[test]
fn a_question_over_udp_is_known_once_it_is_a_conversation_and_a_served_one_never() {
    let topology = Topology::direct(&["peer"]).unwrap();
    let (server, peer) = (&topology.server, topology.peer("peer"));
    let theirs = SocketAddr::new(peer.address(Family::V4), 5353);
    let ours = topology.server_socket(Family::V4, 5353);
    let [service, asked] =
        [server.run(|| UdpSocket::bind(ours)), peer.namespace.run(|| UdpSocket::bind(theirs))]
            .map(Result::unwrap);
    let asking = server.run(|| UdpSocket::bind(topology.server_socket(Family::V4, 0))).unwrap();
    asking.connect(theirs).unwrap();
    // Assured is what goes to and fro two seconds after its first packet (nf_conntrack_udp_packet).
    let converse = |socket: &UdpSocket| {
        wait_until("an assured entry", SOON, || {
            if socket.peer_addr().is_ok() {
                socket.send(b"?").unwrap();
            } else {
                socket.send_to(b"?", theirs).unwrap();
            }
            let (_, from) = asked.recv_from(&mut [0; 8]).unwrap();
            asked.send_to(b"!", from).unwrap();
            socket.recv(&mut [0; 8]).unwrap();
            let entries = list(server).unwrap();
            let assured = |entry: &Entry| entry.source() == ours.ip().to_string() && entry.is("ASSURED");
            if entries.iter().any(assured) { Ok(()) } else { Err(format!("{entries:?}")) }
        })
        .unwrap();
    };
    // From the service's own port: he may have asked first, and the entry been deleted.
    converse(&service);
    assert_eq!(knows(&called(server), theirs.ip()), (false, false));
    forget_entries(server);
    converse(&asking);
    assert_eq!(knows(&called(server), theirs.ip()), (true, false));
}
