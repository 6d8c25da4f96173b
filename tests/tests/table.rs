//! The `conntrack` library on the real kernel, held against conntrack(8).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use conntrack::{Deleted, Dump, Flow, FlowKey, L4, State, Table, Unwrapped, Zone};
use tests::{
    Result,
    listing::{self, Entry, by_state, list},
    netns::Namespace,
    responder::{Accept, KeepAlive, Responder},
    tools::{self, Tool},
    topology::{Family, Topology},
    traffic::everything,
};

/// Our view of the namespace's table.
fn dumped(namespace: &Namespace) -> (Vec<Flow>, Dump) {
    namespace.run(|| {
        let mut flows = Vec::new();
        let dump = Table::open().unwrap().visit(|flow| flows.push(*flow)).unwrap();
        assert_eq!((dump.malformed, dump.interrupted), (None, false));
        assert_eq!(dump.entries, flows.len() as u64);
        (flows, dump)
    })
}

fn delete(namespace: &Namespace, keys: Vec<FlowKey>) -> Deleted {
    namespace.run(|| Table::open().unwrap().delete(keys).unwrap())
}

/// One of our flows in the words of the tool, so that a difference shows as one.
fn as_printed(flow: &Flow) -> Entry {
    let tuple = |tuple: &conntrack::Tuple, counters: Option<conntrack::Counters>| {
        let mut fields: listing::Tuple = [("src", tuple.src), ("dst", tuple.dst)]
            .map(|(name, address)| (name.into(), address.to_string()))
            .into();
        let mut add = |name: &str, value: String| drop(fields.insert(name.into(), value));
        match tuple.l4 {
            L4::Ports { src, dst } if tuple.protocol.0 == 47 => {
                add("srckey", format!("{src:#x}"));
                add("dstkey", format!("{dst:#x}"));
            }
            L4::Ports { src, dst } => {
                add("sport", src.to_string());
                add("dport", dst.to_string());
            }
            L4::Icmp { id, kind, code } => {
                add("type", kind.to_string());
                add("code", code.to_string());
                add("id", id.to_string());
            }
            // A kernel without DCCP gives it no ports; the tool prints zeros.
            L4::None if tuple.protocol.0 == 33 => {
                add("sport", "0".into());
                add("dport", "0".into());
            }
            L4::None => {}
        }
        if let Some(counters) = counters {
            add("packets", counters.packets.to_string());
            add("bytes", counters.bytes.to_string());
        }
        fields
    };
    let flags = [
        ("UNREPLIED", !flow.status.seen_reply()),
        ("ASSURED", flow.status.assured()),
        ("OFFLOAD", flow.status.offload()),
    ];
    let zone = match flow.zone {
        Zone::Both(0) => None,
        Zone::Both(zone) => Some(("zone", zone)),
        Zone::Original(zone) => Some(("zone-orig", zone)),
        Zone::Reply(zone) => Some(("zone-reply", zone)),
    };
    let mut rest =
        BTreeMap::from([("mark".into(), flow.mark.to_string()), ("id".into(), flow.id.to_string())]);
    rest.extend(zone.map(|(name, zone)| (name.into(), zone.to_string())));
    Entry {
        family: match flow.family {
            conntrack::Family::Ipv4 => Family::V4,
            conntrack::Family::Ipv6 => Family::V6,
        },
        protocol: flow.original.protocol.0,
        timeout: flow.timeout,
        state: match flow.state {
            State::Tcp(state) => Some(state.name().to_uppercase()),
            State::Sctp(state) => Some(state.name().to_uppercase()),
            State::Unreplied | State::Replied | State::Assured | State::Offload => None,
        },
        original: tuple(&flow.original, flow.counters.map(|both| both[0])),
        reply: tuple(&flow.reply, flow.counters.map(|both| both[1])),
        flags: flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.into()).collect(),
        rest,
    }
}

/// What names an entry, and the entry without what moves: its seconds, and `use`, which counts who looks at it.
fn by_name(entries: Vec<Entry>) -> BTreeMap<String, (Option<u32>, Entry)> {
    let named = entries.into_iter().map(|mut entry| {
        entry.rest.remove("use");
        let mut tuple = entry.original.clone();
        tuple.retain(|field, _| !matches!(field.as_str(), "packets" | "bytes"));
        let name = format!("{:?} {} {tuple:?} {:?}", entry.family, entry.protocol, entry.rest);
        (name, (entry.timeout.take(), entry))
    });
    named.collect()
}

