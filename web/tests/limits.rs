//! What strangers cannot do to others.

mod client;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{Client, GET, ask, connect, echo, hello, serving, serving_on};
use tokio::net::{TcpSocket, UnixStream};
use web::{Limits, Listen, Request, Response, Server, StatusCode};

/// Who says something at once has said it by then, on a busy machine too.
const SOON: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_slow_or_silent_client_is_closed_and_nobody_else_notices() {
    let limits = Limits { header_timeout: SOON, ..Limits::default() };
    serving(limits, hello, async |address| {
        let mut honest = connect(address).await;
        assert_eq!(honest.ask(GET).await.status, 200);
        let mut silent = connect(address).await;
        let mut slow = connect(address).await;
        let drip = async {
            loop {
                slow.try_send("X").await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let began = Instant::now();
        tokio::select! {
            rest = silent.rest() => assert_eq!(rest, ""),
            () = drip => {}
        }
        assert_eq!(slow.rest().await, "", "a deadline, however steadily it drips");
        assert!(began.elapsed() >= SOON - Duration::from_millis(20));
        assert_eq!(honest.ask(GET).await.status, 200, "a pause between requests is no slow header");
    })
    .await;
}

#[tokio::test]
async fn a_slow_header_ends_also_on_a_connection_that_was_served_before() {
    let limits = Limits { header_timeout: SOON, ..Limits::default() };
    serving(limits, hello, async |address| {
        let mut client = connect(address).await;
        assert_eq!(client.ask(GET).await.status, 200);
        client.send("GET /").await;
        assert_eq!(client.rest().await, "");
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let limits = Limits { idle_timeout: SOON, ..Limits::default() };
    serving(limits, hello, async |address| {
        let mut client = connect(address).await;
        assert_eq!(client.ask(GET).await.status, 200);
        assert_eq!(client.rest().await, "");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let limits = Limits { body_timeout: SOON, ..Limits::default() };
    serving(limits, echo, async |address| {
        let answer = ask(address, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhel").await;
        assert_eq!((answer.status, answer.body.as_str()), (408, "The body did not arrive within 0.5 s.\n"));
        assert!(answer.head.contains("connection: close"), "{}", answer.head);
    })
    .await;
}

/// Connects as soon as the server has a free slot.
async fn connect_when_there_is_room(address: SocketAddr) -> Client<tokio::net::TcpStream> {
    loop {
        let mut client = connect(address).await;
        client.try_send(GET).await;
        if client.head().await.starts_with("http/1.1 200") {
            return client;
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_gives_its_slot_back() {
    let limits = Limits { write_timeout: SOON, max_connections: 1, ..Limits::default() };
    let large = |_: Request| async { Response::text(StatusCode::OK, "x".repeat(32 << 20)) };
    serving(limits, large, async |address| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut deaf = Client::new(socket.connect(address).await.unwrap());
        deaf.send(GET).await;
        connect_when_there_is_room(address).await;
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_get_503_and_the_others_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let listen = [client::loopback(), vec![Listen::Unix { path: path.clone(), mode: 0o600 }]].concat();
    let server = Server::bind(&listen, Limits { max_connections: 2, ..Limits::default() }).unwrap();
    let address = server.addresses()[0];
    serving_on(server, hello, async || {
        let (mut first, mut second) = (connect(address).await, connect(address).await);
        assert_eq!(first.ask(GET).await.status, 200);
        assert_eq!(second.ask(GET).await.status, 200);
        for _ in 0..3 {
            let mut third = connect(address).await;
            let answer = third.answer().await;
            assert_eq!((answer.status, answer.body.as_str()), (503, "Too many connections.\n"));
            assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
            assert_eq!(third.rest().await, "");
        }
        let mut over_unix = Client::new(UnixStream::connect(&path).await.unwrap());
        assert_eq!(over_unix.ask(GET).await.status, 200, "a full port does not shut the unix socket");
        assert_eq!(first.ask(GET).await.status, 200);
        drop(first);
        connect_when_there_is_room(address).await;
        assert_eq!(second.ask(GET).await.status, 200);
    })
    .await;
}

/// Else one host with 512 sockets could shut the port for as long as honest clients' pauses last.
#[tokio::test]
async fn who_fills_a_port_from_one_address_makes_room_for_everybody_else() {
    let limits = Limits { max_connections: 16, ..Limits::default() };
    serving(limits, hello, async |address| {
        let from = async |source: &str| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
            Client::new(socket.connect(address).await.unwrap())
        };
        let mut before = from("127.0.0.2").await;
        assert_eq!(before.ask(GET).await.status, 200);
        let mut crowd = Vec::new();
        for served in 0..15 {
            let mut one = from("127.0.0.1").await;
            if served % 2 == 0 {
                assert_eq!(one.ask(GET).await.status, 200);
            }
            crowd.push(one);
        }
        let mut newcomers = Vec::new();
        for host in 3..8 {
            let mut newcomer = from(&format!("127.0.0.{host}")).await;
            assert_eq!(newcomer.ask(GET).await.status, 200);
            newcomers.push(newcomer);
        }
        assert_eq!(from("127.0.0.1").await.answer().await.status, 503, "not for one more of the crowd");
        for one in newcomers.iter_mut().chain([&mut before]) {
            assert_eq!(one.ask(GET).await.status, 200, "who was in before stays");
        }
    })
    .await;
}
