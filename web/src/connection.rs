//! One connection, from its first byte to its last: **where a stream becomes requests**. Whoever must prove who he is does so
//! before the handler runs, with the body unread.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, spawn_local};
use tokio::time::Instant;

use crate::bind::Stream;
use crate::body::Budget;
use crate::handshake::{self, Opened};
use crate::security::{Reason, Tls};
use crate::slots::Rest;
use crate::timed::{Progress, Timed};
use crate::{Identity, Limits, Peer, Request, Response, Security, StatusCode};

/// Room for a request's head, in bytes; beyond it 431. Prometheus sends about 400.
const MAX_HEAD: usize = 16 << 10;

/// The most that hyper buffers of a connection, in bytes: its default of about 400 KiB is much for 512 strangers.
const MAX_BUFFER: usize = 64 << 10;

/// Requests at a time on one connection of HTTP/2. Go's client opens another connection when it has more.
const MAX_STREAMS: u32 = 32;

/// Handlers that run for one connection, those of requests that it took back included: HTTP/2 frees a place at once when a request is
/// reset, and what was begun goes on (CVE-2023-44487, "rapid reset").
const MAX_UNFINISHED: usize = 2 * MAX_STREAMS as usize;

/// What a client may send on one connection of HTTP/2 before a handler asks for it, in bytes: the least that the protocol knows,
/// and about what [`MAX_BUFFER`] is for HTTP/1.1.
const WINDOW: u32 = 65_535;

/// A stream of bytes, whatever lies below.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// What all connections of a server share.
pub(crate) struct Shared<H> {
    pub(crate) handler: H,
    pub(crate) limits: Rc<Limits>,
    pub(crate) security: Rc<Security>,
}

/// Held by everything that a shutdown waits for.
pub(crate) type Alive = mpsc::Sender<Infallible>;

struct Connection<H> {
    shared: Rc<Shared<H>>,
    budget: Budget,
    peer: Peer,
    http2: bool,
    tls: Option<Rc<Tls>>,
    identity: Option<Identity>,
    progress: Rc<Progress>,
    retire: Rc<Notify>,
    /// Ends it at once.
    cut: Rc<Notify>,
    alive: Alive,
    /// One for each handler that runs.
    unfinished: Rc<()>,
}

