//! Bans, written down and in force, beside what else puts addresses into sets.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use conntrack_actioner::{
    firewall::{Ban, Config, Firewall, Ipset},
    now::Now,
    state::State,
    store::Store,
};
use tests::{Result, netns::Namespace};

use crate::{
    Size, fail2ban,
    measure::{Cost, Work, in_turn, median, ms, on_this_thread, timed},
    report::Part,
    table::empty,
};

const FOR: Duration = Duration::from_secs(3600);
const FORKED: u32 = 1000;

/// In the order of a multiplicative hash, as an attack's sources come.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0b00_0000 + number.wrapping_mul(0x9e37_79b1) % (1 << 24))
}

/// What one batch of bans costs: written down, and in force, read back; and what it is to read the set once more.
struct Batch {
    stored: Cost,
    enforced: Cost,
    listed: Cost,
}

fn banned(namespace: &Namespace, count: u32) -> Batch {
    let home = tempfile::tempdir_in(tests::programs::workspace().join("target"))
        .expect("a directory on the disk of the checkout");
    namespace.run(|| {
        let mut firewall = Ipset::open(Config::default()).expect("a firewall");
        firewall.teardown().expect("nothing is left of the round before");
        firewall.ensure().expect("sets and rules");
        let now = Now::read();
        let (mut store, _) = Store::open(home.path(), now).expect("a store");
        let bans: Vec<Ban> = (0..count)
            .map(|number| Ban { net: IpAddr::from(address(number)).into(), timeout: FOR })
            .collect();
        let mut state = State::new();
        bans.iter().for_each(|ban| state.ban_by_hand(ban.net, FOR, "bench", "measured", now));
        let stored = on_this_thread(|| store.save(&state, now)).0;
        assert_eq!(store.degraded(), None);
        let (enforced, outcomes) = on_this_thread(|| firewall.ban(&bans).expect("a batch of bans"));
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), count as usize);
        let (listed, elements) = on_this_thread(|| firewall.list().expect("the sets"));
        assert_eq!(elements.len(), count as usize);
        firewall.teardown().expect("sets and rules go");
        Batch { stored, enforced, listed }
    })
}

fn restore(namespace: &Namespace, count: u32) -> Result<Cost> {
    namespace.command(&[
        "ipset", "create", "theirs", "hash:net", "timeout", "600", "hashsize", "32768", "maxelem", "65536",
    ])?;
    let lines: String =
        (0..count).map(|number| format!("add theirs {} timeout 3600\n", address(number))).collect();
    let cost = timed(|| namespace.command_with_input(&["ipset", "restore"], &lines).map(drop))?;
    namespace.command(&["ipset", "destroy", "theirs"])?;
    Ok(cost)
}

/// A process an address.
fn forked(namespace: &Namespace) -> Result<Duration> {
    namespace.command(&["ipset", "create", "theirs", "hash:net", "timeout", "600"])?;
    let script: String =
        (0..FORKED).map(|number| format!("ipset add theirs {} timeout 3600\n", address(number))).collect();
    let cost = timed(|| namespace.command_with_input(&["sh"], &script).map(drop))?;
    namespace.command(&["ipset", "destroy", "theirs"])?;
    Ok(cost.wall / FORKED)
}

pub(crate) fn part(size: Size) -> Result<Part> {
    let mut part = Part::new("Banning");
    part.before.push("No policy is involved: the actioner's `Store::save` (written, fdatasync, renamed, directory synced) and `Firewall::ban` (looked up, written, \
         every element read back) are called one after the other; sets and rule stand. The others only write, and lose all at a reboot.".into());
    let namespace = empty()?;
    let each = median((0..3).map(|_| forked(&namespace)).collect::<Result<Vec<_>>>()?.into_iter());
    let fail2ban =
        fail2ban::an_address(&namespace, &(0..size.rounds as u32 * 40).map(address).collect::<Vec<_>>());
    for count in [10_000, 65_536] {
        let mut parts = Vec::new();
        let mut works: Vec<Work<'_>> = vec![
            Box::new(|| {
                let batch = banned(&namespace, count);
                let cost = Cost {
                    wall: batch.stored.wall + batch.enforced.wall,
                    cpu: batch.stored.cpu + batch.enforced.cpu,
                    ..Cost::default()
                };
                parts.push(batch);
                Ok(cost)
            }),
            Box::new(|| restore(&namespace, count)),
        ];
        let rounds = in_turn(size.rounds, &mut works)?;
        drop(works);
        let of = |cost: &dyn Fn(&Batch) -> Duration| median(parts.iter().map(cost));
        let writing = of(&|batch| batch.enforced.wall.saturating_sub(batch.listed.wall));
        let ours = format!(
            "{} (store {}, elements added {}, read back {})",
            ms(rounds.wall(0)),
            ms(of(&|batch| batch.stored.wall)),
            ms(writing),
            ms(of(&|batch| batch.listed.wall))
        );
        let ratio = 1.0 / rounds.walls(0, 1);
        let what = format!("{count} addresses, durably");
        part.row(
            [&what, "`ipset restore`", &ours, &ms(rounds.wall(1)), &format!("{ratio:.1} × faster"), "≥ 15 ×"],
            Some(ratio >= 15.0),
        );
        let adding = rounds.wall(1).as_secs_f64() / writing.as_secs_f64();
        part.row(
            [
                &format!(
                    "{count} addresses, added alone: neither written down nor read back, as the other does it"
                ),
                "`ipset restore`",
                &ms(writing),
                &ms(rounds.wall(1)),
                &format!("{adding:.1} × faster"),
                "",
            ],
            None,
        );
        let mut extrapolated = |name: &str, each: Duration, target: f64| {
            let all = each * count;
            let ratio = all.as_secs_f64() / rounds.wall(0).as_secs_f64();
            part.row(
                [&what, name, &ours, &ms(all), &format!("{ratio:.0} × faster"), &format!("≥ {target} ×")],
                Some(ratio >= target),
            );
        };
        extrapolated("forked `ipset add` (1,000 measured, the rest extrapolated)", each, 300.0);
        if let Ok(each) = fail2ban {
            extrapolated("fail2ban `banip` through ipset (extrapolated)", each, 500.0);
        }
    }
    part.after.push("Why not 15 times `ipset restore`: that would be less than the kernel takes to add the elements. Of \"elements added\" six sevenths are its own work, 0.49 µs an element over \
         both sizes (`perf record -F 15000 -e cpu-clock -g target/release/bench --short ban`, built with frame pointers; samples of our `sendto` below `nfnetlink_rcv`), and a ban of ours is \
         written to the disk before and read back afterwards, which no other does. A quarter of the kernel's work is `hash_net4_gc_do`: in a set nearly as full as it may be, a part of the hash \
         that has more than its share of `maxelem` is searched for expired elements at each addition. What would have to change: fewer promises (the rows \"added alone\"), and a kernel that \
         adds faster. The store is JSON, 115 bytes a ban, replaced whole: what was decided is there after a power failure, and a person can read it.".into());
    if let Err(why) = fail2ban {
        part.after.push(format!("fail2ban was not measured: {why}."));
    }
    Ok(part)
}
