//! The hosts whose day it is, and what befalls each.

use super::{
    at,
    load::Load,
    table::{Kind, Life},
};

/// A connection of the article's attack: 65 s in `SYN_RECV` to the listener and 30 s of grace, then a dead slot for five days.
pub const SILENT: Life = &[(Kind::Deferred, 95), (Kind::Dead, 432_000 - 95)];
/// The same through a gateway: no socket of this host ever stood behind it, so nobody here can tell that it is dead.
pub const FORWARDED: Life = &[(Kind::Established, 432_000)];
/// A living connection of one of many hosts that come at once and stay.
pub const LIVING: Life = &[(Kind::Established, 432_000)];
/// A forged SYN, for which nobody completes the handshake.
pub const FORGED_SYN: Life = &[(Kind::HalfOpen, 60)];
/// A forged datagram that nobody answers.
pub const FORGED_DATAGRAM: Life = &[(Kind::Unreplied, 30)];
/// A connection of a batch job that lives till the job is done; what is left of it is deleted then.
pub const BATCH: Life = &[(Kind::Established, 432_000)];

/// The article's attack: its pace is 19 connections a minute and host.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Its first connection.
    pub begins: u32,
    /// Hosts at once.
    pub hosts: usize,
    /// Where each host stops.
    pub stops_at: Stop,
    /// What becomes of each connection.
    pub life: Life,
}

/// Where an attacking host stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// At 300 connections, as in the article.
    At300,
    /// At 300, and another address goes on.
    Relayed,
    /// Never.
    Never,
}

/// A job that opens connections, keeps them, and closes all of them.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Its first connection.
    pub begins: u32,
    /// How many it opens, evenly.
    pub connections: f64,
    /// In so many seconds.
    pub climb: u32,
    /// So many seconds after the last it closes them.
    pub hold: u32,
}

/// What befalls the host beside its ordinary load.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// Nothing.
    Nothing,
    /// The article's attack.
    Attack(Attack),
    /// So many of that life a second, from forged addresses, from a moment and for so many seconds.
    Flood(Life, f64, u32, u32),
    /// A job opens this many connections in so many seconds, closes all of them, and begins again, all day and the day before.
    Sawtooth(f64, u32),
    /// Its first boot ever, at this moment.
    FirstBoot(u32),
    /// It is down from this moment for three minutes, and has another table after that.
    Reboot(u32),
    /// From this moment, within four hours, so many times the visitors of the day before.
    Campaign(u32, f64),
    /// A job of this day of the week alone.
    Weekly(Batch),
    /// The day before brought only this share of the visitors.
    AfterSunday(f64),
}

/// What the host's actioner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actioner {
    /// There is none.
    None,
    /// It decides and changes nothing.
    DryRun,
    /// It enforces the packaged policy.
    Enforcing,
}

/// A host and its day.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// Its name: the `instance`, less the port.
    pub name: &'static str,
    /// What it is about, for the reader.
    pub about: &'static str,
    /// `nf_conntrack_max`, and as many buckets.
    pub limit: u64,
    /// Its ordinary day.
    pub load: Load,
    /// What befalls it.
    pub event: Event,
    /// What its actioner does.
    pub actioner: Actioner,
}

const DEPLOYMENTS: &[u32] = &[10 * 3600 + 1800, 15 * 3600, 17 * 3600 + 2700];
const SMALL: u64 = 65_536;
const USUAL: u64 = 262_144;

const fn load(connections: f64) -> Load {
    Load { connections, deployments: DEPLOYMENTS, backup: true, swing: 1 }
}

const fn attack(begins: u32, hosts: usize, stops_at: Stop, life: Life) -> Event {
    Event::Attack(Attack { begins, hosts, stops_at, life })
}

const fn host(
    name: &'static str,
    about: &'static str,
    limit: u64,
    connections: f64,
    event: Event,
    actioner: Actioner,
) -> Host {
    Host { name, about, limit, load: load(connections), event, actioner }
}

use Actioner::{DryRun, Enforcing, None as NoActioner};
use Event::{AfterSunday, Campaign, FirstBoot, Flood, Nothing, Reboot, Sawtooth, Weekly};

/// An office behind a gateway: next to nothing at night, and by day most of its table.
const fn office(name: &'static str, about: &'static str, event: Event) -> Host {
    let load = Load { connections: 240.0, deployments: &[], backup: false, swing: 2 };
    Host { name, about, limit: SMALL, load, event, actioner: NoActioner }
}

/// It climbs for an hour and a half and stays for three hours: neither a sawtooth nor a jump.
const WEEKLY: Batch = Batch { begins: at(1, 0), connections: 25_000.0, climb: 5400, hold: 3 * 3600 };

