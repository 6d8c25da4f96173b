//! `pause`: rules decide, and what they decide is written down and not carried out; `ban` and `unban` go on.

use super::{Said, text};
use crate::admin_client::{Client, Trouble};
use serde_json::json;
use std::time::Duration;

/// Pauses, for a time or until `resume`.
///
/// # Errors
/// [`Trouble`].
pub fn pause(client: &Client, lasts: Option<Duration>) -> Result<Said, Trouble> {
    let answer = client.post("/api/v1/pause", &json!({"for_seconds": lasts.map(|lasts| lasts.as_secs())}))?;
    Ok(Said::done(text(&answer["done"])).unless_stored(&answer))
}
