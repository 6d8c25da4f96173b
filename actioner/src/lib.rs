//! Placeholder.

pub mod firewall;
pub mod alert;
mod foreign;
pub mod matcher;
pub mod policy;
pub mod source;
pub mod webhook;
