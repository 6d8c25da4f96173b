//! Attacks on the programs' own doors: who was connected before is answered in time, root's socket is open, memory is bounded, and
//! everybody is let in again when it ends.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tests::{Result, http, netns::Namespace, programs::Program, wait::wait_until};

use crate::lab::{Actioner, HIM, Home, POLICY, count, fill, message, quiet};

/// What a neighbour of an attacker waits at most, on two busy cores.
const PROMPT: Duration = Duration::from_secs(3);
/// So much more than at rest a program may take while it is attacked: the bodies' budget, twice, for what is made of them.
const MEMORY: u64 = 96 << 20;
/// A connection that has sent nothing for ten seconds is closed.
const AGAIN: Duration = Duration::from_secs(30);

/// A connection that was there before the attack.
struct Kept(TcpStream);

impl Kept {
    fn to(lab: &Namespace, address: SocketAddr) -> Kept {
        let mut kept = Kept(connect(lab, address).unwrap());
        kept.is_answered("/-/healthy");
        kept
    }

    fn is_answered(&mut self, path: &str) {
        let began = Instant::now();
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
        let ended = |answer: &[u8]| {
            let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            length.is_some_and(|length: usize| body.len() >= length)
        };
        while !ended(&answer) {
            let read = self.0.read(&mut chunk).unwrap();
            assert!(read > 0, "closed: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&chunk[..read]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        assert!(began.elapsed() < PROMPT, "{path} took {:?}", began.elapsed());
    }
}

fn connect(lab: &Namespace, address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = lab.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(10)))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    Ok(stream)
}

/// An attack leaves the connected, the socket and, once it is over, everybody else as they were.
fn withstands(
    lab: &Namespace,
    actioner: &mut Actioner<'_>,
    attack: impl FnOnce(SocketAddr) -> Vec<TcpStream>,
) {
    let address = Program::Actioner.default_address();
    let before = actioner.process().peak_memory().unwrap();
    let mut kept = Kept::to(lab, address);
    let held = attack(address);
    kept.is_answered("/metrics");
    let began = Instant::now();
    let answer = actioner.post_over_socket(&message(&[actioner.about(HIM)])).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(began.elapsed() < PROMPT, "a webhook over the socket took {:?}", began.elapsed());
    kept.is_answered("/-/ready");
    wait_until("a newcomer to be answered", AGAIN, || {
        match lab.run(|| http::get(&address.into(), "/-/healthy", &[])) {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    drop(held);
    let grown = actioner.process().peak_memory().unwrap().saturating_sub(before);
    assert!(grown < MEMORY, "{} MiB more than before", grown >> 20);
}

fn attacked(name: &str, attack: impl FnOnce(&Namespace, SocketAddr) -> Vec<TcpStream>) -> Result<()> {
    let lab = quiet(name)?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let mut actioner = home.start(&lab)?;
    withstands(&lab, &mut actioner, |address| attack(&lab, address));
    assert_eq!(actioner.process().ended()?, None);
    Ok(())
}

#[test]
fn ten_thousand_idle_connections() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let enough = Rlimit { current: Some(limit.maximum.unwrap_or(16_384).min(16_384)), ..limit };
    setrlimit(Resource::Nofile, enough).expect("16,384 descriptors for this test");
    attacked("idle", |lab, address| {
        lab.run(|| (0..10_000).map(|_| TcpStream::connect(address).unwrap()).collect())
    })
}

#[test]
fn heads_that_are_too_long_or_never_end() -> Result<()> {
    attacked("heads", |lab, address| {
        let refused = |bomb: &[u8]| {
            let mut stream = connect(lab, address).unwrap();
            // The server may close before all is written.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").and_then(|()| stream.write_all(bomb));
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let told = String::from_utf8_lossy(&answer);
            assert!(told.is_empty() || told.starts_with("HTTP/1.1 4"), "{told}");
        };
        let many: String = (0..100_000).map(|number| format!("X-{number}: y\r\n")).collect();
        let long = format!("X: {}", "y".repeat(8 << 20));
        for _ in 0..8 {
            refused(many.as_bytes());
            refused(long.as_bytes());
        }
        let endless = (0..100).map(|_| connect(lab, address).unwrap());
        endless.inspect(|mut stream| stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap()).collect()
    })
}

#[test]
fn what_is_packed_is_not_unpacked() -> Result<()> {
    let mut gzip = Command::new("sh")
        .args(["-c", "head -c 1073741824 /dev/zero | gzip -1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut bomb = Vec::new();
    gzip.stdout.take().unwrap().read_to_end(&mut bomb).unwrap();
    assert!(gzip.wait().unwrap().success() && bomb.len() > 1 << 20);
    attacked("gzip", |lab, address| {
        for encoding in ["gzip", "deflate", "br"] {
            let header = format!("Content-Encoding: {encoding}");
            let answer = lab.run(|| http::post(&address.into(), "/webhook", &[&header], &bomb)).unwrap();
            assert_eq!(answer.status, 400, "{}", answer.text());
            assert!(answer.text().contains("not JSON"), "{}", answer.text());
        }
        Vec::new()
    })
}

/// Ten thousand requests at once on each of twenty connections, of which not one answer is read.
#[test]
fn requests_in_a_row_whose_answers_nobody_reads() -> Result<()> {
    attacked("pipeline", |lab, address| {
        let row = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10_000);
        let streams: Vec<TcpStream> = (0..20).map(|_| connect(lab, address).unwrap()).collect();
        for mut stream in &streams {
            stream.set_nonblocking(true).unwrap();
            // As much as the kernel takes.
            let _ = stream.write_all(row.as_bytes());
        }
        streams
    })
}

#[test]
fn alerts_with_all_the_labels_that_fit() -> Result<()> {
    let lab = quiet("labels")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let mut actioner = home.start(&lab)?;
    let alert = |labels: usize, value: usize| {
        let mut alert = actioner.about(HIM);
        for number in 0..labels {
            alert["labels"][format!("label_{number}")] = "v".repeat(value).into();
        }
        message(&[alert])
    };
    let (wide, long, many) = (alert(300, 10), alert(1, 100_000), alert(250, 30_000));
    let flood = message(&vec![json!({"status": "firing", "labels": {"alertname": "x", "a": "b"}}); 30_000]);
    withstands(&lab, &mut actioner, |address| {
        let post =
            |body: &str| lab.run(|| http::post(&address.into(), "/webhook", &[], body.as_bytes())).unwrap();
        for (body, why) in [
            (&wide, "more than 256 labels"),
            (&long, "is longer than 65536 bytes"),
            (&flood, "more than 20000 alerts in one message"),
        ] {
            let answer = post(body);
            assert_eq!(answer.status, 400, "{}", answer.text());
            assert!(answer.text().contains(why), "{}", answer.text());
        }
        assert_eq!(post(&many).status, 200, "7.5 MB of labels are within the limits");
        Vec::new()
    });
    let answer = actioner.alert(&[HIM])?;
    assert_eq!(count(&answer, "already_banned"), 1, "it decided all the while: {answer}");
    Ok(())
}
