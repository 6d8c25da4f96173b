//! Both programs have given up what they do not need, in every thread, and do all their work with what is left.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "actioner/lab.rs"]
#[allow(dead_code, reason = "the actioner's own tests use the rest")]
mod lab;

use std::{
    env, fs,
    os::unix::{fs::symlink, process::ExitStatusExt},
    path::PathBuf,
    process::{Command, Output},
};

use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use serde_json::Value;
use tests::{Result, http, process::Process, programs::Program, wait::wait_until};
use web::confine::{Capability, Confinement, Starts};

use lab::{HIM, Home, POLICY, SOON, count, fill, members, quiet, raw_rules, with_end};

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_NICE: u64 = 1 << 23;
/// What the child of the last test is to do, and whether it is confined before.
const CALL: &str = "CONFINED_TEST_CALL";
const HOW: &str = "CONFINED_TEST_HOW";

/// Every thread of a process has capabilities of `kept` alone, NET_ADMIN among them, and can get no more.
fn is_confined(process: &Process, kept: u64) {
    let tasks: Vec<_> = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap().collect();
    for task in tasks {
        // It may have ended since.
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            value.unwrap_or_else(|| panic!("no {name} in {status}"))
        };
        assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1", "2"), "{status}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(u64::from_str_radix(field(set), 16).unwrap() & !kept, 0, "{set} in {status}");
        }
        assert_ne!(u64::from_str_radix(field("CapEff"), 16).unwrap() & NET_ADMIN, 0, "{status}");
    }
}

#[test]
fn a_confined_actioner_does_all_its_work() -> Result<()> {
    let lab = quiet("confined")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let mut actioner = home.start(&lab)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1, "{}", actioner.log());
    assert_eq!(with_end(&lab, HIM)?.len(), 0, "{}", actioner.log());
    assert_eq!(members(&lab, "conntrack-guard-4")?.len(), 1);

    lab.output(&["iptables", "-t", "raw", "-F"])?;
    wait_until("the drop rule again", SOON, || match raw_rules(&lab).unwrap().matches("-j DROP").count() {
        2 => Ok(()),
        _ => Err(actioner.log()),
    })?;

    let log = home.path("storage/audit.jsonl");
    fs::rename(&log, home.path("storage/audit.old")).unwrap();
    assert!(actioner.reload(&POLICY.replace("assured: 20", "assured: 10"))?, "{}", actioner.log());
    let second = "198.51.100.67";
    fill(&lab, second, 15)?;
    assert_eq!(count(&actioner.alert(&[second])?, "banned"), 1, "{}", actioner.log());
    wait_until("the audit log anew", SOON, || match fs::read_to_string(&log) {
        Ok(text) if text.contains(second) => Ok(()),
        other => Err(format!("{other:?}\n{}", actioner.log())),
    })?;
    wait_until("the state on the disk", SOON, || {
        match fs::read_to_string(home.path("storage/state.json")) {
            Ok(text) if text.contains(second) => Ok(()),
            other => Err(format!("{other:?}\n{}", actioner.log())),
        }
    })?;

    is_confined(&actioner.running.process, NET_ADMIN | NET_RAW | SYS_NICE);
    for by in ["capabilities", "seccomp"] {
        assert_eq!(actioner.metric(&format!("confined{{by=\"{by}\"}}"))?, 1.0, "{}", actioner.log());
    }
    let status: Value =
        serde_json::from_str(&http::get(&actioner.socket, "/api/v1/status", &[])?.text()).unwrap();
    assert_eq!(
        (&status["confined"]["capabilities"], &status["confined"]["seccomp"]),
        (&true.into(), &true.into())
    );
    assert_eq!(status["policy"]["last_reload_error"], Value::Null, "{status}");
    // A list that moved to where nothing was when it started: without Landlock it is simply read.
    let landlock = actioner.metric("confined{by=\"landlock\"}")? == 1.0;
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("list"), "192.0.2.7\n").unwrap();
    let list = elsewhere.path().join("list").display().to_string();
    let moved = POLICY.replace("never_ban: []", &format!("never_ban: []\nnever_ban_files: ['{list}']"));
    assert_eq!(actioner.reload(&moved)?, !landlock, "{}", actioner.log());
    assert_eq!(actioner.log().contains("restart it"), landlock, "{}", actioner.log());
    let said = home.run(&lab, &[], &["status"], &["--admin.socket"])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let [by, refused] = if landlock { ["landlock, ", "NOT RELOADED: "] } else { ["", "policy    "] };
    assert!(said.contains(&format!("confined  by capabilities, {by}seccomp")), "{said}");
    assert!(said.contains(refused), "{said}");

    assert!(actioner.process().stop()?.success(), "{}", actioner.log());
    assert!(!home.path("admin.sock").exists(), "{}", actioner.log());
    Ok(())
}

