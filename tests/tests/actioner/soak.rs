//! Both programs for an hour under churn: attackers banned, bans that end, policies, routes, scrapes. What grows is a leak.

use std::{
    fs,
    time::{Duration, Instant},
};

use tests::{
    Result, http,
    netns::Namespace,
    programs::{Program, Running},
};

use crate::lab::{Actioner, Home, POLICY, SOON, count, fill, quiet, raw_rules, with_end};

/// Bans so short that they end all the time; an attacker comes back after a minute, so that offences are remembered and forgotten.
const BAN: &str = "{for: 5s, factor: 1, max: 5s}";
const ATTACKERS: usize = 250;
/// Caches, pools and the audit log's buffer fill at first.
const WARM: f64 = 0.25;
/// In bytes: below it five per cent are a page or two.
const NOISE: u64 = 1 << 20;
/// Descriptors that are open for a moment: a dump, a tool.
const BRIEF: usize = 2;

/// What one program holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    resident: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn of(pid: u32) -> Held {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let open = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        Held { resident: number("VmRSS:") << 10, descriptors: open("fd"), threads: open("task") }
    }

    fn grew_to(self, later: Held) -> Option<String> {
        let most = self.resident + (self.resident / 20).max(NOISE);
        let more = later.resident > most
            || later.descriptors > self.descriptors + BRIEF
            || later.threads > self.threads;
        more.then(|| format!("{self:?} became {later:?}"))
    }
}

fn seconds() -> u64 {
    std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3600)
}

/// One round: an attacker is banned, both programs are scraped, and now and then the policy and a route change.
fn round(lab: &Namespace, actioner: &mut Actioner<'_>, exporter: &Running, number: usize) -> Result<()> {
    let attacker = format!("198.51.{}.{}", 100 + number % 2, 1 + number % ATTACKERS);
    fill(lab, &attacker, 30)?;
    let answer = actioner.alert(&[&attacker])?;
    // One that came back before his ban had ended is banned already; nobody is refused, and no ban fails.
    assert_eq!(count(&answer, "banned") + count(&answer, "already_banned"), 1, "round {number}: {answer}");
    assert!(with_end(lab, &attacker)?.is_empty(), "round {number}: his entries are gone");
    assert_eq!(exporter.get(lab, "/metrics")?.status, 200);
    assert_eq!(actioner.post("no webhook")?.status, 400);
    if number.is_multiple_of(10) {
        let grace = if number.is_multiple_of(20) { "20s" } else { "30s" };
        assert!(actioner.reload(&format!("{}socketless_grace: {grace}\n", policy()))?);
    }
    if number.is_multiple_of(5) {
        lab.ip("addr add 203.0.113.7/32 dev lo\naddr del 203.0.113.7/32 dev lo")?;
        assert_eq!(http::get(&actioner.socket, "/-/healthy", &[])?.status, 200);
    }
    Ok(())
}

/// What asks them is not tracked: the soak's own closed connections are no part of what it looks at.
fn policy() -> String {
    let reachable = "keep_reachable: {ports: [10048, 10049], from: [127.0.0.0/8]}\n";
    POLICY.replace("{for: 10m, factor: 4, max: 24h}", BAN) + reachable
}

/// Nothing of a soak is over before the bans of its last round have ended in the kernel.
fn ends_clean(lab: &Namespace, actioner: &Actioner<'_>) -> Result<()> {
    tests::wait::wait_until("all bans to have ended", 3 * SOON, || {
        let left = (actioner.metric("active_bans").unwrap(), actioner.metric("enforced_bans").unwrap());
        if left == (0.0, 0.0) { Ok(()) } else { Err(format!("{left:?} are active and enforced")) }
    })?;
    let drift: f64 = actioner
        .metrics()?
        .lines()
        .filter(|line| line.starts_with("conntrack_actioner_drift_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(drift, 0.0, "nobody else touched the sets and rules");
    assert_eq!(raw_rules(lab)?.matches("-j DROP").count(), 2);
    Ok(())
}

#[test]
#[ignore = "an hour: make soak (SOAK_SECONDS=600: ten minutes)"]
fn an_hour_of_churn() -> Result<()> {
    let lab = quiet("soak")?;
    let home = Home::new(&policy());
    let mut actioner = home.start(&lab)?;
    let exporter = Program::Exporter.start(&lab, Program::Exporter.default_address(), &[])?;
    let pids = [actioner.process().id(), exporter.process.id()];
    let lasts = Duration::from_secs(seconds());
    let (began, mut told, mut warm, mut rounds) = (Instant::now(), 0, None, 0);
    while began.elapsed() < lasts {
        round(&lab, &mut actioner, &exporter, rounds)?;
        rounds += 1;
        if warm.is_none() && began.elapsed().as_secs_f64() > lasts.as_secs_f64() * WARM {
            warm = Some(pids.map(Held::of));
        }
        let minute = began.elapsed().as_secs() / 60;
        if minute > told {
            told = minute;
            println!("minute {minute}: {rounds} rounds, {}", told_of(pids.map(Held::of)));
        }
    }
    ends_clean(&lab, &actioner)?;
    let (warm, end) = (warm.expect("a soak of more than one round"), pids.map(Held::of));
    println!(
        "{rounds} rounds in {} s; warm: {}; at the end: {}",
        lasts.as_secs(),
        told_of(warm),
        told_of(end)
    );
    for (name, (warm, end)) in ["actioner", "exporter"].into_iter().zip(warm.into_iter().zip(end)) {
        assert_eq!(warm.grew_to(end), None, "{name}");
    }
    Ok(())
}

fn told_of(held: [Held; 2]) -> String {
    let one = |name: &str, held: Held| {
        format!(
            "{name} {:.1} MiB {} descriptors {} threads",
            held.resident as f64 / 1048576.0,
            held.descriptors,
            held.threads
        )
    };
    format!("{}, {}", one("actioner", held[0]), one("exporter", held[1]))
}
