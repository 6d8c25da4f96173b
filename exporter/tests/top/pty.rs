//! A pseudo-terminal with a program in it, and what its screen shows.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use tests::netns::Namespace;
use tests::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

/// The program ends with it.
pub(crate) struct Pty {
    terminal: File,
    /// Kept open, so that the terminal can be asked when the program has ended.
    user: OwnedFd,
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Pty {
    /// Starts the program in the namespace, the terminal being its controlling one.
    pub(crate) fn start(namespace: &Namespace, words: &[&str], rows: u16) -> Pty {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let terminal = openpt(flags).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let user = ioctl_tiocgptpeer(&terminal, flags).unwrap();
        let terminal = File::from(terminal);
        resize(&terminal, rows, 120);
        let end = || user.try_clone().unwrap();
        let mut command = Command::new("setsid");
        command.arg("--ctty").args(words).stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm");
        let child = namespace.run(|| command.spawn()).unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (terminal.try_clone().unwrap(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                into.lock().unwrap().extend_from_slice(&bytes[..read]);
            }
        });
        Pty { terminal, user, child, written }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        resize(&self.terminal, rows, columns);
    }

    /// Everything the program has sent.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// The lines of the last whole screen, without colours.
    pub(crate) fn screen(&self) -> Vec<String> {
        let written = self.written();
        let Some(end) = written.rfind("\x1b[J") else { return Vec::new() };
        let Some(begin) = written[..end].rfind("\x1b[H") else { return Vec::new() };
        written[begin..end].split("\r\n").map(plain).collect()
    }

    /// Waits until the screen is as `seen` wants it.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, seen: impl Fn(&[String]) -> bool) -> Vec<String> {
        wait_until(what, PATIENCE, || {
            let screen = self.screen();
            if seen(&screen) {
                Ok(screen)
            } else {
                Err(format!("{}\n({:?})", screen.join("\n"), self.written().len()))
            }
        })
        .unwrap()
    }

    #[track_caller]
    pub(crate) fn until_shown(&self, text: &str) -> Vec<String> {
        self.until(&format!("{text:?} on the screen"), |screen| screen.iter().any(|line| line.contains(text)))
    }

    /// Whether typed characters are echoed and lines edited, as a shell expects it.
    pub(crate) fn is_cooked(&self) -> bool {
        use rustix::termios::LocalModes;
        tcgetattr(&self.user)
            .unwrap()
            .local_modes
            .contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// The cursor shown, the other screen back, lines edited again. What an ended program wrote may still be on its way to us.
    #[track_caller]
    pub(crate) fn until_given_back(&self) {
        wait_until("the terminal to be given back", PATIENCE, || {
            let given = self.is_cooked() && self.written().ends_with("\x1b[?25h\x1b[?1049l");
            if given { Ok(()) } else { Err(format!("cooked: {}, {:?}", self.is_cooked(), self.written())) }
        })
        .unwrap();
    }

    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait_until("the program to end", PATIENCE, || self.child.try_wait().unwrap().ok_or("it runs"))
            .unwrap()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

/// Without control sequences: each begins with ESC [ and ends with a letter.
fn plain(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |end| end + 1);
        line + &part[end..]
    })
}
