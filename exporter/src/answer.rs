//! A scrape's answer made from a summary alone: what ranking and encoding cost without dump and HTTP. For `make bench-paths`,
//! not for programs.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use conntrack::{REASONS, Summary};
use prometheus_client::registry::Registry;
use web::Response;
use web::exposition::{self, Format};

use crate::cheap::Readings;
use crate::exposition::Exposition;
use crate::flows::{Flows, Seen};
use crate::hold::Held;
use crate::listing::{Choice, Listing};
use crate::prefixes::Lengths;
use crate::snapshot::Snapshot;

/// What of a dump is shown: states, sources, prefixes, dead slots.
#[derive(Debug)]
pub struct Answer(Registry);

impl Answer {
    /// Ranks the sources and lists the `top` of them by each count, with the flags' defaults beside that.
    pub fn of(summary: &Summary, top: usize) -> Answer {
        let now = Instant::now();
        let choice = Choice { top, min_entries: 1, lengths: Lengths { ipv4: 24, ipv6: 64 } };
        let snapshot = Snapshot {
            flows: Flows::of(summary, &mut Seen::default()),
            sources: Ok(Listing::of(summary, &mut Held::new(Duration::ZERO, top), now, &choice)),
            sockets: Ok(summary.judged.unwrap_or_default()),
            ended: now,
            ended_at: SystemTime::now(),
            dump_took: Duration::ZERO,
            sockets_took: Duration::ZERO,
            took: Duration::ZERO,
        };
        let told = Exposition {
            readings: Readings::default(),
            flows: true,
            sources: true,
            sockets: true,
            sources_enabled: true,
            dump: Some(Arc::new(snapshot)),
            outcomes: Vec::new(),
            table_id: None,
            process: None,
            dump_errors: [0; REASONS.len()],
            raise_refused: false,
        };
        Answer(told.into_registry())
    }

    /// As the text that goes out.
    pub fn encode(&self) -> Response {
        exposition::encode(&self.0, Format::Classic)
    }
}