#[test]
fn what_the_tool_lists_is_what_we_visit_field_by_field() -> Result<()> {
    tools::require(&Tool::ALL)?;
    let scene = Topology::direct(&["attacker", "honest"])?;
    let _ends = everything(&scene, &["attacker", "honest"])?;

    let (before, _) = dumped(&scene.server);
    let printed = list(&scene.server)?;
    let (after, _) = dumped(&scene.server);

    let count = printed.len();
    let printed = by_name(printed);
    assert_eq!(printed.len(), count, "every entry has a name of its own");
    assert_covers_everything(&printed);
    let ours = [before, after].map(|flows| by_name(flows.iter().map(as_printed).collect()));
    for (when, ours) in ["before", "after"].into_iter().zip(&ours) {
        let names = |map: &BTreeMap<String, _>| map.keys().cloned().collect::<BTreeSet<_>>();
        let differing: Vec<_> = names(ours).symmetric_difference(&names(&printed)).cloned().collect();
        assert_eq!(differing, Vec::<String>::new(), "in one view only, {when}");
    }
    for (name, (seconds, entry)) in &printed {
        let [(earlier, before), (later, after)] = [&ours[0][name], &ours[1][name]];
        assert_eq!((before, after), (entry, entry), "{name}");
        assert!(earlier >= seconds && seconds >= later, "{name}: {earlier:?} {seconds:?} {later:?}");
        assert!(earlier.unwrap() - later.unwrap() <= 5, "{name}: {earlier:?} {later:?}");
    }
    Ok(())
}

/// The comparison is worth what the table holds.
fn assert_covers_everything(printed: &BTreeMap<String, (Option<u32>, Entry)>) {
    let entries: Vec<_> = printed.values().map(|(_, entry)| entry.clone()).collect();
    let has = |what: &str, test: &dyn Fn(&Entry) -> bool| {
        for family in [Family::V4, Family::V6] {
            let found = entries.iter().any(|entry| entry.family == family && test(entry));
            assert!(found, "no {what} in {family:?} among {:?}", by_state(&entries));
        }
    };
    for state in
        ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"]
    {
        has(state, &|entry| entry.protocol == 6 && entry.state.as_deref() == Some(state));
    }
    for protocol in [17, 33, 47, 132, 136, tests::traffic::EXPERIMENT] {
        has(&format!("protocol {protocol}"), &|entry| entry.protocol == protocol);
    }
    has("replied echo", &|entry| {
        matches!(entry.protocol, 1 | 58) && !entry.is("UNREPLIED") && entry.original.contains_key("id")
    });
    has("unreplied UDP", &|entry| entry.protocol == 17 && entry.is("UNREPLIED"));
    has("assured UDP", &|entry| entry.protocol == 17 && entry.is("ASSURED"));
    has("zone", &|entry| entry.number("zone") == Some(7));
    has("zone of the original direction", &|entry| entry.number("zone-orig") == Some(8));
    has("zone of the reply direction", &|entry| entry.number("zone-reply") == Some(9));
    has("mark", &|entry| entry.number("mark") == Some(42));
    has("DNAT", &|entry| {
        entry.original["dst"] != entry.reply["src"] && entry.original["dport"] != entry.reply["sport"]
    });
    has("SNAT", &|entry| entry.original["src"] != entry.reply["dst"]);
    has("counters", &|entry| entry.original["packets"] != "0" && entry.reply["packets"] != "0");
}

#[test]
fn nat_bits_are_those_the_tool_filters_by() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    let _ends = everything(&scene, &["attacker"])?;
    let (flows, _) = dumped(&scene.server);
    for (option, ours) in [
        ("--src-nat", flows.iter().filter(|flow| flow.status.snat()).count()),
        ("--dst-nat", flows.iter().filter(|flow| flow.status.dnat()).count()),
    ] {
        let printed = scene.server.output(&["conntrack", "-L", option])?;
        // It takes an echo's type and identifier for ports, and so every answered echo for translated.
        let printed: Vec<_> = printed.lines().filter(|line| !line.starts_with("icmp")).collect();
        assert_eq!(ours, printed.len(), "{option}: {printed:?}");
        assert_eq!(ours, 2, "{option}: one of each family");
    }
    Ok(())
}

