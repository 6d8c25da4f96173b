//! A storm of alerts: 500 webhooks at once, and one webhook of 500.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Result, entries::insert, guard::Guard, netns::Namespace};

use crate::{
    Size,
    measure::{median, ms},
    report::Part,
    table::{FIRST, empty, nth},
};

const ALERTS: u32 = 500;
const CONNECTIONS: usize = 295;
const ENTRIES: u32 = 100_000;
/// The budgets of the packaged policy would refuse most of it.
const POLICY: &str = "\
enforce: true
never_ban: []
limits: {bans_per_minute: 10000, bans_per_hour: 60000, active_bans: 50000}
rules:
- name: hoarder
  matchers: ['alertname=\"Hoarder\"']
  sources: {label: source}
  require: {source: {assured: 20}}
  actions: [{ban: {for: 10m, factor: 4, max: 24h}}, {delete: all}]
";

fn message(alerts: &[Value]) -> String {
    json!({"version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing", "receiver": "actioner", "groupLabels": {},
        "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am:9093", "alerts": alerts})
    .to_string()
}

fn about(number: u32, table: &str) -> Value {
    let source = std::net::Ipv4Addr::from(FIRST + number).to_string();
    json!({"status": "firing", "labels": {"alertname": "Hoarder", "source": source, "table_id": table}, "annotations": {},
        "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "00"})
}

/// 500 sources with 20 entries each, the others of sources with ten.
fn table() -> Result<Namespace> {
    let namespace = empty()?;
    namespace.run(|| {
        insert((0..ALERTS * 20).map(|number| nth(number, ALERTS, 0)));
        insert((0..ENTRIES - ALERTS * 20).map(|number| {
            let mut entry = nth(number, 9000, 0);
            entry.source.set_ip((entry.source.ip().to_bits() + 0x0100_0000).into());
            entry
        }));
    });
    Ok(namespace)
}

/// How one storm went.
struct Storm {
    took: Duration,
    dumps: f64,
}

fn storm(send: impl FnOnce(&Namespace, &Guard, &str)) -> Result<Storm> {
    let namespace = table()?;
    let guard = Guard::start(&namespace, POLICY)?;
    let metrics = guard.running.get(&namespace, "/metrics")?.text();
    let line = metrics.lines().find(|line| line.starts_with("nf_conntrack_table_info{")).expect("a table id");
    let table = line.split('"').nth(1).expect("a label").to_owned();
    let before = guard.dumps()?;
    let started = Instant::now();
    send(&namespace, &guard, &table);
    let took = started.elapsed();
    let saved = namespace.output(&["ipset", "save", "conntrack-guard-4"])?;
    assert_eq!(
        saved.lines().filter(|line| line.starts_with("add ")).count(),
        ALERTS as usize,
        "{}",
        guard.running.process.log()
    );
    assert_eq!(guard.metric("deleted_entries_total{rule=\"hoarder\"}")?, f64::from(ALERTS * 20));
    Ok(Storm { took, dumps: guard.dumps()? - before })
}

/// One POST on a connection that is kept; its status.
fn post_on(stream: &mut BufReader<TcpStream>, body: &str) -> u16 {
    write!(
        stream.get_mut(),
        "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a request is sent");
    let (mut status, mut length) = (0, 0);
    for (number, line) in stream.by_ref().lines().map(|line| line.expect("an answer")).enumerate() {
        if number == 0 {
            status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        } else if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        } else if line.is_empty() {
            break;
        }
    }
    stream.read_exact(&mut vec![0; length]).expect("a body");
    status
}

fn many() -> Result<Storm> {
    storm(|namespace, _, table| {
        let bodies: Vec<String> = (0..ALERTS).map(|number| message(&[about(number, table)])).collect();
        let streams: Vec<TcpStream> = namespace.run(|| {
            (0..CONNECTIONS).map(|_| TcpStream::connect("127.0.0.1:10049").expect("a connection")).collect()
        });
        let barrier = Barrier::new(CONNECTIONS);
        thread::scope(|scope| {
            for (number, stream) in streams.into_iter().enumerate() {
                let (bodies, barrier) = (&bodies, &barrier);
                scope.spawn(move || {
                    let mut stream = BufReader::new(stream);
                    barrier.wait();
                    let own = bodies.iter().skip(number).step_by(CONNECTIONS);
                    own.for_each(|body| assert_eq!(post_on(&mut stream, body), 200));
                });
            }
        });
    })
}

fn one() -> Result<Storm> {
    storm(|namespace, guard, table| {
        let body = message(&(0..ALERTS).map(|number| about(number, table)).collect::<Vec<_>>());
        let answer =
            guard.running.post(namespace, "/webhook", &["Content-Type: application/json"], body.as_bytes());
        assert_eq!(answer.expect("an answer").status, 200);
    })
}

/// What a script that is called with each alert does.
fn forked() -> Result<Duration> {
    const MEASURED: u32 = 10;
    let namespace = table()?;
    namespace.command(&["ipset", "create", "theirs", "hash:net", "timeout", "600"])?;
    let started = Instant::now();
    for number in 0..MEASURED {
        let source = std::net::Ipv4Addr::from(FIRST + number).to_string();
        namespace.command(&["ipset", "add", "theirs", &source])?;
        namespace.command(&["conntrack", "-D", "--src", &source])?;
    }
    Ok(started.elapsed() * ALERTS / MEASURED)
}

pub(crate) fn part(size: Size) -> Result<Part> {
    let mut part = Part::new("A storm of alerts");
    part.before.push(format!("{ENTRIES} entries; {ALERTS} sources with 20 each are alerted about. Enforced means: answered 200, and then all {ALERTS} read from the set and their 10,000 entries counted as deleted. \
         The policy (the packaged budgets would refuse most of it):\n\n```yaml\n{POLICY}```"));
    let baseline = forked()?;
    for (what, storm) in [
        (
            format!("{ALERTS} webhooks of one alert over {CONNECTIONS} connections"),
            many as fn() -> Result<Storm>,
        ),
        (format!("one webhook of {ALERTS} alerts"), one),
    ] {
        let storms = (0..size.rounds).map(|_| storm()).collect::<Result<Vec<_>>>()?;
        let took = median(storms.iter().map(|storm| storm.took));
        let dumps = storms.iter().map(|storm| storm.dumps).fold(0.0, f64::max);
        let ratio = baseline.as_secs_f64() / took.as_secs_f64();
        part.row(
            [
                &what,
                "`ipset add` and `conntrack -D`, forked an alert (10 measured, the rest extrapolated)",
                &format!("{}, at most {dumps} dumps", ms(took)),
                &ms(baseline),
                &format!("{ratio:.0} × faster"),
                "≤ 1 s, ≤ 3 dumps",
            ],
            Some(took <= Duration::from_secs(1) && dumps <= 3.0),
        );
    }
    Ok(part)
}
