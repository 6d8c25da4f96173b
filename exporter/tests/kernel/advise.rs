//! `advise` on the real kernel: what it reads is what is there, what it prints can be loaded, and it changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use serde_json::Value;
use tests::netns::Namespace;
use tests::responder::{Accept, KeepAlive, Responder};
use tests::tools::{self, Tool};

const BINARY: &str = env!("CARGO_BIN_EXE_conntrack-exporter");

fn namespace() -> Namespace {
    tools::require(&[Tool::Ip, Tool::Nft, Tool::Perl, Tool::Sysctl, Tool::Iptables, Tool::Ipset]).unwrap();
    Namespace::new("advise").unwrap()
}

/// Without a look at the /etc of the machine that runs the tests.
fn advise(namespace: &Namespace, rootfs: &str, flags: &[&str]) -> String {
    let rootfs = format!("--path.rootfs={rootfs}");
    namespace.output(&[&[BINARY, "advise", &rootfs], flags].concat()).unwrap()
}

fn json(namespace: &Namespace) -> Value {
    serde_json::from_str(&advise(namespace, "/nowhere", &["--json"])).unwrap()
}

fn topics(json: &Value) -> Vec<&str> {
    json["advice"].as_array().unwrap().iter().map(|one| one["topic"].as_str().unwrap()).collect()
}

/// Every sysctl of the table in the namespace, and the one of TCP that is advised on. The count of entries is none.
fn sysctls(namespace: &Namespace) -> BTreeMap<String, String> {
    let listed = namespace.output(&["sysctl", "net.netfilter", "net.ipv4.tcp_synack_retries"]).unwrap();
    let pairs = listed.lines().filter_map(|line| line.split_once(" = "));
    pairs
        .filter(|(key, _)| !key.ends_with("_count"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn it_sees_this_namespace_and_its_file_cures_what_it_names() {
    let namespace = namespace();
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let listen = |at, accept| Responder::start(&namespace, address(at), accept, KeepAlive::Off).unwrap();
    let _plain = listen("127.0.0.1:8081", Accept::AtOnce);
    assert!(
        !topics(&json(&namespace)).contains(&"deferring_listeners"),
        "a plain listener waits for nothing"
    );
    let _deferring = [listen("127.0.0.1:8080", Accept::Deferred), listen("[::1]:8080", Accept::Deferred)];
    for (name, value) in [
        ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
        ("net/netfilter/nf_conntrack_tcp_timeout_syn_recv", "333"),
        ("net/netfilter/nf_conntrack_udp_timeout", "444"),
        ("net/netfilter/nf_conntrack_tcp_loose", "0"),
        ("net/netfilter/nf_conntrack_acct", "1"),
        ("net/ipv4/tcp_synack_retries", "7"),
    ] {
        namespace.sysctl(name, value).unwrap();
    }
    let before = sysctls(&namespace);
    let found = json(&namespace);
    let file = advise(&namespace, "/nowhere", &[]);
    assert_eq!(sysctls(&namespace), before, "it changes nothing");

    let deferring: Vec<_> = found["listeners"]["deferring"].as_array().unwrap().iter().collect();
    let seen: Vec<_> =
        deferring.iter().map(|one| (one["address"].as_str().unwrap(), one["pid"].as_u64())).collect();
    let ours = Some(u64::from(std::process::id()));
    assert_eq!(seen, [("127.0.0.1:8080", ours), ("[::1]:8080", ours)], "{found:#}");
    assert_eq!(
        (&found["listeners"]["asked"], &found["listeners"]["not_asked"]),
        (&3.into(), &Value::Array(vec![]))
    );
    assert_eq!(found["timeouts"]["udp"], 444);
    assert_eq!(found["table"]["entry_bytes"]["measured"], true, "slabinfo is readable to root");
    let expected = [
        "deferring_listeners",
        "established_timeout",
        "synack_retries",
        "be_liberal",
        "other_timeouts",
        "loaded_too_late",
        "loose",
        "accounting",
    ];
    assert_eq!(topics(&found), expected, "{file}");
    assert!(file.contains("127.0.0.1:8080 ("), "{file}");

    // As a person would: take the file, those that could be changed too.
    let all: String = file
        .lines()
        .map(|line| line.strip_prefix("#net.").map_or(line.to_owned(), |rest| format!("net.{rest}")) + "\n")
        .collect();
    namespace.command_with_input(&["sysctl", "-p", "-"], &all).unwrap();
    assert_eq!(namespace.read_sysctl("net/netfilter/nf_conntrack_udp_timeout").unwrap(), "30");
    assert_eq!(topics(&json(&namespace)), ["deferring_listeners"], "what remains is Apache's to change");
}

#[test]
fn a_saved_ruleset_that_will_not_load_is_named() {
    let namespace = namespace();
    let rootfs = tempfile::tempdir().unwrap();
    let root = rootfs.path().to_str().unwrap();
    fs::create_dir_all(rootfs.path().join("etc/iptables")).unwrap();
    let (nft, iptables) =
        (rootfs.path().join("etc/nftables.conf"), rootfs.path().join("etc/iptables/rules.v4"));
    namespace.command(&["ipset", "create", "conntrack-guard-4", "hash:ip"]).unwrap();
    let rule = "iptables -t raw -A PREROUTING -m set --match-set conntrack-guard-4 src -j DROP";
    namespace.command(&rule.split(' ').collect::<Vec<_>>()).unwrap();
    fs::write(&nft, namespace.output(&["nft", "list", "ruleset"]).unwrap()).unwrap();
    fs::write(&iptables, namespace.output(&["iptables-save"]).unwrap()).unwrap();

    let said = advise(&namespace, root, &[]).replace("\n#    ", " ");
    assert!(said.contains("1. NOW: The next boot may leave this host without a firewall"), "{said}");
    for file in [&nft, &iptables] {
        assert!(said.contains(&format!("{}:", file.display())), "{said}");
    }
    // What it claims is so: after a boot, neither loads.
    let booted = Namespace::new("booted").unwrap();
    let saved = fs::read_to_string(&iptables).unwrap();
    assert!(booted.command_with_input(&["iptables-restore"], &saved).is_err(), "{saved}");
    assert!(booted.command(&["nft", "-f", nft.to_str().unwrap()]).is_err());
    assert_eq!(
        booted.output(&["nft", "list", "ruleset"]).unwrap().matches("chain").count(),
        0,
        "nothing was loaded"
    );

    let another = advise(&namespace, root, &["--firewall.set=blocklist"]);
    assert!(another.contains("nftables.conf:") && !another.contains("rules.v4:"), "{another}");
}

#[test]
fn without_the_tables_sysctls_it_says_so_and_fails() {
    let failure = namespace().command(&[BINARY, "advise", "--path.procfs=/nowhere"]).unwrap_err().to_string();
    assert!(
        failure.contains("no advice can be given") && failure.contains("nf_conntrack is not loaded"),
        "{failure}"
    );
}
