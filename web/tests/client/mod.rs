//! A client that sees every byte, and a server to aim it at.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses its part, and all of it is tests")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use web::{Limits, Listen, Request, Response, Server, StatusCode};

/// Longer than anything here takes; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

pub(crate) fn loopback() -> Vec<Listen> {
    vec![Listen::Tcp("127.0.0.1:0".parse().unwrap())]
}

/// Serves on a loopback port while `client` runs, then stops and waits for the end.
pub(crate) async fn serving<H, F>(limits: Limits, handler: H, client: impl AsyncFnOnce(SocketAddr))
where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    let server = Server::bind(&loopback(), limits).unwrap();
    let address = server.addresses()[0];
    serving_on(server, handler, async || client(address).await).await;
}

pub(crate) async fn serving_on<H, F>(server: Server, handler: H, client: impl AsyncFnOnce())
where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    let (stop, stopped) = oneshot::channel::<()>();
    let server = server.serve(handler, async { stopped.await.unwrap() });
    let client = async {
        client().await;
        stop.send(()).unwrap();
    };
    timeout(PATIENCE, async { tokio::join!(server, client) }).await.expect("neither client nor server hangs");
}

pub(crate) async fn hello(request: Request) -> Response {
    Response::text(StatusCode::OK, format!("{} {}\n", request.method(), request.path()))
}

/// Answers with the body, of which it takes 1000 bytes.
pub(crate) async fn echo(mut request: Request) -> Response {
    match request.body(1000).await {
        Ok(body) => Response::new(StatusCode::OK, "application/octet-stream", body),
        Err(refusal) => refusal,
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) struct Client<S> {
    stream: S,
    received: Vec<u8>,
}

pub(crate) async fn connect(address: SocketAddr) -> Client<TcpStream> {
    Client::new(TcpStream::connect(address).await.unwrap())
}

/// One request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: &str) -> Answer {
    connect(address).await.ask(request).await
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// As `send`, for a server that may have closed.
    pub(crate) async fn try_send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.ok();
    }

    pub(crate) async fn say_no_more(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.parse().unwrap());
        while self.received.len() < length {
            assert!(self.receive().await > 0, "closed within a body of {length} bytes: {head}");
        }
        let body = self.received.drain(..length).collect();
        Answer { status: head[9..12].parse().unwrap(), head, body: String::from_utf8(body).unwrap() }
    }

    /// The next head; what follows it stays to be read.
    pub(crate) async fn head(&mut self) -> String {
        let end = loop {
            match self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(start) => break start + 4,
                None => assert!(self.receive().await > 0, "closed instead of an answer"),
            }
        };
        String::from_utf8(self.received.drain(..end).collect()).unwrap().to_lowercase()
    }

    /// All that comes until the server closes, or resets.
    pub(crate) async fn rest(&mut self) -> String {
        while self.receive().await > 0 {}
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    /// All that comes until the server closes, whatever it is.
    pub(crate) async fn skip_rest(&mut self) {
        while self.receive().await > 0 {}
    }

    /// One answer, or what comes until the server closes.
    pub(crate) async fn until_quiet(&mut self) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.received).into_owned();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
            if let (Some(length), Some(body)) = (length, body)
                && body.len() >= length.parse().unwrap()
            {
                return text;
            }
            if self.receive().await == 0 {
                return text;
            }
        }
    }

    async fn receive(&mut self) -> usize {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received));
        read.await.expect("an answer or an end in good time").unwrap_or(0)
    }
}