#[test]
fn deleting_a_source_leaves_every_other_entry_of_both_families_and_all_zones() -> Result<()> {
    let scene = Topology::direct(&["attacker", "honest"])?;
    let _ends = everything(&scene, &["attacker", "honest"])?;
    for family in [Family::V4, Family::V6] {
        let attacker = scene.peer("attacker").address(family);
        let (before, _) = dumped(&scene.server);
        let (his, others): (Vec<Flow>, Vec<Flow>) =
            before.iter().partition(|flow| flow.original.src == attacker);
        assert!(his.len() >= 20 && others.len() >= 20, "{} and {}", his.len(), others.len());
        assert!(his.iter().any(|flow| matches!(flow.zone, Zone::Original(_))));
        assert!(his.iter().any(|flow| matches!(flow.zone, Zone::Reply(_))));
        assert!(his.iter().any(|flow| matches!(flow.zone, Zone::Both(7))));

        let outcome = delete(&scene.server, his.iter().map(Flow::key).collect());
        assert_eq!(outcome, Deleted { deleted: his.len() as u64, ..Deleted::default() });

        let named = |flows: Vec<Entry>| by_name(flows).into_keys().collect::<BTreeSet<_>>();
        let survivors = named(others.iter().map(as_printed).collect());
        let left = named(list(&scene.server)?);
        let differing: Vec<_> = left.symmetric_difference(&survivors).collect();
        assert_eq!(differing, Vec::<&String>::new(), "gone or come, after the deletion of {attacker}");
    }
    Ok(())
}

#[test]
fn entries_that_are_gone_are_counted_as_absent() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    let _ends = everything(&scene, &["attacker"])?;
    let (flows, _) = dumped(&scene.server);
    let keys: Vec<_> = flows.iter().map(Flow::key).collect();
    let all = keys.len() as u64;
    assert_eq!(delete(&scene.server, keys.clone()), Deleted { deleted: all, ..Deleted::default() });
    assert_eq!(delete(&scene.server, keys), Deleted { absent: all, ..Deleted::default() });
    assert_eq!(list(&scene.server)?.len(), 0);
    Ok(())
}

#[test]
fn an_entry_born_again_under_the_same_tuple_is_not_deleted_by_the_old_key() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    let insert = |port: &str| {
        let words = "conntrack -I -p udp -s 198.51.100.66 -d 192.0.2.1 --dport 53 -t 300 --sport";
        scene.server.command(&words.split(' ').chain([port]).collect::<Vec<_>>())
    };
    let ports: Vec<_> = (1000..1020).map(|port: u16| port.to_string()).collect();
    for port in &ports {
        insert(port)?;
    }
    let (old, _) = dumped(&scene.server);
    let keys: Vec<_> = old.iter().map(Flow::key).collect();
    delete(&scene.server, keys.clone());
    for port in &ports {
        insert(port)?;
    }
    let (new, _) = dumped(&scene.server);
    // The id hashes the entry's place in memory: one that got its old place back has its old id, and may go.
    let same = new.iter().filter(|flow| old.iter().any(|other| other.key() == flow.key())).count() as u64;
    assert!(same < 20, "every entry got its old id back: this run shows nothing");
    let outcome = delete(&scene.server, keys);
    assert_eq!(outcome, Deleted { deleted: same, absent: 20 - same, failed: None });
    assert_eq!(dumped(&scene.server).0.len() as u64, 20 - same);
    Ok(())
}

#[test]
fn ten_thousand_deletions_with_half_of_the_entries_gone_count_right() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    let prefix = "198.18.0.0/15".parse().unwrap();
    scene.give_prefix("attacker", prefix)?;
    let within = std::time::Duration::from_secs(20);
    let pace = tests::attack::Pace { count: 10_000, per_second: u32::MAX, within };
    let target = scene.server_socket(Family::V4, 53);
    let tally = tests::flood::udp_spray(&scene.peer("attacker").namespace, prefix, target, pace)?.finish();
    assert_eq!(tally.made, 10_000, "{tally:?}");

    let (flows, _) = dumped(&scene.server);
    assert_eq!(flows.len(), 10_000);
    let keys: Vec<_> = flows.iter().map(Flow::key).collect();
    let half: Vec<_> = keys.iter().copied().step_by(2).collect();
    assert_eq!(delete(&scene.server, half), Deleted { deleted: 5000, ..Deleted::default() });
    assert_eq!(delete(&scene.server, keys), Deleted { deleted: 5000, absent: 5000, failed: None });
    assert_eq!(scene.server.read_sysctl("net/netfilter/nf_conntrack_count")?, "0");
    Ok(())
}

