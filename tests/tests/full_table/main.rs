//! `keep_reachable`: who is covered reaches this host while the table is full, and nothing else changes for anybody.
//!
//! The table is filled up to the kernel's own limit, which is global and is left alone.

mod filters;
mod kept;
mod stage;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use serde_json::Value;
use tests::{
    Result,
    http::{self, Server},
    listing::list,
    netns::Namespace,
    programs::Program,
    topology::{Family, Topology},
    wait::wait_until,
};

use stage::*;

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
