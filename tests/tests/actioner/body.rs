//! Bad input over HTTP: the right status, a sentence that says what is wrong, nothing half done.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};
use tests::{Result, programs::workspace};

use crate::lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, members, message, quiet, with_end};

fn refused(actioner: &Actioner<'_>, body: &str, part: &str) -> Result<()> {
    let answer = actioner.post(body)?;
    let shown: String = body.chars().take(100).collect();
    assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
    let text = answer.text();
    assert!(
        text.contains(part) && text.len() < 400 && text.trim_end().lines().count() == 1,
        "{shown}: {text}"
    );
    Ok(())
}

#[test]
fn what_is_no_message_is_refused_with_a_sentence_and_changes_nothing() -> Result<()> {
    let lab = quiet("bodies")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    let good = actioner.about(HIM);
    let message_of = |alerts: Value| message(&[]).replace("\"alerts\":[]", &format!("\"alerts\":{alerts}"));
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut odd = good.clone();
    odd["status"] = "maybe".into();
    let mut listed = good.clone();
    listed["labels"]["source"] = json!([HIM]);
    let cases = [
        (String::new(), "empty"),
        ("hello".into(), "not JSON"),
        ("alertname=Hoarder&source=198.51.100.66".into(), "not JSON"),
        (message(std::slice::from_ref(&good))[..200].to_owned(), "not JSON"),
        (
            message(std::slice::from_ref(&good)).replace("\"version\":\"4\"", "\"version\":\"3\""),
            "version is \"3\"",
        ),
        (message(std::slice::from_ref(&good)).replace(",\"version\":\"4\"", ""), "version is missing"),
        (
            message(std::slice::from_ref(&good)).replace("\"version\":\"4\"", "\"version\":4"),
            "expected a string",
        ),
        (message(&[]), "no alerts"),
        (message_of(Value::Null), "no alerts"),
        (message_of(json!({})), "a list of alerts"),
        (message_of(json!([good, 7])), "an alert, an object"),
        (message_of(json!([good, odd])), "neither \"firing\" nor \"resolved\""),
        (message_of(json!([good, listed])), "expected a string"),
        (nested.clone(), "the body is not"),
        (
            message_of(json!([good]))
                .replace("\"annotations\":{}", &format!("\"annotations\":{{\"a\":{nested}}}")),
            "the body is not",
        ),
        ("[]".into(), "an object"),
        ("null".into(), "an object"),
    ];
    for (body, part) in &cases {
        refused(&actioner, body, part)?;
    }
    let binary = actioner.running.post(&lab, "/webhook", &[], &[0xff, 0xfe, 0, 1])?;
    assert_eq!(binary.status, 400, "{}", binary.text());
    assert_eq!(actioner.running.get(&lab, "/webhook")?.status, 405);
    assert_eq!(actioner.metric("webhooks_total{code=\"400\"}")?, cases.len() as f64 + 1.0);
    assert_eq!(members(&lab, "conntrack-guard-4")?, [], "a good alert beside a bad one is not done either");
    assert_eq!(actioner.audit().len(), 0);
    assert_eq!(actioner.dumps()?, 0.0);
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1, "and it still works");
    Ok(())
}

#[test]
fn ten_megabytes_are_refused_before_they_are_sent() -> Result<()> {
    let lab = quiet("large")?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    // Shorter than a body that does not come is waited for.
    let patience = Duration::from_secs(8);
    let answer = lab.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:10049").unwrap();
        stream.set_read_timeout(Some(patience)).unwrap();
        stream
            .write_all(
                b"POST /webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10485760\r\n\r\n",
            )
            .unwrap();
        let mut answer = vec![0; 1024];
        let read = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    });
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let sent = actioner.running.post(&lab, "/webhook", &[], &vec![b' '; 10 << 20])?;
    assert_eq!(sent.status, 413, "{}", sent.text());
    assert!(sent.text().contains("8388608 bytes"), "{}", sent.text());
    // Without a length it is cut off at the same limit.
    let chunked = lab.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:10049").unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"POST /webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
        for _ in 0..10 {
            if stream.write_all(&chunk).is_err() {
                break;
            }
        }
        let mut answer = vec![0; 1024];
        let read = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    });
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
    assert_eq!(actioner.metric("webhooks_total{code=\"413\"}")?, 3.0);
    Ok(())
}

