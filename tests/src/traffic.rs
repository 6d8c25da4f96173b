//! A table with something of everything: what a decoder and a deletion are held against.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, sockopt};

use crate::{
    Result,
    attack::connecting,
    failure::Tried,
    netns::Namespace,
    topology::{Family, Peer, Topology},
};

/// An experimental protocol number (RFC 3692), which conntrack knows nothing of.
pub const EXPERIMENT: u8 = 253;
const PATIENCE: Duration = Duration::from_secs(30);

/// The ends of real connections, so that they keep their states.
#[derive(Debug)]
pub struct Everything {
    _held: Vec<TcpStream>,
    _listeners: Vec<TcpListener>,
}

/// Fills the server's table from every named peer, in both families.
///
/// Real packets: TCP in SYN_SENT (from the server), SYN_RECV, ESTABLISHED, CLOSE_WAIT, TIME_WAIT and CLOSE; UDP with
/// and without a reply, in a zone, in a zone of one direction, with a mark, behind DNAT and SNAT; ICMP and ICMPv6 echo;
/// a protocol unknown to conntrack. By `conntrack -I`: TCP in FIN_WAIT and LAST_ACK, assured UDP, UDP-Lite, SCTP, DCCP, GRE.
/// The table is quiet afterwards: nothing refreshes a timeout.
///
/// # Errors
/// When a rule or a connection fails.
pub fn everything(scene: &Topology, peers: &[&str]) -> Result<Everything> {
    let server = &scene.server;
    server.sysctl("net/netfilter/nf_conntrack_acct", "1")?;
    // A repeated SYN-ACK would refresh its entry.
    server.sysctl("net/ipv4/tcp_synack_retries", "0")?;
    server.nft(&zones_and_marks(Family::V4))?;
    server.nft(&zones_and_marks(Family::V6))?;
    let mut everything = Everything { _held: Vec::new(), _listeners: Vec::new() };
    for family in [Family::V4, Family::V6] {
        let [kept, deaf] = [80, 81].map(|port| {
            let at = scene.server_socket(family, port);
            server.run(|| TcpListener::bind(at)).tried(|| format!("listening at {at}"))
        });
        let (kept, deaf) = (kept?, deaf?);
        for name in peers {
            let peer = scene.peer(name);
            peer.namespace.nft(DEAF)?;
            let ends = tcp(scene, peer, family, &kept).tried(|| format!("TCP from {name}"))?;
            everything._held.extend(ends);
            udp(scene, peer, family).tried(|| format!("UDP from {name}"))?;
            peer.namespace.sysctl("net/ipv4/ping_group_range", "0 0")?;
            let (own, target) = (peer.address(family), scene.server_address(family));
            peer.namespace.run(|| echo(target)).tried(|| format!("ICMP from {name}"))?;
            peer.namespace
                .run(|| unknown(own, target))
                .tried(|| format!("protocol {EXPERIMENT} from {name}"))?;
            inserted(server, own, target)?;
        }
        everything._listeners.extend([kept, deaf]);
    }
    Ok(everything)
}

/// SYN-ACKs from port 81 and everything to port 82 are swallowed: these handshakes stay where they are.
const DEAF: &str = "table inet deaf\n delete table inet deaf\n table inet deaf { chain in {\n\
     type filter hook input priority 0;\n\
     tcp sport 81 drop\n\
     tcp dport 82 drop\n\
     }; }\n";

/// UDP ports choose what happens to a flow: 5301 zone 7, 5302 zone 8 in the original direction only, 5303 mark 42,
/// 5304 is translated to 53, 5305 at the peer comes from another address of the server.
fn zones_and_marks(family: Family) -> String {
    let (table, snat) = match family {
        Family::V4 => ("ip", "192.0.2.99"),
        Family::V6 => ("ip6", "2001:db8:2::99"),
    };
    format!(
        "table {table} everything {{\n\
           chain zones {{ type filter hook prerouting priority raw;\n\
             udp dport 5301 ct zone set 7\n\
             udp dport 5302 ct original zone set 8\n\
           }}\n\
           chain marks {{ type filter hook input priority 0;\n\
             udp dport 5303 ct mark set 42\n\
           }}\n\
           chain to {{ type nat hook prerouting priority dstnat;\n\
             udp dport 5304 redirect to :53\n\
           }}\n\
           chain from {{ type nat hook postrouting priority srcnat;\n\
             udp dport 5305 snat to {snat}\n\
           }}\n\
         }}\n"
    )
}

