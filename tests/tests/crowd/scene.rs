//! The server with its services and both programs, and the networks around it.

use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tests::{
    Result,
    guard::Guard,
    netns::Namespace,
    programs::{Program, Running, workspace},
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
};

use crate::Length;

/// The carrier's one address, which its customers and an attacker share.
pub(crate) const NAT: &str = "192.0.2.70";
pub(crate) const MONITORING: &str = "192.0.2.133";
pub(crate) const ADMIN: &str = "192.0.2.131";
pub(crate) const DATABASE: &str = "192.0.2.132";
/// Idle connections wait here until the client has said something.
pub(crate) const DEFERRING: u16 = 80;
pub(crate) const WEB: u16 = 81;
pub(crate) const SSH: u16 = 22;
/// The flood's own, so that its backlog is.
pub(crate) const FLOODED: u16 = 8443;
/// At the database's address: one that answers, one that speaks first.
pub(crate) const ANSWERS: u16 = 5432;
pub(crate) const SPEAKS: u16 = 5433;
/// Entries that count as a table half full: the limit is global, and 131,072 entries would be everybody's on this machine.
const PRESSED: f64 = 500.0;

/// Everything that stands still.
pub(crate) struct Scene {
    pub(crate) guard: Guard,
    _exporter: Running,
    _services: Vec<Responder>,
    _speaker: Speaker,
    /// Behind the carrier's NAT.
    pub(crate) customers: Namespace,
    pub(crate) culprit: Namespace,
    pub(crate) topology: Topology,
}

impl Scene {
    pub(crate) fn new(length: &Length) -> Result<Self> {
        let topology = Topology::direct(&["attacker", "honest", "provider", "known"])?;
        let server = &topology.server;
        if let Some(retries) = length.synack_retries {
            server.sysctl("net/ipv4/tcp_synack_retries", retries)?;
        }
        // Honest neighbours in the attacker's own /24.
        for (peer, prefix) in [
            ("honest", "198.51.100.128/25"),
            ("honest", "2001:db8:a11::/64"),
            ("known", "192.0.2.131/32"),
            ("known", "192.0.2.132/32"),
            ("known", "192.0.2.133/32"),
            ("attacker", "198.51.100.67/32"),
            ("attacker", "198.51.100.68/32"),
            ("attacker", "198.51.100.69/32"),
            ("attacker", "198.18.5.0/24"),
            ("attacker", "198.19.0.0/16"),
        ] {
            topology.give_prefix(peer, prefix.parse().unwrap())?;
        }
        let carrier = &topology.peer("provider").namespace;
        carrier.sysctl("net/ipv4/ip_forward", "1")?;
        carrier.nft("table ip nat { chain out { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }; }")?;
        let customers = behind(carrier, "customers", 1)?;
        let culprit = behind(carrier, "culprit", 2)?;

        let (v4, v6) = (topology.server_address(Family::V4), topology.server_address(Family::V6));
        let mut services = Vec::new();
        for (address, port, accept) in [
            (v4, DEFERRING, Accept::Deferred),
            (v4, WEB, Accept::AtOnce),
            (v6, WEB, Accept::AtOnce),
            (v4, SSH, Accept::AtOnce),
            (v4, FLOODED, Accept::AtOnce),
        ] {
            services.push(Responder::start(server, (address, port).into(), accept, KeepAlive::Off)?);
        }
        let known = &topology.peer("known").namespace;
        let database: IpAddr = DATABASE.parse().unwrap();
        services.push(Responder::start(known, (database, ANSWERS).into(), Accept::AtOnce, KeepAlive::Off)?);
        let speaker = Speaker::start(known, (database, SPEAKS).into())?;

        let exporter = Program::Exporter.start(server, Program::Exporter.default_address(), &[])?;
        let guard = Guard::start_behind(server, &policy(server, length)?, LOGGED_IN)?;
        Ok(Self {
            guard,
            _exporter: exporter,
            _services: services,
            _speaker: speaker,
            customers,
            culprit,
            topology,
        })
    }

    pub(crate) fn to(&self, port: u16) -> SocketAddr {
        self.topology.server_socket(Family::V4, port)
    }
}

/// In a mount namespace of the actioner's own: what logind keeps of an ssh session that PAM has opened.
const LOGGED_IN: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/sessions && \
    printf 'UID=1000\\nUSER=admin\\nSTATE=active\\nREMOTE=1\\nTYPE=tty\\nCLASS=user\\nREMOTE_HOST=192.0.2.131\\nSERVICE=sshd\\n' \
    > /run/systemd/sessions/3";

/// The packaged policy, enforced, with the example rules, and with what README says is scaled.
fn policy(server: &Namespace, length: &Length) -> Result<String> {
    let examples = workspace().join("docs/policy-examples");
    let mut text = fs::read_to_string(workspace().join("packaging/policy.yaml")).unwrap();
    let watch = fs::read_to_string(examples.join("watch.yaml")).unwrap();
    let watch: String =
        watch.lines().filter(|line| !line.starts_with('#')).map(|line| format!("  {line}\n")).collect();
    let limit: f64 = server.read_sysctl("net/netfilter/nf_conntrack_max")?.parse().unwrap();
    let scaled = format!("fill_percent: {:.5}", PRESSED * 100.0 / limit);
    let rules = fs::read_to_string(examples.join("rules.yaml")).unwrap();
    let rules_file = length.directory.path().join("rules.yaml");
    fs::write(&rules_file, rules.replace("fill_percent: 50", &scaled)).unwrap();
    for (old, new) in [
        ("\nenforce: false\n", "\nenforce: true\n".to_owned()),
        ("\nnever_ban: [private]\n", format!("\nnever_ban: [private, {MONITORING}, {NAT}]\n")),
        ("widest_prefix: {ipv4: 32,", "widest_prefix: {ipv4: 24,".to_owned()),
        ("\n# An established entry that is idle", format!("{watch}\n# An established entry that is idle")),
        ("\nsocketless_grace: 30s\n", format!("\nsocketless_grace: {}s\n", length.grace.as_secs())),
        ("\nrule_files: []\n", format!("\nrule_files: [{}]\n", rules_file.display())),
    ] {
        assert_eq!(text.matches(old).count(), 1, "{old:?} of the packaged policy");
        text = text.replace(old, &new);
    }
    Ok(text.replace("fill_percent: 50", &scaled))
}

/// A namespace behind the carrier's address.
fn behind(carrier: &Namespace, name: &str, number: u8) -> Result<Namespace> {
    let namespace = Namespace::new(name)?;
    carrier.ip(&format!(
        "link add {name} type veth peer name eth0 netns {}\naddr add 10.0.{number}.1/24 dev {name}\nlink set {name} up\n",
        namespace.path()
    ))?;
    let own = Ipv4Addr::new(10, 0, number, 2);
    namespace.ip(&format!(
        "addr add {own}/24 dev eth0\nlink set eth0 up\nroute add default via 10.0.{number}.1\n"
    ))?;
    Ok(namespace)
}

/// A database that speaks first, and goes on speaking.
struct Speaker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Speaker {
    fn start(namespace: &Namespace, at: SocketAddr) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(at)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = thread::spawn(move || {
            let mut callers = Vec::new();
            while !until.load(Ordering::Relaxed) {
                callers.extend(listener.accept().ok().map(|(caller, _)| caller));
                callers.retain_mut(|caller| caller.write_all(b"notice!\n").is_ok());
                thread::sleep(Duration::from_millis(200));
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
