//! At a terminal: looks, keys and signals, as they come.

use std::io;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::TopError;
use super::growth::Growth;
use super::keys::keys;
use super::look::{Looking, Seen};
use super::screen::screen;
use super::terminal::{self, Terminal};
use super::view::{Then, View};

/// Shows the table until it is told to quit. The first look must succeed; later ones may fail, and that is shown.
pub(super) async fn run(mut looking: Looking, view: View, interval: Duration) -> Result<(), TopError> {
    let stop = web::shutdown::signal();
    tokio::pin!(stop);
    let first = tokio::select! {
        () = &mut stop => return Ok(()),
        first = looking.next() => first.map_err(TopError::Look)?,
    };
    let mut resized = signal(SignalKind::window_change())?;
    let mut continued = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
    let mut typed = terminal::typed()?;
    let mut live = Live { growth: Growth::default(), view, trouble: None, terminal: Terminal::take()? };
    live.growth.add(first);
    live.draw()?;
    let mut next = Some(Instant::now() + interval);
    loop {
        let due = async {
            match next {
                Some(next) if !live.view.frozen => tokio::time::sleep_until(next).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = due => {
                next = None;
                looking.ask();
                continue;
            }
            seen = looking.next() => {
                next = Some(Instant::now() + interval);
                live.take(seen);
            }
            _ = resized.recv() => {}
            _ = continued.recv() => live.terminal.begin()?,
            bytes = typed.recv() => {
                // The terminal is gone.
                let Some(bytes) = bytes else { return Ok(()) };
                match live.press(&bytes) {
                    Then::Quit => return Ok(()),
                    Then::Suspend => {
                        live.terminal.suspend();
                        continue;
                    }
                    Then::Nothing => continue,
                    Then::Redraw => {}
                }
            }
        }
        live.draw()?;
    }
}

struct Live {
    growth: Growth,
    view: View,
    trouble: Option<String>,
    terminal: Terminal,
}

impl Live {
    /// A look that was under way when the screen was frozen is not shown.
    fn take(&mut self, seen: Seen) {
        match seen {
            Ok(_) if self.view.frozen => {}
            Ok(look) => {
                self.growth.add(look);
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(error),
        }
    }

    fn press(&mut self, bytes: &[u8]) -> Then {
        let mut then = Then::Nothing;
        for key in keys(bytes) {
            let asked = self.view.press(key);
            match asked {
                Then::Quit | Then::Suspend => return asked,
                Then::Redraw => then = Then::Redraw,
                Then::Nothing => {}
            }
        }
        then
    }

    fn draw(&self) -> io::Result<()> {
        let Some(look) = self.growth.latest() else { return Ok(()) };
        let lines = screen(look, &self.growth, &self.view, self.trouble.as_deref(), self.terminal.size());
        self.terminal.draw(&lines)
    }
}
