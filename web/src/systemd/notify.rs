//! The notification socket (sd_notify(3)): ready, reloading, stopping, one line for `systemctl status`, and the watchdog.

use sd_notify::NotifyState;
use std::time::Duration;

/// The listeners are open and the first work is done; also the end of a reload.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A SIGHUP arrived. `Type=notify-reload` wants the moment with it; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd is not told of a reload: the clock cannot be read"),
    }
}

/// The line that `systemctl status` shows.
pub fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// No more requests are taken; what runs is ended.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says to the watchdog that we are alive, three times in each of its intervals, as long as `alive` says so. Never ends.
///
/// Awaited on the runtime that serves, so that a runtime which hangs is seen too. Without a watchdog it does nothing.
pub async fn keep_alive(alive: impl Fn() -> bool) {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero()) else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval((interval / 3).max(Duration::from_millis(1)));
    let mut was_alive = true;
    loop {
        ticks.tick().await;
        let is_alive = alive();
        if is_alive {
            tell(&[NotifyState::Watchdog]);
        } else if was_alive {
            tracing::error!(
                "work does not go on: systemd's watchdog is not answered, and will end and start us again"
            );
        }
        was_alive = is_alive;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told what we do: NOTIFY_SOCKET names a socket that does not take it");
    }
}
