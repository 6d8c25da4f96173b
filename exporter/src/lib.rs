//! conntrack-exporter: tells Prometheus what the connection tracking table holds and who fills it.

mod collector;
mod flags;
mod hold;
mod prefixes;
mod rank;
mod scrape;

pub use flags::Flags;
