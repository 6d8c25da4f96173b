//! `keep_reachable`: who is covered reaches this host while the table is full, and nothing else changes for anybody.
//!
//! The table is filled up to the kernel's own limit, which is global and is left alone.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    Result,
    entries::{Wanted, insert},
    http::{self, Server},
    listing::list,
    netns::Namespace,
    programs::{Program, Running},
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(30);
/// Who is kept out stays out, however long he waits: his SYN is dropped, and whatever repeats it.
const PATIENCE: Duration = Duration::from_millis(700);
const SSH: u16 = 22;
const WEB: u16 = 80;
const BY_SOURCE: u32 = 60_000;
/// Connections of each kind.
const EACH: usize = 1_000;

const POLICY: &str = "\
enforce: true
never_ban: []
limits: {bans_per_minute: 1000, bans_per_hour: 6000, active_bans: 5000, deletes_per_action: 2000000}
keep_reachable: {ports: [22, 10048, 10049], from: [127.0.0.0/8, '::1', 198.51.100.66, '2001:db8:51::66', '2001:db8:51::42']}
rules:
- name: hoarder
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {socketless: 300}, table: {fill_percent: 50}}
  actions: [{ban: {for: 10m}}, {delete: all}]
";

/// Which iptables a host has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tables {
    Nft,
    Legacy,
}

impl Tables {
    /// The program of that kind.
    fn named(self, program: &str) -> String {
        match self {
            Tables::Nft => program.to_owned(),
            Tables::Legacy => program.replace("tables", "tables-legacy"),
        }
    }

    /// A search path on which `iptables` is of that kind.
    fn path(self, home: &Path) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        if self == Tables::Nft {
            return path;
        }
        for family in ["iptables", "ip6tables"] {
            for end in ["", "-save", "-restore"] {
                let program = format!("{family}{end}");
                symlink(format!("/usr/sbin/{}", self.named(&program)), home.join(program)).unwrap();
            }
        }
        format!("{}:{path}", home.display())
    }
}

/// An actioner that peers can reach, and its files.
struct Actioner {
    running: Running,
    home: TempDir,
}

impl Actioner {
    fn start(namespace: &Namespace, policy: &str) -> Result<Actioner> {
        Actioner::start_with(namespace, policy, Tables::Nft)
    }

    fn start_with(namespace: &Namespace, policy: &str, tables: Tables) -> Result<Actioner> {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).display().to_string();
        fs::write(path("policy.yaml"), policy).unwrap();
        let flags = [
            format!("--policy.file={}", path("policy.yaml")),
            format!("--storage.path={}", path("storage")),
            format!("--admin.socket={}", path("admin.sock")),
            "--web.listen-address=[::]:10049".to_owned(),
            "--web.allow-unauthenticated-webhooks".to_owned(),
        ];
        let mut command = std::process::Command::new(Program::Actioner.path()?);
        command.args(flags).env("PATH", tables.path(home.path()));
        let socket = Server::Unix(home.path().join("admin.sock"));
        let running = Running::start(namespace, command, socket)?;
        Ok(Actioner { running, home })
    }

    fn socket(&self) -> Server {
        Server::Unix(self.home.path().join("admin.sock"))
    }

    fn status(&self) -> Value {
        let answer = http::get(&self.socket(), "/api/v1/status", &[]).unwrap();
        serde_json::from_str(&answer.text()).unwrap()
    }

    fn metric(&self, sample: &str) -> f64 {
        let text = http::get(&self.socket(), "/metrics", &[]).unwrap().text();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {sample} in {text}")).parse().unwrap()
    }

    fn reload(&mut self, policy: &str) -> Result<()> {
        fs::write(self.home.path().join("policy.yaml"), policy).unwrap();
        let before = self.running.process.log().matches("policy was read again").count();
        self.running.process.signal(nix::sys::signal::Signal::SIGHUP)?;
        wait_until("the policy to be read again", SOON, || {
            match self.running.process.log().matches("policy was read again").count() {
                now if now > before => Ok(()),
                _ => Err(self.running.process.log()),
            }
        })
    }

    fn end(mut self, namespace: &Namespace) -> Result<()> {
        self.running.process.signal(nix::sys::signal::Signal::SIGTERM)?;
        self.running.process.wait(SOON)?;
        let path = |name: &str| self.home.path().join(name).display().to_string();
        let (policy, socket) = (path("policy.yaml"), path("admin.sock"));
        let program = Program::Actioner.path()?.display().to_string();
        namespace
            .command(&[&program, "teardown", "--policy.file", &policy, "--admin.socket", &socket])
            .map(drop)
    }
}