/// All of them, the quiet ones first.
pub const HOSTS: &[Host] = &[
    host("quiet", "an ordinary day, a fifth full at the most", USUAL, 300.0, Nothing, Enforcing),
    host(
        "quiet-small",
        "an ordinary day on a small host, half full at the most",
        SMALL,
        180.0,
        Nothing,
        Enforcing,
    ),
    host("quiet-large", "an ordinary day on a large host", 2_097_152, 2500.0, Nothing, Enforcing),
    host(
        "first-boot",
        "a small host's first day: it boots at 08:00, with no day before",
        SMALL,
        180.0,
        FirstBoot(at(8, 0)),
        NoActioner,
    ),
    host(
        "reboot",
        "a reboot at 09:10: counters begin at 0, another table",
        SMALL,
        180.0,
        Reboot(at(9, 10)),
        Enforcing,
    ),
    host(
        "sawtooth",
        "a job that climbs by 25,000 in 50 minutes and falls, all day",
        SMALL,
        30.0,
        Sawtooth(25_000.0, 3000),
        NoActioner,
    ),
    host("sawtooth-slow", "the same in three hours", SMALL, 30.0, Sawtooth(25_000.0, 10_800), NoActioner),
    host(
        "campaign",
        "half as many visitors again as yesterday, from 10:00 on",
        USUAL,
        300.0,
        Campaign(at(10, 0), 1.5),
        Enforcing,
    ),
    host(
        "weekly",
        "a weekly job: 25,000 connections from 01:00 to 02:30, closed at 05:30",
        SMALL,
        30.0,
        Weekly(WEEKLY),
        NoActioner,
    ),
    office("office", "a gateway of an office: a thirtieth of its table at night, two thirds by day", Nothing),
    office("office-monday", "the same, after a Sunday of a tenth", AfterSunday(0.1)),
    host(
        "article",
        "the article: 5 hosts, 19 connections a minute each, stopping at 300",
        SMALL,
        30.0,
        attack(at(3, 10), 5, Stop::At300, SILENT),
        DryRun,
    ),
    host(
        "contained",
        "4 hosts that do not stop, and an actioner that enforces",
        SMALL,
        30.0,
        attack(at(2, 0), 4, Stop::Never, SILENT),
        Enforcing,
    ),
    host(
        "endless",
        "the same 4 hosts, and nobody acts",
        SMALL,
        30.0,
        attack(at(2, 0), 4, Stop::Never, SILENT),
        NoActioner,
    ),
    host(
        "relayed",
        "4 at a time, each stops at 300 and another goes on; dry run",
        SMALL,
        30.0,
        attack(at(2, 0), 4, Stop::Relayed, SILENT),
        DryRun,
    ),
    host(
        "endless-busy",
        "3 hosts that do not stop, on a host that is half full by day; nobody acts",
        SMALL,
        180.0,
        attack(at(0, 10), 3, Stop::Never, SILENT),
        NoActioner,
    ),
    host(
        "gateway",
        "the 4 hosts against a server behind a small gateway: none of its sockets, so no dead slots",
        SMALL,
        30.0,
        attack(at(2, 0), 4, Stop::Never, FORWARDED),
        NoActioner,
    ),
    host(
        "covered",
        "the same attack on the gateway, begun within a deployment at 10:30, while the day rises",
        SMALL,
        30.0,
        attack(at(10, 30), 4, Stop::Never, FORWARDED),
        NoActioner,
    ),
    host(
        "covered-busy",
        "3 silent hosts begin within a deployment at 10:30, on a host that is half full by day; nobody acts",
        SMALL,
        180.0,
        attack(at(10, 30), 3, Stop::Never, SILENT),
        NoActioner,
    ),
    host(
        "connections",
        "500 real connections a second from many hosts, which stay, for 20 minutes",
        USUAL,
        300.0,
        Flood(LIVING, 500.0, at(20, 0), 1200),
        Enforcing,
    ),
    host(
        "scan",
        "a SYN scan of 700 a second for 20 minutes",
        USUAL,
        300.0,
        Flood(FORGED_SYN, 700.0, at(20, 0), 1200),
        Enforcing,
    ),
    host(
        "syn-flood",
        "a SYN flood of 6,000 a second for 20 minutes, forged",
        USUAL,
        300.0,
        Flood(FORGED_SYN, 6000.0, at(20, 0), 1200),
        Enforcing,
    ),
    host(
        "udp-flood",
        "a UDP flood of 10,000 a second for 20 minutes, forged",
        USUAL,
        300.0,
        Flood(FORGED_DATAGRAM, 10_000.0, at(20, 0), 1200),
        Enforcing,
    ),
];

impl Host {
    /// The host of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        HOSTS.iter().find(|host| host.name == name)
    }

    /// Whether nothing happens to it that anybody ought to be woken for.
    pub fn quiet(&self) -> bool {
        !matches!(self.event, Event::Attack(_) | Flood(..))
    }

    /// Whether it honestly grows for hours to what the day before did not see. The rules compare with a week ago as well, where there is one;
    /// here there is none.
    pub fn grows_to_a_record(&self) -> bool {
        matches!(self.event, Campaign(..) | Weekly(_) | AfterSunday(_))
    }
}
