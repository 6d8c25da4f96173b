//! What packets feel while we dump, and whether a dump ends while others want the CPUs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tests::{
    Result,
    entries::insert,
    ping::{Felt, PingPong, pin_process},
    topology::Topology,
};

use crate::{
    Size, delete,
    measure::ms,
    report::Part,
    scrape,
    table::{FIRST, empty, nth},
};

const ONE: u32 = 1000;
/// The exporter's own listener is on the server's loopback, which the ping-pong does not use.
const LOOK: Duration = Duration::from_secs(3);

fn felt(scene: &Topology, work: impl FnOnce() -> Result<()>) -> Result<Felt> {
    let ping_pong = PingPong::start(scene)?;
    work()?;
    Ok(ping_pong.end())
}

pub(crate) fn part(size: Size) -> Result<Part> {
    let mut part = Part::new("What packets feel");
    part.before.push("Ping-pong of a byte over TCP between two namespaces, both ends on the first CPU, measured from when each was due; the exporter is kept on that CPU as well.".into());
    drop(empty()?);
    let scene = Topology::direct(&["client"])?;
    scene.server.run(|| {
        insert((0..ONE).map(|number| nth(number, 1, 0)));
        insert((0..size.large - ONE).map(|number| {
            let mut entry = nth(number, 95_000, 0);
            entry.source.set_ip((entry.source.ip().to_bits() + 0x0100_0000).into());
            entry
        }));
    });
    let running = scrape::exporter(&scene.server, &[])?;
    pin_process(running.process.id());
    let idle = felt(&scene, || {
        thread::sleep(LOOK);
        Ok(())
    })?;
    let dumping = felt(&scene, || {
        let started = Instant::now();
        while started.elapsed() < 2 * LOOK {
            scrape::scrape(&running, &scene.server)?;
        }
        Ok(())
    })?;
    let mut row = |what: &str, felt: Felt, target: Option<f64>| {
        let ratio = felt.p99.as_secs_f64() / idle.p99.as_secs_f64();
        part.row(
            [
                what,
                "idle",
                &format!("p99 {}, longest {}", ms(felt.p99), ms(felt.longest)),
                &format!("p99 {}, longest {}", ms(idle.p99), ms(idle.longest)),
                &format!("{ratio:.1}"),
                &target.map_or_else(String::new, |target| format!("p99 ≤ {target} ×")),
            ],
            target.map(|target| ratio <= target),
        );
    };
    row(&format!("the exporter dumps {} entries in a loop, on the same CPU", size.large), dumping, Some(5.0));
    let ours = felt(&scene, || {
        scene.server.run(|| delete::one_source(ONE));
        Ok(())
    })?;
    row(&format!("one source, {ONE} entries: dump and deletion, on any CPU"), ours, None);
    scene.server.run(|| insert((0..ONE).map(|number| nth(number, 1, 0))));
    let source = std::net::Ipv4Addr::from(FIRST).to_string();
    let theirs = felt(&scene, || scene.server.command(&["conntrack", "-D", "--src", &source]).map(drop))?;
    row("the same by `conntrack -D --src`", theirs, None);
    drop(running);

    let running = scrape::exporter(&scene.server, &[])?;
    let quiet = scrape::scrape(&running, &scene.server)?;
    let (busy, dump) = busy(|| scrape::scrape_and_dump(&running, &scene.server))?;
    part.row(
        [
            &format!("a scrape of {} entries while two busy loops hold both CPUs", size.large),
            "idle",
            &format!("{}, its dump {}", ms(busy.wall), ms(dump)),
            &ms(quiet.wall),
            "",
            "the dump ≤ 3 s",
        ],
        Some(dump <= Duration::from_secs(3)),
    );
    drop(running);
    drop(scene);
    part.after.push("The busy loops are of the exporter's own session, so nice 10 counts against them (between sessions, or between a systemd unit's cgroup and others, it does not: each gets its share). \
         A dump that gets less than half a CPU for a quarter of a second goes on at nice 0, where it has half of one: twice its CPU time is what it can take at best.".into());
    crate::calls::rows(&mut part, size)?;
    Ok(part)
}

/// Does `work` while every CPU is wanted by somebody of ordinary priority.
fn busy<T>(work: impl FnOnce() -> T) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let spin = |stop: Arc<AtomicBool>| {
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    };
    let cpus = thread::available_parallelism().map_or(2, usize::from);
    let loops: Vec<_> = (0..cpus)
        .map(|_| {
            thread::spawn({
                let stop = stop.clone();
                move || spin(stop)
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    let done = work();
    stop.store(true, Ordering::Relaxed);
    loops.into_iter().for_each(|thread| thread.join().expect("a busy loop ends"));
    done
}
