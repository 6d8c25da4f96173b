//! The listeners of this host that wait for a client's first data: TCP_DEFER_ACCEPT.
//!
//! No query of the kernel shows the option: inet_diag (`ss -lti`, every extension asked for) answers the same for a deferring
//! listener and a plain one, on 6.18. So each listening socket is duplicated out of a process that holds it (`pidfd_getfd`, Linux 5.6,
//! needs CAP_SYS_PTRACE), asked by `getsockopt`, and closed again. The process does not notice.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::libc;
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use procfs::FromReadSI;
use procfs::net::{TcpNetEntries, TcpState};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

sockopt_impl!(
    /// Seconds that the listener waits, rounded up to a retransmission by the kernel; 0: it does not.
    DeferAccept,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    libc::c_int
);

/// A listener that waits for data.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Deferring {
    pub(super) address: SocketAddr,
    /// As the kernel rounds them.
    pub(super) seconds: i32,
    /// The name of a process that holds it.
    pub(super) program: String,
    pub(super) pid: i32,
}

/// What is known of the listeners of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub(super) struct Listeners {
    pub(super) deferring: Vec<Deferring>,
    /// Listeners that were asked.
    pub(super) asked: usize,
    /// Listeners that could not be.
    pub(super) not_asked: Vec<SocketAddr>,
    /// Why the first could not; or why there are no listeners here at all.
    pub(super) why: Option<String>,
}

impl Listeners {
    /// Asks every listener of the calling thread's network namespace.
    pub(super) fn read(procfs: &Path) -> Listeners {
        match listening(procfs) {
            Ok(listening) => ask(procfs, listening),
            Err(why) => Listeners { why: Some(why), ..Listeners::default() },
        }
    }
}

/// The listening sockets by inode.
fn listening(procfs: &Path) -> Result<HashMap<u64, SocketAddr>, String> {
    let mut listening = HashMap::new();
    for (file, optional) in [("thread-self/net/tcp", false), ("thread-self/net/tcp6", true)] {
        let path = procfs.join(file);
        // A kernel without IPv6.
        if optional && !path.exists() {
            continue;
        }
        let sockets = TcpNetEntries::from_file(&path, procfs::current_system_info())
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let listeners = sockets.0.iter().filter(|socket| socket.state == TcpState::Listen);
        listening.extend(listeners.map(|socket| (socket.inode, socket.local_address)));
    }
    Ok(listening)
}

fn ask(procfs: &Path, mut listening: HashMap<u64, SocketAddr>) -> Listeners {
    let mut found = Listeners::default();
    for (pid, fd, inode) in open_sockets(procfs) {
        let Some(address) = listening.get(&inode).copied() else { continue };
        match deferred_by(pid, fd, inode) {
            Ok(seconds) => {
                listening.remove(&inode);
                found.asked += 1;
                if seconds > 0 {
                    found.deferring.push(Deferring { address, seconds, program: name(procfs, pid), pid });
                }
            }
            Err(error) => {
                found.why.get_or_insert(format!("socket {fd} of process {pid}: {error}"));
            }
        }
    }
    found.deferring.sort_by_key(|listener| listener.address);
    found.not_asked = listening.into_values().collect();
    found.not_asked.sort();
    if !found.not_asked.is_empty() {
        found.why.get_or_insert("no process that can be looked into holds them (run advise as root, in the host's process namespace)".to_owned());
    } else {
        found.why = None;
    }
    found
}

/// The name of a process, which the process itself chooses (prctl): 15 bytes of anything, escape sequences for root's terminal too.
fn name(procfs: &Path, pid: i32) -> String {
    let name = fs::read(procfs.join(format!("{pid}/comm"))).unwrap_or_default();
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    String::from_utf8_lossy(&name).trim().replace(harmful, "\u{fffd}")
}

/// Every socket that a process holds: process, descriptor, inode. What may not be looked into is passed over.
fn open_sockets(procfs: &Path) -> impl Iterator<Item = (i32, i32, u64)> {
    let processes = fs::read_dir(procfs).into_iter().flatten().flatten();
    processes
        .filter_map(|process| process.file_name().to_str()?.parse().ok().map(|pid: i32| (pid, process)))
        .flat_map(|(pid, process)| {
            let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
            descriptors.filter_map(move |descriptor| {
                let link = fs::read_link(descriptor.path()).ok()?;
                let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
                Some((pid, descriptor.file_name().to_str()?.parse().ok()?, inode))
            })
        })
}

fn deferred_by(pid: i32, fd: i32, inode: u64) -> io::Result<i32> {
    let socket = duplicate(pid, fd)?;
    // The descriptor may be another by now; with procfs of another process namespace, the process too.
    if rustix::fs::fstat(&socket)?.st_ino != inode {
        return Err(io::Error::other(
            "it is another by now, or --path.procfs shows another host's processes",
        ));
    }
    Ok(getsockopt(&socket, DeferAccept)?)
}

fn duplicate(pid: i32, fd: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("process 0"))?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).map_err(|error| match error {
        rustix::io::Errno::PERM => {
            io::Error::other("not permitted: CAP_SYS_PTRACE is missing (run advise as root)")
        }
        rustix::io::Errno::NOSYS => io::Error::other("this kernel has no pidfd_getfd (Linux 5.6)"),
        error => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_does_not_reach_for_the_terminal_by_its_name() {
        let procfs = tempfile::tempdir().unwrap();
        fs::create_dir(procfs.path().join("7")).unwrap();
        for (comm, shown) in [
            (&b"nginx\n"[..], "nginx"),
            (b"\x1b[2J\x1b]0;x\x07\n", "\u{fffd}[2J\u{fffd}]0;x\u{fffd}"),
            (b"a\nb\n", "a\u{fffd}b"),
            ("\u{202e}xnign\n".as_bytes(), "\u{fffd}xnign"),
            (b"\xffx\n", "\u{fffd}x"),
        ] {
            fs::write(procfs.path().join("7/comm"), comm).unwrap();
            assert_eq!(name(procfs.path(), 7), shown);
        }
        assert_eq!(name(procfs.path(), 8), "");
    }
}
