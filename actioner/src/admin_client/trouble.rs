//! Why an order came to nothing: each its own exit status and sentence.

use crate::exit::Exit;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What went wrong between us and the running actioner.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody listens there.
    #[error("{}", unreachable_because(.socket, .error))]
    Unreachable {
        /// The admin socket.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody listens and says nothing.
    #[error(
        "the actioner on {} has not answered within {}: its log says what it waits for (journalctl -u conntrack-actioner); `conntrack-actioner panic` works without it",
        .socket.display(), humantime::format_duration(*.waited)
    )]
    Silent {
        /// The admin socket.
        socket: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It will not.
    #[error("refused: {0}")]
    Refused(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It tried, and it did not work.
    #[error("{0}")]
    Failed(String),
}

fn unreachable_because(socket: &std::path::Path, error: &io::Error) -> String {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "no actioner answers on {socket}: there is no such socket; start it (systemctl start conntrack-actioner), or name its socket with --admin.socket"
        ),
        io::ErrorKind::ConnectionRefused => format!(
            "no actioner answers on {socket}: it ended without cleaning up; start it again (systemctl start conntrack-actioner)"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("you may not open {socket}: orders to the actioner are root's; use sudo")
        }
        _ => format!("no actioner answers on {socket}: {error}"),
    }
}

impl Trouble {
    /// How a command that met it ends.
    pub fn exit(&self) -> Exit {
        match self {
            Trouble::Unreachable { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Failed
            }
            Trouble::Unreachable { .. } | Trouble::Silent { .. } => Exit::NoActioner,
            Trouble::Refused(_) => Exit::Refused,
            Trouble::NotFound(_) => Exit::NotFound,
            Trouble::Failed(_) => Exit::Failed,
        }
    }
}
