//! HTTP/2 over TLS: the same answers, and the same limits on what a stranger may cost.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod client;
mod secure;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, GET, PATIENCE, echo, hello};
use h2::client::{Builder, SendRequest};
use h2::{Ping, RecvStream};
use hyper::{Method, Request as Head};
use secure::{MUTUAL, Site, TLS, Tls, basic, serving_secured, users, who};
use tests::certificates::{Authority, Validity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::version;
use web::{Limits, Request, Response, StatusCode};

const SOON: Duration = Duration::from_millis(200);

fn speaking(site: &Site, names: &[&[u8]]) -> Tls {
    Tls::new(&site.authority, None, &[&version::TLS13, &version::TLS12], names)
}

/// A connection whose frames are moved by a task, which ends with the connection.
async fn open(
    tls: &Tls,
    address: SocketAddr,
    builder: &Builder,
) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>, h2::PingPong) {
    let stream = tls.connect(address).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (requests, mut connection) = builder.handshake(stream).await.unwrap();
    let pings = connection.ping_pong().unwrap();
    (requests, tokio::spawn(connection), pings)
}

fn head(method: Method) -> hyper::http::request::Builder {
    Head::builder().method(method).uri("https://localhost/path")
}

async fn all(mut body: RecvStream) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    text
}

async fn ask(
    requests: &mut SendRequest<Bytes>,
    request: hyper::http::request::Builder,
    body: &[u8],
) -> (u16, hyper::HeaderMap, Vec<u8>) {
    let mut ready = requests.clone().ready().await.unwrap();
    let (answer, mut sending) = ready.send_request(request.body(()).unwrap(), body.is_empty()).unwrap();
    if !body.is_empty() {
        // What the server does not want it resets, after its answer.
        sending.send_data(Bytes::copy_from_slice(body), true).unwrap();
    }
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    let (head, body) = answer.into_parts();
    (head.status.as_u16(), head.headers, all(body).await)
}

