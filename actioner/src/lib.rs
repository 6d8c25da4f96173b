//! conntrack-actioner: from an alert to a ban that the kernel holds, and the words for what was refused.
//!
//! ```text
//! act    POST /webhook → http → webhook::parse (pure) → effects: survey → nominate → decide (pure) → Plan → enforce → audit
//! watch  tick → watch::due (cheap) → survey → watch::raise, the same alerts as a webhook's → decide → …
//! ```
//!
//! Alerts only *nominate*; evidence is read from the live table after the alert, and a [`plan::Plan`] lists what to do
//! and what was refused, each with its reason.

pub mod admin;
pub mod admin_client;
mod advice;
pub mod alert;
pub mod alone;
mod asked;
pub mod audit;
pub mod check_policy;
pub mod cli;
pub mod command;
mod confined;
pub mod create_sets;
pub mod decide;
pub mod decided;
pub mod effects;
pub mod enforce;
pub mod evidence;
pub mod exit;
pub mod exposure;
pub mod firewall;
mod foreign;
pub mod guard;
mod hand;
pub mod host;
#[doc(hidden)]
pub mod hostile;
pub mod http;
mod http_admin;
mod keep;
pub mod live;
mod look_again;
pub mod matcher;
pub mod metrics;
mod networks;
pub mod nominate;
pub mod now;
pub mod orders;
pub mod panic_file;
pub mod plan;
pub mod policy;
pub mod pressure;
pub mod pulse;
pub mod reach;
pub mod reconcile;
mod record;
pub mod refusal;
pub mod removal;
pub mod replay;
mod report;
pub mod review;
pub mod run;
pub mod selftest;
mod show;
pub mod snapshot;
pub mod source;
pub mod spared;
pub mod state;
mod status_line;
pub mod store;
pub mod surroundings;
pub mod survey;
pub mod switch;
pub mod teardown;
mod tick;
mod trial;
pub mod wall;
pub mod watch;
pub mod webhook;
