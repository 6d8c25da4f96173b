//! Short connections, as a busy server has them.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::net::sockopt;
use tests::{
    Result,
    responder::{Accept, KeepAlive, Responder},
    topology::Topology,
};

use crate::kinds::{FAMILIES, ask, port};

/// Short connections as fast as they go, over both families: closed by the client, or thrown away by it.
pub(crate) struct Churn {
    made: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Churn {
    pub(crate) fn start(scene: &Topology) -> Result<Self> {
        let (made, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let start = |family| -> Result<_> {
            let at = scene.server_socket(family, port::CHURN);
            let responder = Responder::start(&scene.server, at, Accept::AtOnce, KeepAlive::Off)?;
            let (made, stop) = (made.clone(), stop.clone());
            scene.peer("client").namespace.thread("churn", move || {
                let _responder = responder;
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect(at).unwrap();
                    ask(&mut stream);
                    // Faster, and the dumps of a test on two cores starve.
                    thread::sleep(Duration::from_millis(1));
                    if made.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                    }
                }
            })
        };
        let threads = FAMILIES.into_iter().map(start).collect::<Result<_>>()?;
        Ok(Self { made, stop, threads })
    }

    /// How many there were so far.
    pub(crate) fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
