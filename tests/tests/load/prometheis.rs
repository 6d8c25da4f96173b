//! A hundred Prometheis at once.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use tests::programs::Program;

pub(crate) const CONNECTIONS: usize = 100;
/// Prometheus's default, which it sends in its header.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
pub(crate) const SCRAPE: &[u8] =
    b"GET /metrics HTTP/1.1\r\nHost: load\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\nConnection: keep-alive\r\n\r\n";

/// What each of them asks over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Over {
    /// One connection for all, as Prometheus does.
    One,
    /// A new one each time.
    Another,
}

/// Whom they ask, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) program: Program,
    pub(crate) over: Over,
}

impl Round {
    /// So many scrapes by a hundred at once: what each took.
    pub(crate) fn of(self, count: usize) -> Vec<Duration> {
        let each = count / CONNECTIONS;
        thread::scope(|scope| {
            let all: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(move || self.one(each))).collect();
            all.into_iter().flat_map(|thread| thread.join().expect("no scrape fails")).collect()
        })
    }

    fn one(self, count: usize) -> Vec<Duration> {
        let address = self.program.default_address();
        let mut stream = connect(address);
        let mut took = Vec::with_capacity(count);
        for number in 0..count {
            let began = Instant::now();
            if number > 0 && matches!(self.over, Over::Another) {
                stream = connect(address);
            }
            let text = scrape(&mut stream);
            took.push(began.elapsed());
            assert!(is_whole(self.program, &text), "not the whole answer: {text}");
        }
        took
    }
}

pub(crate) fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE * 6)).expect("a timeout");
    BufReader::new(stream)
}

fn scrape(stream: &mut BufReader<TcpStream>) -> String {
    stream.get_mut().write_all(SCRAPE).expect("a request is sent");
    let mut line = String::new();
    stream.read_line(&mut line).expect("a status line");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).expect("a header");
        let header = line.trim_end().to_ascii_lowercase();
        match header.strip_prefix("content-length: ") {
            Some(value) => length = value.parse().expect("a length"),
            None if header.is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    String::from_utf8(body).expect("text")
}

/// The exporter's has the entries that the test made, and those of its own connections.
fn is_whole(program: Program, text: &str) -> bool {
    let sample = |name| text.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok());
    match program {
        Program::Exporter => sample("nf_conntrack_entries ").is_some_and(|entries| entries >= 3000.0),
        Program::Actioner => sample("conntrack_actioner_active_bans ").is_some(),
    }
}
