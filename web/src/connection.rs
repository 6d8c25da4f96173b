//! One connection, from its first byte to its last: **where a stream becomes requests**. A TLS handshake would wrap the
//! stream at the start of [`serve`]; an authenticated peer would be known in [`Connection::call`], before the handler
//! runs and with the body unread.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, spawn_local};
use tokio::time::Instant;

use crate::body::Budget;
use crate::timed::{Progress, Timed};
use crate::{Limits, Peer, Request, Response};

/// Room for a request's head, in bytes; beyond it 431. Prometheus sends about 400.
const MAX_HEAD: usize = 16 << 10;

/// The most that hyper buffers of a connection, in bytes: its default of about 400 KiB is much for 512 strangers.
const MAX_BUFFER: usize = 64 << 10;

/// A stream of bytes, whatever lies below.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// What all connections of a server share.
pub(crate) struct Shared<H> {
    pub(crate) handler: H,
    pub(crate) limits: Rc<Limits>,
    pub(crate) budget: Budget,
}

/// Held by everything that a shutdown waits for.
pub(crate) type Alive = mpsc::Sender<Infallible>;

struct Connection<H> {
    shared: Rc<Shared<H>>,
    peer: Peer,
    progress: Rc<Progress>,
    alive: Alive,
}

/// Serves one connection until its client leaves, a limit ends it or `stop` closes, which lets a running request end.
pub(crate) async fn serve<H, F>(
    io: Box<dyn Io>,
    peer: Peer,
    shared: Rc<Shared<H>>,
    mut stop: watch::Receiver<()>,
    alive: Alive,
) where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    let progress = Rc::new(Progress::new(Rc::clone(&shared.limits)));
    let io = TokioIo::new(Timed::new(io, Rc::clone(&progress)));
    let requests = Connection { shared, peer, progress: Rc::clone(&progress), alive };
    let mut http = http1::Builder::new();
    // Timed has the deadlines.
    http.header_read_timeout(None).max_header_size(MAX_HEAD).max_buf_size(MAX_BUFFER);
    let mut connection = http.serve_connection(io, service_fn(|request| requests.call(request)));
    let mut connection = Pin::new(&mut connection);
    let result = tokio::select! {
        result = &mut connection => result,
        _ = stop.changed() => {
            if progress.is_in_head() {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, error = %chain(&error), "connection ended early");
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
        let asked = format!("{} {}", request.method(), request.uri());
        let request = Request::new(
            request,
            shared.budget.share(),
            peer,
            Rc::clone(&shared.limits),
            Rc::clone(&progress),
        );
        let alive = self.alive.clone();
        let running = spawn_local(async move {
            let response = (shared.handler)(request).await;
            drop(alive);
            let seconds = began.elapsed().as_secs_f64();
            tracing::debug!(%peer, request = asked, status = response.status().as_u16(), seconds, "answered");
            response
        });
        async move {
            let response = running.await?;
            progress.answering();
            Ok(response.into_hyper())
        }
    }
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