/// An alert about a source of this table, or about another host's table.
fn alert(source: &str, table_id: &str) -> String {
    json!({"version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing", "receiver": "actioner",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am:9093",
        "alerts": [{"status": "firing", "labels": {"alertname": "Hoarder", "source": source, "table_id": table_id},
            "annotations": {}, "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "00"}]})
    .to_string()
}

/// Whether a new connection gets an answer to what it says, however long a busy machine takes for it.
fn answered(to: SocketAddr) -> bool {
    answered_within(SOON, to)
}

fn answered_within(patience: Duration, to: SocketAddr) -> bool {
    let talk = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"x")?;
        let mut byte = [0];
        Ok(stream.read(&mut byte)? == 1)
    };
    talk().unwrap_or(false)
}

/// How many of twenty ordinary connections succeed, all at once.
fn ordinary(from: &Namespace, to: SocketAddr) -> usize {
    ordinary_within(SOON, from, to)
}

fn ordinary_within(patience: Duration, from: &Namespace, to: SocketAddr) -> usize {
    from.run(|| {
        thread::scope(|scope| {
            let tries: Vec<_> = (0..20).map(|_| scope.spawn(move || answered_within(patience, to))).collect();
            tries.into_iter().map(|one| one.join().unwrap()).filter(|answered| *answered).count()
        })
    })
}

/// How many of so many new connections one after the other got what they asked for.
fn of_each(from: &Namespace, count: usize, ask: impl Fn() -> bool + Sync) -> usize {
    from.run(|| (0..count).filter(|_| ask()).count())
}

fn echo(namespace: &Namespace, address: IpAddr, port: u16) -> Result<Responder> {
    Responder::start(namespace, (address, port).into(), Accept::AtOnce, KeepAlive::Off)
}

fn number(namespace: &Namespace, sysctl: &str) -> Result<u32> {
    Ok(namespace.read_sysctl(&format!("net/netfilter/{sysctl}"))?.parse().unwrap())
}

/// Fills the table with assured entries; the attackers' addresses.
fn fill(server: &Namespace) -> Result<Vec<String>> {
    let (limit, count) = (number(server, "nf_conntrack_max")?, number(server, "nf_conntrack_count")?);
    assert!(limit > 0, "nf_conntrack_max is 0, unlimited: this test needs a limit");
    let wanted = limit - count;
    server.run(|| insert((0..wanted).map(|number| Wanted::nth(number, BY_SOURCE, true))));
    let sources = (0..wanted).step_by(BY_SOURCE as usize);
    Ok(sources.map(|number| Wanted::nth(number, BY_SOURCE, true).source.ip().to_string()).collect())
}

fn rules(namespace: &Namespace) -> Result<String> {
    rules_of(namespace, Tables::Nft)
}

fn rules_of(namespace: &Namespace, tables: Tables) -> Result<String> {
    Ok(["iptables-save", "ip6tables-save"]
        .map(|program| namespace.output(&[&tables.named(program)]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?
        .concat())
}

#[test]
fn a_full_table_keeps_nobody_out_who_is_covered_and_is_emptied_by_a_webhook_from_there() -> Result<()> {
    // Nobody raises the limit while the table is full up to it.
    let lock = fs::File::create("/run/conntrack-guard-limit.lock").unwrap();
    lock.lock().unwrap();
    let scene = Topology::direct(&["monitor", "visitor"])?;
    let (server, monitor, visitor) =
        (&scene.server, &scene.peer("monitor").namespace, &scene.peer("visitor").namespace);
    server.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")?;
    let (any4, any6) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
    let _echoes = [
        echo(server, any4, SSH)?,
        echo(server, any6, SSH)?,
        echo(server, any4, WEB)?,
        echo(server, any6, WEB)?,
    ];
    let exporter = Program::Exporter.start(
        server,
        Program::Exporter.default_address(),
        &["--web.listen-address=[::]:10048"],
    )?;
    let actioner = Actioner::start(server, POLICY)?;
    let (v4, v6) = (scene.server_address(Family::V4), scene.server_address(Family::V6));
    assert_eq!(ordinary(visitor, (v4, WEB).into()), 20, "before");
    // What expires while the table is full would make room that nobody made.
    wait_until("the table to be empty", SOON, || {
        let held = list(server).unwrap().len();
        match (held, number(server, "nf_conntrack_count").unwrap()) {
            (0, 0) => Ok(()),
            (held, count) => Err(format!("{held} listed, {count} counted")),
        }
    })?;

    let sources = fill(server)?;
    for (who, to) in [(visitor, v4), (visitor, v6), (monitor, v4), (server, Ipv4Addr::LOCALHOST.into())] {
        let succeeded = ordinary_within(PATIENCE, who, (to, WEB).into());
        assert_eq!(succeeded, 0, "{} to {to}: the table is full", who.name());
    }
    let succeeded = ordinary_within(PATIENCE, visitor, (v4, SSH).into());
    assert_eq!(succeeded, 0, "who is not covered is as before");

    let started = Instant::now();
    let elsewhere = alert("203.0.113.99", "another-table");
    let address = |to: IpAddr, port| Server::Tcp((to, port).into());
    let is_ok = |answer: Result<http::Response>| answer.is_ok_and(|answer| answer.status == 200);
    // Half of each kind over IPv4, a quarter over IPv6, a quarter over loopback.
    let ways =
        [(monitor, v4, EACH / 2), (monitor, v6, EACH / 4), (server, Ipv4Addr::LOCALHOST.into(), EACH / 4)];
    for (who, to, count) in ways {
        let scrape = || is_ok(http::get(&address(to, 10048), "/metrics?collect[]=table", &[]));
        let webhook = || is_ok(http::post(&address(to, 10049), "/webhook", &[], elsewhere.as_bytes()));
        let ssh = || answered((to, SSH).into());
        let succeeded = [of_each(who, count, scrape), of_each(who, count, webhook), of_each(who, count, ssh)];
        assert_eq!(succeeded, [count; 3], "scrapes, webhooks, ssh from {} to {to}", who.name());
    }
    let covered = started.elapsed();
    assert!(is_ok(http::post(&actioner.socket(), "/webhook", &[], elsewhere.as_bytes())), "the unix socket");
    assert_eq!(ordinary_within(PATIENCE, visitor, (v4, WEB).into()), 0, "it is still full");

    let started = Instant::now();
    let table_id = actioner.status()["table_id"].as_str().unwrap().to_owned();
    let body = alert(&sources[0], &table_id);
    let answer = monitor.run(|| http::post(&address(v4, 10049), "/webhook", &[], body.as_bytes()))?;
    // Where a full table takes longer than 8 s to read, the answer is to try again and the work goes on.
    assert!(matches!(answer.status, 200 | 503), "{} {}", answer.status, answer.text());
    wait_until("the attacker to be banned", SOON * 3, || {
        let bans = http::get(&actioner.socket(), "/api/v1/bans", &[]).unwrap().text();
        let audit =
            || fs::read_to_string(actioner.home.path().join("storage/audit.jsonl")).unwrap_or_default();
        if bans.contains(&sources[0]) {
            Ok(())
        } else {
            Err(format!("{}{}", actioner.running.process.log(), audit()))
        }
    })?;
    wait_until("ordinary connections to succeed again", SOON, || {
        match ordinary_within(PATIENCE, visitor, (v4, WEB).into()) {
            20 => Ok(()),
            some => Err(format!("{some} of 20; {}", actioner.running.process.log())),
        }
    })?;
    let freed = started.elapsed();
    println!(
        "a full table of {} assured entries: {EACH} of {EACH} scrapes, webhooks and ssh connections each in {:.1} s; attackers removed and 20 of 20 ordinary connections {:.1} s after the webhook",
        number(server, "nf_conntrack_max")?,
        covered.as_secs_f64(),
        freed.as_secs_f64()
    );
    drop(exporter);
    Ok(())
}

/// The usual filter: by state, everything else dropped.
fn strict_filter(namespace: &Namespace) -> Result<()> {
    for (save, icmp) in [("iptables-restore", "icmp"), ("ip6tables-restore", "ipv6-icmp")] {
        let neighbours = if icmp == "icmp" {
            String::new()
        } else {
            let kind = |number| format!("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type {number} -j ACCEPT\n");
            (133..=136).map(kind).collect()
        };
        let rules = format!(
            "*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n{neighbours}\
             -A INPUT -m conntrack --ctstate INVALID -j DROP\n\
             -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
             -A INPUT -p tcp -m multiport --dports 22,80 -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n"
        );
        namespace.command_with_input(&[save], &rules)?;
    }
    Ok(())
}

fn says(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"y").is_ok() && stream.read(&mut byte).is_ok_and(|read| read == 1)
}

#[test]
fn behind_a_filter_by_state_open_connections_go_on_and_large_answers_pass_a_narrow_hop() -> Result<()> {
    let scene = Topology::routed(&["monitor", "visitor"])?;
    let (server, monitor) = (&scene.server, &scene.peer("monitor").namespace);
    let echoes = [Family::V4, Family::V6].map(|family| echo(server, scene.server_address(family), SSH));
    let _echoes = echoes.into_iter().collect::<Result<Vec<_>>>()?;
    strict_filter(server)?;
    let open = |family| {
        monitor.run(|| {
            let stream = TcpStream::connect(scene.server_socket(family, SSH)).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream
        })
    };
    let mut before = [open(Family::V4), open(Family::V6)];
    assert!(before.iter_mut().all(says));
    let actioner = Actioner::start(server, POLICY)?;
    let covered = actioner.status()["keep_reachable"]["covered"].clone();
    assert_eq!(
        covered.as_array().map(Vec::len),
        Some(2),
        "both families: {}",
        actioner.running.process.log()
    );
    assert!(before.iter_mut().all(says), "a tracked connection goes on untracked");

    scene.router().ip("link set dev monitor mtu 1300")?;
    for family in [Family::V4, Family::V6] {
        let mut stream = open(family);
        let mut back = stream.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut bytes = vec![0; 100_000];
            back.read_exact(&mut bytes).map(|()| bytes.len())
        });
        stream.write_all(&vec![7; 100_000]).unwrap();
        let read = reader.join().unwrap();
        assert_eq!(read.ok(), Some(100_000), "{family:?}: answers larger than the hop");
    }
    let tracked = |entry: &tests::listing::Entry| {
        entry.original.get("dport").is_some_and(|port| port == "22")
            && entry.original.get("sport").is_some_and(|sport| {
                !before.iter().any(|stream| stream.local_addr().unwrap().port().to_string() == *sport)
            })
    };
    let entries: Vec<_> = list(server)?.into_iter().filter(tracked).collect();
    assert_eq!(entries.len(), 0, "{entries:?}");

    // A peer that is banned is dropped before it goes untracked.
    let him = scene.peer("monitor").address(Family::V4).to_string();
    let program = Program::Actioner.path()?.display().to_string();
    let socket = actioner.home.path().join("admin.sock").display().to_string();
    server.command(&[
        &program,
        "ban",
        &him,
        "--for",
        "10m",
        "--reason",
        "test",
        "--admin.socket",
        &socket,
    ])?;
    let him = || answered_within(PATIENCE, scene.server_socket(Family::V4, SSH));
    assert!(!monitor.run(him), "banned");
    assert!(monitor.run(|| answered(scene.server_socket(Family::V6, SSH))), "by another address");

    actioner.end(server)?;
    let left = rules(server)?;
    assert!(!left.contains("conntrack-guard"), "{left}");
    assert!(left.contains("--ctstate INVALID -j DROP"), "the host's own rules stay: {left}");
    assert!(monitor.run(|| answered(scene.server_socket(Family::V4, SSH))), "tracked again");
    Ok(())
}

#[test]
fn rules_are_put_back_counted_shown_and_gone_when_the_policy_says_so() -> Result<()> {
    kept_by(Tables::Nft)
}

#[test]
fn the_same_on_a_host_with_the_legacy_iptables() -> Result<()> {
    kept_by(Tables::Legacy)
}

fn kept_by(tables: Tables) -> Result<()> {
    let scene = Topology::direct(&["visitor"])?;
    let server = &scene.server;
    server.command(&[
        &tables.named("iptables"),
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-p",
        "tcp",
        "--dport",
        "80",
        "-j",
        "REDIRECT",
        "--to-ports",
        "10048",
    ])?;
    let dry = POLICY.replace("enforce: true", "enforce: false");
    let mut actioner = Actioner::start_with(server, &dry, tables)?;
    assert!(!rules_of(server, tables)?.contains("keep reachable"), "dry run changes nothing");
    assert!(actioner.status()["keep_reachable"]["trouble"][0].as_str().unwrap().contains("enforces nothing"));

    actioner.reload(POLICY)?;
    let stand = rules_of(server, tables)?;
    let status = &actioner.status()["keep_reachable"];
    assert_eq!(status["covered"][0]["ports"], json!([22, 10049]), "{status}");
    assert_eq!(status["covered"][1]["ports"], json!([22, 10048, 10049]), "IPv6 has no such rule: {status}");
    let why = status["refused"][0]["why"].as_str().unwrap();
    assert!(
        why.contains("port 10048 is translated by `-A PREROUTING") && why.contains("--to-ports 10048`"),
        "{why}"
    );
    assert_eq!(actioner.metric("conntrack_actioner_keep_reachable_ports{state=\"refused\"}"), 1.0);
    assert_eq!(actioner.metric("conntrack_actioner_drift_total{what=\"keep_reachable\"}"), 0.0);

    server.command(&[&tables.named("iptables"), "-t", "raw", "-F", "conntrack-guard-out"])?;
    server.command(&[
        &tables.named("iptables"),
        "-I",
        "INPUT",
        "-m",
        "conntrack",
        "--ctstate",
        "INVALID",
        "-j",
        "DROP",
    ])?;
    server.command(&[&tables.named("ip6tables"), "-F", "OUTPUT"])?;
    let lines = |text: &str| {
        let kept = |line: &&str| line.contains("keep reachable");
        text.lines().filter(kept).map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("the rules to be put back", SOON, || match rules_of(server, tables).unwrap() {
        now if lines(&now) == lines(&stand) => Ok(()),
        now => Err(now),
    })?;
    let first = server.output(&[&tables.named("iptables"), "-S", "INPUT", "1"])?;
    assert!(first.contains("-j conntrack-guard-in"), "before what drops: {first}");
    wait_until("the drift to be counted", SOON, || {
        match actioner.metric("conntrack_actioner_drift_total{what=\"keep_reachable\"}") {
            3.0 => Ok(()),
            other => Err(other),
        }
    })?;

    let without =
        POLICY.lines().filter(|line| !line.starts_with("keep_reachable")).collect::<Vec<_>>().join("\n");
    actioner.reload(&without)?;
    let left = rules_of(server, tables)?;
    assert!(!left.contains("keep reachable") && !left.contains("conntrack-guard-in"), "{left}");
    assert!(left.contains("drop banned sources"), "bans are something else: {left}");
    assert_eq!(actioner.status()["keep_reachable"], Value::Null);
    Ok(())
}

#[test]
fn a_filter_of_nftables_own_that_would_cut_peers_off_keeps_everything_tracked() -> Result<()> {
    let scene = Topology::direct(&["monitor"])?;
    let (server, monitor) = (&scene.server, &scene.peer("monitor").namespace);
    let _echo = echo(server, scene.server_address(Family::V4), SSH)?;
    let filter = |new: &str| {
        format!(
            "table inet filter {{ chain input {{ type filter hook input priority 0; policy drop;\n\
             ct state established,related accept\nct state {new} tcp dport 22 accept\n}}; }}"
        )
    };
    server.nft(&filter("new"))?;
    let mut open = monitor.run(|| TcpStream::connect(scene.server_socket(Family::V4, SSH)).unwrap());
    open.set_read_timeout(Some(SOON)).unwrap();
    let actioner = Actioner::start(server, POLICY)?;
    let status = || actioner.status()["keep_reachable"].clone();
    assert_eq!(status()["covered"], json!([]), "{}", status());
    let why = status()["refused"][0]["why"].as_str().unwrap().to_owned();
    assert!(
        why.contains("table inet filter") && why.contains("tcp dport 22 ct state untracked accept"),
        "{why}"
    );
    assert!(says(&mut open) && monitor.run(|| answered(scene.server_socket(Family::V4, SSH))), "as before");

    server.nft(&format!("delete table inet filter\n{}", filter("{ new, untracked }")))?;
    wait_until("the ports to be covered", SOON, || match status() {
        now if now["covered"].as_array().is_some_and(|covered| covered.len() == 2) => Ok(()),
        now => Err(now),
    })?;
    assert!(says(&mut open) && monitor.run(|| answered(scene.server_socket(Family::V4, SSH))), "untracked");
    Ok(())
}

#[test]
fn the_selftest_proves_what_works_here_and_says_what_to_install() -> Result<()> {
    let server = Namespace::new("selftest")?;
    let program = Program::Actioner.path()?;
    let selftest = |path: Option<&str>| {
        let mut command = std::process::Command::new(&program);
        command.args(["selftest", "--json", "--admin.socket=/nowhere/actioner.sock"]);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let output = server.run(|| command.output()).unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = selftest(None);
    assert_eq!(code, Some(0), "{said:#}");
    let names: Vec<&str> =
        said["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["notrack", "delete", "sockets", "dead-slots", "ban", "unix-socket"]);
    assert!(!rules(&server)?.contains("selftest"), "nothing of ours is left where it was started");
    Ok(())
}
