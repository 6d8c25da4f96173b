//! Whom the guard spares, read from a real kernel and from files as systemd and glibc write them.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod addresses;
mod calls;
mod files;
