//! Faults from outside, and what the user sees of them: a lock that another program keeps, a neighbour that goes away with its link.

use std::{fs, net::UdpSocket, os::unix::fs::symlink, process::Command, time::SystemTime};

use nix::sys::signal::Signal;
use tests::{
    Result,
    netns::Namespace,
    process::Process,
    programs::{Program, Running},
    wait::wait_until,
};

use crate::{
    kept::banned,
    lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, quiet, with_end},
};

const HIM_TOO: &str = "198.51.100.67";
/// Only the legacy tools take a lock: all four are the one program.
const LEGACY: &str = "/usr/sbin/xtables-legacy-multi";
const TOOLS: [&str; 4] = ["iptables", "ip6tables", "iptables-restore", "ip6tables-restore"];

/// The IPv4 rules of raw PREROUTING, without waiting for anybody's lock; `more` is done with the chain.
fn legacy(lab: &Namespace, home: &Home, more: &str) -> Result<String> {
    let lock = format!("XTABLES_LOCKFILE={}", home.path("another.lock").display());
    lab.output(&["env", &lock, LEGACY, "iptables", "-t", "raw", more, "PREROUTING"])
}

/// A program that takes the lock in the actioner's mount namespace and does not let go of it.
fn holder(lab: &Namespace, pid: &str) -> Result<Process> {
    let mut command = Command::new("nsenter");
    let script = "exec 9>/run/xtables.lock && flock 9 && exec sleep 100";
    command.args(["-t", pid, "-m", "sh", "-c", script]);
    let holder = lab.spawn(command)?;
    let name = || fs::read_to_string(format!("/proc/{}/comm", holder.id()));
    wait_until("the lock to be held", SOON, || match name() {
        Ok(name) if name == "sleep\n" => Ok(()),
        other => Err(format!("{other:?}: {}", holder.log())),
    })?;
    Ok(holder)
}

fn enforced(actioner: &Actioner<'_>, wanted: f64) -> Result<()> {
    wait_until("enforced_bans", SOON + SOON, || match actioner.metric("enforced_bans") {
        Ok(found) if found == wanted => Ok(()),
        other => Err(format!("{other:?}, not {wanted}\n{}", actioner.log())),
    })
}

