//! A small HTTP server: whoever else is told about an alert, or relays a scrape.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use crate::{Result, failure::Tried, netns::Namespace};

/// How long a sender may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was received.
#[derive(Debug, Clone)]
pub struct Received {
    /// When it was complete.
    pub at: SystemTime,
    /// The path asked for, its query included.
    pub path: String,
    /// The body.
    pub body: String,
}

/// What is answered to each request, with status 200.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The header of that name; none when empty.
    pub content_type: String,
    /// The body.
    pub body: String,
}

/// A server on a thread of its own, until it is dropped. It takes one request a connection, one after the other.
#[derive(Debug)]
pub struct Receiver {
    received: Arc<Mutex<Vec<Received>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens at `address` in the namespace and answers each request with what `answer` makes of it, there.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        answer: impl Fn(&Received) -> Answer + Send + 'static,
    ) -> Result<Self> {
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        };
        let listener = namespace.run(listen).tried(|| format!("listening at {address}"))?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (diary, until) = (received.clone(), stop.clone());
        let thread = namespace.thread(&format!("receiver {address}"), move || {
            while !until.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        // A sender who breaks off has told us nothing.
                        if let Ok(request) = exchange(stream, &answer) {
                            diary.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                        }
                    }
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        })?;
        Ok(Self { received, stop, thread: Some(thread) })
    }

    /// Everything received so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn exchange(stream: TcpStream, answer: impl Fn(&Received) -> Answer) -> io::Result<Received> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = header.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let request = Received { at: SystemTime::now(), path, body };
    let Answer { content_type, body } = answer(&request);
    let kind =
        if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
    let head =
        format!("HTTP/1.1 200 OK\r\n{kind}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    reader.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    Ok(request)
}
