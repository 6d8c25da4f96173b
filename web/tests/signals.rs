//! SIGTERM and SIGINT end a server in order. Alone in its program: signals are for the whole process.

mod client;

use client::{GET, PATIENCE, connect, hello, loopback};
use rustix::process::{Signal, getpid, kill_process};
use tokio::time::timeout;
use web::{Limits, Server};

#[tokio::test]
async fn either_signal_stops_the_server() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::bind(&loopback(), Limits::default()).unwrap();
        let address = server.addresses()[0];
        let serving = server.serve(hello, web::shutdown::signal());
        let client = async {
            let mut client = connect(address).await;
            assert_eq!(client.ask(GET).await.status, 200);
            kill_process(getpid(), signal).unwrap();
            assert_eq!(client.rest().await, "");
        };
        timeout(PATIENCE, async { tokio::join!(serving, client) }).await.unwrap();
    }
}
