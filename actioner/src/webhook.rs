//! Alertmanager's webhook, version 4: bytes in, alerts out, nothing else touched.

use std::sync::Arc;

use crate::alert::Alert;

/// What one POST of Alertmanager says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The receiver's name in Alertmanager's configuration.
    pub receiver: Arc<str>,
    /// Alertmanager's key of the group.
    pub group_key: Arc<str>,
    /// Where that Alertmanager is reached by people.
    pub external_url: String,
    /// Alerts that `max_alerts` cut off; they never arrive, so look at the live table instead.
    pub truncated_alerts: u64,
    /// The alerts, at least one, firing and resolved mixed as they came, each with its own labels.
    pub alerts: Vec<Alert>,
}
