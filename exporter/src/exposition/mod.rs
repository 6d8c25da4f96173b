//! The answer to one scrape, as a collector of prometheus-client that encodes what was read and keeps nothing.

mod dump;
mod families;
mod host;
mod own;

use std::fmt;
use std::sync::Arc;

use conntrack::REASONS;
use prometheus_client::collector::Collector as Encode;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use crate::cheap::{Outcome, Readings};
use crate::snapshot::Snapshot;
use families::Families;
use web::process::Usage;

/// What a scrape is told.
#[derive(Debug)]
pub(crate) struct Exposition {
    pub(crate) readings: Readings,
    /// Whether the dump's entries by state are wanted and known.
    pub(crate) flows: bool,
    /// Whether the dump's sources are wanted and known.
    pub(crate) sources: bool,
    /// Whether what stands behind the dump's entries is wanted and known.
    pub(crate) sockets: bool,
    /// Whether sources may be shown by address at all.
    pub(crate) sources_enabled: bool,
    pub(crate) dump: Option<Arc<Snapshot>>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) table_id: Option<String>,
    pub(crate) process: Option<Usage>,
    pub(crate) dump_errors: [u64; REASONS.len()],
    pub(crate) raise_refused: bool,
}

impl Exposition {
    /// As a registry, which is what a format encodes.
    pub(crate) fn into_registry(self) -> Registry {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        registry
    }
}

impl Encode for Exposition {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut families = Families::new(encoder);
        host::encode(&self.readings, self.table_id.as_deref(), &mut families)?;
        if let Some(snapshot) = &self.dump {
            dump::timestamp(snapshot, &mut families)?;
            if self.flows {
                dump::flows(&snapshot.flows, &mut families)?;
            }
            if let (true, Ok(listing)) = (self.sources, &snapshot.sources) {
                dump::sources(listing, &mut families)?;
            }
            if let (true, Ok(judged)) = (self.sockets, &snapshot.sockets) {
                let listing = snapshot.sources.as_ref().ok().filter(|_| self.sources_enabled);
                dump::sockets(judged, listing, &mut families)?;
            }
        }
        own::encode(self, &mut families)
    }
}
