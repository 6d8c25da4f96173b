//! Listeners, and the loop that accepts from them.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::bind::Listener;
use crate::body::Budget;
use crate::burst::Burst;
use crate::connection::{self, Alive, Shared};
use crate::descriptors::connections_each;
use crate::neighbourhood::Neighbourhood;
use crate::slots::Slots;
use crate::systemd::Socket;
use crate::{BindError, Listen, Request, Response, Security};

/// How long accepting rests when the process is out of descriptors or memory.
const REST: Duration = Duration::from_millis(100);

/// What strangers may cost us. Every stage of a connection but the handler itself is bounded.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From the first byte of a request's head (or from the connection, for the first request) to its last. With TLS the
    /// handshake may take as long, before the first request's time begins.
    pub header_timeout: Duration,
    /// For a request's whole body, from the moment the handler asks for it.
    pub body_timeout: Duration,
    /// For sending a whole answer.
    pub write_timeout: Duration,
    /// Between two requests. Longer than the 5 minutes of Prometheus and Alertmanager, so that it is they who close: when
    /// the table is full an open connection is worth more than a new one.
    pub idle_timeout: Duration,
    /// Connections of each listener; above it a new one is answered 503. Each listener counts its own, so that whoever
    /// fills a port does not shut the unix socket. Whoever fills it from one address makes room for all others, and on a unix
    /// socket the longest idle one does. The soft limit of descriptors is raised for them; where the hard one is too low, they are fewer.
    pub max_connections: usize,
    /// Bytes of request bodies in memory, over all connections of each listener: whoever fills a port's does not keep the
    /// unix socket's orders out.
    pub body_budget: usize,
    /// How long running requests may go on after the shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(6 * 60),
            max_connections: 512,
            body_budget: 32 << 20,
            drain: Duration::from_secs(5),
        }
    }
}

/// Sockets that listen, and are not yet served.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    limits: Limits,
    security: Rc<Security>,
}

impl Server {
    /// Opens all of `listen`, or none.
    ///
    /// A unix socket that nobody listens on any more is replaced; ours is removed when the server ends.
    ///
    /// # Errors
    /// The first address that cannot be had, why, and what to do.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(listen: &[Listen], limits: Limits) -> Result<Self, BindError> {
        let listeners = listen.iter().map(Listener::bind).collect::<Result<_, _>>()?;
        Ok(Self { listeners, limits, security: Rc::default() })
    }

    /// The same, answering on sockets that systemd opened as well.
    ///
    /// # Errors
    /// The runtime cannot watch one.
    pub fn inheriting(mut self, sockets: Vec<Socket>) -> io::Result<Self> {
        for socket in sockets {
            self.listeners.push(Listener::inherit(socket)?);
        }
        Ok(self)
    }

    /// The same, asking of clients over TCP what `security` says.
    #[must_use]
    pub fn secured(self, security: Rc<Security>) -> Self {
        Self { security, ..self }
    }

    /// The TCP addresses that are listened on, with the ports that the kernel chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::address).collect()
    }

    /// Answers with `handler` until `shutdown` ends; then closes the listeners and idle connections and waits for running
    /// requests, at most [`Limits::drain`].
    ///
    /// Each request is handled in a task of its own on this thread. A client that hangs up does not cancel it: what a
    /// handler began it ends, unless the drain runs out. So nothing in a handler may block.
    pub async fn serve<H, F>(self, handler: H, shutdown: impl Future<Output = ()>)
    where
        H: Fn(Request) -> F + 'static,
        F: Future<Output = Response> + 'static,
    {
        let limits = Rc::new(self.limits);
        let shared = Rc::new(Shared { handler, limits: Rc::clone(&limits), security: self.security });
        let (stop, stopped) = watch::channel(());
        let (alive, mut all_ended) = mpsc::channel(1);
        let connections = connections_each(self.listeners.len(), limits.max_connections);
        let serving = async {
            for listener in self.listeners {
                let accepting = Accepting {
                    shared: Rc::clone(&shared),
                    stopped: stopped.clone(),
                    alive: alive.clone(),
                    slots: Slots::new(connections),
                    budget: Budget::new(limits.body_budget),
                };
                spawn_local(accepting.run(listener));
            }
            drop((alive, stopped));
            shutdown.await;
            drop(stop);
            if timeout(limits.drain, all_ended.recv()).await.is_err() {
                let seconds = limits.drain.as_secs_f32();
                tracing::warn!(seconds, "requests still running at the end of the drain are cut off");
            }
        };
        // Dropping the set drops every task that is left.
        LocalSet::new().run_until(serving).await;
    }
}

struct Accepting<H> {
    shared: Rc<Shared<H>>,
    stopped: watch::Receiver<()>,
    alive: Alive,
    slots: Slots,
    budget: Budget,
}

impl<H, F> Accepting<H>
where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    async fn run(mut self, listener: Listener) {
        let (mut full, mut failing) = (Burst::default(), Burst::default());
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.stopped.changed() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    if let Some(count) = failing.note() {
                        tracing::error!(%error, count, "cannot accept connections; trying on");
                    }
                    tokio::select! {
                        _ = self.stopped.changed() => return,
                        () = sleep(REST) => continue,
                    }
                }
            };
            let whose = Neighbourhood::of(peer);
            let free = self.slots.take(whose);
            let is_full = free.is_none();
            let slot = free.or_else(|| self.slots.take_over(whose));
            if is_full && let Some(count) = full.note() {
                let limit = self.slots.limit();
                match slot {
                    Some(_) => {
                        tracing::warn!(%peer, limit, count, "too many connections: whoever holds most of them makes room");
                    }
                    None => tracing::warn!(%peer, limit, count, "too many connections: turned away with 503"),
                }
            }
            let Some(slot) = slot else {
                // Whoever expects TLS would not understand a word.
                if peer.is_unix() || !self.shared.security.encrypts() {
                    connection::turn_away(stream.plain()).await;
                }
                continue;
            };
            let serving = connection::serve(
                stream,
                peer,
                Rc::clone(&self.shared),
                self.budget.clone(),
                slot.rest(),
                self.stopped.clone(),
                self.alive.clone(),
            );
            spawn_local(async move {
                tokio::select! {
                    () = serving => {}
                    () = slot.taken_over() => {}
                }
            });
        }
    }
}

/// Errors of accept(2) that tell about the connection, not about us.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
