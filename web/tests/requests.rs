//! What a handler sees of a request, and what a client gets.

mod client;

use client::{Client, GET, ask, connect, echo, hello, serving, serving_on};
use tokio::net::UnixStream;
use web::{Limits, Listen, Request, Response, Server, StatusCode};

fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn several_listeners_and_a_unix_socket_answer_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let tcp = |address: &str| Listen::Tcp(address.parse().unwrap());
    let listen = [tcp("[::]:0"), tcp("127.0.0.1:0"), Listen::Unix { path: path.clone(), mode: 0o600 }];
    let server = Server::bind(&listen, Limits::default()).unwrap();
    let [all, loopback] = server.addresses()[..] else { panic!("two TCP addresses") };
    let peer = |request: Request| async move { Response::text(StatusCode::OK, request.peer().to_string()) };
    serving_on(server, peer, async || {
        let mut over_unix = Client::new(UnixStream::connect(&path).await.unwrap());
        let mut over_ipv6 = connect(([0, 0, 0, 0, 0, 0, 0, 1], all.port()).into()).await;
        let mut over_mapped_ipv4 = connect(([127, 0, 0, 1], all.port()).into()).await;
        let mut over_ipv4 = connect(loopback).await;
        assert!(over_unix.ask(GET).await.body.starts_with("unix uid "));
        assert!(over_ipv6.ask(GET).await.body.starts_with("[::1]:"));
        assert!(over_mapped_ipv4.ask(GET).await.body.starts_with("127.0.0.1:"));
        assert!(over_ipv4.ask(GET).await.body.starts_with("127.0.0.1:"));
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    serving(Limits::default(), hello, async |address| {
        let mut client = connect(address).await;
        for path in ["/a", "/b"] {
            let answer = client.ask(&GET.replace(" / ", &format!(" {path} "))).await;
            assert_eq!((answer.status, answer.body), (200, format!("GET {path}\n")));
        }
        client.send(&GET.repeat(3)).await;
        for _ in 0..3 {
            assert_eq!(client.answer().await.status, 200);
        }
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
        assert!(client.rest().await.ends_with("GET /\n"));
    })
    .await;
}

#[tokio::test]
async fn head_gets_the_length_and_no_body() {
    serving(Limits::default(), hello, async |address| {
        let mut client = connect(address).await;
        client.send(&GET.replace("GET", "HEAD")).await;
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 7"), "{head}");
        assert_eq!(client.ask(GET).await.body, "GET /\n", "the next answer follows at once");
    })
    .await;
}

#[tokio::test]
async fn query_and_headers_reach_the_handler() {
    let handler = |request: Request| async move {
        let query: Vec<_> = request.query().collect();
        Response::text(
            StatusCode::OK,
            format!("{query:?} {:?} {:?}", request.header("accept"), request.header("absent")),
        )
    };
    serving(Limits::default(), handler, async |address| {
        let request =
            "GET /m?collect[]=a&collect%5b]=b+c HTTP/1.1\r\nHost: test\r\nACCEPT: text/plain\r\n\r\n";
        let expected = r#"[("collect[]", "a"), ("collect[]", "b c")] Some("text/plain") None"#;
        assert_eq!(ask(address, request).await.body, expected);
    })
    .await;
}

#[tokio::test]
async fn bodies_arrive_whole_and_the_connection_lives_on() {
    serving(Limits::default(), echo, async |address| {
        let mut client = connect(address).await;
        assert_eq!(client.ask(&(post(5) + "hello")).await.body, "hello");
        assert_eq!(client.ask(&format!("{CHUNKED}2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")).await.body, "hello");
        assert_eq!(client.ask(&(post(1000) + &"x".repeat(1000))).await.body.len(), 1000);
        assert_eq!(client.ask(GET).await.body, "");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_asks_whether_to_go_on_is_told_when_the_handler_wants_the_body() {
    serving(Limits::default(), echo, async |address| {
        let mut client = connect(address).await;
        client.send(&post(5).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n")).await;
        assert!(client.head().await.starts_with("http/1.1 100 continue"));
        assert_eq!(client.ask("hello").await.body, "hello");
    })
    .await;
}

#[tokio::test]
async fn an_announced_length_above_the_limit_is_413_before_a_byte_of_it() {
    serving(Limits::default(), echo, async |address| {
        for expect in ["", "\r\nExpect: 100-continue"] {
            let mut client = connect(address).await;
            let answer = client.ask(&post(1001).replace("\r\n\r\n", &format!("{expect}\r\n\r\n"))).await;
            assert_eq!((answer.status, answer.body.as_str()), (413, "The body is larger than 1000 bytes.\n"));
            assert!(answer.head.contains("connection: close"), "{}", answer.head);
            client.say_no_more().await;
            assert_eq!(client.rest().await, "");
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_sends_all_of_10_mb_before_it_reads_still_gets_its_413() {
    serving(Limits::default(), echo, async |address| {
        let mut client = connect(address).await;
        client.send(&post(10_000_000)).await;
        client.send(&"x".repeat(10_000_000)).await;
        assert_eq!(client.answer().await.status, 413);
    })
    .await;
}

#[tokio::test]
async fn chunks_beyond_the_limit_are_413() {
    serving(Limits::default(), echo, async |address| {
        let mut client = connect(address).await;
        let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
        let answer = client.ask(&format!("{CHUNKED}{chunk}{chunk}")).await;
        assert_eq!(answer.status, 413);
        client.say_no_more().await;
        assert_eq!(client.rest().await, "");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_ends_early_or_is_malformed_is_400() {
    serving(Limits::default(), echo, async |address| {
        for broken in [post(5) + "hel", format!("{CHUNKED}5\r\nhel"), format!("{CHUNKED}five\r\nhello\r\n")] {
            let mut client = connect(address).await;
            client.send(&broken).await;
            client.say_no_more().await;
            let answer = client.answer().await;
            assert_eq!(answer.status, 400, "{broken:?}");
            assert!(answer.body.contains("ends early or is malformed"), "{}", answer.body);
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_the_handler_does_not_want_ends_the_connection_after_the_answer() {
    serving(Limits::default(), hello, async |address| {
        let mut client = connect(address).await;
        let answer = client.ask(&post(2_000_000)).await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("connection: close"), "{}", answer.head);
        client.say_no_more().await;
        assert_eq!(client.rest().await, "");
    })
    .await;
}

#[tokio::test]
async fn bodies_share_a_budget_which_comes_back_with_the_request() {
    let limits = Limits { body_budget: 1500, ..Limits::default() };
    serving(limits, echo, async |address| {
        let mut first = connect(address).await;
        first.send(&(post(1000) + &"x".repeat(999))).await;
        // The first has its 999 bytes once a request that needs more than the rest is refused.
        let mut second = connect(address).await;
        let refused = loop {
            let answer = second.ask(&(post(502) + &"x".repeat(502))).await;
            if answer.status != 200 {
                break answer;
            }
        };
        assert_eq!(refused.status, 503);
        assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
        assert_eq!(first.ask("x").await.status, 200);
        assert_eq!(ask(address, &(post(1000) + &"x".repeat(1000))).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn bodies_that_fill_a_port_leave_the_unix_socket_its_own_budget() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let listen = [client::loopback(), vec![Listen::Unix { path: path.clone(), mode: 0o600 }]].concat();
    let server = Server::bind(&listen, Limits { body_budget: 1000, ..Limits::default() }).unwrap();
    let address = server.addresses()[0];
    serving_on(server, echo, async || {
        let mut slow = connect(address).await;
        slow.send(&(post(1000) + &"x".repeat(999))).await;
        while ask(address, &(post(2) + "xx")).await.status != 503 {}
        let mut over_unix = Client::new(UnixStream::connect(&path).await.unwrap());
        let answer = over_unix.ask(&(post(1000) + &"x".repeat(1000))).await;
        assert_eq!(answer.status, 200, "an order by hand is taken: {}", answer.body);
        assert_eq!(slow.ask("x").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    serving(Limits::default(), hello, async |address| {
        let mut client = connect(address).await;
        client.send("\x16\x03\x01 not http\r\n\r\n").await;
        assert!(client.rest().await.starts_with("HTTP/1.1 400"));
        let long = format!("GET / HTTP/1.1\r\nHost: test\r\nX-Long: {}\r\n\r\n", "x".repeat(17_000));
        let mut client = connect(address).await;
        client.try_send(&long).await;
        assert!(client.rest().await.starts_with("HTTP/1.1 431"));
    })
    .await;
}
