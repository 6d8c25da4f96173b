//! Where idle cannot be told from busy, or from young, there is no verdict.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use conntrack::{
    Channel, Link, Table,
    dead::{Buried, DeadSlot},
    netlink::{NLM_F_ACK, Requests},
    own::OwnAddresses,
    socketless::{Behind, CannotJudge, Connected, Judge, TcpTimeouts},
};
use rustix::net::sockopt;
use tests::{
    Result,
    netns::Namespace,
    topology::{Family, Topology},
    wait::wait_until,
};

use crate::{GRACE, PATIENCE, Verdicts, joined, listener};

const EACH: usize = 10;
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Why nothing can be judged in the namespace now.
fn refusal(namespace: &Namespace, grace: Duration) -> Option<CannotJudge> {
    namespace.run(|| {
        let sockets = Connected::read().unwrap();
        let own = OwnAddresses::read().unwrap();
        let judge = Judge::new(&sockets, &own, TcpTimeouts::read(Path::new("/proc")).unwrap(), grace);
        judge.and_then(|judge| judge.in_time()).err()
    })
}

#[test]
fn an_established_timeout_that_is_not_above_a_busy_one_is_said_not_guessed() -> Result<()> {
    let namespace = Namespace::new("short")?;
    namespace.track_connections()?;
    assert_eq!(refusal(&namespace, GRACE), None);
    let timeout = |name: &str| format!("net/netfilter/nf_conntrack_tcp_timeout_{name}");
    for (established, unacknowledged, max_retrans) in [(300, 300, 300), (400, 400, 300), (400, 300, 500)] {
        namespace.sysctl(&timeout("established"), &established.to_string())?;
        namespace.sysctl(&timeout("unacknowledged"), &unacknowledged.to_string())?;
        namespace.sysctl(&timeout("max_retrans"), &max_retrans.to_string())?;
        let busy = unacknowledged.max(max_retrans);
        assert_eq!(refusal(&namespace, GRACE), Some(CannotJudge::Timeouts { established, busy }));
    }
    namespace.sysctl(&timeout("established"), "501")?;
    assert_eq!(refusal(&namespace, GRACE), None);
    // A policy's busy connections may have more left than the namespace's idle ones.
    namespace.nft(&policy("unacknowledged", "established : 432000, unack : 502"))?;
    assert_eq!(refusal(&namespace, GRACE), Some(CannotJudge::Timeouts { established: 501, busy: 502 }));
    assert!(matches!(refusal(&Namespace::new("other")?, Duration::ZERO), Some(CannotJudge::TooSlow { .. })));
    Ok(())
}

/// What `iptables -j CT --timeout` names; `nfct` makes such policies.
#[test]
fn the_policies_of_iptables_are_read_too() -> Result<()> {
    let namespace = Namespace::new("policies")?;
    namespace.track_connections()?;
    let read = || namespace.run(|| TcpTimeouts::read(Path::new("/proc")).unwrap());
    assert_eq!(read().idle(3_600), Some(432_000 - 3_600));
    for (name, protocol, established) in [("short", 6, 3_600_u32), ("other", 17, 1_800)] {
        let made = namespace.run(|| {
            let asked = "a policy, as nfct makes it: CONFIG_NF_CONNTRACK_TIMEOUT is needed";
            let mut link = Link::open(Channel::Netfilter, asked).unwrap();
            let sequence = link.next_sequence();
            let mut request = Requests::new();
            // IPCTNL_MSG_TIMEOUT_NEW, NLM_F_ACK | NLM_F_CREATE; name, layers 3 and 4, TCP established or UDP replied.
            request.message(8 << 8, NLM_F_ACK | 0x400, sequence, |r| {
                r.raw(&[0; 4]);
                r.attribute(1, &[name.as_bytes(), b"\0"].concat());
                r.attribute(2, &2_u16.to_be_bytes());
                r.attribute(3, &[protocol]);
                r.nest(4, |r| r.attribute(if protocol == 6 { 3 } else { 2 }, &established.to_be_bytes()));
            });
            link.ask(&request, asked, |_| Ok(()), || ()).map(drop)
        });
        made.unwrap();
    }
    assert_eq!(read().idle(3_600), Some(0));
    assert_eq!(read().idle(1_800), Some(1_800), "a policy for UDP says nothing of TCP");
    Ok(())
}

