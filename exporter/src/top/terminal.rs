//! The terminal: raw while we hold it, as it was afterwards, however we end.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::{panic, thread};

use rustix::process::{Signal, getpgid, getpgrp, getppid, getsid, kill_current_process_group};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::screen::{Line, Tone};

/// Where the size is not known, as with some serial lines.
const HEIGHT: usize = 24;
const WIDTH: usize = 80;

/// A terminal in raw mode, on its alternate screen.
#[derive(Debug)]
pub(super) struct Terminal {
    before: Termios,
    colour: bool,
}

impl Terminal {
    /// Takes it. `NO_COLOR` and `TERM=dumb` are obeyed.
    pub(super) fn take() -> io::Result<Terminal> {
        let before = tcgetattr(io::stdin())?;
        let at_panic = before.clone();
        let say = panic::take_hook();
        // As released, a panic ends the program where it is, and nothing is dropped.
        panic::set_hook(Box::new(move |why| {
            give_back(&at_panic);
            say(why);
        }));
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = Terminal { before, colour: !no_colour && !dumb };
        terminal.begin()?;
        Ok(terminal)
    }

    /// Raw, on the other screen: at the start, and when a shell has had it meanwhile.
    pub(super) fn begin(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        // Alternate screen, no cursor (xterm's control sequences; every terminal of today has them).
        show("\x1b[?1049h\x1b[?25l")
    }

    /// Ctrl-Z: the shell has it until it says `fg`, which SIGCONT tells. Without a shell that could say so, nothing happens.
    pub(super) fn suspend(&self) {
        let Some(parent) = getppid() else { return };
        let here = getsid(None).is_ok_and(|session| getsid(Some(parent)) == Ok(session));
        if here && getpgid(Some(parent)) != Ok(getpgrp()) {
            give_back(&self.before);
            let _ = kill_current_process_group(Signal::TSTP);
        }
    }

    /// Lines and columns that fit now.
    pub(super) fn size(&self) -> (usize, usize) {
        let or = |known: u16, otherwise: usize| if known == 0 { otherwise } else { known.into() };
        tcgetwinsize(io::stdout())
            .map_or((HEIGHT, WIDTH), |size| (or(size.ws_row, HEIGHT), or(size.ws_col, WIDTH)))
    }

    /// Shows the lines, each cut to the width, in one write.
    pub(super) fn draw(&self, lines: &[Line]) -> io::Result<()> {
        show(&paint(lines, self.size().1, self.colour))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back(&self.before);
    }
}

/// The program ends or stops: there is nobody to tell of a failure.
fn give_back(before: &Termios) {
    let _ = show("\x1b[?25h\x1b[?1049l");
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
}

fn show(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What a terminal is sent: from the upper left corner, each line's rest erased, and what is below the last.
fn paint(lines: &[Line], width: usize, colour: bool) -> String {
    let mut out = String::from("\x1b[H");
    for (place, line) in lines.iter().enumerate() {
        let text: String = line.text.chars().take(width).collect();
        let code = match line.tone {
            _ if !colour => "",
            Tone::Plain | Tone::Quiet => "",
            Tone::Heading => "\x1b[7m",
            Tone::Calm => "\x1b[32m",
            Tone::Warning => "\x1b[33m",
            Tone::Alarm => "\x1b[1;31m",
        };
        let end = if code.is_empty() { "" } else { "\x1b[0m" };
        let next = if place + 1 < lines.len() { "\r\n" } else { "" };
        let _ = write!(out, "{code}{text}{end}\x1b[K{next}");
    }
    out.push_str("\x1b[J");
    out
}

/// What is typed, read on a thread of its own, which ends with the terminal or the program.
pub(super) fn typed() -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (tell, typed) = mpsc::channel(16);
    thread::Builder::new().name("keys".into()).spawn(move || {
        let mut bytes = [0; 64];
        loop {
            match io::stdin().read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(read) if tell.blocking_send(bytes[..read].to_vec()).is_err() => break,
                Ok(_) => {}
            }
        }
    })?;
    Ok(typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_to_the_width_and_coloured_only_where_it_is_wanted() {
        let lines = [
            Line { text: "entries".into(), tone: Tone::Alarm },
            Line { text: "sources".into(), tone: Tone::Plain },
        ];
        assert_eq!(paint(&lines, 5, true), "\x1b[H\x1b[1;31mentri\x1b[0m\x1b[K\r\nsourc\x1b[K\x1b[J");
        assert_eq!(paint(&lines, 80, false), "\x1b[Hentries\x1b[K\r\nsources\x1b[K\x1b[J");
    }
}
