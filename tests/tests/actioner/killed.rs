//! SIGKILL at any moment: what was acknowledged holds, and nothing else does.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::Mutex,
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use tests::{
    Result, http,
    http::{Response, Server},
    netns::Namespace,
};

use crate::{
    kept::{forget_everything, kill_now},
    lab::{Actioner, Home, SOON, members, message, quiet, raw_rules},
};

/// Three assured entries are guilt, one is none. Bans outlast the longest of these tests.
const POLICY: &str = "\
enforce: true
never_ban: []
limits: {bans_per_minute: 65536, bans_per_hour: 65536, active_bans: 60000}
rules:
- name: hoarder
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {assured: 3}}
  actions: [{ban: {for: 10h, factor: 4, max: 24h}}, {delete: all}]
";
const LASTS: Duration = Duration::from_secs(36_000);
const BY_HAND: Duration = Duration::from_secs(20_000);
const TOLERANCE: Duration = Duration::from_secs(2);
/// New sources a life, and so many threads that name them.
const GUILTY: u32 = 16;
const NAMING: u32 = 2;

/// What was last acknowledged about an address.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It ends between these moments: what was sent and what was answered, and the ban's time.
    Banned(Instant, Instant),
    Unbanned,
    /// The order was on its way, or the disk did not take it in time: either is right.
    Open,
}

type Fates = Mutex<BTreeMap<String, Fate>>;

/// Chance whose seed is in the output, so that a failure can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn guilty(life: u32) -> Vec<String> {
    // 198.18.0.0/15 has room for 500 lives before the next sixteen hosts of each network.
    let host = |host| host + GUILTY * (life / 500);
    (1..=GUILTY).map(|nth| format!("198.{}.{}.{}", 18 + life / 250 % 2, life % 250, host(nth))).collect()
}

fn innocent(life: u32, host: u32) -> String {
    format!("10.{}.{}.{host}", life / 250, life % 250)
}

/// So many entries that a ban is just, and one of an innocent beside each.
fn enter(lab: &Namespace, life: u32) -> Result<()> {
    let line = |source: &str, port: u32| {
        format!(
            "-I -s {source} -d 192.0.2.1 -p tcp --sport {port} --dport 80 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 4000\n"
        )
    };
    let three = guilty(life).into_iter().map(|source| (1..=3).map(|port| line(&source, port)).collect());
    let innocent = (1..=GUILTY).map(|host| line(&innocent(life, host), 1));
    let lines: String = three.chain(innocent).collect::<Vec<String>>().concat();
    lab.command_with_input(&["conntrack", "--load-file", "-"], &lines).map(drop)
}

/// Sends an order about an address and keeps what is acknowledged. False: nobody answers any more.
fn order(
    fates: &Fates,
    about: &str,
    send: impl FnOnce() -> Result<Response>,
    fate: impl FnOnce(Instant, Instant) -> Fate,
) -> bool {
    fates.lock().unwrap().insert(about.to_owned(), Fate::Open);
    let sent = Instant::now();
    let Ok(answer) = send() else { return false };
    if answer.status == 503 {
        return false;
    }
    assert_eq!(answer.status, 200, "{about}: {}", answer.text());
    if let Ok(Value::Number(banned)) =
        serde_json::from_str::<Value>(&answer.text()).map(|answer| answer["banned"].clone())
    {
        assert_eq!(banned.as_u64(), Some(1), "{about}: {}", answer.text());
    }
    fates.lock().unwrap().insert(about.to_owned(), fate(sent, Instant::now()));
    true
}

fn unban(socket: &Server, fates: &Fates, about: &str) -> bool {
    let path = format!("/api/v1/bans?source={about}");
    order(fates, about, || http::delete(socket, &path), |_, _| Fate::Unbanned)
}

/// Alerts about the guilty, each with one about an innocent; every fourth is unbanned again.
fn name_them(socket: &Server, fates: &Fates, alerts: &[(String, String)]) {
    for (number, (source, body)) in alerts.iter().enumerate() {
        let banned = |sent, answered| Fate::Banned(sent + LASTS, answered + LASTS);
        if !order(fates, source, || http::post(socket, "/webhook", &[], body.as_bytes()), banned)
            || number % 4 == 3 && !unban(socket, fates, source)
        {
            return;
        }
    }
}

/// Bans by hand; every second is unbanned again.
fn by_hand(socket: &Server, fates: &Fates, life: u32) {
    for host in 1..=GUILTY {
        let about = format!("100.{}.{}.{host}", 64 + life / 250, life % 250);
        let body = json!({"source": about, "for_seconds": BY_HAND.as_secs(), "reason": "a test"}).to_string();
        let banned = |sent, answered| Fate::Banned(sent + BY_HAND, answered + BY_HAND);
        if !order(fates, &about, || http::post(socket, "/api/v1/bans", &[], body.as_bytes()), banned)
            || host % 2 == 0 && !unban(socket, fates, &about)
        {
            return;
        }
    }
}

/// When a life ends: after so many acknowledged orders, and a moment more. A busy machine does not make it end idle.
#[derive(Debug, Clone, Copy)]
struct End {
    acknowledged: usize,
    later: Duration,
}

/// What the log says where the disk did not take the state in half a second: orders are carried out and acknowledged, and a restart may
/// undo them.
const NOT_STORED: &str = "would not survive a reboot";

