//! Requests that two readers could take for different ones: no second request is found in the first one's body, and who sends such
//! a thing is answered and closed.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod client;

use std::cell::RefCell;
use std::rc::Rc;

use client::{GET, ask, connect, serving};
use web::{Limits, Request, Response, StatusCode};

/// What would be a request of its own, if the one before it ended early.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: test\r\n\r\n";

/// The head of a POST with these lines, a body, and what is hidden behind it.
fn post(lines: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: test\r\n{lines}\r\n\r\n{body}{HIDDEN}")
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_hides_no_request() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let paths = Rc::clone(&seen);
    let handler = move |mut request: Request| {
        let paths = Rc::clone(&paths);
        async move {
            paths.borrow_mut().push(request.path().to_owned());
            match request.body(1000).await {
                Ok(_) => Response::text(StatusCode::OK, "read\n"),
                Err(refusal) => refusal,
            }
        }
    };
    let long = "x".repeat(100_000);
    let extension = format!("5;{long}\r\nhello\r\n0\r\n\r\n");
    let trailer = format!("5\r\nhello\r\n0\r\nX: {long}\r\n\r\n");
    let length = HIDDEN.len();
    let cases: Vec<(String, &[u16])> = vec![
        (post(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"), "0\r\n\r\n"), &[200, 400]),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 3", "0\r\n\r\n"), &[200, 400]),
        (post("Content-Length: 0\r\nContent-Length: 5", ""), &[400]),
        (post("Content-Length: 0, 5", ""), &[400]),
        (post("Content-Length: +0", ""), &[400]),
        (post("Content-Length: -1", ""), &[400]),
        (post("Content-Length: 0x0", ""), &[400]),
        (post("Content-Length: 99999999999999999999", ""), &[400]),
        (post("Content-Length: 18446744073709551615", ""), &[400, 413, 431]),
        (post("Content-Length : 0", ""), &[400]),
        (post("Content-Length: 9223372036854775807", ""), &[413]),
        (post("Transfer-Encoding: xchunked", "0\r\n\r\n"), &[400]),
        (post("Transfer-Encoding: identity", "0\r\n\r\n"), &[400]),
        (post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"), &[400]),
        (post("Transfer-Encoding : chunked", "0\r\n\r\n"), &[400]),
        (post("Transfer-Encoding: chunked", "FFFFFFFFFFFFFFFFF\r\n"), &[400]),
        (post("Transfer-Encoding: chunked", "FFFFFFFFFFFFFFF0\r\n"), &[400, 413]),
        (post("Transfer-Encoding: chunked", "-5\r\nhello\r\n0\r\n\r\n"), &[400]),
        (post("Transfer-Encoding: chunked", &extension), &[400]),
        (post("Transfer-Encoding: chunked", &trailer), &[400]),
        (format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"), &[400]),
        (format!("GET / HTTP/1.1\r\nHost: test\r\n X: folded\r\n\r\n{HIDDEN}"), &[400]),
        (format!("GET / HTTP/1.1\r\nHost: test\r\nX\0Y: z\r\n\r\n{HIDDEN}"), &[400]),
        (format!("GET / HTTP/1.1\r\nHost: test\r\nX: a\rb\r\n\r\n{HIDDEN}"), &[400]),
        (format!("GET / HTTP/9.9\r\nHost: test\r\n\r\n{HIDDEN}"), &[400]),
        // HTTP/2 without TLS is not spoken: closed without a word.
        (format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{HIDDEN}"), &[0, 400]),
    ];
    serving(Limits::default(), handler, async |address| {
        let mut wrong = Vec::new();
        for (request, expected) in &cases {
            seen.borrow_mut().clear();
            let mut client = connect(address).await;
            client.try_send(request).await;
            client.say_no_more().await;
            let rest = client.rest().await;
            let status: u16 = rest.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
            let answers = rest.matches("HTTP/1.1 ").count();
            let hidden = seen.borrow().iter().any(|path| path == "/hidden");
            if !expected.contains(&status) || answers != usize::from(status != 0) || hidden {
                let shown: String = request.chars().take(120).collect();
                wrong.push(format!("{shown:?}: {answers} answers, hidden {hidden}: {rest:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(ask(address, GET).await.status, 200);
    })
    .await;
}