#[test]
fn labels_that_are_no_source_are_refused_one_by_one_and_the_others_done() -> Result<()> {
    let lab = quiet("labels")?;
    fill(&lab, HIM, 30)?;
    fill(&lab, "2001:db8:bad::1", 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    let bad = [
        ("", "empty"),
        ("web.example.org", "names are never looked up"),
        ("198.51.100.0/24", "is a prefix"),
        ("198.51.100.66/32", "is a prefix"),
        ("198.51.100.66:443", "port attached"),
        ("[2001:db8::1]:443", "brackets"),
        ("fe80::1%eth0", "zone id"),
        ("198.051.100.066", "leading zero"),
        ("198.51.100.66 ", "white space"),
        ("198.51.100.66\n198.51.100.67", "white space"),
        ("$(reboot)", "not an IPv4 or IPv6 address"),
        ("`reboot`", "not an IPv4 or IPv6 address"),
        ("198.51.100.66;reboot", "not an IPv4 or IPv6 address"),
        ("-A", "not an IPv4 or IPv6 address"),
        ("dst", "not an IPv4 or IPv6 address"),
        ("198.51.100", "not an IPv4 or IPv6 address"),
        ("3325256770", "not an IPv4 or IPv6 address"),
        ("0xc6336442", "not an IPv4 or IPv6 address"),
    ];
    for (label, part) in bad {
        let answer = actioner.alert(&[label])?;
        assert_eq!(count(&answer, "refused"), 1, "{label}: {answer}");
        let sentence = answer["reasons"]["not_a_source"]["first"].as_str().unwrap_or_default().to_owned();
        assert!(sentence.contains(part), "{label}: {answer}");
        let line = actioner.audit().pop().unwrap();
        assert_eq!(
            (&line["reason"], &line["labels"]["source"], &line["why"]),
            (&"not_a_source".into(), &label.into(), &sentence.into())
        );
    }
    let never = [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("169.254.0.9", "link_local"),
        ("fe80::9", "link_local"),
        ("255.255.255.255", "broadcast"),
    ];
    for (source, _) in never {
        // Evidence alone must not be enough.
        fill(&lab, source, 20)?;
    }
    let answer = actioner.alert(&never.map(|(source, _)| source))?;
    assert_eq!(count(&answer, "banned"), 0, "{answer}");
    for (source, reason) in never {
        let said = actioner.audit().into_iter().rev().find(|line| line["source"] == source).unwrap();
        assert_eq!(said["reason"], reason, "{source}: {said}");
    }
    let mut sources: Vec<&str> = bad.iter().map(|(label, _)| *label).collect();
    sources.extend([HIM, HIM, "2001:db8:bad::1", "2001:DB8:BAD:0:0:0:0:1"]);
    let answer = actioner.alert(&sources)?;
    let counts = ["banned", "already_banned", "refused"].map(|name| count(&answer, name));
    assert_eq!(counts, [2, 2, bad.len() as u64], "{answer}");
    assert_eq!(members(&lab, "conntrack-guard-4")?[0].0, HIM);
    assert_eq!(members(&lab, "conntrack-guard-6")?[0].0, "2001:db8:bad::1");
    Ok(())
}

#[test]
fn every_message_that_alertmanager_was_seen_to_send_is_understood() -> Result<()> {
    let lab = quiet("samples")?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    let (mut files, mut cut_off) = (0, 0);
    for version in ["alertmanager-0.25.0", "alertmanager-0.33.1"] {
        let directory = workspace().join("actioner/tests/samples/webhooks").join(version);
        for file in fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            let body = fs::read_to_string(&path).unwrap();
            let sent: Value = serde_json::from_str(&body).unwrap();
            let answer = actioner.post(&body)?;
            assert_eq!(answer.status, 200, "{}: {}", path.display(), answer.text());
            let decided: Value = serde_json::from_str(&answer.text()).unwrap();
            let truncated = sent["truncatedAlerts"].as_u64().unwrap();
            let firing =
                sent["alerts"].as_array().unwrap().iter().filter(|alert| alert["status"] == "firing").count();
            let stand_ins = u64::from(truncated > 0 && firing > 0);
            assert_eq!(
                count(&decided, "alerts"),
                sent["alerts"].as_array().unwrap().len() as u64 + stand_ins,
                "{}",
                path.display()
            );
            assert_eq!(
                count(&decided, "refused"),
                count(&decided, "alerts"),
                "none of them is about this table: {decided}"
            );
            cut_off += truncated;
            files += 1;
        }
    }
    assert_eq!(files, 22);
    assert_eq!(actioner.metric("truncated_alerts_total")?, cut_off as f64);
    assert_eq!(actioner.metric("webhooks_total{code=\"200\"}")?, 22.0);
    assert_eq!(with_end(&lab, "198.51.100.1")?.len(), 0);
    Ok(())
}
