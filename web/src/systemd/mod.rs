//! What systemd is told, and what it hands over. Outside systemd none of it does anything.

mod inherited;
mod notify;

pub use inherited::{Inherited, InheritedError, Socket};
pub use notify::{keep_alive, ready, reloading, status, stopping};
