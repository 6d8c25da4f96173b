//! Placeholder.

pub mod firewall;
pub mod alert;
pub mod matcher;
pub mod policy;
pub mod source;
pub mod webhook;