#[test]
fn counts_and_counters_are_the_kernels() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    let _ends = everything(&scene, &["attacker"])?;
    let server = &scene.server;
    make_invalid_packets(&scene)?;
    let (limits, cpus) = server.run(|| {
        let mut table = Table::open().unwrap();
        table.visit(|_| ()).unwrap();
        (table.limits().unwrap(), table.cpu_stats().unwrap())
    });
    assert_eq!(limits.entries.to_string(), server.read_sysctl("net/netfilter/nf_conntrack_count")?);
    assert_eq!(limits.max.unwrap().to_string(), server.read_sysctl("net/netfilter/nf_conntrack_max")?);

    let sums = Unwrapped::new().fold(&cpus);
    let proc = proc_sums(server);
    // The file has its own names for three, and no column for the last two.
    for (name, column) in [
        ("found", "found"),
        ("invalid", "invalid"),
        ("insert", "insert"),
        ("insert_failed", "insert_failed"),
        ("drop", "drop"),
        ("early_drop", "early_drop"),
        ("error", "icmp_error"),
        ("search_restart", "search_restart"),
        ("clash_resolve", "clashres"),
        ("chain_too_long", "chainlength"),
    ] {
        let place = conntrack::STATS.iter().position(|known| known.name == name).unwrap();
        assert_eq!(sums[place], Some(proc[column]), "{name}: {proc:?}");
    }
    assert!(proc["invalid"] >= 1, "{proc:?}");
    assert!(proc["insert"] >= 18, "what conntrack -I put in is counted: {proc:?}");
    Ok(())
}

/// What comes for a connection that the table has forgotten and may not pick up is `invalid`.
fn make_invalid_packets(scene: &Topology) -> Result<()> {
    scene.server.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")?;
    let at = scene.server_socket(Family::V4, 8080);
    let _responder = Responder::start(&scene.server, at, Accept::AtOnce, KeepAlive::Off)?;
    let mut stream = scene.peer("attacker").namespace.run(|| TcpStream::connect(at)).unwrap();
    scene.server.command(&["conntrack", "-D", "-p", "tcp", "--dport", "8080"])?;
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    Ok(())
}

/// Column sums of /proc/net/stat/nf_conntrack, whose numbers are hexadecimal.
fn proc_sums(namespace: &Namespace) -> BTreeMap<String, u64> {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap());
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    let mut sums = BTreeMap::new();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()) {
            *sums.entry((*name).to_owned()).or_default() += u64::from_str_radix(value, 16).unwrap();
        }
    }
    sums
}

/// Run by [`without_the_capability_the_error_says_so`] in a process that has lost CAP_NET_ADMIN.
#[test]
#[ignore = "the child of another test"]
fn child_without_the_capability() {
    let mut table = Table::open().unwrap();
    for (asked, answer) in [
        ("visit", table.visit(|_| ()).map(drop)),
        ("limits", table.limits().map(drop)),
        ("cpu_stats", table.cpu_stats().map(drop)),
    ] {
        println!("{asked}: {}", answer.map_or_else(|error| error.reason().to_owned(), |()| "allowed".into()));
    }
}

#[test]
fn without_the_capability_the_error_says_so() -> Result<()> {
    let namespace = Namespace::new("unprivileged")?;
    let own = std::env::current_exe().unwrap();
    let printed = namespace.run(|| {
        Command::new("setpriv")
            .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"])
            .arg(own)
            .args(["--ignored", "--exact", "--nocapture", "child_without_the_capability"])
            .output()
            .unwrap()
    });
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    for asked in ["visit", "limits", "cpu_stats"] {
        assert!(printed.contains(&format!("{asked}: not_permitted")), "{printed}");
    }
    Ok(())
}
