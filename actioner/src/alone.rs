//! One actioner for one pair of sets in one network namespace: two would take out each other's bans as foreign.
//!
//! The lock is an abstract unix socket, which belongs to the network namespace as the sets do, and ends with the process.

use rustix::net::sockopt::socket_peercred;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

/// Held as long as the sets are ours.
#[derive(Debug)]
pub struct Alone {
    _name: Option<UnixListener>,
}

impl Alone {
    /// Takes the sets of this name, in the calling thread's namespace.
    ///
    /// # Errors
    /// Another actioner has them: a sentence.
    pub fn with(set: &str) -> Result<Alone, String> {
        let name = SocketAddr::from_abstract_name(format!("conntrack-guard/{set}"))
            .map_err(|error| format!("firewall.set {set:?}: {error}"))?;
        match UnixListener::bind_addr(&name) {
            Ok(listener) => Ok(Alone { _name: Some(listener) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&name) {
                Some((pid, 0)) => Err(format!(
                    "another conntrack-actioner (process {pid}) keeps the sets {set}-4 and {set}-6 of this network namespace: two would undo each other's \
                     bans. Stop it, or give this one a firewall.set of its own"
                )),
                // Anybody may take an abstract name: that must not keep a host from being protected.
                holder => {
                    tracing::warn!(
                        set,
                        ?holder,
                        "the name of our sets' lock is held by somebody who cannot be an actioner: going on without the lock"
                    );
                    Ok(Alone { _name: None })
                }
            },
            Err(error) => Err(format!("cannot lock the sets {set}: {error}")),
        }
    }
}

/// Process and user of the one who listens.
fn holder(name: &SocketAddr) -> Option<(i32, u32)> {
    let credentials = socket_peercred(&UnixStream::connect_addr(name).ok()?).ok()?;
    Some((credentials.pid.as_raw_nonzero().get(), credentials.uid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let set = format!("alone-{}", std::process::id());
        let first = Alone::with(&set).unwrap();
        let error = Alone::with(&set).unwrap_err();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(Alone::with(&format!("{set}-other")).unwrap());
        drop(first);
        drop(Alone::with(&set).unwrap());
    }
}
