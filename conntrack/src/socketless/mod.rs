//! Entries that claim an established connection to this host while the host has no socket for it: dead slots.
//!
//! A listener with TCP_DEFER_ACCEPT drops a silent client's request without FIN or RST, and conntrack keeps the entry for
//! five days. Each clause of [`Judge::judge`] was broken by a test before it stood here (DOMAIN.md, 1): read the sockets first
//! and the table second, never judge what may merely be busy, and say "unknown" rather than guess. [`Judging`] keeps that order.

mod connected;
mod judge;
mod judging;

pub use crate::timeouts::{TcpTimeouts, Timeouts};
pub use connected::Connected;
pub(crate) use judge::ends;
pub use judge::{Behind, CannotJudge, Judge};
pub use judging::{Before, Judgement, Judging, Unjudged};
