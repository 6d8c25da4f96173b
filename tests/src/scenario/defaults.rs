//! What the defaults of Prometheus and Alertmanager add to a story that was played at one second.

use std::time::Duration;

use super::{Stage, Timeline};

/// Prometheus' default `scrape_interval`, in seconds: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/>.
pub const SCRAPE: f64 = 15.0;
/// The `evaluation_interval` of that page, in seconds.
pub const EVALUATION: f64 = 60.0;
/// Alertmanager's default `group_wait`, in seconds: <https://prometheus.io/docs/alerting/latest/configuration/>.
pub const GROUP_WAIT: f64 = 30.0;

/// The times from the attacker's first packet to his last one let in, computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtDefaults {
    /// Where the threshold is crossed in the middle of both intervals.
    pub usual: Duration,
    /// Where it is crossed just after both.
    pub longest: Duration,
}

impl AtDefaults {
    /// From a story with webhooks: its measured parts before the threshold and after the webhook, and the waits between.
    pub fn of(timeline: &Timeline) -> Option<Self> {
        let before = timeline.after_first_packet(Stage::Threshold)?;
        let after = timeline
            .after_first_packet(Stage::LastPacket)?
            .saturating_sub(timeline.after_first_packet(Stage::Webhook)?);
        let with = |wait: f64| before + Duration::from_secs_f64(wait) + after;
        Some(Self {
            usual: with((SCRAPE + EVALUATION) / 2.0 + GROUP_WAIT),
            longest: with(SCRAPE + EVALUATION + GROUP_WAIT),
        })
    }
}
