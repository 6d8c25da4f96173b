//! The decision, without kernel and clock: what is banned, what is refused and why, and what repeats change.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod called;
mod flood;
mod guard;
mod judgement;
mod repeats;
mod scene;
mod socketless;
mod top;
mod watch;
