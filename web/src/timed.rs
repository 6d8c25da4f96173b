//! A stream that gives up on a peer who stalls. hyper has a timeout for headers only, and counts the pause between two
//! requests as one; Prometheus and Alertmanager keep idle connections for 5 minutes, and those are the ones that still
//! work when the table is full (DOMAIN.md, 5).

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::Limits;
use crate::connection::Io;
use crate::slots::Rest;

/// What may still come after we closed our side of a connection is read and thrown away for so long. Closing with unread
/// data sends a reset, which takes the answer (an early 413) out of the client's hands.
const LINGER: Duration = Duration::from_secs(1);

/// Where a connection stands, shared between its stream and its service.
#[derive(Debug)]
pub(crate) struct Progress {
    limits: Rc<Limits>,
    /// Whether requests come side by side, as in HTTP/2. Then only the first has a deadline for its head: later, a client that
    /// sends half of one holds no more than one that sends nothing, and pings between requests are no head.
    side_by_side: bool,
    stage: Cell<Stage>,
    rest: Rest,
    running: Cell<u32>,
    standing: Cell<Standing>,
    reads_until: Cell<Option<Instant>>,
    writes_until: Cell<Option<Instant>>,
    unread: Cell<bool>,
    unsent: Arc<Mutex<Unsent>>,
}

/// What is known of a connection's client. Only one who was let in may keep an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Unheard,
    /// Turned away, and never let in: gone by then, whatever else comes.
    Stranger(Instant),
    LetIn,
}

/// The answers whose client has not yet taken them: in HTTP/2 it can stop one of them while the stream moves on. The first
/// of them is due first.
type Unsent = std::collections::BTreeMap<u64, Instant>;

/// A body that is dropped when the last of it has left hyper.
struct Sending {
    body: Bytes,
    number: u64,
    unsent: Arc<Mutex<Unsent>>,
}

impl AsRef<[u8]> for Sending {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// The stage of a connection, as far as reading goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    BetweenRequests,
    Head,
    Handling,
}

impl Progress {
    pub(crate) fn new(limits: Rc<Limits>, side_by_side: bool, rest: Rest) -> Self {
        // Whoever connects without a word gets no longer than whoever sends a header slowly.
        let first = Instant::now() + limits.header_timeout;
        Self {
            limits,
            side_by_side,
            stage: Cell::new(Stage::BetweenRequests),
            rest,
            running: Cell::new(0),
            standing: Cell::new(Standing::Unheard),
            reads_until: Cell::new(Some(first)),
            writes_until: Cell::new(None),
            unread: Cell::new(false),
            unsent: Arc::default(),
        }
    }

    /// A request is complete up to its body, whose timing is [`Request::body`](crate::Request::body)'s.
    pub(crate) fn handling(&self) {
        self.stage.set(Stage::Handling);
        self.rest.set(false);
        self.running.set(self.running.get() + 1);
        self.reads_until.set(None);
        self.writes_until.set(None);
    }

    /// A request is let in: from now on its client may keep the connection idle.
    pub(crate) fn let_in(&self) {
        self.standing.set(Standing::LetIn);
    }

    /// A request is turned away. Whoever has never been let in does not keep his connection: each is one of
    /// [`Limits::max_connections`], which strangers could hold for as long as an honest client's pauses last.
    pub(crate) fn turn_away(&self) {
        if self.standing.get() == Standing::Unheard {
            self.standing.set(Standing::Stranger(Instant::now() + self.limits.header_timeout));
        }
    }

    /// Whether the connection ends with its next answer.
    pub(crate) fn is_strangers(&self) -> bool {
        matches!(self.standing.get(), Standing::Stranger(_))
    }

    /// The answer is ready to be sent.
    pub(crate) fn answering(&self) {
        self.running.set(self.running.get() - 1);
        if self.running.get() > 0 {
            return;
        }
        self.stage.set(Stage::BetweenRequests);
        self.rest.set(true);
        self.reads_until.set(Some(Instant::now() + self.limits.idle_timeout));
        if !self.side_by_side {
            self.writes_until.set(Some(Instant::now() + self.limits.write_timeout));
        }
    }

    /// The same body; the connection ends if it is not sent in time.
    pub(crate) fn until_sent(&self, body: Bytes) -> Bytes {
        if body.is_empty() {
            return body;
        }
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        let number = unsent.last_key_value().map_or(0, |(last, _)| last + 1);
        unsent.insert(number, Instant::now() + self.limits.write_timeout);
        Bytes::from_owner(Sending { body, number, unsent: Arc::clone(&self.unsent) })
    }

    /// When to give up on a client from whom nothing comes.
    fn silence_until(&self) -> Option<Instant> {
        let unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        let due = unsent.first_key_value().map(|(_, due)| *due);
        // In HTTP/2 a client need not heed our goodbye, and could send request after request.
        let gone = match self.standing.get() {
            Standing::Stranger(gone) => Some(gone),
            Standing::Unheard | Standing::LetIn => None,
        };
        [self.reads_until.get(), due, gone].into_iter().flatten().min()
    }

    /// A request was dropped with its body unread. hyper ends its connection after the answer, which says so.
    pub(crate) fn leave_unread(&self) {
        self.unread.set(true);
    }

    /// Whether part of a request's head has come, and no request.
    pub(crate) fn is_in_head(&self) -> bool {
        self.stage.get() == Stage::Head
    }

    fn received(&self) {
        if self.stage.get() == Stage::BetweenRequests && !self.side_by_side {
            self.stage.set(Stage::Head);
            self.reads_until.set(Some(Instant::now() + self.limits.header_timeout));
        }
    }
}

/// The stream of one connection, with the deadlines that its [`Progress`] sets.
pub(crate) struct Timed {
    io: Box<dyn Io>,
    progress: Rc<Progress>,
    reading: Alarm,
    writing: Alarm,
    lingers_until: Option<Instant>,
    /// Since when nothing could be written.
    stalls: Option<Instant>,
}

impl Timed {
    pub(crate) fn new(io: Box<dyn Io>, progress: Rc<Progress>) -> Self {
        Self {
            io,
            progress,
            reading: Alarm::default(),
            writing: Alarm::default(),
            lingers_until: None,
            stalls: None,
        }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalls = None;
            return result;
        }
        let deadline = if self.progress.side_by_side {
            let since = *self.stalls.get_or_insert_with(Instant::now);
            Some(since + self.progress.limits.write_timeout)
        } else {
            self.progress.writes_until.get()
        };
        if self.writing.rings(deadline, cx) {
            return Poll::Ready(Err(late("the client does not read its answer")));
        }
        result
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.progress.received();
        }
        if result.is_pending() && this.reading.rings(this.progress.silence_until(), cx) {
            return Poll::Ready(Err(late("the client sends no request")));
        }
        result
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        // hyper's pending read began before this answer and is not repeated after it: wake it for the new deadline.
        let until = self.progress.silence_until();
        self.reading.rings(until, cx);
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingers_until.is_none() {
            let result = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.written(cx, result))?;
            if !this.progress.unread.get() {
                return Poll::Ready(Ok(()));
            }
        }
        let deadline = *this.lingers_until.get_or_insert_with(|| Instant::now() + LINGER);
        let mut trash = [0; 8192];
        loop {
            if this.reading.rings(Some(deadline), cx) {
                return Poll::Ready(Ok(()));
            }
            let mut trash = ReadBuf::new(&mut trash);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut trash))?;
            if trash.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// A timer whose deadline may move, or be absent.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether the deadline has passed; if not, the task is woken when it does.
    fn rings(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = deadline else { return false };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}
