//! Alertmanager's webhook, version 4: bytes in, alerts out, nothing else touched.
//!
//! The contract is that of Alertmanager 0.25 to 0.34 (notify/webhook/webhook.go, template/template.go): fields we do
//! not know come with newer versions and are passed over.

mod body;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::error::Category;
use thiserror::Error;

use crate::alert::{Alert, Origin};
use crate::foreign::shorten;

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
    /// Who sent it, if he passed authentication.
    pub authenticated: Option<IpAddr>,
}

/// Why a body is no notification: each is a 400, for sending it again would not help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WebhookError {
    /// No bytes, or only blanks.
    #[error("the body is empty; expected Alertmanager's webhook message, version 4, as JSON")]
    Empty,
    /// The bytes are not one JSON value.
    #[error("the body is not JSON: {reason} (line {line}, column {column})")]
    NotJson {
        /// What the parser says.
        reason: String,
        /// From 1.
        line: usize,
        /// In bytes, from 1; 0 at a line's start.
        column: usize,
    },
    /// JSON, but not of the shape of a notification.
    #[error("the body is not Alertmanager's webhook message: {reason} (line {line}, column {column})")]
    Shape {
        /// What was expected and what stands there.
        reason: String,
        /// From 1.
        line: usize,
        /// In bytes, from 1; 0 at a line's start.
        column: usize,
    },
    /// Another version of the message, or none.
    #[error(
        "the message's version is {found}; only \"4\" is understood (Alertmanager 0.16 and later send it)"
    )]
    Version {
        /// The version, quoted and shortened, or `missing`.
        found: String,
    },
    /// `alerts` is missing or empty.
    #[error("the message holds no alerts: \"alerts\" must be a list of at least one")]
    NoAlerts,
}

/// Reads one message. `origin` says through which door it came.
///
/// # Errors
/// [`WebhookError`] says what is wrong and where, with at most some 80 characters of what was sent.
pub fn parse(bytes: &[u8], origin: Origin) -> Result<Notification, WebhookError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(WebhookError::Empty);
    }
    let body::Object::<body::Message>(message) =
        serde_json::from_slice(bytes).map_err(|error| explain(&error, bytes))?;
    check_version(message.version.as_deref())?;
    let receiver: Arc<str> = bounded(message.receiver, RECEIVER).into();
    let group_key: Arc<str> = bounded(message.group_key, GROUP_KEY).into();
    let alerts = message.alerts.unwrap_or_default().0;
    if alerts.is_empty() {
        return Err(WebhookError::NoAlerts);
    }
    let alert = |sent: body::SentAlert| Alert {
        labels: sent.labels.0,
        annotations: sent.annotations.0,
        fingerprint: bounded(sent.fingerprint, FINGERPRINT),
        starts_at: sent.starts_at,
        firing: sent.status == body::Status::Firing,
        origin,
        receiver: Arc::clone(&receiver),
        group_key: Arc::clone(&group_key),
    };
    let alerts = alerts.into_iter().map(alert).collect();
    let truncated_alerts = message.truncated_alerts;
    let external_url = message.external_url;
    Ok(Notification { receiver, group_key, external_url, truncated_alerts, alerts, authenticated: None })
}

/// They stand in each audit line of a notification and decide nothing: their sender does not choose how long lines are.
const RECEIVER: usize = 256;
const GROUP_KEY: usize = 2048;
/// Alertmanager's has 16 digits.
const FINGERPRINT: usize = 64;

fn bounded(text: String, bytes: usize) -> String {
    if text.len() <= bytes { text } else { shorten(&text, bytes) }
}

fn check_version(version: Option<&str>) -> Result<(), WebhookError> {
    match version {
        Some("4") => Ok(()),
        Some(other) => Err(WebhookError::Version { found: format!("\"{}\"", shorten(other, 20)) }),
        None => Err(WebhookError::Version { found: "missing".to_owned() }),
    }
}

fn explain(error: &serde_json::Error, bytes: &[u8]) -> WebhookError {
    let (line, column) = (error.line(), error.column());
    let reason = middle_out(&without_position(error));
    if error.classify() != Category::Data {
        return WebhookError::NotJson { reason, line, column };
    }
    // A message of another version may well have another shape: then its version is the better answer.
    if let Ok(head) = serde_json::from_slice::<body::Head>(bytes)
        && head.version.is_some()
        && let Err(version) = check_version(head.version.as_deref())
    {
        return version;
    }
    WebhookError::Shape { reason, line, column }
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// serde's messages quote what was sent in their middle, in full; beginning and end are ours.
fn middle_out(message: &str) -> String {
    const HEAD: usize = 70;
    const TAIL: usize = 60;
    let length = message.chars().count();
    if length <= HEAD + TAIL {
        return message.to_owned();
    }
    let head: String = message.chars().take(HEAD).collect();
    let tail: String = message.chars().skip(length - TAIL).collect();
    format!("{head}…{tail}")
}
