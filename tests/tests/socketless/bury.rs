//! Deletion of dead slots: what has come alive meanwhile is spared, and nobody honest notices.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use conntrack::{
    Table,
    dead::{Buried, DeadSlot},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tests::{
    Result,
    attack::{self, Pace},
    honest::{Habits, Honest},
    netns::Namespace,
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::{PATIENCE, Verdicts, exchange, joined, listener};

fn bury(namespace: &Namespace, slots: Vec<DeadSlot>) -> Buried {
    namespace.run(|| Table::open().unwrap().bury(slots).unwrap())
}

/// A connection from a port of our choice, in the calling thread's namespace.
fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, &from).unwrap();
    rustix::net::connect(&socket, &to).unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Both ends go, and neither's RST is heard by the table.
fn vanish((client, server): (TcpStream, TcpStream)) {
    for end in [client, server] {
        sockopt::set_socket_linger(&end, Some(Duration::ZERO)).unwrap();
    }
}

const MUTE: &str = "table inet mute { chain out { type filter hook output priority raw; tcp flags & (fin | rst) != 0 drop; }; }";

#[test]
fn a_slot_whose_tuple_connects_again_between_judgement_and_deletion_is_spared() -> Result<()> {
    let scene = Topology::direct(&["client"])?;
    let client = scene.peer("client");
    scene.server.nft(MUTE)?;
    client.namespace.nft(MUTE)?;
    let mut listeners = Vec::new();
    let from = |family, port| SocketAddr::new(client.address(family), port);
    let joined_from = |family, port, listener: &std::net::TcpListener| {
        let to = scene.server_socket(family, 80);
        let client = client.namespace.run(|| connect_from(from(family, port), to));
        let mut ends = (client, listener.accept().unwrap().0);
        exchange(&mut ends);
        ends
    };
    for family in [Family::V4, Family::V6] {
        let listener = listener(&scene.server, scene.server_socket(family, 80));
        (5000..5020).for_each(|port| vanish(joined_from(family, port, &listener)));
        listeners.push((family, listener));
    }
    let dead = wait_until("40 dead slots", PATIENCE, || {
        let verdicts = Verdicts::of(&scene.server);
        if verdicts.dead.len() == 40 { Ok(verdicts.dead) } else { Err(format!("{}", verdicts.dead.len())) }
    })?;

    let mut revived: Vec<_> = listeners
        .iter()
        .flat_map(|(family, listener)| (5000..5010).map(|port| joined_from(*family, port, listener)))
        .collect();
    assert_eq!(bury(&scene.server, dead), Buried { deleted: 20, revived: 20, ..Buried::default() });
    let left = Verdicts::of(&scene.server);
    assert_eq!((left.flows.len(), left.dead.len()), (20, 0));
    revived.iter_mut().for_each(exchange);
    Ok(())
}

#[test]
fn what_has_a_socket_is_never_buried_whatever_was_judged() -> Result<()> {
    let scene = Topology::direct(&["client"])?;
    let client = scene.peer("client");
    scene.server.nft(
        "table inet nat {\n\
           chain to { type nat hook prerouting priority dstnat; tcp dport 8081 redirect to :8082; }\n\
         }\n",
    )?;
    let mut held = Vec::new();
    let dual = listener(&scene.server, "[::]:8082".parse().unwrap());
    let deferring = Responder::start(
        &scene.server,
        scene.server_socket(Family::V4, 80),
        Accept::Deferred,
        KeepAlive::Off,
    )?;
    for family in [Family::V4, Family::V6] {
        for port in [8081, 8082] {
            held.extend((0..5).map(|_| joined(&client.namespace, scene.server_socket(family, port), &dual)));
        }
        let at = SocketAddr::new(client.address(family), 8083);
        let theirs = listener(&client.namespace, at);
        held.extend((0..5).map(|_| joined(&scene.server, at, &theirs)));
    }
    let silent: Vec<_> = (0..5).map(|_| crate::connect(&client.namespace, deferring.address())).collect();

    let mistaken: Vec<_> =
        Verdicts::of(&scene.server).flows.iter().filter_map(|(flow, _)| DeadSlot::of(flow)).collect();
    let all = (held.len() + silent.len()) as u64;
    assert_eq!(mistaken.len() as u64, all);
    assert_eq!(bury(&scene.server, mistaken), Buried { revived: all, ..Buried::default() });
    assert_eq!(Verdicts::of(&scene.server).flows.len() as u64, all);
    held.iter_mut().for_each(exchange);
    Ok(())
}

