//! As much of an HTTP/1.1 client as the laboratory needs: one request a connection.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Failure, Result, failure::Tried};

const TIMEOUT: Duration = Duration::from_secs(15);

/// Where a server listens. A TCP address means the one in the namespace of the calling thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// A TCP socket.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for Server {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<&Path> for Server {
    fn from(path: &Path) -> Self {
        Self::Unix(path.into())
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, with their values, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body, its transfer encoding removed.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name, which is to be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// `GET path`, with more header lines (without line ends).
///
/// # Errors
/// When nobody listens, the server is silent for 15 s, or the answer is not HTTP.
pub fn get(server: &Server, path: &str, headers: &[&str]) -> Result<Response> {
    request(server, "GET", path, headers, b"")
}

/// `POST path` with a body.
///
/// # Errors
/// As [`get`].
pub fn post(server: &Server, path: &str, headers: &[&str], body: &[u8]) -> Result<Response> {
    request(server, "POST", path, headers, body)
}

/// `DELETE path`.
///
/// # Errors
/// As [`get`].
pub fn delete(server: &Server, path: &str) -> Result<Response> {
    request(server, "DELETE", path, &[], b"")
}

fn request(server: &Server, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Result<Response> {
    let what = || format!("{method} {path} at {server:?}");
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: laboratory\r\nConnection: close\r\n");
    for header in headers {
        text += header;
        text += "\r\n";
    }
    if method == "POST" {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    let bytes = [text.as_bytes(), body].concat();
    let answer = match server {
        Server::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, TIMEOUT).tried(what)?;
            stream.set_read_timeout(Some(TIMEOUT)).tried(what)?;
            exchange(stream, &bytes)
        }
        Server::Unix(path) => {
            let stream = UnixStream::connect(path).tried(what)?;
            stream.set_read_timeout(Some(TIMEOUT)).tried(what)?;
            exchange(stream, &bytes)
        }
    };
    parse(&answer.tried(what)?).map_err(|detail| Failure::answer(what(), detail))
}

fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    // A server may refuse a long body by its header, answer and close: the answer counts.
    let written = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(written.err().unwrap_or(error)),
        _ => Ok(answer),
    }
}

fn parse(bytes: &[u8]) -> Result<Response, String> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| {
        format!("no end of the header in {} bytes: {:?}", bytes.len(), String::from_utf8_lossy(bytes))
    })?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| format!("no status code in {first:?}"))?;
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut response = Response { status, headers, body: bytes[end + 4..].to_vec() };
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = dechunk(&response.body)?;
    } else if let Some(length) = response.header("content-length") {
        let wanted: usize = length.parse().map_err(|_| format!("content-length {length:?}"))?;
        if response.body.len() < wanted {
            return Err(format!("the body ends after {} of {wanted} bytes", response.body.len()));
        }
        response.body.truncate(wanted);
    }
    Ok(response)
}

/// RFC 9112, 7.1; trailers are dropped.
fn dechunk(mut bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|two| two == b"\r\n").ok_or("a chunk without a size line")?;
        let size = String::from_utf8_lossy(&bytes[..line]);
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| format!("chunk size {size:?}"))?;
        let start = line + 2;
        if size == 0 {
            return Ok(body);
        }
        let chunk = bytes.get(start..start + size).ok_or("a chunk is shorter than its size")?;
        body.extend_from_slice(chunk);
        bytes = bytes.get(start + size + 2..).ok_or("the body ends inside a chunk")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_joined() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\nA;x=y\r\npedia i\r\n.\r\n0\r\n\r\n";
        let response = parse(answer).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "Wikipedia i\r\n."));
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
            b"HTTP/1.1 200 OK\r\n",
            b"",
        ] {
            assert!(parse(answer).is_err(), "{:?}", String::from_utf8_lossy(answer));
        }
    }
}
