//! A process without descriptors waits for better times. Alone in its program: the limit is for the whole process.

mod client;

use std::fs::File;
use std::time::{Duration, Instant};

use client::{Client, GET, connect, hello, serving};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpSocket;
use web::Limits;

fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("CPU time is positive")
}

#[tokio::test]
async fn accepting_rests_without_spinning_and_goes_on_when_there_are_descriptors_again() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    serving(Limits::default(), hello, async |address| {
        let mut before = connect(address).await;
        assert_eq!(before.ask(GET).await.status, 200);
        let socket = TcpSocket::new_v4().unwrap();
        let mut hoard = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            hoard.push(file);
        }
        // The kernel completes this connection; accept(2) fails with EMFILE.
        let mut waiting = Client::new(socket.connect(address).await.unwrap());
        waiting.send(GET).await;
        let (began, cpu) = (Instant::now(), cpu_time());
        while began.elapsed() < Duration::from_millis(500) {
            assert_eq!(before.ask(GET).await.status, 200, "those who are in are served");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let spent = cpu_time() - cpu;
        assert!(spent < Duration::from_millis(150), "{spent:?} of CPU in {:?} of waiting", began.elapsed());
        drop(hoard);
        assert_eq!(waiting.answer().await.status, 200);
    })
    .await;
}