/// Clients behind the address of their router, in both families.
pub(crate) fn behind(router: &Namespace, names: [&str; 2]) -> Result<[Namespace; 2]> {
    router.sysctl("net/ipv4/ip_forward", "1")?;
    router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    router.nft(
        "table inet nat { chain out { type nat hook postrouting priority srcnat; oifname \"eth0\" masquerade; }; }",
    )?;
    let [first, second] = [0, 1].map(|index| -> Result<Namespace> {
        let client = Namespace::new(names[index])?;
        let (name, path) = (names[index], client.path());
        router.ip(&format!(
            "link add {name} type veth peer name eth0 netns {path}\n\
             addr add 198.18.{index}.1/24 dev {name}\n\
             addr add 2001:db8:18:{index}::1/64 dev {name} nodad\n\
             link set {name} up\n"
        ))?;
        client.ip(&format!(
            "addr add 198.18.{index}.2/24 dev eth0\n\
             addr add 2001:db8:18:{index}::2/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via 198.18.{index}.1\n\
             route add ::/0 via 2001:db8:18:{index}::1\n"
        ))?;
        Ok(client)
    });
    Ok([first?, second?])
}

#[test]
fn behind_one_address_the_attackers_slots_go_and_no_honest_connection_breaks() -> Result<()> {
    let scene = Topology::direct(&["nat"])?;
    let [attacker, honest] = behind(&scene.peer("nat").namespace, ["attacker", "honest"])?;
    scene.server.sysctl("net/ipv4/tcp_synack_retries", "1")?;
    let slots = 60;
    let mut kept = Vec::new();
    let mut clients = Vec::new();
    for (family, own) in [(Family::V4, "198.18.0.2"), (Family::V6, "2001:db8:18:0::2")] {
        let at = scene.server_socket(family, 80);
        kept.push(Responder::start(&scene.server, at, Accept::Deferred, KeepAlive::Off)?);
        let source: IpAddr = own.parse().unwrap();
        wait_until("the way through the translation", PATIENCE, || {
            honest.run(|| TcpStream::connect(at)).map(drop)
        })?;
        clients.push(Honest::start(&honest, at, vec![at], Habits::default())?);
        let pace = Pace { count: slots, per_second: u32::MAX, within: PATIENCE };
        let tally = attack::slow_fill(&attacker, vec![source], at, pace)?.finish();
        assert_eq!(tally.made, slots, "{tally:?}");
    }

    let mut buried = Buried::default();
    wait_until("every slot of the attacker to be buried", 2 * PATIENCE, || {
        let dead = Verdicts::of(&scene.server).dead;
        let sources = [Family::V4, Family::V6].map(|family| scene.peer("nat").address(family));
        assert!(dead.iter().all(|slot| sources.contains(&slot.key().source())));
        let now = bury(&scene.server, dead);
        buried.deleted += now.deleted;
        buried.revived += now.revived;
        if buried.deleted >= 2 * slots as u64 { Ok(()) } else { Err(format!("{buried:?}")) }
    })?;
    assert_eq!(buried, Buried { deleted: 2 * slots as u64, ..Buried::default() });
    for client in clients {
        let seen = client.so_far().exchanged;
        wait_until(
            "each honest connection to talk again, and new ones to be made",
            PATIENCE,
            || match client.so_far() {
                now if now.exchanged >= seen + 40 && now.opened >= 20 => Ok(()),
                now => Err(format!("{now:?}")),
            },
        )?;
        let report = client.finish();
        assert!(report.lost.is_empty(), "{report:?}");
        assert_eq!(report.kept, Habits::default().keep);
    }
    Ok(())
}
