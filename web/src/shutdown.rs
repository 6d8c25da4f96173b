//! When to stop.

use tokio::signal::unix::{SignalKind, signal as catch};

/// Ends when SIGTERM or SIGINT arrives.
///
/// Both are caught from this call on, not from the first poll: call it before starting what must be stopped in order.
/// They stay caught, so a second signal does not kill a shutdown that is under way.
///
/// # Panics
/// Outside a tokio runtime.
pub fn signal() -> impl Future<Output = ()> {
    let mut terminate = catch(SignalKind::terminate()).expect("SIGTERM can be caught");
    let mut interrupt = catch(SignalKind::interrupt()).expect("SIGINT can be caught");
    async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
    }
}
