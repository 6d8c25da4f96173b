//! An alert as it reaches us, from wherever: it only *nominates*, the live table decides.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One alert with its own labels: never the group's `commonLabels`, for one message of Alertmanager's can mix
/// firing and resolved alerts of many sources (DOMAIN.md, 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The alert's labels, `alertname` among them.
    pub labels: BTreeMap<String, String>,
    /// The alert's annotations: for people, never for decisions.
    pub annotations: BTreeMap<String, String>,
    /// Alertmanager's fingerprint of the labels (hexadecimal); empty if the sender left it out.
    pub fingerprint: String,
    /// When the alert began, RFC 3339, as the sender wrote it; empty if the sender left it out.
    pub starts_at: String,
    /// `true` while it fires, `false` once resolved.
    pub firing: bool,
    /// Through which door it came.
    pub origin: Origin,
    /// Alertmanager's receiver. Shared by all alerts of one notification: the sender chooses its length.
    pub receiver: Arc<str>,
    /// Alertmanager's group key. Shared like the receiver.
    pub group_key: Arc<str>,
}

impl Alert {
    /// The value of a label; a missing label is the empty string, as in Alertmanager's matchers.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The label `alertname`, or the empty string.
    pub fn name(&self) -> &str {
        self.label("alertname")
    }
}

/// The door an alert came through. It is written in the audit line and never changes a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// `POST /webhook` over TCP.
    Webhook,
    /// The same webhook, or an order given by hand, over the unix socket.
    Admin,
    /// Raised on this host by the policy's `watch`.
    Watch,
}

impl Origin {
    /// The word for it in audit lines and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Admin => "admin",
            Self::Watch => "watch",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
