//! Two days of a host, step by step, and what a scrape would have seen of them.

use super::{
    DAY,
    host::{Actioner, Attack, BATCH, Batch, Event, Host, Stop},
    load::{BACKUP, Noise},
    table::{Counts, Kind, Table},
};

/// Seconds of a step of the model.
const STEP: u32 = 10;
/// The shipped exporter lists so many sources.
const TOP: usize = 10;
/// Below it a source is not listed.
const LEAST: f64 = 50.0;
/// The shipped threshold at which dead slots are deleted, and the seconds until they are: a scrape, an evaluation, a webhook.
const DEAD: f64 = 1000.0;
const UNTIL_DELETED: u32 = 60;
/// The owner of the backup's or the job's connections.
const JOB: usize = 1;
/// The first owner that attacks.
const FIRST_ATTACKER: usize = 2;
/// On every host: the exporter is restarted at 11:20, and a scrape goes missing at 16:40.
const MISSED: [u32; 2] = [11 * 3600 + 1200, 16 * 3600 + 2400];

/// What one scrape found.
#[derive(Debug, Clone)]
pub enum Seen {
    /// No such target yet.
    Absent,
    /// `up` is 0.
    Failed,
    /// The metrics.
    Scraped(Box<Scrape>),
}

/// The table at one moment.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// All entries by kind.
    pub held: Counts,
    /// Sources that the exporter lists: their number as owner, and their entries by kind.
    pub listed: Vec<(usize, Counts)>,
    /// Addresses in the table.
    pub sources: f64,
    /// The kernel's counters since the boot.
    pub early_drop: f64,
    /// New entries for which there was no room since the boot.
    pub drop: f64,
    /// Insertions that failed since the boot.
    pub insert_failed: f64,
    /// How often the host has booted.
    pub boots: u32,
    /// Entries that the actioner deleted since the boot.
    pub deleted: f64,
    /// Webhooks it answered since the boot.
    pub webhooks: f64,
}

impl Scrape {
    /// All entries, as a sum of whole numbers.
    pub fn entries(&self) -> f64 {
        self.held.iter().map(|entries| whole(*entries)).sum()
    }
}

/// A number of entries as the exporter would say it.
pub fn whole(entries: f64) -> f64 {
    entries.max(0.0).round()
}

/// The address of an owner that is told apart.
pub fn address(owner: usize) -> String {
    match owner {
        JOB => "10.0.3.9".into(),
        _ => {
            let number = owner - FIRST_ATTACKER;
            format!("198.{}.{}.7", 18 + number / 256, number % 256)
        }
    }
}

/// A host as it goes through the two days.
struct Walk<'a> {
    host: &'a Host,
    table: Table,
    owners: usize,
    noise: Noise,
    mood: f64,
    forged: f64,
    insert_failed: f64,
    boots: u32,
    dead_since: Option<u32>,
    told_until: u32,
    deleted: f64,
    webhooks: f64,
}

/// What a scrape each `interval` seconds saw in two days, the first at 0. `interval` is a multiple of ten seconds.
pub fn scrapes(host: &Host, interval: u32) -> Vec<Seen> {
    let mut walk = Walk::new(host);
    let mut seen = Vec::new();
    for second in (0..2 * DAY).step_by(STEP as usize) {
        walk.step(second);
        if second % interval == 0 {
            seen.push(walk.seen(second, interval));
        }
    }
    seen
}