/// Orders from all sides until the end. Returns how many were acknowledged, and written down before.
fn live_and_die(
    lab: &Namespace,
    actioner: &mut Actioner<'_>,
    life: u32,
    end: End,
    fates: &Fates,
) -> Result<usize> {
    enter(lab, life)?;
    let alerts: Vec<(String, String)> = guilty(life)
        .into_iter()
        .zip(1..)
        .map(|(source, host)| {
            let body = message(&[actioner.about(&source), actioner.about(&innocent(life, host))]);
            (source, body)
        })
        .collect();
    let socket = actioner.socket.clone();
    let acknowledged = || fates.lock().unwrap().values().filter(|fate| !matches!(fate, Fate::Open)).count();
    let earlier: BTreeSet<String> = fates.lock().unwrap().keys().cloned().collect();
    let before = acknowledged();
    thread::scope(|scope| {
        for alerts in alerts.chunks((GUILTY / NAMING) as usize) {
            let socket = &socket;
            scope.spawn(move || name_them(socket, fates, alerts));
        }
        scope.spawn(|| by_hand(&socket, fates, life));
        let begun = Instant::now();
        while acknowledged() - before < end.acknowledged && begun.elapsed() < SOON {
            thread::sleep(Duration::from_micros(200));
        }
        // The moment is the test.
        thread::sleep(end.later);
        kill_now(actioner)
    })?;
    if actioner.log().contains(NOT_STORED) {
        let mut fates = fates.lock().unwrap();
        fates
            .iter_mut()
            .filter(|(about, _)| !earlier.contains(*about))
            .for_each(|(_, fate)| *fate = Fate::Open);
    }
    Ok(acknowledged() - before)
}

/// The kernel holds what was acknowledged, with its time, and nothing that was not.
fn verify(lab: &Namespace, actioner: &Actioner<'_>, fates: &Fates, life: &str) -> Result<()> {
    let read = Instant::now();
    let mut held: BTreeMap<String, u32> = members(lab, "conntrack-guard-4")?.into_iter().collect();
    let spent = read.elapsed();
    for (about, fate) in &*fates.lock().unwrap() {
        match (fate, held.remove(about)) {
            (Fate::Open, _) | (Fate::Unbanned, None) => {}
            (Fate::Banned(earliest, latest), Some(left)) => {
                let left = Duration::from_secs(left.into());
                let early = left + TOLERANCE + spent < earliest.duration_since(read);
                let late = left > latest.duration_since(read) + TOLERANCE;
                assert!(
                    !early && !late,
                    "{life}: {about} has {left:?}, {:?} to {:?} is right",
                    *earliest - read,
                    *latest - read
                );
            }
            (fate, held) => panic!("{life}: {about} should be {fate:?} and is {held:?}\n{}", actioner.log()),
        }
    }
    assert!(held.is_empty(), "{life}: nobody ordered {held:?}\n{}", actioner.log());
    assert_eq!(raw_rules(lab)?.matches("-j DROP").count(), 2, "{life}");
    let bans: Value =
        serde_json::from_str(&http::get(&actioner.socket, "/api/v1/bans", &[])?.text()).unwrap();
    let mut listed: Vec<&str> =
        bans["bans"].as_array().unwrap().iter().map(|ban| ban["net"].as_str().unwrap()).collect();
    assert!(bans["bans"].as_array().unwrap().iter().all(|ban| ban["in_kernel"] == true), "{life}: {bans}");
    let all = listed.len();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed.len(), all, "{life}: none twice");
    Ok(())
}

fn lives(name: &str, count: u32) -> Result<()> {
    let lab = quiet(name)?;
    let home = Home::new(POLICY);
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    let mut chance = Chance(seed);
    let fates = Fates::default();
    let began = Instant::now();
    let (mut acknowledged, mut reboots) = (0_usize, 0);
    let mut actioner = home.start(&lab)?;
    for (life, number) in (0..count).zip(1..) {
        let end = End {
            acknowledged: chance.below(u64::from(GUILTY)) as usize,
            later: Duration::from_micros(chance.below(8000)),
        };
        acknowledged += live_and_die(&lab, &mut actioner, life, end, &fates)?;
        // Half of the time the kernel forgets, too.
        let reboot = chance.below(2) == 0;
        if reboot {
            forget_everything(&lab)?;
            reboots += 1;
        }
        actioner = home.start(&lab)?;
        let life = format!("seed {seed}, life {life}, {end:?}, reboot {reboot}");
        verify(&lab, &actioner, &fates, &life)?;
        // Whoever stops it half-way knows how far it came.
        if number % 100 == 0 {
            println!(
                "{number} kills in {:?}: {acknowledged} orders acknowledged, all of them hold",
                began.elapsed()
            );
        }
    }
    let (banned, open) = fates.lock().unwrap().values().fold((0, 0), |(banned, open), fate| match fate {
        Fate::Banned(..) => (banned + 1, open),
        Fate::Open => (banned, open + 1),
        Fate::Unbanned => (banned, open),
    });
    println!(
        "{count} kills ({reboots} with a kernel that forgot) in {:?}: {acknowledged} orders acknowledged, {banned} bans stand, {open} orders were cut off",
        began.elapsed()
    );
    assert!(acknowledged > count as usize && open > 0, "kills under load: {acknowledged}, {open}");
    Ok(())
}

#[test]
fn what_was_acknowledged_before_any_of_25_kills_holds() -> Result<()> {
    lives("killed", 25)
}

#[test]
fn what_was_acknowledged_before_any_of_25_more_kills_holds() -> Result<()> {
    lives("killed-too", 25)
}

#[test]
#[ignore = "minutes: make soak-kill"]
fn soak() -> Result<()> {
    let count = env::var("KILLS").map_or(1000, |count| count.parse().expect("KILLS is a number"));
    lives("soak-kill", count)
}
