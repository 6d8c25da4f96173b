//! What a handler is asked.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use tokio::time::timeout;

use crate::body::Share;
use crate::timed::Progress;
use crate::{Identity, Limits, Response, StatusCode, header, query};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, from this address; `::ffff:a.b.c.d` is shown as the IPv4 address that it is.
    Tcp(SocketAddr),
    /// Over a unix socket: the file's mode has decided who may.
    Unix {
        /// The user who connected, as the kernel knows it (SO_PEERCRED).
        uid: u32,
        /// The process that connected; none if it is in a PID namespace that we cannot see.
        pid: Option<i32>,
    },
}

impl Peer {
    /// Whether it came over a unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix { .. })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { uid, pid: Some(pid) } => write!(f, "unix uid {uid} pid {pid}"),
            Self::Unix { uid, pid: None } => write!(f, "unix uid {uid}"),
        }
    }
}

/// A request, whose body is read only when asked for. What the body took of the budget for all bodies is given back when
/// the request is dropped: keep it as long as the bytes.
#[derive(Debug)]
pub struct Request {
    head: Parts,
    body: Incoming,
    unread: bool,
    share: Share,
    peer: Peer,
    identity: Option<Identity>,
    limits: Rc<Limits>,
    progress: Rc<Progress>,
}

impl Request {
    pub(crate) fn new(
        request: hyper::Request<Incoming>,
        share: Share,
        peer: Peer,
        limits: Rc<Limits>,
        progress: Rc<Progress>,
    ) -> Self {
        let (head, body) = request.into_parts();
        let unread = !body.is_end_stream();
        Self { head, body, unread, share, peer, identity: None, limits, progress }
    }

    /// The method. HEAD is answered as GET is: the server leaves the body out.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The path as it was sent, without the query.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The pairs of the query in their order, decoded; a key may come several times.
    pub fn query(&self) -> impl Iterator<Item = (String, String)> + '_ {
        query::pairs(self.head.uri.query().unwrap_or(""))
    }

    /// The header of this name (any case), the first if it was sent twice; none if it is not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// Who asks.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// As whom the client has proved itself: the password, token or certificate that [`Security`](crate::Security) asks for
    /// was right. None where nothing is asked for, and over a unix socket.
    pub fn authenticated(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    pub(crate) fn head(&self) -> &Parts {
        &self.head
    }

    pub(crate) fn set_authenticated(&mut self, identity: Option<Identity>) {
        self.identity = identity;
    }

    /// The body, of at most `limit` bytes. Until this is called the client is not even told to go on (`Expect:
    /// 100-continue`): authenticate first.
    ///
    /// # Errors
    /// The answer to give: 413 (before a byte is read, where the length is announced), 408 when the body is not there
    /// within [`Limits::body_timeout`], 400 when it ends early, 503 when all bodies together exceed
    /// [`Limits::body_budget`].
    pub async fn body(&mut self, limit: usize) -> Result<Bytes, Response> {
        if self.body.size_hint().lower() > limit as u64 {
            return Err(too_large(limit));
        }
        let time = self.limits.body_timeout;
        timeout(time, self.collect(limit)).await.unwrap_or_else(|_| {
            let sentence = format!("The body did not arrive within {} s.\n", time.as_secs_f32());
            Err(Response::text(StatusCode::REQUEST_TIMEOUT, sentence))
        })
    }

    async fn collect(&mut self, limit: usize) -> Result<Bytes, Response> {
        let mut collected = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| {
                Response::text(
                    StatusCode::BAD_REQUEST,
                    format!("The body ends early or is malformed: {error}.\n"),
                )
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if collected.len() + data.len() > limit {
                return Err(too_large(limit));
            }
            if !self.share.grow(data.len()) {
                let sentence = "Too many large requests at once; try again.\n";
                let refusal = Response::text(StatusCode::SERVICE_UNAVAILABLE, sentence);
                return Err(refusal.header(header::RETRY_AFTER, "1"));
            }
            collected.extend_from_slice(&data);
        }
        self.unread = false;
        Ok(collected.freeze())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.unread {
            self.progress.leave_unread();
        }
    }
}

fn too_large(limit: usize) -> Response {
    Response::text(StatusCode::PAYLOAD_TOO_LARGE, format!("The body is larger than {limit} bytes.\n"))
}