impl<'a> Walk<'a> {
    fn new(host: &'a Host) -> Self {
        let owners = FIRST_ATTACKER + attackers(host);
        let seed = host.name.bytes().fold(17, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        Self {
            host,
            table: Table::new(host.limit, owners),
            owners,
            noise: Noise::new(seed),
            mood: 0.0,
            forged: 0.0,
            insert_failed: 0.0,
            boots: 1,
            dead_since: None,
            told_until: 0,
            deleted: 0.0,
            webhooks: 0.0,
        }
    }

    fn step(&mut self, second: u32) {
        self.table.advance(second);
        if let Event::Reboot(at) | Event::FirstBoot(at) = self.host.event
            && second == at
        {
            *self = Self { noise: Noise::new(u64::from(at)), boots: 2, ..Self::new(self.host) };
            self.table.advance(second);
        }
        if !self.up(second) {
            return;
        }
        self.ordinary(second);
        self.event(second);
        self.remedy(second);
    }

    fn up(&self, second: u32) -> bool {
        match self.host.event {
            Event::FirstBoot(at) => second >= at,
            Event::Reboot(at) => !(at..at + 180).contains(&second),
            _ => true,
        }
    }

    fn ordinary(&mut self, second: u32) {
        // An hour's mood moves by some hundredths, a step's by three more.
        self.mood = 0.9945 * self.mood + 0.0073 * self.noise.draw();
        let mut slow = 1.0 + self.mood + if second < DAY { -0.03 } else { 0.0 };
        if let Event::Campaign(from, times) = self.host.event {
            let risen = (f64::from(second.saturating_sub(from)) / (4.0 * 3600.0)).min(1.0);
            slow *= 1.0 + (times - 1.0) * risen;
        }
        if let Event::AfterSunday(share) = self.host.event
            && second < DAY
        {
            slow *= share;
        }
        for (life, a_second) in self.host.load.at(second, slow) {
            let entries = a_second * f64::from(STEP) * (1.0 + 0.03 * self.noise.draw());
            self.table.add(0, life, entries);
        }
        let streams = self.host.load.backup_at(second) * f64::from(STEP);
        self.table.add(JOB, BACKUP, streams);
        // Two questions at once from one socket: one in five thousand.
        self.insert_failed += self.host.load.connections * slow * f64::from(STEP) / 5000.0;
    }

    fn event(&mut self, second: u32) {
        match self.host.event {
            Event::Attack(attack) => self.attack(attack, second),
            Event::Flood(life, a_second, from, seconds) if (from..from + seconds).contains(&second) => {
                self.table.add(0, life, a_second * f64::from(STEP));
                self.forged = if life[0].0.assured() { 0.0 } else { a_second * f64::from(life[0].1) };
            }
            Event::Flood(..) => self.forged = 0.0,
            Event::Sawtooth(connections, period) => {
                if second.is_multiple_of(period) {
                    self.table.delete(|owner, _| owner == JOB);
                }
                self.table.add(JOB, BATCH, connections * f64::from(STEP) / f64::from(period));
            }
            Event::Weekly(Batch { begins, connections, climb, hold }) => {
                let closes = begins + climb + hold;
                if (begins..begins + climb).contains(&second) {
                    self.table.add(JOB, BATCH, connections * f64::from(STEP) / f64::from(climb));
                } else if second == closes {
                    self.table.delete(|owner, _| owner == JOB);
                }
            }
            Event::Nothing
            | Event::FirstBoot(_)
            | Event::Reboot(_)
            | Event::Campaign(..)
            | Event::AfterSunday(_) => {}
        }
    }

    fn attack(&mut self, attack: Attack, second: u32) {
        let Some(passed) = second.checked_sub(attack.begins) else { return };
        let made = f64::from(STEP) * PACE;
        let turn = (f64::from(passed) * PACE / STOPS_AT) as usize;
        for lane in 0..attack.hosts {
            let attacker = match attack.stops_at {
                Stop::Never => lane,
                Stop::At300 if turn == 0 => lane,
                Stop::At300 => continue,
                Stop::Relayed => lane + turn * attack.hosts,
            };
            self.table.add(FIRST_ATTACKER + attacker, attack.life, made);
        }
    }

    /// What the actioner hears and does: ConntrackSocketlessEntries, and `delete: socketless`.
    fn remedy(&mut self, second: u32) {
        if self.host.actioner == Actioner::None {
            return;
        }
        if self.table.of(Kind::Dead) >= DEAD {
            self.dead_since.get_or_insert(second);
            self.told_until = second + 240;
        } else {
            self.dead_since = None;
        }
        if second.is_multiple_of(60) && second < self.told_until {
            self.webhooks += 1.0;
        }
        let due = self.dead_since.is_some_and(|since| second >= since + UNTIL_DELETED);
        if due && self.host.actioner == Actioner::Enforcing {
            self.deleted += self.table.delete(|_, kind| kind == Kind::Dead);
            self.dead_since = None;
        }
    }

    fn seen(&self, second: u32, interval: u32) -> Seen {
        if !self.up(second) {
            return if matches!(self.host.event, Event::FirstBoot(_)) { Seen::Absent } else { Seen::Failed };
        }
        if MISSED.iter().any(|&at| (at..at + interval).contains(&(second % DAY))) {
            return Seen::Failed;
        }
        let mut held = Counts::default();
        let of = |owner: usize| self.table.held()[owner];
        (0..self.owners).for_each(|owner| held.iter_mut().zip(of(owner)).for_each(|(sum, one)| *sum += one));
        let sum = |counts: &Counts| counts.iter().sum::<f64>();
        let mut listed: Vec<_> = (JOB..self.owners).map(|owner| (owner, of(owner))).collect();
        listed.retain(|(_, counts)| sum(counts) >= LEAST);
        listed.sort_by(|(_, a), (_, b)| sum(b).total_cmp(&sum(a)));
        listed.truncate(TOP);
        Seen::Scraped(Box::new(Scrape {
            sources: (sum(&of(0)) - self.forged).max(0.0) / 6.0 + self.forged + listed.len() as f64,
            held,
            listed,
            early_drop: self.table.early_drop,
            drop: self.table.drop,
            insert_failed: self.insert_failed,
            boots: self.boots,
            deleted: self.deleted,
            webhooks: self.webhooks,
        }))
    }
}

/// The article's pace: connections a second of each host.
const PACE: f64 = 19.0 / 60.0;
/// Where the article's hosts stopped.
const STOPS_AT: f64 = 300.0;

/// How many addresses attack in two days.
fn attackers(host: &Host) -> usize {
    let Event::Attack(attack) = host.event else { return 0 };
    let turns = match attack.stops_at {
        Stop::Never | Stop::At300 => 1,
        Stop::Relayed => (f64::from(2 * DAY - attack.begins) * PACE / STOPS_AT) as usize + 1,
    };
    attack.hosts * turns
}

/// When the table would be full if nobody acted, by the end of the day after: the first second at which it holds all but a thousandth of its limit.
pub fn full_at(host: &Host) -> Option<u32> {
    let alone = Host { actioner: Actioner::None, ..*host };
    let mut walk = Walk::new(&alone);
    (0..3 * DAY).step_by(STEP as usize).find(|&second| {
        walk.step(second);
        walk.table.entries() >= 0.999 * host.limit as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::at;

    fn entries(seen: &[Seen], second: u32) -> f64 {
        match &seen[second as usize / 60] {
            Seen::Scraped(scrape) => scrape.entries(),
            other => panic!("{other:?}"),
        }
    }

    fn of(name: &str) -> (&'static Host, Vec<Seen>) {
        let host = Host::named(name).expect("such a host");
        (host, scrapes(host, 60))
    }

    #[test]
    fn the_articles_attack_makes_1500_dead_slots_and_no_more() {
        let (_, seen) = of("article");
        let Seen::Scraped(last) = &seen[seen.len() - 1] else { panic!("a scrape") };
        assert!((last.held[Kind::Dead as usize] - 1500.0).abs() < 20.0, "{last:?}");
        assert_eq!(last.listed.len(), 5);
    }

    #[test]
    fn four_hosts_fill_a_small_table_in_fourteen_hours_and_an_actioner_keeps_them_from_it() {
        let (endless, _) = of("endless");
        let hours = f64::from(full_at(endless).expect("full") - at(2, 0)) / 3600.0;
        assert!((12.0..14.4).contains(&hours), "{hours}");
        let (contained, seen) = of("contained");
        assert_eq!(full_at(contained).map(|at| at / 3600), full_at(endless).map(|at| at / 3600));
        assert!((at(0, 5)..2 * DAY).step_by(600).all(|second| entries(&seen, second) < 10_000.0));
    }

    #[test]
    fn a_scrape_is_missed_and_a_host_that_is_down_says_nothing() {
        let (_, seen) = of("quiet-small");
        assert!(matches!(seen[(at(11, 20) / 60) as usize], Seen::Failed));
        let (_, seen) = of("first-boot");
        assert!(matches!(seen[(at(7, 59) / 60) as usize], Seen::Absent));
        assert!(entries(&seen, at(8, 1)) < 0.5 * entries(&seen, at(9, 0)));
    }

    #[test]
    fn relayed_attackers_hold_300_each() {
        let (_, seen) = of("relayed");
        let Seen::Scraped(scrape) = &seen[(at(9, 0) / 60) as usize] else { panic!("a scrape") };
        assert_eq!(scrape.listed.len(), TOP);
        assert!(scrape.listed.iter().all(|(_, counts)| (counts.iter().sum::<f64>() - 300.0).abs() < 5.0));
    }
}