/// Debian has it beside the other one, and old hosts have it alone.
#[test]
fn a_confined_actioner_enforces_by_iptables_legacy() -> Result<()> {
    let lab = quiet("confinedold")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let tools = tempfile::tempdir().unwrap();
    for tool in
        ["iptables", "ip6tables", "iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore"]
    {
        symlink("/usr/sbin/xtables-legacy-multi", tools.path().join(tool)).unwrap();
    }
    let first = format!("export PATH={}:$PATH", tools.path().display());
    let actioner = home.start_on(&lab, &first)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1, "{}", actioner.log());
    assert_eq!(actioner.metric("confined{by=\"seccomp\"}")?, 1.0, "{}", actioner.log());
    for (tool, set) in [("iptables-legacy", "conntrack-guard-4"), ("ip6tables-legacy", "conntrack-guard-6")] {
        let rules = lab.output(&[tool, "-t", "raw", "-S"])?;
        let drops = rules.lines().filter(|rule| rule.contains(set) && rule.ends_with("-j DROP"));
        assert_eq!(drops.count(), 1, "{rules}\n{}", actioner.log());
    }
    assert_eq!(raw_rules(&lab)?.matches("-j DROP").count(), 0, "the other one was left alone");
    assert_eq!(with_end(&lab, HIM)?.len(), 0, "{}", actioner.log());
    Ok(())
}

#[test]
fn a_confined_exporter_does_all_its_work() -> Result<()> {
    let lab = quiet("confinedexp")?;
    fill(&lab, HIM, 60)?;
    let address = Program::Exporter.default_address();
    let exporter = Program::Exporter.start(&lab, address, &[])?;
    let metrics = exporter.get(&lab, "/metrics")?.text();
    for sample in [
        "nf_conntrack_scrape_collector_success{collector=\"flows\"} 1",
        "nf_conntrack_scrape_collector_success{collector=\"sources\"} 1",
        "nf_conntrack_scrape_collector_success{collector=\"sockets\"} 1",
        "conntrack_exporter_confined{by=\"capabilities\"} 1",
        "conntrack_exporter_confined{by=\"seccomp\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "no {sample} in\n{metrics}");
    }
    assert!(metrics.contains(HIM) && !metrics.contains("_success{collector=\"stat\"} 0"), "{metrics}");
    is_confined(&exporter.process, NET_ADMIN | SYS_NICE);
    drop(exporter);

    let free = Program::Exporter.start(&lab, address, &["--no-confine"])?;
    let metrics = free.get(&lab, "/metrics")?.text();
    for by in ["capabilities", "landlock", "seccomp"] {
        assert!(metrics.contains(&format!("conntrack_exporter_confined{{by=\"{by}\"}} 0")), "{metrics}");
    }
    Ok(())
}

