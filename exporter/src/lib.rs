//! conntrack-exporter: tells Prometheus what the connection tracking table holds and who fills it.
//!
//! ```text
//! GET /metrics → web → scrape → sockets, then Table::visit(flow) → Summary (pure) → rank (pure) → encode → 200
//! ```
//!
//! One thread, the collector, dumps the table and owns what is remembered from dump to dump. Scrapes that wait share its result.
//! Another, the reader, reads for one scrape after the other what costs microseconds.

mod advise;
#[doc(hidden)]
pub mod answer;
mod cheap;
mod collector;
mod dumper;
mod dumps;
mod exporter;
mod exposition;
mod flags;
mod flows;
mod hold;
mod http;
mod listing;
mod prefixes;
mod rank;
mod reader;
#[cfg(test)]
mod sample;
mod scrape;
mod snapshot;
mod stat;
mod sysctl;
mod told;
#[cfg(feature = "top")]
mod top;

use std::path::PathBuf;
use std::rc::Rc;

use web::confine::{Capability, Confined, Confinement, Starts, beside};

pub use advise::AdviseError;
pub use flags::Flags;
#[cfg(feature = "top")]
pub use top::TopError;

/// Why the exporter cannot start, or its command not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A `--web.*` flag that cannot be obeyed.
    #[error(transparent)]
    Flag(#[from] web::flags::FlagError),
    /// A web configuration that cannot be used.
    #[error(transparent)]
    Security(#[from] web::security::SecurityError),
    /// An address that cannot be listened on.
    #[error(transparent)]
    Bind(#[from] web::BindError),
    /// A socket that systemd hands over and that cannot be used.
    #[error(transparent)]
    Inherited(#[from] web::systemd::InheritedError),
    /// The same, by the kernel's word.
    #[error("a socket that systemd hands over cannot be used: {0}")]
    Handed(std::io::Error),
    /// No thread for the collector or the reader.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// `advise` has nothing to go by.
    #[error(transparent)]
    Advise(#[from] AdviseError),
    /// Completions or man pages cannot be written.
    #[error(transparent)]
    Manual(#[from] web::manual::Unwritten),
    /// `top` has nothing to show.
    #[cfg(feature = "top")]
    #[error(transparent)]
    Top(#[from] TopError),
}

/// Carries out the command, or serves until SIGTERM or SIGINT. Errors: see [`StartError`]; to the server a table that cannot be
/// read is none.
pub async fn run(flags: Flags) -> Result<(), StartError> {
    match &flags.command {
        Some(flags::Command::Advise(advise)) => Ok(advise::run(&flags.procfs, advise)?),
        #[cfg(feature = "top")]
        Some(flags::Command::Top(top)) => Ok(top::run(&flags.procfs, flags.grace, top).await?),
        Some(flags::Command::Manual(manual)) => Ok(manual.run(Flags::shown())?),
        None => serve(flags).await,
    }
}

/// It reads, and does nothing else: no file is written, no program started.
fn confined(flags: &Flags, security: &web::Security) -> Confined {
    if flags.confine.no_confine {
        return Confined::not_at_all();
    }
    let mut reads: Vec<PathBuf> = ["/proc", "/sys", "/etc"].map(PathBuf::from).to_vec();
    reads.push(flags.procfs.clone());
    reads.extend(beside(&security.files()));
    // ctnetlink and sock_diag ask for NET_ADMIN; SYS_NICE raises a dump that starves.
    let capabilities = vec![Capability::CAP_NET_ADMIN, Capability::CAP_SYS_NICE];
    let (writes, removes) = (Vec::new(), Vec::new());
    Confinement { capabilities, reads, writes, removes, starts: Starts::Nothing }.apply()
}

async fn serve(flags: Flags) -> Result<(), StartError> {
    flags.log.init();
    let shutdown = web::shutdown::signal();
    let security = Rc::new(flags.web.security()?);
    let given = flags.web.listen(flags::DEFAULT_ADDRESS)?;
    let mut handed = web::systemd::Inherited::take()?;
    let handed: Vec<_> = handed.tcp.drain(..).chain(handed.unix.drain(..)).collect();
    flags.web.tell_unheard(&handed);
    let open = if handed.is_empty() { given } else { Vec::new() };
    let server = web::Server::bind(&open, web::Limits::default())?;
    let server = server.inheriting(handed).map_err(StartError::Handed)?.secured(Rc::clone(&security));
    let confined = confined(&flags, &security);
    let routes = Rc::new(http::Routes {
        exporter: exporter::Exporter::start(&flags).map_err(StartError::Thread)?,
        gate: web::Gate::new(flags.web.max_requests),
        telemetry_path: flags.web.telemetry_path,
        refused: security.counters().clone(),
        confined,
    });
    routes.confined.tell();
    for address in server.addresses() {
        let (tls, authenticates) = (security.encrypts(), security.authenticates());
        tracing::info!(%address, tls, authenticates, version = env!("CARGO_PKG_VERSION"), "listening");
    }
    web::systemd::ready("answering scrapes");
    let stopped = async {
        shutdown.await;
        web::systemd::stopping();
    };
    let answering = Rc::clone(&routes);
    tokio::select! {
        () = server.serve(move |request| Rc::clone(&answering).answer(request), stopped) => {}
        () = web::systemd::keep_alive(|| routes.exporter.works()) => {}
    }
    Ok(())
}
