//! Addresses to listen on, and sockets that do.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::connection::Io;
use crate::request::Peer;
use crate::systemd::Socket;
use crate::unix::{self, SocketFile};

/// Connections that the kernel completes for us while we are busy; 500 groups of Alertmanager arrive within 0.15 s over
/// about 295 (DOMAIN.md, 6). The kernel clips it to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 1024;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address. Port 0 lets the kernel choose; `[::]` takes IPv4 as well.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix {
        /// Its path; the directory must exist.
        path: PathBuf,
        /// Its permission bits, as 0o600.
        mode: u32,
    },
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the port.
    #[error(
        "cannot listen on {0}: the port is in use; stop what holds it (ss -ltnp 'sport = :{port}' names it) or choose \
         another with --web.listen-address", port = .0.port()
    )]
    PortInUse(SocketAddr),
    /// Any other refusal of the kernel for a TCP address.
    #[error("cannot listen on {address}: {error}; --web.listen-address chooses another address")]
    Tcp {
        /// The address that was asked for.
        address: SocketAddr,
        /// The kernel's reason.
        error: io::Error,
    },
    /// A living process listens on the unix socket.
    #[error("cannot listen on {}: another process listens there; stop it, or choose another path", .0.display())]
    SocketInUse(PathBuf),
    /// Something that we will not delete lies there.
    #[error("cannot listen on {}: that is not a socket; move it away, or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// Any other refusal of the kernel for a unix socket.
    #[error(
        "cannot listen on {}: {error}; its directory must exist and be writable (systemd: RuntimeDirectory=)",
        .path.display()
    )]
    UnixSocket {
        /// The path that was asked for.
        path: PathBuf,
        /// The kernel's reason.
        error: io::Error,
    },
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// As it is, without TLS.
    pub(crate) fn plain(self) -> Box<dyn Io> {
        match self {
            Self::Tcp(stream) => Box::new(stream),
            Self::Unix(stream) => Box::new(stream),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// The file is removed with it, unless it is systemd's.
    Unix {
        listener: UnixListener,
        _file: Option<SocketFile>,
    },
}

impl Listener {
    pub(crate) fn bind(at: &Listen) -> Result<Self, BindError> {
        match at {
            Listen::Tcp(address) => {
                let failed = |error: io::Error| match error.kind() {
                    io::ErrorKind::AddrInUse => BindError::PortInUse(*address),
                    _ => BindError::Tcp { address: *address, error },
                };
                let socket = StdTcpListener::from(open(*address).map_err(|error| failed(error.into()))?);
                Ok(Self::Tcp(TcpListener::from_std(socket).map_err(failed)?))
            }
            Listen::Unix { path, mode } => {
                let (socket, file) = unix::open(path, *mode)?;
                let failed = |error| BindError::UnixSocket { path: path.clone(), error };
                Ok(Self::Unix {
                    listener: UnixListener::from_std(socket.into()).map_err(failed)?,
                    _file: Some(file),
                })
            }
        }
    }

    pub(crate) fn inherit(socket: Socket) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            Socket::Unix(socket) => Self::Unix { listener: UnixListener::from_std(socket)?, _file: None },
        })
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // Answers are written whole: waiting for more would only delay the last segment.
                stream.set_nodelay(true).ok();
                let peer = Peer::Tcp(SocketAddr::new(from.ip().to_canonical(), from.port()));
                Ok((Stream::Tcp(stream), peer))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let who = stream.peer_cred()?;
                Ok((Stream::Unix(stream), Peer::Unix { uid: who.uid(), pid: who.pid() }))
            }
        }
    }
}

fn open(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let all = address.is_ipv6() && address.ip().is_unspecified();
    match listening(address, all) {
        // A kernel without IPv6 (ipv6.disable=1): all addresses are the IPv4 ones.
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if all => {
            listening((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        opened => opened,
    }
}

fn listening(address: SocketAddr, dual_stack: bool) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // Else a restart would have to wait for the old process's connections in TIME_WAIT.
    set_socket_reuseaddr(&socket, true)?;
    if dual_stack {
        // net.ipv6.bindv6only may say otherwise.
        set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}
