//! What strangers send in the clear.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::Mutex,
};

use serde_json::json;
use tests::{Result, http, netns::Namespace, programs::Program, wait::wait_until};

use super::{
    AGAIN, CROWD, LARGE_CROWD, Target, connect, connect_here, is_held, many_descriptors, obeyed, withstand,
};
use crate::lab::{HIM, Home, POLICY, count, fill, message, quiet};

/// Heads that are too long are refused; some never end.
fn heads(lab: &Namespace, address: SocketAddr) {
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
    for _ in 0..2 {
        refused(many.as_bytes());
        refused(format!("X: {}", "y".repeat(8 << 20)).as_bytes());
    }
}

/// Ten thousand requests at once on each of twenty connections, of which not one answer is read; and a hundred heads that never end.
fn never_read_and_never_sent(lab: &Namespace, address: SocketAddr) -> Vec<TcpStream> {
    let row = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10_000);
    let streams: Vec<TcpStream> = (0..120).map(|_| connect(lab, address).unwrap()).collect();
    for (number, mut stream) in streams.iter().enumerate() {
        stream.set_nonblocking(true).unwrap();
        let sent: &[u8] = if number < 20 { row.as_bytes() } else { b"GET / HTTP/1.1\r\nX: " };
        // As much as the kernel takes.
        let _ = stream.write_all(sent);
    }
    streams
}