fn tcp(scene: &Topology, peer: &Peer, family: Family, kept: &TcpListener) -> io::Result<Vec<TcpStream>> {
    let server = |port| scene.server_socket(family, port);
    let connect = || peer.namespace.run(|| TcpStream::connect_timeout(&server(80), PATIENCE));
    let joined = || -> io::Result<(TcpStream, TcpStream)> { Ok((connect()?, kept.accept()?.0)) };

    let established = joined()?;
    let close_wait = joined()?;
    close_wait.0.shutdown(std::net::Shutdown::Write)?;
    let (ours, mut theirs) = joined()?;
    drop(ours);
    theirs.read_to_end(&mut Vec::new())?;
    drop(theirs);
    // A RST that answers a SYN removes the entry; only one that ends a connection leaves it in CLOSE.
    let (ours, theirs) = joined()?;
    sockopt::set_socket_linger(&ours, Some(Duration::ZERO))?;
    drop((ours, theirs));

    let own = peer.address(family);
    drop(peer.namespace.run(|| connecting(SocketAddr::new(own, 0), server(81)))?);
    let target = SocketAddr::new(own, 82);
    let from = scene.server_socket(family, 0);
    drop(scene.server.run(|| connecting(from, target))?);
    Ok(vec![established.0, established.1, close_wait.0, close_wait.1])
}

fn udp(scene: &Topology, peer: &Peer, family: Family) -> io::Result<()> {
    let own = SocketAddr::new(peer.address(family), 0);
    let ours = peer.namespace.run(|| UdpSocket::bind(own))?;
    for port in [5300, 5301, 5302, 5303] {
        ours.send_to(b"?", scene.server_socket(family, port))?;
    }
    // A redirection goes to the address of the interface that the packet came in by.
    let any = if own.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let theirs = scene.server.run(|| UdpSocket::bind((any, 53)))?;
    theirs.set_read_timeout(Some(PATIENCE))?;
    ours.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = [0; 16];
    // Through the translation, there and back.
    ours.send_to(b"?", scene.server_socket(family, 5304))?;
    let (_, asker) = theirs.recv_from(&mut bytes)?;
    theirs.send_to(b"!", asker)?;
    ours.recv_from(&mut bytes)?;
    let caller = scene.server.run(|| UdpSocket::bind((scene.server_address(family), 0)))?;
    caller.send_to(b"?", SocketAddr::new(own.ip(), 5305))?;
    Ok(())
}

/// One echo request, and its answer. The type is the first byte, the kernel fills in identifier and checksum.
fn echo(target: IpAddr) -> io::Result<()> {
    let (family, protocol, request) = match target {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
    };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(protocol))?;
    rustix::net::connect(&socket, &SocketAddr::new(target, 0))?;
    // A ping socket speaks like a UDP socket once it is made.
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&[request, 0, 0, 0, 0, 0, 0, 1])?;
    socket.recv(&mut [0; 64]).map(drop)
}

fn unknown(own: IpAddr, target: IpAddr) -> io::Result<()> {
    let family = if own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let number = std::num::NonZeroU32::new(EXPERIMENT.into()).map(Protocol::from_raw);
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, number)?;
    rustix::net::bind(&socket, &SocketAddr::new(own, 0))?;
    rustix::net::connect(&socket, &SocketAddr::new(target, 0))?;
    rustix::net::send(&socket, b"?", rustix::net::SendFlags::empty())?;
    Ok(())
}

/// What no socket of ours makes easily, put in by the tool. The second has the original
/// tuple of the first and the fourth that of the third: only their zones keep them apart.
fn inserted(server: &Namespace, source: IpAddr, target: IpAddr) -> Result<()> {
    const ENTRIES: [&str; 9] = [
        "-p tcp --sport 1001 --dport 80 --state FIN_WAIT -u SEEN_REPLY,ASSURED -t 301 -m 5",
        "-p tcp --sport 1001 --dport 80 --state LAST_ACK -u SEEN_REPLY,ASSURED -t 302 -w 7",
        "-p udp --sport 1001 --dport 53 -u SEEN_REPLY,ASSURED -t 303",
        "-p udp --sport 1001 --dport 53 -r DST -q SRC --reply-port-src 99 --reply-port-dst 1001 -t 304 --orig-zone 9",
        "-p udp --sport 1001 --dport 54 -t 305 --reply-zone 9",
        "-p udplite --sport 1002 --dport 1003 -t 306",
        "-p sctp --sport 1004 --dport 1005 --state COOKIE_WAIT --orig-vtag 1 --reply-vtag 2 -t 307",
        "-p dccp --sport 1006 --dport 1007 --state OPEN --role client -t 308",
        "-p gre --orig-key-src 0x11 --orig-key-dst 0x22 -t 309 -m 4294967295",
    ];
    let (source, target) = (source.to_string(), target.to_string());
    for entry in ENTRIES {
        let named = |word| match word {
            "SRC" => source.as_str(),
            "DST" => target.as_str(),
            other => other,
        };
        let words =
            ["conntrack", "-I", "-s", &source, "-d", &target].into_iter().chain(entry.split(' ').map(named));
        server.command(&words.collect::<Vec<_>>())?;
    }
    Ok(())
}