#[test]
fn while_another_holds_the_lock_of_iptables_no_ban_is_called_in_force_and_when_it_is_killed_all_is()
-> Result<()> {
    let lab = quiet("lock")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let bin = home.path("bin");
    fs::create_dir(&bin).unwrap();
    TOOLS.iter().for_each(|tool| symlink(LEGACY, bin.join(tool)).unwrap());
    // The lock of the host, /run/xtables.lock, stays what it is.
    let script = format!("mount -t tmpfs none /run && export PATH={}:$PATH", bin.display());
    let mut actioner = home.start_on(&lab, &script)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    assert_eq!(actioner.metric("enforced_bans")?, 1.0);
    assert!(legacy(&lab, &home, "-S")?.contains("conntrack-guard-4"), "the rule is one of the legacy tool's");

    let pid = actioner.process().id().to_string();
    let mut holder = holder(&lab, &pid)?;
    legacy(&lab, &home, "-F")?;
    let flushed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    // While it waits for the lock it shows what it saw before, and says of when that is.
    wait_until("no ban to be called in force", SOON + SOON, || {
        let (enforced, seen) =
            (actioner.metric("enforced_bans"), actioner.metric("last_look_timestamp_seconds"));
        match (enforced, seen) {
            (Ok(0.0), Ok(_)) => Ok(()),
            (Ok(bans), Ok(seen)) => {
                assert!(seen < flushed, "{bans} in force as of {seen}, and the rule went at {flushed}");
                Err(format!("{bans} as of {seen}"))
            }
            other => panic!("{other:?}"),
        }
    })?;
    let log = actioner.log();
    let said = log.lines().find(|line| line.contains("sets or drop rule cannot be put in place"));
    let said = said.unwrap_or_else(|| panic!("{log}"));
    for words in
        ["nothing may drop", "`iptables -w 5 -t raw -S PREROUTING` failed", "holding the xtables lock"]
    {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
    assert_eq!(actioner.metric("active_bans")?, 1.0, "what was decided is not forgotten");
    assert!(!legacy(&lab, &home, "-S")?.contains("conntrack-guard-4"), "and it is true: nothing drops");

    holder.signal(Signal::SIGKILL)?;
    holder.wait(SOON)?;
    // An alert does not wait for the next look.
    fill(&lab, HIM_TOO, 30)?;
    assert_eq!(count(&actioner.alert(&[HIM_TOO])?, "banned"), 1, "{}", actioner.log());
    assert!(legacy(&lab, &home, "-S")?.contains("conntrack-guard-4"));
    assert_eq!(
        (actioner.metric("enforced_bans")?, banned(&lab)),
        (2.0, vec![HIM.to_owned(), HIM_TOO.to_owned()])
    );
    assert!(actioner.log().contains("our drop rule was gone, so no ban had effect: put back"));
    Ok(())
}

const WATCH: &str = "watch:\n  interval: 200ms\n  every: 200ms\n  alerts:\n  - {alert: Hoarder, source: {assured: 20}}\nrules:";

fn shows(server: &Namespace, exporter: &Running, lines: &[&str]) -> Result<()> {
    wait_until("the exporter to show it", SOON, || {
        let metrics = exporter.get(server, "/metrics").map_err(|error| error.to_string())?.text();
        match lines.iter().find(|line| !metrics.lines().any(|shown| shown == **line)) {
            Some(line) => Err(format!("no {line} in\n{metrics}\n{}", exporter.process.log())),
            None => Ok(()),
        }
    })
}

#[test]
fn a_neighbour_that_goes_away_with_its_link_and_its_entries_ends_no_ban_no_watch_and_no_scrape() -> Result<()>
{
    let server = quiet("stays")?;
    let neighbour = Namespace::new("goes")?;
    server.ip(&format!(
        "link add away type veth peer name uplink netns {}\naddr add 192.0.2.1/24 dev away\nlink set away up\n",
        neighbour.path()
    ))?;
    neighbour.ip("addr add 192.0.2.9/24 dev uplink\nlink set uplink up\n")?;
    neighbour.run(|| UdpSocket::bind("192.0.2.9:0").unwrap().send_to(b"x", "192.0.2.1:9").unwrap());
    wait_until("his entry", SOON, || match with_end(&server, "192.0.2.9") {
        Ok(his) if his.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    fill(&server, HIM, 30)?;

    let home = Home::new(&POLICY.replace("rules:", WATCH));
    let mut actioner = home.start(&server)?;
    let mut exporter = Program::Exporter.start(&server, Program::Exporter.default_address(), &[])?;
    enforced(&actioner, 1.0)?;
    shows(&server, &exporter, &["nf_conntrack_scrape_collector_success{collector=\"sources\"} 1"])?;

    drop(neighbour);
    wait_until("the link to be gone", SOON, || match server.output(&["ip", "-o", "link"]) {
        Ok(links) if !links.contains("away") => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    server.command(&["conntrack", "-F"])?;
    let looks = actioner.dumps()?;
    wait_until("more looks of the watch", SOON, || match actioner.dumps() {
        Ok(now) if now >= looks + 3.0 => Ok(()),
        other => Err(format!("{other:?} after {looks}\n{}", actioner.log())),
    })?;
    assert_eq!(banned(&server), [HIM]);
    enforced(&actioner, 1.0)?;
    let whole = ["flows", "sources", "table"]
        .map(|collector| format!("nf_conntrack_scrape_collector_success{{collector=\"{collector}\"}} 1"));
    shows(&server, &exporter, &whole.each_ref().map(String::as_str))?;

    fill(&server, HIM_TOO, 30)?;
    enforced(&actioner, 2.0)?;
    assert_eq!(banned(&server), [HIM, HIM_TOO], "the watch sees what comes");
    for process in [actioner.process(), &mut exporter.process] {
        process.running()?;
        let log = process.log();
        assert!(!log.contains("level=error") && !log.contains("panicked"), "{log}");
    }
    Ok(())
}

#[test]
fn a_log_that_takes_no_line_costs_no_ban() -> Result<()> {
    let lab = quiet("speechless")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let mut actioner = home.start_on(&lab, "exec >/dev/full 2>&1")?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    assert_eq!(actioner.log(), "", "nothing could be written");
    actioner.process().running()
}