/// 128 MiB that gzip makes small.
fn bomb() -> Vec<u8> {
    let mut gzip = Command::new("sh")
        .args(["-c", "head -c 128M /dev/zero | gzip -1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut bomb = Vec::new();
    gzip.stdout.take().unwrap().read_to_end(&mut bomb).unwrap();
    assert!(gzip.wait().unwrap().success() && bomb.len() > 1 << 19);
    bomb
}

/// What is packed is not unpacked: the bytes as they are are no message, and the exporter takes none.
fn packed(lab: &Namespace, address: SocketAddr, bomb: &[u8]) {
    for encoding in ["gzip", "deflate", "br"] {
        let header = format!("Content-Encoding: {encoding}");
        for path in ["/webhook", "/metrics"] {
            let answer = lab.run(|| http::post(&address.into(), path, &[&header], bomb)).unwrap();
            let expected = match (path, address == Program::Actioner.default_address()) {
                ("/webhook", true) => (400, "not JSON"),
                ("/webhook", false) => (404, ""),
                _ => (405, ""),
            };
            assert_eq!(answer.status, expected.0, "{path}: {}", answer.text());
            assert!(answer.text().contains(expected.1), "{path}: {}", answer.text());
        }
    }
}

#[test]
fn heads_rows_packed_bodies_and_an_idle_crowd_cost_the_neighbours_nothing_and_no_memory() -> Result<()> {
    all_at_once(CROWD)
}

#[test]
#[ignore = "make load: ten thousand idle connections at each port"]
fn ten_thousand_idle_connections_beside_all_else() -> Result<()> {
    all_at_once(LARGE_CROWD)
}

fn all_at_once(size: usize) -> Result<()> {
    many_descriptors();
    let lab = quiet("clear")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let mut actioner = home.start(&lab)?;
    let mut exporter = Program::Exporter.start(&lab, Program::Exporter.default_address(), &[])?;
    let (alert, socket) = (actioner.about(HIM), actioner.socket.clone());
    let bomb = bomb();
    let doors = [("actioner", Program::Actioner), ("exporter", Program::Exporter)];
    let processes = [&*actioner.process(), &exporter.process];
    let mut targets: Vec<_> = doors
        .iter()
        .zip(processes)
        .map(|((name, program), process)| {
            let address = program.default_address();
            Target::new(name, address, connect(&lab, address).unwrap(), process)
        })
        .collect();
    let order = || obeyed(&socket, &alert);

    let held = Mutex::new(Vec::new());
    withstand(
        &mut targets,
        &[
            &|address| heads(&lab, address),
            &|address| {
                let streams = never_read_and_never_sent(&lab, address);
                held.lock().unwrap().extend(streams);
            },
            &|address| packed(&lab, address, &bomb),
        ],
        order,
    );
    drop(held);
    let crowd = |address: SocketAddr| {
        let mut streams = Vec::new();
        for number in 1..=size {
            streams.push(connect_here(address).unwrap());
            if number % 500 == 0 {
                streams.retain(is_held);
            }
        }
        streams
    };
    let held = Mutex::new(Vec::new());
    withstand(
        &mut targets,
        &[&|address| {
            let streams = lab.run(|| crowd(address));
            held.lock().unwrap().extend(streams);
        }],
        order,
    );
    withstand(&mut targets, &[], order);
    drop(held);
    for target in &targets {
        let address = target.address;
        wait_until("a newcomer to be answered", AGAIN, || {
            match lab.run(|| http::get(&address.into(), "/-/healthy", &[])) {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        target.is_bounded();
    }
    drop(targets);
    assert_eq!(actioner.process().ended()?, None);
    assert_eq!(exporter.process.ended()?, None);
    Ok(())
}

#[test]
fn alerts_with_all_the_labels_that_fit_and_more() -> Result<()> {
    let lab = quiet("labels")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let mut actioner = home.start(&lab)?;
    let (alert, socket) = (actioner.about(HIM), actioner.socket.clone());
    let with = |labels: usize, value: usize| {
        let mut alert = actioner.about(HIM);
        for number in 0..labels {
            alert["labels"][format!("l{number}")] = "v".repeat(value).into();
        }
        message(&[alert])
    };
    let (wide, long, many) = (with(300, 10), with(1, 100_000), with(250, 30_000));
    let row: String = (0..500_000).map(|number| format!("\"l{number}\":\"\",")).collect();
    let wider = message(&[json!("HERE")])
        .replace("\"HERE\"", &format!("{{\"status\":\"firing\",\"labels\":{{{row}\"a\":\"\"}}}}"));
    let doubled = message(&[json!("HERE")]).replace(
        "\"HERE\"",
        r#"{"status":"firing","labels":{"source":"198.51.100.66","source":"192.0.2.1"}}"#,
    );
    let deep = message(&[json!({"status": "firing", "labels": {}, "more": "HERE"})])
        .replace("\"HERE\"", &("[".repeat(1 << 20) + &"]".repeat(1 << 20)));
    let flood = message(&vec![json!({"status": "firing", "labels": {"alertname": "x", "a": "b"}}); 30_000]);
    let address = Program::Actioner.default_address();
    let process = &*actioner.process();
    let mut targets = [Target::new("actioner", address, connect(&lab, address).unwrap(), process)];
    let attack = |address: SocketAddr| {
        let post =
            |body: &str| lab.run(|| http::post(&address.into(), "/webhook", &[], body.as_bytes())).unwrap();
        for (body, why) in [
            (&wide, "more than 256 labels"),
            (&wider, "more than 256 labels"),
            (&long, "is longer than 65536 bytes"),
            (&doubled, "\"source\" stands twice"),
            (&flood, "more than 20000 alerts in one message"),
        ] {
            let answer = post(body);
            assert_eq!(answer.status, 400, "{}", answer.text());
            assert!(answer.text().contains(why), "{}", answer.text());
        }
        // What a newer Alertmanager may say besides is passed over, however deep it goes; or refused, but survived.
        assert!(matches!(post(&deep).status, 200 | 400));
        assert_eq!(post(&many).status, 200, "7.5 MB of labels are within the limits");
    };
    withstand(&mut targets, &[&attack], || obeyed(&socket, &alert));
    targets[0].is_bounded();
    drop(targets);
    let answer = actioner.alert(&[HIM])?;
    assert_eq!(count(&answer, "already_banned"), 1, "it decided all the while: {answer}");
    Ok(())
}
