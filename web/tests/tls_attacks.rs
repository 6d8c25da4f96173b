//! What no honest client of TLS sends: it ends there, is counted, and costs nobody else anything.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod client;
mod secure;

use std::time::{Duration, Instant};

use client::{Client, GET, PATIENCE, hello};
use secure::{MUTUAL, Site, TLS, Tls, refused, serving_secured, who};
use tests::certificates::Validity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::version;
use web::Limits;

const PROMPT: Duration = Duration::from_secs(2);

/// A record of that kind of TLS.
fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3], &length[..], payload].concat()
}

#[tokio::test]
async fn records_that_are_no_handshake_end_at_once_whatever_they_announce() {
    let site = Site::new();
    let security = site.security(TLS);
    let counters = security.counters().clone();
    let attacks = [
        ("changes of cipher without end", record(20, &[1]).repeat(50_000)),
        (
            "a handshake of 16 MiB",
            [record(22, &[1, 0xff, 0xff, 0xff]), record(22, &[0; 16_000]).repeat(1_000)].concat(),
        ),
        ("a hello in records of one byte", record(22, &[1]).repeat(50_000)),
        ("empty records", record(22, &[]).repeat(50_000)),
        ("data before the handshake", record(23, &[0; 1_000])),
        ("a renegotiation that nothing went before", record(22, &[0, 0, 0, 0]).repeat(1_000)),
        ("an alert", record(21, &[1, 90]).repeat(10_000)),
        ("a record longer than any", [&[22, 3, 3, 0xff, 0xff][..], &[0; 100_000]].concat()),
        ("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]),
    ];
    let limits = Limits { header_timeout: Duration::from_secs(2), ..Limits::default() };
    let count = attacks.len() as u64;
    serving_secured(security, limits, hello, async |address| {
        let mut honest = Client::new(site.client(None).connect(address).await.unwrap());
        for (name, bytes) in attacks {
            let mut hostile = TcpStream::connect(address).await.unwrap();
            let began = Instant::now();
            let sent = async {
                hostile.write_all(&bytes).await.ok();
                hostile.read_to_end(&mut Vec::new()).await.ok();
            };
            let asking = async { assert_eq!(honest.ask(GET).await.status, 200, "{name}") };
            timeout(PATIENCE, async { tokio::join!(sent, asking) }).await.expect(name);
            assert!(began.elapsed() < PROMPT * 2, "{name}: {:?}", began.elapsed());
        }
    })
    .await;
    assert_eq!(refused(&counters, "tls_handshake") + refused(&counters, "tls_timeout"), count);
}

#[tokio::test]
async fn certificates_that_are_huge_and_protocols_that_are_none_end_with_the_handshake() {
    let site = Site::new();
    let security = site.security(MUTUAL);
    let counters = security.counters().clone();
    serving_secured(security, Limits::default(), who, async |address| {
        let names: Vec<String> = (0..1_000).map(|number| format!("n{number}.example")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let large = site.clients.client("am", &names, Validity::Now);
        // A handshake message may have 64 KiB.
        let mut huge = large.clone();
        huge.certificate += &site.clients.pem().repeat(1_000);
        let began = Instant::now();
        let mut client = Client::new(site.client(Some(&large)).connect(address).await.unwrap());
        assert_eq!(client.ask(GET).await.body, "Some(Certificate(\"n0.example\"))");
        let refused_at_once = async {
            let Ok(mut stream) = site.client(Some(&huge)).connect(address).await else { return };
            stream.write_all(GET.as_bytes()).await.ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok();
            assert_eq!(String::from_utf8_lossy(&answer), "");
        };
        timeout(PATIENCE, refused_at_once).await.unwrap();
        assert_eq!(refused(&counters, "tls_handshake") + refused(&counters, "client_certificate"), 1);
        let other = Tls::new(&site.authority, Some(&large), &[&version::TLS13], &[b"spdy/3"]);
        assert!(other.connect(address).await.is_err(), "no protocol in common");
        assert_eq!(client.ask(GET).await.status, 200);
        assert!(began.elapsed() < PROMPT * 2, "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test]
async fn keys_that_are_changed_without_end_keep_nobody_waiting() {
    let site = Site::new();
    serving_secured(site.security(TLS), Limits::default(), hello, async |address| {
        let tls = Tls::new(&site.authority, None, &[&version::TLS13], &[]);
        let mut honest = Client::new(tls.connect(address).await.unwrap());
        let mut hostile = tls.connect(address).await.unwrap();
        let changing = async {
            for _ in 0..2_000 {
                let changed = hostile.get_mut().1.refresh_traffic_keys();
                if changed.is_err() || hostile.flush().await.is_err() {
                    return;
                }
            }
        };
        let asking = async {
            loop {
                let began = Instant::now();
                assert_eq!(honest.ask(GET).await.status, 200);
                assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
            }
        };
        tokio::select! { () = changing => {}, () = asking => {} }
        assert_eq!(honest.ask(GET).await.status, 200);
    })
    .await;
}
