//! What a sender is told when nothing can be decided now: 503 and a sentence, for Alertmanager tries again.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use conntrack_actioner::exposure::Exposure;
use conntrack_actioner::http::{Routes, route};
use conntrack_actioner::metrics::Metrics;
use conntrack_actioner::orders::{Order, Unread};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use tests::http::{Response, Server, get, post};
use web::{Gate, Limits, Listen};

const BODY: &str =
    r#"{"version":"4","alerts":[{"status":"firing","labels":{"alertname":"A","source":"198.51.100.1"}}]}"#;

/// Serves with a queue of `room`, its other end in the hands of `effects`, while `client` asks.
fn serve<T: Send>(
    room: usize,
    effects: impl FnOnce(Receiver<Order>) + Send,
    client: impl FnOnce(&Server) -> T + Send,
) -> T {
    let (orders, queue) = sync_channel(room);
    let (tell, address) = std::sync::mpsc::channel::<SocketAddr>();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || effects(queue));
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listen = [Listen::Tcp("127.0.0.1:0".parse().unwrap())];
                let server = web::Server::bind(&listen, Limits::default()).unwrap();
                tell.send(server.addresses()[0]).unwrap();
                let metrics = Metrics::new(std::iter::empty());
                let routes = Rc::new(Routes {
                    orders,
                    registry: metrics.registry("feed", "0"),
                    metrics,
                    telemetry_path: "/metrics".to_owned(),
                    lifecycle: true,
                    policy_file: "/nowhere/policy.yaml".into(),
                    scrapes: Gate::new(4),
                    exposure: Exposure::new(&listen, Rc::default(), false),
                    published: Default::default(),
                    confined: Default::default(),
                    reload_error: Default::default(),
                    switch: Default::default(),
                });
                let handler = move |request| route(Rc::clone(&routes), request);
                server.serve(handler, async { drop(stopped.await) }).await;
            });
        });
        let address = Server::Tcp(address.recv().unwrap());
        let told = client(&address);
        drop(stop);
        told
    })
}

fn webhook(server: &Server) -> Response {
    post(server, "/webhook", &[], BODY.as_bytes()).unwrap()
}

#[test]
fn a_full_queue() {
    let (done, until) = std::sync::mpsc::channel::<()>();
    let answer = serve(
        0,
        move |queue| {
            let _ = until.recv();
            drop(queue);
        },
        |server| {
            let answers = [webhook(server), webhook(server)];
            let reload = post(server, "/-/reload", &[], b"").unwrap();
            assert_eq!(reload.status, 500, "its file is not there: {}", reload.text());
            let metrics = get(server, "/metrics", &[]).unwrap().text();
            assert!(metrics.contains("conntrack_actioner_webhooks_total{code=\"503\"} 2"), "{metrics}");
            drop(done);
            answers
        },
    );
    for answer in answer {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
        assert_eq!(answer.text(), "more webhooks wait than this host can take\n");
    }
}

#[test]
fn nobody_behind_it() {
    let answer = serve(1, drop, |server| {
        // Whether the queue's end or the reply's is found gone first, the words are the same.
        webhook(server)
    });
    assert_eq!((answer.status, answer.text().as_str()), (503, "shutting down\n"));
}

#[test]
fn a_table_that_cannot_be_read() {
    let answer = serve(
        1,
        |queue| {
            if let Ok(Order::Decide(notification, reply)) = queue.recv() {
                assert_eq!(notification.alerts.len(), 1);
                reply.send(Err(Unread("the live table cannot be read".to_owned()))).unwrap();
            }
        },
        webhook,
    );
    assert_eq!((answer.status, answer.text().as_str()), (503, "the live table cannot be read\n"));
}

#[test]
fn a_decision_that_takes_too_long() {
    let answer = serve(
        1,
        |queue| {
            let order = queue.recv();
            // The server's end hangs up when it has given up: then the reply has nobody to go to.
            let _ = queue.recv();
            drop(order);
        },
        webhook,
    );
    assert_eq!((answer.status, answer.text().as_str()), (503, "no decision within 8 s; the work goes on\n"));
}
