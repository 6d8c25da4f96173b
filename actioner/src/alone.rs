//! One actioner for one pair of sets in one network namespace: two would take out each other's bans as foreign.
//!
//! The lock is an abstract unix socket, which belongs to the network namespace as the sets do, and ends with the process.

use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use web::confine::Capability;

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
        let name = format!("conntrack-guard/{set}");
        let address = SocketAddr::from_abstract_name(&name)
            .map_err(|error| format!("firewall.set {set:?}: {error}"))?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Alone { _name: Some(listener) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&name) {
                Some((pid, user)) if user == 0 || may_keep_sets(pid) => Err(format!(
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

/// Process and user of the one who listens. Without waiting: one who lets connections queue up cannot be asked.
fn holder(name: &str) -> Option<(i32, u32)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes()).ok()?).ok()?;
    let credentials = socket_peercred(&socket).ok()?;
    Some((credentials.pid.as_raw_nonzero().get(), credentials.uid.as_raw()))
}

/// Whether a process that is not root's may write this namespace's sets, as an actioner of a unit with `DynamicUser=` does. Both files
/// are for everybody to read. In a user namespace of his own anybody has every capability, but not our mapping of users.
fn may_keep_sets(pid: i32) -> bool {
    let read = |process: &str, file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).ok();
    let pid = pid.to_string();
    let ours = read("self", "uid_map").is_some_and(|map| read(&pid, "uid_map") == Some(map));
    let capabilities = read(&pid, "status").and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    ours && capabilities.is_some_and(|bits| bits & Capability::CAP_NET_ADMIN.bitmask() != 0)
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

    #[test]
    fn one_who_lets_connections_queue_up_keeps_nobody_waiting() {
        let set = format!("queue-{}", std::process::id());
        let name = format!("conntrack-guard/{set}");
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let open = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        let squatter = open();
        rustix::net::bind(&squatter, &address).unwrap();
        rustix::net::listen(&squatter, 0).unwrap();
        let waiting: Vec<_> = (0..4).map(|_| open()).collect();
        assert!(waiting.iter().any(|socket| connect(socket, &address).is_err()), "the queue is full");
        assert!(Alone::with(&set).is_ok());
    }
}