#[tokio::test]
async fn it_is_spoken_with_those_who_can_unless_it_is_switched_off() {
    let site = Site::new();
    serving_secured(site.security(TLS), Limits::default(), hello, async |address| {
        let (mut requests, ..) =
            open(&speaking(&site, &[b"h2", b"http/1.1"]), address, &Builder::new()).await;
        for _ in 0..3 {
            let (status, _, body) = ask(&mut requests, head(Method::GET), b"").await;
            assert_eq!((status, body), (200, b"GET /path\n".to_vec()));
        }
        let (status, headers, body) = ask(&mut requests, head(Method::HEAD), b"").await;
        assert_eq!((status, headers["content-length"].to_str().unwrap(), body.len()), (200, "11", 0));
    })
    .await;
    let off = TLS.to_owned() + "http_server_config: {http2: false}\n";
    serving_secured(site.security(&off), Limits::default(), hello, async |address| {
        let stream = speaking(&site, &[b"h2", b"http/1.1"]).connect(address).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(Client::new(stream).ask(GET).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn passwords_and_certificates_count_as_they_do_elsewhere() {
    let site = Site::new();
    let security = site.security(&(TLS.to_owned() + &users("alice", "secret")));
    serving_secured(security, Limits::default(), who, async |address| {
        let (mut requests, ..) = open(&speaking(&site, &[b"h2"]), address, &Builder::new()).await;
        let (status, headers, _) = ask(&mut requests, head(Method::POST), &[b'x'; 100_000]).await;
        assert!(status == 401 && headers.contains_key("www-authenticate"), "{status} {headers:?}");
        let (mut requests, ..) = open(&speaking(&site, &[b"h2"]), address, &Builder::new()).await;
        let known = head(Method::GET).header("authorization", basic("alice", "secret"));
        assert_eq!(ask(&mut requests, known, b"").await.2, b"Some(User(\"alice\"))");
    })
    .await;
    serving_secured(site.security(MUTUAL), Limits::default(), who, async |address| {
        let certified = site.clients.client("am", &["am.example"], Validity::Now);
        let tls = Tls::new(&site.authority, Some(&certified), &[&version::TLS13], &[b"h2"]);
        let (mut requests, connection, _) = open(&tls, address, &Builder::new()).await;
        assert_eq!(ask(&mut requests, head(Method::GET), b"").await.2, b"Some(Certificate(\"am.example\"))");
        site.write("clients.pem", &Authority::new("other").pem());
        assert_eq!(ask(&mut requests, head(Method::GET), b"").await.0, 200);
        drop(requests);
        timeout(PATIENCE, connection).await.expect("said good-bye to").unwrap().unwrap();
    })
    .await;
}

/// `HEADERS` of a request without credentials: GET, https, / of the static table.
fn bare_request(stream: u32) -> Vec<u8> {
    let mut frame = vec![0, 0, 3, 1, 0x4 | 0x1];
    frame.extend(stream.to_be_bytes());
    frame.extend([0x82, 0x87, 0x84]);
    frame
}

#[tokio::test]
async fn who_was_never_let_in_is_said_goodbye_to_and_put_out_if_he_does_not_heed_it() {
    let site = Site::new();
    let limits = Limits { header_timeout: SOON, ..Limits::default() };
    let security = site.security(&(TLS.to_owned() + &users("alice", "secret")));
    serving_secured(security, limits, who, async |address| {
        let tls = speaking(&site, &[b"h2"]);
        let (mut alice, alices, _) = open(&tls, address, &Builder::new()).await;
        let known = || head(Method::GET).header("authorization", basic("alice", "secret"));
        assert_eq!(ask(&mut alice, known(), b"").await.0, 200);

        let (mut polite, connection, _) = open(&tls, address, &Builder::new()).await;
        assert_eq!(ask(&mut polite, head(Method::GET), b"").await.0, 401);
        timeout(PATIENCE, connection).await.expect("said good-bye to").unwrap().ok();

        // Answers no ping, so that the good-bye never ends, and asks on.
        let mut stubborn = tls.connect(address).await.unwrap();
        stubborn.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let (mut reading, mut writing) = tokio::io::split(stubborn);
        let asking = async {
            for stream in (1..).step_by(2) {
                if writing.write_all(&bare_request(stream)).await.is_err() {
                    break;
                }
                sleep(SOON / 10).await;
            }
        };
        let put_out = async { reading.read_to_end(&mut Vec::new()).await.ok() };
        let both = async {
            tokio::select! { _ = put_out => {}, () = asking => {} }
        };
        timeout(PATIENCE / 2, both).await.expect("put out");
        assert_eq!(ask(&mut alice, head(Method::GET), b"").await.0, 401);
        assert_eq!(ask(&mut alice, known(), b"").await.0, 200, "a slip costs nobody his connection");
        assert!(!alices.is_finished());
    })
    .await;
}

#[tokio::test]
async fn bodies_are_limited_in_size_together_and_in_time() {
    let site = Site::new();
    // A whole body must come within that time, on a busy machine too.
    let limits = Limits { body_budget: 1500, body_timeout: 5 * SOON, ..Limits::default() };
    serving_secured(site.security(TLS), limits, echo, async |address| {
        let (mut requests, ..) = open(&speaking(&site, &[b"h2"]), address, &Builder::new()).await;
        assert_eq!(ask(&mut requests, head(Method::POST), &[b'x'; 1000]).await.2.len(), 1000);
        assert_eq!(ask(&mut requests, head(Method::POST), &[b'x'; 1001]).await.0, 413);
        let announced = head(Method::POST).header("content-length", "1001");
        let mut ready = requests.clone().ready().await.unwrap();
        let (answer, _sending) = ready.send_request(announced.body(()).unwrap(), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 413, "before a byte of it");

        let mut slow = Vec::new();
        for _ in 0..2 {
            let mut ready = requests.clone().ready().await.unwrap();
            let (answer, mut sending) =
                ready.send_request(head(Method::POST).body(()).unwrap(), false).unwrap();
            sending.send_data(Bytes::from_static(&[b'x'; 900]), false).unwrap();
            slow.push((answer, sending));
        }
        let mut statuses = Vec::new();
        for (answer, _sending) in slow {
            statuses.push(answer.await.unwrap().status().as_u16());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [408, 503], "one is waited for in vain, for the other there is no room");
        assert_eq!(ask(&mut requests, head(Method::POST), &[b'x'; 1000]).await.0, 200, "the budget is back");
    })
    .await;
}

#[tokio::test]
async fn a_head_may_not_be_large_and_not_many_requests_come_at_once() {
    let site = Site::new();
    serving_secured(site.security(TLS), Limits::default(), hello, async |address| {
        let (mut requests, ..) = open(&speaking(&site, &[b"h2"]), address, &Builder::new()).await;
        assert_eq!(ask(&mut requests, head(Method::GET), b"").await.0, 200);
        assert_eq!(requests.current_max_send_streams(), 32);
        let bomb = head(Method::GET).header("x-long", "x".repeat(40_000));
        let (answer, _) = requests.send_request(bomb.body(()).unwrap(), true).unwrap();
        let refused = timeout(PATIENCE, answer).await.unwrap();
        assert!(refused.map_or(true, |answer| answer.status() == 431));
        let (mut honest, ..) = open(&speaking(&site, &[b"h2"]), address, &Builder::new()).await;
        assert_eq!(ask(&mut honest, head(Method::GET), b"").await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn who_says_nothing_is_closed_and_who_pings_between_requests_is_not() {
    let site = Site::new();
    let limits = Limits { header_timeout: SOON, ..Limits::default() };
    serving_secured(site.security(TLS), limits, hello, async |address| {
        let tls = speaking(&site, &[b"h2"]);
        let (mut kept, kept_alive, mut pings) = open(&tls, address, &Builder::new()).await;
        assert_eq!(ask(&mut kept, head(Method::GET), b"").await.0, 200);
        let began = Instant::now();
        let mut silent = tls.connect(address).await.unwrap();
        let (_polite, polite, _) = open(&tls, address, &Builder::new()).await;
        silent.read_to_end(&mut Vec::new()).await.ok();
        timeout(PATIENCE, polite).await.expect("settings are no request").unwrap().ok();
        assert!(began.elapsed() >= SOON - Duration::from_millis(20));
        for _ in 0..4 {
            pings.ping(Ping::opaque()).await.unwrap();
            sleep(SOON / 2).await;
        }
        assert_eq!(ask(&mut kept, head(Method::GET), b"").await.0, 200, "Prometheus pings each minute");
        assert!(!kept_alive.is_finished());
    })
    .await;
}

/// It takes the frames, and no byte of the answers: the stream moves on, and they would stay in memory.
#[tokio::test]
async fn who_does_not_take_his_answers_is_closed() {
    let site = Site::new();
    let limits = Limits { write_timeout: 5 * SOON, ..Limits::default() };
    let large = |_: Request| async { Response::text(StatusCode::OK, "x".repeat(1 << 20)) };
    serving_secured(site.security(TLS), limits, large, async |address| {
        let mut stingy = Builder::new();
        stingy.initial_window_size(0);
        let (mut requests, connection, mut pings) = open(&speaking(&site, &[b"h2"]), address, &stingy).await;
        let mut answers = Vec::new();
        for _ in 0..8 {
            let (answer, _) = requests.send_request(head(Method::GET).body(()).unwrap(), true).unwrap();
            answers.push(answer.await.unwrap());
        }
        tokio::spawn(async move { while pings.ping(Ping::opaque()).await.is_ok() {} });
        timeout(PATIENCE, connection).await.expect("closed, whatever it pings").unwrap().ok();
        let (mut honest, ..) = open(&speaking(&site, &[b"h2"]), address, &Builder::new()).await;
        assert_eq!(ask(&mut honest, head(Method::GET), b"").await.2.len(), 1 << 20);
    })
    .await;
}

#[tokio::test]
async fn a_running_request_is_answered_when_the_server_stops() {
    let site = Site::new();
    let began = Rc::new(Notify::new());
    let begins = Rc::clone(&began);
    let slow = move |_: Request| {
        begins.notify_one();
        async {
            sleep(SOON).await;
            Response::text(StatusCode::OK, "done\n")
        }
    };
    let (asked, answered) = tokio::sync::oneshot::channel();
    serving_secured(site.security(TLS), Limits::default(), slow, async |address| {
        let (mut requests, ..) = open(&speaking(&site, &[b"h2"]), address, &Builder::new()).await;
        let (answer, _) = requests.send_request(head(Method::GET).body(()).unwrap(), true).unwrap();
        tokio::spawn(async move {
            let answer = answer.await.unwrap();
            asked.send(all(answer.into_body()).await).unwrap();
        });
        began.notified().await;
    })
    .await;
    assert_eq!(answered.await.unwrap(), b"done\n");
}