/// Run by [`a_forbidden_call_ends_the_process`].
#[test]
#[ignore = "the child of another test"]
fn child_that_calls() {
    let starts = match env::var(HOW).unwrap().as_str() {
        "exporter" => Some(Starts::Nothing),
        "actioner" => Some(Starts::ProgramsIn(&["/usr", "/bin", "/lib", "/lib64"])),
        _ => None,
    };
    if let Some(starts) = starts {
        let reads = vec![PathBuf::from("/proc"), PathBuf::from("/etc")];
        let writes = vec![PathBuf::from("/dev/null")];
        let capabilities = vec![Capability::CAP_NET_ADMIN];
        let confined = Confinement { capabilities, reads, writes, removes: Vec::new(), starts }.apply();
        assert!(confined.capabilities && confined.seccomp, "{confined:?}");
        let denied = fs::read_dir("/root").is_err_and(|error| error.raw_os_error() == Some(13));
        assert_eq!(denied, confined.landlock, "{confined:?}");
        assert!(fs::read_to_string("/etc/passwd").is_ok());
    }
    let said = match env::var(CALL).unwrap().as_str() {
        "unshare" => format!("{:?}", unshare(CloneFlags::CLONE_NEWUTS)),
        "mount" => {
            format!("{:?}", mount(None::<&str>, "/nowhere", None::<&str>, MsFlags::empty(), None::<&str>))
        }
        "chroot" => format!("{:?}", nix::unistd::chroot("/nowhere")),
        "start" => format!("{:?}", Command::new("true").status().map(|status| status.success())),
        // What iptables could be made to call, by number: its errno, or the signal that ended it.
        number if number.starts_with(|first: char| first.is_ascii_digit()) => {
            let script = "syscall(shift, 0, 0, 0, 0, 0); print $!+0";
            let called = Command::new("perl").args(["-e", script, number]).output().unwrap();
            format!("{} {:?}", String::from_utf8_lossy(&called.stdout), called.status.signal())
        }
        other => panic!("{other}"),
    };
    println!("answered {said}");
}

fn child(how: &str, call: &str) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "child_that_calls"])
        .env(CALL, call)
        .env(HOW, how)
        .output()
        .unwrap()
}

#[test]
fn a_forbidden_call_ends_the_process() {
    for (how, call, dies) in [
        ("free", "unshare", false),
        ("free", "mount", false),
        ("free", "chroot", false),
        ("free", "start", false),
        ("actioner", "unshare", true),
        ("actioner", "mount", true),
        ("actioner", "chroot", true),
        ("actioner", "start", false),
        ("exporter", "unshare", true),
        ("exporter", "start", true),
    ] {
        let output = child(how, call);
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let signal = dies.then_some(Signal::SIGSYS as i32);
        assert_eq!(output.status.signal(), signal, "{how} {call}: {said}");
        assert_eq!(said.contains("answered"), !dies, "{how} {call}: {said}");
        if call == "start" && !dies {
            assert!(said.contains("answered Ok(true)"), "{how} {call}: {said}");
        }
    }
}

#[test]
fn a_started_program_is_answered_as_it_can_bear_or_ended() {
    const X32: i64 = 0x4000_0000;
    let killed = || format!(" {:?}", Some(Signal::SIGSYS as i32));
    let answered = |errno: Errno| format!("{} None", errno as i32);
    // glibc falls back from clone3 to clone at ENOSYS alone. x32, which few kernels have, is no way round.
    for (call, expected) in [
        (libc::SYS_clone3, answered(Errno::ENOSYS)),
        (libc::SYS_delete_module, answered(Errno::EPERM)),
        (libc::SYS_keyctl, killed()),
        (X32 | libc::SYS_keyctl, killed()),
        // process_vm_readv by its number of x32.
        (539, killed()),
    ] {
        for (how, confined) in [("free", false), ("actioner", true)] {
            let output = child(how, &call.to_string());
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let as_expected = said.contains(&format!("answered {expected}\n"));
            assert_eq!(as_expected, confined, "{how}, call {call}, {expected}: {said}");
            assert!(confined || said.contains(" None\n"), "{how}, call {call}: {said}");
        }
    }
}