#[test]
fn without_the_files_of_the_kernel_the_error_names_the_first() {
    let error = TcpTimeouts::read(Path::new("/nowhere")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/sys/net/netfilter/nf_conntrack_tcp_timeout_established"), "{error}");
}

/// A policy for everything to port 80, in both families.
fn policy(name: &str, timeouts: &str) -> String {
    let both = [("ip", 4), ("ip6", 6)].map(|(family, number)| {
        format!(
            "table {family} {name} {{\n\
               ct timeout short{number} {{ protocol tcp; l3proto {family}; policy = {{ {timeouts} }}; }}\n\
               chain to {{ type filter hook prerouting priority -150; tcp dport 80 ct timeout set \"short{number}\"; }}\n\
             }}\n"
        )
    });
    both.concat()
}

type Ends = Vec<(TcpStream, TcpStream)>;

fn several(scene: &Topology, listeners: &[(Family, TcpListener)]) -> Ends {
    let client = &scene.peer("client").namespace;
    let joined = |(family, listener): &(Family, TcpListener)| {
        let to = scene.server_socket(*family, listener.local_addr().unwrap().port());
        (0..EACH).map(|_| joined(client, to, listener)).collect::<Vec<_>>()
    };
    listeners.iter().flat_map(joined).collect()
}

fn listeners(scene: &Topology, port: u16) -> Vec<(Family, TcpListener)> {
    FAMILIES
        .map(|family| (family, listener(&scene.server, scene.server_socket(family, port))))
        .into_iter()
        .collect()
}

#[test]
fn a_connection_made_after_the_sockets_were_read_is_young_and_not_dead_under_a_policy_too() -> Result<()> {
    let scene = Topology::direct(&["client"])?;
    // 80 is under the policy, 81 is not.
    let (under, plain) = (listeners(&scene, 80), listeners(&scene, 81));
    scene.server.nft(&policy("short", "established : 3600"))?;
    let mut held = Vec::new();
    let verdicts = Verdicts::with_between(&scene.server, || {
        held.extend(several(&scene, &under));
        held.extend(several(&scene, &plain));
    });
    let left = |port| {
        let flows = verdicts.flows.iter().filter(move |(flow, _)| crate::has_port(flow, &[port]));
        flows.map(|(flow, _)| flow.timeout.unwrap()).collect::<Vec<_>>()
    };
    assert!(
        left(80).iter().all(|left| (3_500..=3_600).contains(left)),
        "the policy is in force: {:?}",
        left(80)
    );
    assert!(left(81).iter().all(|left| *left > 431_000), "{:?}", left(81));
    for port in [80, 81] {
        assert_eq!(verdicts.at(port), [("not judged", 2 * EACH)].into(), "port {port}");
    }
    Ok(())
}

#[test]
fn dead_slots_under_a_policy_are_found_and_buried_and_living_ones_are_not() -> Result<()> {
    let scene = Topology::direct(&["client"])?;
    let listeners = listeners(&scene, 80);
    scene.server.nft(&policy("short", "established : 3600"))?;
    scene.server.nft(
        "table inet mute { chain out { type filter hook output priority raw; tcp flags & (fin | rst) != 0 drop; }; }",
    )?;
    let living = several(&scene, &listeners);
    let mut silent = Vec::new();
    for (client, server) in several(&scene, &listeners) {
        sockopt::set_socket_linger(&server, Some(Duration::ZERO)).unwrap();
        silent.push(client);
    }
    let dead = wait_until("dead and living to be told apart", PATIENCE, || {
        let verdicts = Verdicts::of(&scene.server);
        let found = verdicts.at(80);
        let ready = found == [("socket", 2 * EACH), ("nothing", 2 * EACH)].into();
        if ready { Ok(verdicts.dead) } else { Err(format!("{found:?}")) }
    })?;
    let buried = scene.server.run(|| Table::open().unwrap().bury(dead).unwrap());
    assert_eq!(buried, Buried { deleted: 2 * EACH as u64, ..Buried::default() });
    assert_eq!(Verdicts::of(&scene.server).at(80), [("socket", 2 * EACH)].into());
    drop((living, silent));
    Ok(())
}

/// A policy that came after the entries: what was refreshed before looks older than it is, and what is alive has its socket.
#[test]
fn a_timeout_that_changes_makes_nothing_alive_dead() -> Result<()> {
    let scene = Topology::direct(&["client"])?;
    let established = "net/netfilter/nf_conntrack_tcp_timeout_established";
    scene.server.sysctl(established, "3600")?;
    let listeners = listeners(&scene, 80);
    let mut living = several(&scene, &listeners);
    scene.server.sysctl(established, "432000")?;
    let verdicts = Verdicts::of(&scene.server);
    assert_eq!(verdicts.at(80), [("socket", 2 * EACH)].into());
    let mistaken: Vec<_> = verdicts.flows.iter().filter_map(|(flow, _)| DeadSlot::of(flow)).collect();
    assert!(verdicts.flows.iter().all(|(_, behind)| *behind != Behind::Nothing));
    let spared = scene.server.run(|| Table::open().unwrap().bury(mistaken).unwrap());
    assert_eq!(spared, Buried { revived: 2 * EACH as u64, ..Buried::default() });
    living.iter_mut().for_each(crate::exchange);
    Ok(())
}