/// Serves one connection until its client leaves, a limit ends it or `stop` closes, which lets a running request end.
pub(crate) async fn serve<H, F>(
    stream: Stream,
    peer: Peer,
    shared: Rc<Shared<H>>,
    budget: Budget,
    rest: Rest,
    mut stop: watch::Receiver<()>,
    alive: Alive,
) where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    let opened = tokio::select! {
        opened = handshake::open(stream, peer, &shared.security, &shared.limits) => opened,
        _ = stop.changed() => return,
    };
    let Some(Opened { io, http2, tls, identity }) = opened else { return };
    let progress = Rc::new(Progress::new(Rc::clone(&shared.limits), http2, rest));
    let io = TokioIo::new(Timed::new(io, Rc::clone(&progress)));
    let (retire, cut) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
    let requests = Connection {
        shared,
        budget,
        peer,
        http2,
        tls,
        identity,
        progress: Rc::clone(&progress),
        retire: Rc::clone(&retire),
        cut: Rc::clone(&cut),
        alive,
        unfinished: Rc::new(()),
    };
    let service = service_fn(move |request| requests.call(request));
    let ending = async {
        tokio::select! {
            _ = stop.changed() => {}
            () = retire.notified() => {}
        }
    };
    // Timed has the deadlines.
    let speaking = async {
        if http2 {
            let mut http = http2::Builder::new(OnThisThread);
            http.max_concurrent_streams(MAX_STREAMS)
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_header_list_size(MAX_HEAD as u32)
                .max_send_buf_size(MAX_BUFFER);
            let mut connection = http.serve_connection(io, service);
            let mut connection = Pin::new(&mut connection);
            tokio::select! {
                result = &mut connection => result,
                () = ending => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        } else {
            let mut http = http1::Builder::new();
            http.header_read_timeout(None).max_header_size(MAX_HEAD).max_buf_size(MAX_BUFFER);
            let mut connection = http.serve_connection(io, service);
            let mut connection = Pin::new(&mut connection);
            tokio::select! {
                result = &mut connection => result,
                () = ending => {
                    if progress.is_in_head() {
                        return Ok(());
                    }
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    let result = tokio::select! {
        result = speaking => result,
        () = cut.notified() => return,
    };
    if let Err(error) = result {
        tracing::debug!(%peer, error = %chain(&error), "connection ended early");
    }
}

/// hyper's tasks for the streams of HTTP/2 stay on this thread, as all else does.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

impl<H, F> Connection<H>
where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    /// Runs the handler as a task of its own, so that a client who hangs up stops nothing half done.
    fn call(
        &self,
        request: hyper::Request<Incoming>,
    ) -> impl Future<Output = Result<hyper::Response<Full<Bytes>>, JoinError>> + use<H, F> {
        self.progress.handling();
        let began = Instant::now();
        let (shared, peer, progress) = (Rc::clone(&self.shared), self.peer, Rc::clone(&self.progress));
        let (certified, http2) = (self.identity.clone(), self.http2);
        let asked = format!("{} {}", request.method(), request.uri());
        let bodiless = http2 && request.method() == Method::HEAD;
        let request =
            Request::new(request, self.budget.share(), peer, Rc::clone(&shared.limits), Rc::clone(&progress));
        let alive = self.alive.clone();
        let unfinished = Rc::clone(&self.unfinished);
        let crowded = Rc::strong_count(&unfinished) > MAX_UNFINISHED + 1;
        if crowded {
            self.shared.security.refuse(Reason::RequestFlood, peer, Reason::RequestFlood.words());
            self.cut.notify_one();
        }
        let standing = Rc::clone(&self.progress);
        let security = Rc::clone(&shared.security);
        let running = spawn_local(async move {
            let admitted = match crowded {
                true => Err(Response::text(StatusCode::SERVICE_UNAVAILABLE, "Too many requests at once.\n")),
                false => shared.admit(peer, request, certified).await,
            };
            let response = match admitted {
                Ok(request) => {
                    standing.let_in();
                    (shared.handler)(request).await
                }
                Err(refusal) => {
                    standing.turn_away();
                    refusal
                }
            };
            drop((alive, unfinished));
            let seconds = began.elapsed().as_secs_f64();
            tracing::debug!(%peer, request = asked, status = response.status().as_u16(), seconds, "answered");
            response
        });
        let (tls, retire) = (self.tls.clone(), Rc::clone(&self.retire));
        let answered = Answered(Rc::clone(&self.progress));
        async move {
            let mut response = running.await?.into_hyper();
            if !peer.is_unix() {
                response.headers_mut().extend(security.headers());
            }
            if progress.is_strangers() || tls.is_some_and(|tls| security.is_of_before(&tls)) {
                // GOAWAY, and what says the same in HTTP/1.1.
                if http2 {
                    retire.notify_one();
                } else {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
            drop(answered);
            Ok(finished(response, &progress, http2, bodiless))
        }
    }
}

/// However a request ends, also with its stream, the connection stands after it.
struct Answered(Rc<Progress>);

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.answering();
    }
}

impl<H> Shared<H> {
    /// The request, its client known, if it may be handled.
    async fn admit(
        &self,
        peer: Peer,
        mut request: Request,
        certified: Option<Identity>,
    ) -> Result<Request, Response> {
        if !peer.is_unix() {
            let head = request.head();
            let admitted = self.security.admit(peer, head.uri.path(), &head.headers, certified).await;
            request.set_authenticated(admitted?);
        }
        Ok(request)
    }
}

/// What hyper does for HTTP/1.1 and not for HTTP/2: HEAD is answered without a body; and a body is timed until it is sent.
fn finished(
    response: hyper::Response<Bytes>,
    progress: &Progress,
    http2: bool,
    bodiless: bool,
) -> hyper::Response<Full<Bytes>> {
    let mut response = response;
    if bodiless {
        let length = HeaderValue::from(response.body().len());
        response.headers_mut().insert(CONTENT_LENGTH, length);
        *response.body_mut() = Bytes::new();
    }
    response.map(|body| Full::new(if http2 { progress.until_sent(body) } else { body }))
}

/// An error with its causes: hyper's own says only which step failed.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Sends a 503 to a client for whom there is no room, as far as it goes without waiting.
pub(crate) async fn turn_away(mut io: Box<dyn Io>) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
        content-type: text/plain; charset=utf-8\r\ncontent-length: 22\r\n\r\nToo many connections.\n";
    std::future::poll_fn(|cx| {
        let _sent_or_not = Pin::new(&mut io).poll_write(cx, ANSWER);
        std::task::Poll::Ready(())
    })
    .await;
}
