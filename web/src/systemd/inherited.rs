//! Sockets that systemd opened for us (sd_listen_fds(3)).

use crate::Listen;
use listenfd::ListenFd;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// A socket that systemd listens on and hands over.
#[derive(Debug)]
pub enum Socket {
    /// A TCP address.
    Tcp(TcpListener),
    /// A socket in the file system: it is systemd's, and stays when we end.
    Unix(UnixListener),
}

impl Socket {
    /// Where it listens; an abstract or unnamed socket has an empty path.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn listen(&self) -> io::Result<Listen> {
        Ok(match self {
            Socket::Tcp(socket) => Listen::Tcp(socket.local_addr()?),
            Socket::Unix(socket) => {
                let path = socket.local_addr()?.as_pathname().map(PathBuf::from).unwrap_or_default();
                Listen::Unix { path, mode: 0 }
            }
        })
    }
}

/// Why a socket that was handed over cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "socket {index} of those that systemd hands over (LISTEN_FDS): {error}; a .socket unit for us has ListenStream= only"
)]
pub struct InheritedError {
    index: usize,
    error: io::Error,
}

/// All sockets that were handed over, by kind: what may be asked of a client hangs on that, not on the name it was given.
#[derive(Debug, Default)]
pub struct Inherited {
    /// `FileDescriptorName=web`: stand in for `--web.listen-address`.
    pub tcp: Vec<Socket>,
    /// `FileDescriptorName=admin`: stand in for the actioner's `--admin.socket`.
    pub unix: Vec<Socket>,
}

impl Inherited {
    /// Takes them from the environment, once and before any thread is started. None outside systemd.
    ///
    /// # Errors
    /// One of them does not listen on TCP or on a unix socket.
    pub fn take() -> Result<Inherited, InheritedError> {
        let mut passed = ListenFd::from_env();
        let mut inherited = Inherited::default();
        for index in 0..passed.len() {
            let wrong = |error| InheritedError { index, error };
            if let Ok(Some(socket)) = passed.take_tcp_listener(index) {
                socket.set_nonblocking(true).map_err(wrong)?;
                inherited.tcp.push(Socket::Tcp(socket));
            } else if let Some(socket) = passed.take_unix_listener(index).map_err(wrong)? {
                socket.set_nonblocking(true).map_err(wrong)?;
                inherited.unix.push(Socket::Unix(socket));
            }
        }
        Ok(inherited)
    }
}
