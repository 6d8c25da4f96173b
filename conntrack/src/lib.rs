//! The kernel's connection tracking table over ctnetlink, and what is asked beside it: sockets, addresses.
//!
//! [`Table`] reads, counts and deletes; [`Summary`] is what one dump holds, pure; [`own::OwnAddresses`] is this host.
//! Everything works in the network namespace of the calling thread. There is no flush and no filtered delete, in any
//! form: entries die one by one, by a [`FlowKey`] that only a dump can make.

mod ahead;
mod decode;
mod delete;
mod flow;
mod in_two;
mod kept;
mod key;
mod link;
mod pace;
mod reader;
mod state;
mod stats;
mod table;
mod timeouts;

pub mod dead;
pub mod follow;
#[doc(hidden)]
pub mod hostile;
pub mod identity;
pub mod listeners;
pub mod netlink;
pub mod own;
#[doc(hidden)]
pub mod recorded;
pub mod socketless;
pub mod sockets;
pub mod summary;

pub use delete::Deleted;
pub use flow::{Counters, Family, Flow, L4, Protocol, Status, Tuple, Zone};
pub use kept::{Kept, Room};
pub use key::{FlowKey, FlowKeys};
pub use link::{Answer, Channel, Error, Link, REASONS};
pub use pace::Pace;
pub use state::{ProtocolName, SctpState, State, TcpState};
pub use stats::{CpuStats, Limits, STATS, Stat, Unwrapped};
pub use summary::Summary;
pub use table::{Dump, Table};
