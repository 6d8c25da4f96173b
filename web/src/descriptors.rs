//! File descriptors: strangers' connections must leave some for the work itself, which opens netlink sockets, files and pipes.
//!
//! A limit of 1024 is what systemd and most shells give; two listeners full of connections take all of it, and then no table is
//! read and no `iptables` started.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is left for everything but connections.
const RESERVE: u64 = 128;

/// So many connections each of the listeners may have. The soft limit is raised to what they need, as far as the hard one lets it.
pub(crate) fn connections_each(listeners: usize, wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = (listeners as u64).saturating_mul(wanted as u64).saturating_add(RESERVE);
    let may = limit.maximum.unwrap_or(u64::MAX);
    let mut has = limit.current.unwrap_or(u64::MAX);
    if has < needed && has < may {
        let raised = needed.min(may);
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_ok() {
            has = raised;
        }
    }
    let each = shared(has, listeners, wanted);
    if each < wanted {
        tracing::warn!(
            limit = has,
            needed,
            connections = each,
            "too few file descriptors for all connections that were to be had: each address takes fewer, so that some are left for \
             the work (LimitNOFILE= in the unit, or ulimit -n, gives more)"
        );
    }
    each
}

/// What of `limit` descriptors is for the connections of each listener. Pure.
fn shared(limit: u64, listeners: usize, wanted: usize) -> usize {
    // A process that has hardly any keeps a quarter.
    let for_all = limit - RESERVE.min(limit / 4);
    let each = for_all / listeners.max(1) as u64;
    usize::try_from(each).unwrap_or(usize::MAX).clamp(1, wanted.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_take_leaves_some_for_the_work() {
        assert_eq!(shared(u64::MAX, 2, 512), 512);
        assert_eq!(shared(1024 + RESERVE, 2, 512), 512);
        assert_eq!(shared(1024, 2, 512), 448, "448 + 448 + 128");
        assert_eq!(shared(1024, 1, 512), 512);
        assert_eq!(shared(64, 1, 512), 48);
        assert_eq!(shared(0, 3, 512), 1, "a server that takes nobody is none");
    }
}
