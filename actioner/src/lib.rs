//! Placeholder.

pub mod firewall;
