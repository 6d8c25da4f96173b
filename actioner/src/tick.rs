//! The watch's tick: a cheap look, and where that is worth it a dump, whose alerts go the way of a webhook's.

use crate::asked::Asked;
use crate::effects::Effects;
use crate::now::Now;
use crate::orders::Unread;
use crate::pressure::{Gauge, LastDump, due};
use crate::watch;
use std::sync::Arc;
use std::time::Duration;

impl Effects {
    /// Looks, and does what its alerts lead to.
    pub(crate) fn tick(&mut self) {
        let policy = Arc::clone(&self.policy);
        let Some(watch) = &policy.watch else { return };
        if self.gauge.is_none() {
            self.gauge = Gauge::open().ok();
        }
        let Some(gauge) = &mut self.gauge else { return };
        let look = match gauge.look() {
            Ok(look) => look,
            Err(error) => {
                tracing::error!(%error, "the watch cannot read how full the table is");
                return;
            }
        };
        if !due(watch, self.last_dump, look, Now::read()) {
            return;
        }
        let host = match self.surroundings.host(Now::read()) {
            Ok(host) => host,
            Err(error) => {
                tracing::error!(error, "the watch cannot read this host's addresses");
                return;
            }
        };
        let Ok(survey) = self.survey(&host) else {
            // Not again at once: a table that cannot be read is logged once in `every`.
            self.last_dump = Some(LastDump {
                at: Now::read().boot,
                took: Duration::ZERO,
                entries: look.fill.entries,
                losses: look.losses,
            });
            return;
        };
        let alerts = watch::raise(watch, &survey.summary, survey.table, &host);
        self.told.begin();
        if alerts.is_empty() {
            return;
        }
        let asked = alerts.into_iter().map(|alert| Asked { alert, cut_off: None }).collect();
        match self.process(asked, Some(survey)) {
            Ok((cases, outcome)) => self.look_again(&cases, outcome),
            Err(Unread(error)) => {
                tracing::error!(error, "the watch's alerts could not be decided; it tries again");
            }
        }
    }
}
