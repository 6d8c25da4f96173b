//! A large table, every entry of it a dead slot of a source of its own: the watch stays small, and packets are not held up.

use std::{thread, time::Duration};

use conntrack::{
    Channel, Link,
    netlink::{NLM_F_DUMP, Requests},
};
use tests::{
    Result,
    guard::Guard,
    limit::Limit,
    netns::Namespace,
    ping::{Felt, PingPong, pin, pin_process},
    programs::as_released,
    topology::Topology,
    wait::wait_until,
};

use crate::{fill, packaged};

const MOST_MEMORY: u64 = 64 << 20;
/// Looks while packets are measured.
const LOOKS: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(300);
/// What is asked of the scheduler when others want the CPU as well: a dump that is starved becomes as nice as everybody else, and then
/// some packets wait for a turn of it. Of a program that is not optimised they wait longer.
fn most_p99() -> Duration {
    Duration::from_millis(if as_released() { 10 } else { 40 })
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Looks of this guard from now on, until there were so many.
fn looks(guard: &Guard, more: f64) -> Result<()> {
    let wanted = guard.dumps()? + more;
    wait_until("more looks", PATIENCE, || match guard.dumps() {
        Ok(now) if now >= wanted => Ok(()),
        other => Err(format!("{other:?}\n{}", guard.running.process.log())),
    })
}

fn felt_while(scene: &Topology, work: impl FnOnce() -> Result<()>) -> Result<Felt> {
    let ping_pong = PingPong::start(scene)?;
    work()?;
    Ok(ping_pong.end())
}

/// A dump that the kernel filters by a mark nobody has: it walks the whole hash without a pause.
fn narrow_dump(server: &Namespace) {
    server.run(|| {
        pin(None);
        let asked = "a dump by mark";
        let mut link = Link::open(Channel::Netfilter, asked).unwrap();
        let sequence = link.next_sequence();
        let mut request = Requests::new();
        // IPCTNL_MSG_CT_GET of AF_UNSPEC with CTA_MARK and CTA_MARK_MASK.
        request.message(1 << 8 | 1, NLM_F_DUMP, sequence, |r| {
            r.raw(&[0; 4]);
            r.attribute(8, &12_345_u32.to_be_bytes());
            r.attribute(21, &u32::MAX.to_be_bytes());
        });
        link.ask(&request, asked, |_| panic!("an entry with this mark"), || ()).unwrap();
    });
}

/// Memory of the packaged policy in dry run and enforced, and what packets feel of its dumps.
fn under_a_table_of(entries: u32) -> Result<(Topology, Felt)> {
    let scene = Topology::direct(&["client"])?;
    scene.server.track_connections()?;
    fill(&scene.server, entries)?;
    // So that there are dumps enough to feel; nothing else of the policy changes.
    let often = packaged().replacen("\n  every: 30s\n", "\n  every: 1s\n", 1);
    assert!(often.contains("\n  every: 1s\n"), "the packaged policy looks every 30s");
    let dry = often.replacen("\nenforce: true\n", "\nenforce: false\n", 1);
    let before = felt_while(&scene, || {
        thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    let guard = Guard::start(&scene.server, &dry)?;
    pin_process(guard.running.process.id());
    looks(&guard, 1.0)?;
    let felt = felt_while(&scene, || looks(&guard, LOOKS))?;
    let dump = guard.metric("action_duration_seconds_sum{action=\"survey\"}")? / guard.dumps()?;
    let dry = guard.running.process.peak_memory()?;
    drop(guard);

    let guard = Guard::start(&scene.server, &often)?;
    let deleted = || guard.metric("deleted_entries_total{rule=\"dead-slots\"}").unwrap_or(0.0);
    wait_until("two rounds of deletions", PATIENCE, || match deleted() {
        enough if enough >= 100_000.0 => Ok(()),
        deleted => Err(format!("{deleted} deleted\n{}", guard.running.process.log())),
    })?;
    let enforced = guard.running.process.peak_memory()?;
    println!(
        "{entries} entries, as many sources; a dump with verdicts, on the CPU of the packets: {dump:.2} s"
    );
    println!("  packets without:   {before}");
    println!("  packets meanwhile: {felt}");
    println!(
        "  resident at most: dry run {:.1} MiB, enforced {:.1} MiB",
        mebibytes(dry),
        mebibytes(enforced)
    );
    assert!(dry.max(enforced) < MOST_MEMORY, "{:.1} and {:.1} MiB", mebibytes(dry), mebibytes(enforced));
    assert!(felt.p99 < most_p99() + before.p99, "{felt}, without {before}");
    Ok((scene, felt))
}

#[test]
fn a_hundred_thousand_entries() -> Result<()> {
    under_a_table_of(100_000).map(drop)
}

#[test]
#[ignore = "a measurement, raises nf_conntrack_max for its time: cargo test --release -p tests --test watch -- --ignored --nocapture million"]
fn a_million_entries() -> Result<()> {
    const MILLION: u32 = 1_000_000;
    let _limit = Limit::raise(MILLION + MILLION / 10)?;
    let (scene, felt) = under_a_table_of(MILLION)?;
    // What is measured can be seen to stall: the dumps that we do not take do it.
    let stalled = felt_while(&scene, || {
        (0..5).for_each(|_| narrow_dump(&scene.server));
        Ok(())
    })?;
    println!("  packets during dumps that the kernel filters: {stalled}");
    assert!(stalled.longest > most_p99() + felt.p99, "{stalled}, ours {felt}");
    Ok(())
}
