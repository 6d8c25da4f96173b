//! HTTP serving as Prometheus exporters do it, for both programs of this workspace.
//!
//! What `exporter-toolkit` is to exporters written in Go: the `--web.*` and `--log.*` flags, listeners, limits on
//! everything a stranger can make us hold, both exposition formats, and a shutdown that lets running requests end.
//! Routing is the program's: it gets a [`Request`] and returns a [`Response`].
//!
//! ```no_run
//! use web::{Limits, Request, Response, Server, StatusCode};
//!
//! # #[derive(clap::Parser)] struct Args { #[command(flatten)] web: web::flags::Flags, #[command(flatten)] log: web::log::Flags }
//! # async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
//! args.log.init();
//! let server = Server::bind(&args.web.listen(":10048")?, Limits::default())?;
//! let route = |request: Request| async move {
//!     match request.path() {
//!         "/-/healthy" => Response::text(StatusCode::OK, "Healthy\n"),
//!         _ => Response::text(StatusCode::NOT_FOUND, "Not found\n"),
//!     }
//! };
//! server.serve(route, web::shutdown::signal()).await;
//! # Ok(()) }
//! ```

mod bind;
mod body;
mod burst;
pub mod confine;
mod connection;
mod descriptors;
pub mod exposition;
pub mod flags;
mod gate;
mod handshake;
#[doc(hidden)]
pub mod hostile;
mod landing;
pub mod log;
pub mod manual;
mod negotiate;
mod neighbourhood;
pub mod process;
mod query;
mod request;
mod response;
pub mod security;
mod server;
pub mod shutdown;
mod slots;
pub mod systemd;
mod timed;
mod unix;

pub use bind::{BindError, Listen};
pub use bytes::Bytes;
pub use gate::{Gate, Permit};
pub use hyper::{Method, StatusCode, header};
pub use landing::landing;
pub use request::{Peer, Request};
pub use response::Response;
pub use security::{Identity, Security};
pub use server::{Limits, Server};
