//! Unix sockets in the file system: made without a moment in which others could connect, and taken away again.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, chmod, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::bind::{BACKLOG, BindError};

/// A socket file that we made; dropping it removes the file, unless somebody has put another in its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "socket not removed");
        }
    }
}

/// A listening socket at `path` with permission bits `mode`. A socket there that nobody listens on is removed first.
pub(crate) fn open(path: &Path, mode: u32) -> Result<(OwnedFd, SocketFile), BindError> {
    let failed = |error: io::Error| BindError::UnixSocket { path: path.to_owned(), error };
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    clear(path, &address)?;
    let create = || -> Result<OwnedFd, Errno> {
        let socket = socket()?;
        let mode = Mode::from_raw_mode(mode);
        // Linux makes the file with the mode of the unbound socket, less the umask (net/unix/af_unix.c, unix_bind_bsd):
        // the second call can only widen it to what was asked.
        fchmod(&socket, mode)?;
        bind(&socket, &address)?;
        chmod(path, mode)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    let socket = create().map_err(|error| failed(error.into()))?;
    let file = fs::symlink_metadata(path).map_err(failed)?;
    Ok((socket, SocketFile { path: path.to_owned(), identity: (file.dev(), file.ino()) }))
}

fn socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// Makes room at `path`: nothing there, or a socket left behind by a process that died.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let failed = |error: io::Error| BindError::UnixSocket { path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match socket().and_then(|probe| connect(probe, address)) {
        Err(Errno::CONNREFUSED) => {
            tracing::info!(path = %path.display(), "removing a socket that nobody listens on");
            fs::remove_file(path).map_err(failed)
        }
        // A full backlog says EAGAIN: somebody is there.
        Ok(()) | Err(Errno::AGAIN) => Err(BindError::SocketInUse(path.to_owned())),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}
