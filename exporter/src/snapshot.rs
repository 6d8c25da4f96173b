//! What one dump gives to the scrapes that share it.

use std::time::{Duration, Instant, SystemTime};

use conntrack::summary::Judged;

use crate::flows::Flows;
use crate::listing::Listing;
use conntrack::socketless::Unjudged;

/// The result of one dump. The summary it was made from is gone: nothing here grows with the table.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// For the collector `flows`.
    pub(crate) flows: Flows,
    /// For the collector `sources`; or why this host's own addresses are not known, without which no source can be shown.
    pub(crate) sources: Result<Listing, String>,
    /// For the collector `sockets`; or why nothing can be said of them, and then not by source either.
    pub(crate) sockets: Result<Judged, Unjudged>,
    /// When the dump ended.
    pub(crate) ended: Instant,
    /// The same for people.
    pub(crate) ended_at: SystemTime,
    /// What the dump took, less the sockets.
    pub(crate) dump_took: Duration,
    /// What the dump and the sockets before it took.
    pub(crate) sockets_took: Duration,
    /// What the dump and the ranking of the sources took.
    pub(crate) took: Duration,
}
