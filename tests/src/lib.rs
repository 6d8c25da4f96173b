//! The laboratory of conntrack-guard: network namespaces joined by veth, the attacks of DOMAIN.md, an honest
//! client that counts every connection it loses, and our programs, Prometheus and Alertmanager started in them.
//!
//! Nothing here touches the host's own network: every socket, rule and sysctl belongs to a namespace made here,
//! and namespaces vanish with the file descriptors that hold them, even when a test is killed.
//! `nf_conntrack_max` and `nf_conntrack_buckets` are global on Linux. No test writes them; measurements of a
//! million entries raise the first for their time ([`limit`]), and a child of theirs writes the old value back, however they end.
//!
//! It needs root and the programs named in [`tools::Tool`].

pub mod attack;
pub mod certificates;
pub mod day;
pub mod entries;
pub mod exposition;
pub mod failure;
pub mod flood;
pub mod guard;
pub mod honest;
pub mod http;
pub mod injection;
pub mod limit;
pub mod listing;
pub mod netns;
pub mod ping;
pub mod process;
pub mod programs;
pub mod quiet;
pub mod receiver;
pub mod responder;
pub mod scenario;
pub mod servers;
pub mod tools;
pub mod topology;
pub mod traffic;
pub mod wait;

pub use failure::{Failure, Result};
