//! The exporter's binary on a real table, in network namespaces of the laboratory. Needs root, nft, conntrack and setpriv.

#![allow(clippy::unwrap_used)] // a test file: clippy.toml permits it inside #[test] functions only

mod advise;
mod failures;
mod formats;
mod lab;
mod machine;
mod metrics;
mod sharing;
mod sockets;
mod sources;
