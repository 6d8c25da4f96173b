//! Frames that no honest client sends: whoever floods is put out or held up, and nobody else notices.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod client;
mod secure;

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use client::{Client, GET, PATIENCE, hello};
use secure::{Site, TLS, Tls, refused, serving_secured};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::version;
use web::{Limits, Request, Response, StatusCode};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// GET, https and / of HPACK's static table.
const BARE: &[u8] = &[0x82, 0x87, 0x84];
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Of no protocol yet.
const NEWS: u8 = 0x7f;
/// What a neighbour of a flood waits at most, on two busy cores.
const PROMPT: Duration = Duration::from_secs(2);
/// What a flood may cost in memory, client and server together.
const MEMORY: u64 = 48 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

async fn speaking(site: &Site, address: SocketAddr) -> TlsStream<TcpStream> {
    let tls = Tls::new(&site.authority, None, &[&version::TLS13], &[b"h2"]);
    let mut stream = tls.connect(address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// A request is taken back as soon as its handler runs: CVE-2023-44487, "rapid reset".
#[tokio::test]
async fn requests_that_are_taken_back_do_not_pile_up() {
    let site = Site::new();
    let security = site.security(TLS);
    let counters = security.counters().clone();
    let running = Rc::new(Cell::new(0_u32));
    let begun = Rc::clone(&running);
    let handler = move |request: Request| {
        let begun = Rc::clone(&begun);
        async move {
            if request.method() == web::Method::GET && request.header("host").is_none() {
                begun.set(begun.get() + 1);
                std::future::pending::<()>().await;
            }
            Response::text(StatusCode::OK, "heard\n")
        }
    };
    let limits = Limits { drain: Duration::from_millis(100), ..Limits::default() };
    serving_secured(security, limits, handler, async |address| {
        let mut honest = Client::new(site.client(None).connect(address).await.unwrap());
        assert_eq!(honest.ask(GET).await.status, 200);
        let mut hostile = speaking(&site, address).await;
        let attack = async {
            for stream in (1..10_000).step_by(2) {
                let before = running.get();
                if hostile.write_all(&frame(HEADERS, 0x5, stream, BARE)).await.is_err() {
                    return running.get();
                }
                let ended = timeout(Duration::from_secs(1), async {
                    while running.get() == before {
                        tokio::task::yield_now().await;
                    }
                });
                if ended.await.is_err() {
                    return running.get();
                }
                let taken_back = frame(RESET, 0, stream, &8_u32.to_be_bytes());
                if hostile.write_all(&taken_back).await.is_err() {
                    return running.get();
                }
            }
            running.get()
        };
        let most = timeout(PATIENCE, attack).await.unwrap();
        assert!((32..=65).contains(&most), "{most} handlers run for one connection");
        timeout(PATIENCE, hostile.read_to_end(&mut Vec::new())).await.expect("it is cut").ok();
        assert_eq!(honest.ask(GET).await.status, 200);
    })
    .await;
    assert!(refused(&counters, "request_flood") > 0);
}

/// So many bytes of one frame again and again, or until the other side has had enough; nothing is read meanwhile.
async fn flood(stream: &mut TlsStream<TcpStream>, first: &[u8], again: &[u8]) {
    let batch = again.repeat(16_384 / again.len());
    let sent = async {
        stream.write_all(first).await?;
        for _ in 0..32 {
            stream.write_all(&batch).await?;
        }
        std::io::Result::Ok(())
    };
    // Who is not read from any more has been held up.
    timeout(Duration::from_millis(500), sent).await.ok();
}

#[tokio::test]
async fn frames_without_end_keep_nobody_waiting_and_fill_no_memory() {
    let site = Site::new();
    let never_ends = frame(HEADERS, 0x1, 1, BARE);
    let floods: [(&str, Vec<u8>, Vec<u8>); 9] = [
        ("settings", Vec::new(), frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("pings", Vec::new(), frame(PING, 0, 0, &[7; 8])),
        ("priorities", Vec::new(), frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 9])),
        ("windows", Vec::new(), frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("headers that never end", never_ends.clone(), frame(CONTINUATION, 0, 1, &[0x00; 1_000])),
        ("empty continuations", never_ends, frame(CONTINUATION, 0, 1, &[])),
        ("empty data", frame(HEADERS, 0x4, 1, &[0x83, 0x87, 0x84]), frame(DATA, 0, 1, &[])),
        ("frames of tomorrow", Vec::new(), frame(NEWS, 0, 0, &[0; 64])),
        ("resets of nothing", Vec::new(), frame(RESET, 0, 1, &8_u32.to_be_bytes())),
    ];
    let reads = |mut request: Request| async move {
        drop(request.body(1000).await);
        hello(request).await
    };
    serving_secured(site.security(TLS), Limits::default(), reads, async |address| {
        let mut honest = Client::new(site.client(None).connect(address).await.unwrap());
        assert_eq!(honest.ask(GET).await.status, 200);
        let before = resident();
        for (name, first, again) in floods {
            let mut hostile = speaking(&site, address).await;
            let flooding = flood(&mut hostile, &first, &again);
            let watching = async {
                loop {
                    let began = Instant::now();
                    assert_eq!(honest.ask(GET).await.status, 200, "{name}");
                    assert!(began.elapsed() < PROMPT, "{name}: {:?}", began.elapsed());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! { () = flooding => {}, () = watching => {} }
            let grown = resident().saturating_sub(before);
            assert!(grown < MEMORY, "{name}: {} MiB more", grown >> 20);
            assert_eq!(honest.ask(GET).await.status, 200, "{name}");
        }
    })
    .await;
}
