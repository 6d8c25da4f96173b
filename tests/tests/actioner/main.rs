//! The running actioner, as its users meet it: real webhooks, real packets, the kernel's own account afterwards.

mod again;
mod body;
mod clock;
mod dead_slots;
mod disks;
mod door;
mod faults;
mod fire;
mod hoarder;
mod immunity;
mod injected;
mod kept;
mod kernel;
mod killed;
mod lab;
mod large;
mod lifecycle;
mod many;
mod meddled;
mod orders;
mod pairs;
mod past;
mod soak;
mod spared;
mod stale;
mod start;
