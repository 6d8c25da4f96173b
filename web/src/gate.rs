//! A limit on scrapes answered at the same time: `--web.max-requests`.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Response, StatusCode, header};

/// Lets at most so many in at once; clones share the count.
#[derive(Debug, Clone)]
pub struct Gate {
    limit: usize,
    places: Arc<Semaphore>,
}

/// A place inside a [`Gate`], given back when dropped. It may move to another thread.
#[derive(Debug)]
pub struct Permit {
    _place: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// A gate for `limit` at once; 0 means no limit.
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { limit, places: Arc::new(Semaphore::new(limit)) }
    }

    /// A place, or `None` at once when all are taken: answer with [`Gate::refusal`].
    pub fn enter(&self) -> Option<Permit> {
        if self.limit == 0 {
            return Some(Permit { _place: None });
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Permit { _place: Some(place) })
    }

    /// The 503 for those who did not get in.
    pub fn refusal(&self) -> Response {
        let limit = self.limit;
        let sentence =
            format!("{limit} scrapes are being answered already (--web.max-requests); try again later.\n");
        Response::text(StatusCode::SERVICE_UNAVAILABLE, sentence).header(header::RETRY_AFTER, "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let gate = Gate::new(2);
        let (first, second) = (gate.enter(), gate.enter());
        assert!(first.is_some() && second.is_some());
        assert!(gate.clone().enter().is_none());
        drop(first);
        assert!(gate.enter().is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        let gate = Gate::new(0);
        let inside: Vec<_> = (0..1000).map(|_| gate.enter()).collect();
        assert!(inside.iter().all(Option::is_some));
    }
}
