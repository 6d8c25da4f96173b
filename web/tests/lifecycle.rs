//! Running requests end, whatever their clients or the operator do meanwhile.

mod client;

use std::rc::Rc;
use std::time::{Duration, Instant};

use client::{GET, PATIENCE, connect, loopback, serving};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use web::{Limits, Request, Response, Server, StatusCode};

/// A handler that says when it began, and ends when it is told to; `/quick` ends at once.
#[derive(Clone, Default)]
struct Slow {
    began: Rc<Notify>,
    go_on: Rc<Notify>,
    ended: Rc<Notify>,
}

impl Slow {
    fn handler(&self) -> impl Fn(Request) -> std::pin::Pin<Box<dyn Future<Output = Response>>> + 'static {
        let slow = self.clone();
        move |request| {
            let slow = slow.clone();
            Box::pin(async move {
                if request.path() == "/" {
                    slow.began.notify_one();
                    slow.go_on.notified().await;
                    slow.ended.notify_one();
                }
                Response::text(StatusCode::OK, "done\n")
            })
        }
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_running_requests_and_for_nothing_else() {
    let limits = Limits { drain: PATIENCE * 2, header_timeout: PATIENCE * 2, ..Limits::default() };
    let server = Server::bind(&loopback(), limits).unwrap();
    let address = server.addresses()[0];
    let (stop, stopped) = oneshot::channel::<()>();
    let slow = Slow::default();
    let serving = server.serve(slow.handler(), async { stopped.await.unwrap() });
    let clients = async {
        let mut idle = connect(address).await;
        assert_eq!(idle.ask(&GET.replace(" / ", " /quick ")).await.status, 200);
        let mut silent = connect(address).await;
        let mut half = connect(address).await;
        half.send("GET /").await;
        let mut running = connect(address).await;
        running.send(GET).await;
        slow.began.notified().await;
        stop.send(()).unwrap();
        assert_eq!(idle.rest().await, "");
        assert_eq!(silent.rest().await, "");
        assert_eq!(half.rest().await, "");
        assert!(TcpStream::connect(address).await.is_err(), "nobody new is let in");
        slow.go_on.notify_one();
        let answer = running.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "done\n"));
        assert!(answer.head.contains("connection: close"), "{}", answer.head);
    };
    timeout(PATIENCE, async { tokio::join!(serving, clients) }).await.unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_delays_the_shutdown_by_the_drain_and_no_longer() {
    let drain = Duration::from_millis(100);
    let server = Server::bind(&loopback(), Limits { drain, ..Limits::default() }).unwrap();
    let address = server.addresses()[0];
    let slow = Slow::default();
    let mut client = connect(address).await;
    client.send(GET).await;
    let stopped = Rc::clone(&slow.began);
    let serving = server.serve(slow.handler(), async move { stopped.notified().await });
    let began = Instant::now();
    timeout(PATIENCE, serving).await.unwrap();
    assert!(began.elapsed() >= drain);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_nothing() {
    let slow = Slow::default();
    serving(Limits { drain: PATIENCE, ..Limits::default() }, slow.handler(), async |address| {
        let mut client = connect(address).await;
        client.send(GET).await;
        slow.began.notified().await;
        drop(client);
        // The server has seen it go when it has answered somebody who came later.
        assert_eq!(connect(address).await.ask(&GET.replace(" / ", " /quick ")).await.status, 200);
        slow.go_on.notify_one();
        slow.ended.notified().await;
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_waits_for_a_request_whose_client_is_gone() {
    let server = Server::bind(&loopback(), Limits { drain: PATIENCE * 2, ..Limits::default() }).unwrap();
    let address = server.addresses()[0];
    let (stop, stopped) = oneshot::channel::<()>();
    let slow = Slow::default();
    let serving = server.serve(slow.handler(), async { stopped.await.unwrap() });
    let client = async {
        let mut client = connect(address).await;
        client.send(GET).await;
        slow.began.notified().await;
        drop(client);
        stop.send(()).unwrap();
        while TcpStream::connect(address).await.is_ok() {}
        slow.go_on.notify_one();
    };
    timeout(PATIENCE, async { tokio::join!(serving, client) }).await.unwrap();
    timeout(PATIENCE, slow.ended.notified()).await.expect("the handler ran to its end");
}
