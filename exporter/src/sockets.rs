//! The collector `sockets`: established entries that no socket of this host stands behind.
//!
//! What is needed is read in an order that makes no mistake: timeouts, sockets, table, timeouts again. Where any step fails, nothing
//! is said of sockets, and all else is.

use std::path::PathBuf;
use std::time::Duration;

use conntrack::own::OwnAddresses;
use conntrack::socketless::{Behind, CannotJudge, Connected, Judge, TcpTimeouts};
use conntrack::summary::Judged;
use conntrack::{Dump, Flow, Summary};

/// How entries without a socket are told.
#[derive(Debug, Clone)]
pub(crate) struct Judging {
    /// Idle for longer without a socket is dead.
    pub(crate) grace: Duration,
    /// Where procfs is mounted.
    pub(crate) procfs: PathBuf,
}

/// Why nothing is said of sockets. A text stays the same from dump to dump, so that it is told once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unjudged {
    /// The collector is off.
    #[error("this collector is disabled (--no-collector.sockets)")]
    Off,
    /// Routes could not be read.
    #[error("the addresses of this host are not known: {0}")]
    Addresses(String),
    /// The sysctls or the policies cannot be read.
    #[error("the timeouts that tell idle from busy are not known: {0}")]
    Timeouts(String),
    /// inet_diag failed.
    #[error("{0}")]
    Sockets(String),
    /// The timeouts leave no room, or a look-up failed.
    #[error("{0}")]
    Cannot(CannotJudge),
    /// No entry can be idle for the grace and still be told from a busy one.
    #[error(
        "the grace of {grace:?} does not fit between nf_conntrack_tcp_timeout_established, {established} s, and {busy} s, where busy entries \
         begin, so no slot would ever be dead: lower --collector.sockets.grace"
    )]
    NoRoom {
        /// As configured.
        grace: Duration,
        /// Seconds.
        established: u32,
        /// Seconds.
        busy: u32,
    },
    /// Reading took longer than the grace.
    #[error(
        "sockets and table took longer to read than the grace of {0:?}, so a closing connection would look dead: raise \
         --collector.sockets.grace"
    )]
    TooSlow(Duration),
    /// Somebody wrote the sysctls or a policy meanwhile.
    #[error(
        "TCP timeouts (sysctls or policies) changed while the table was read, so idle cannot be told from busy this time"
    )]
    TimeoutsChanged,
    /// The hash was resized in both dumps.
    #[error("the table changed its size during both dumps, so entries may be missing or double this time")]
    Interrupted,
}

/// What was read before the table.
#[derive(Debug)]
pub(crate) struct Before<'a> {
    judging: &'a Judging,
    own: &'a OwnAddresses,
    timeouts: TcpTimeouts,
    connected: Connected,
}

/// Says of each entry what stands behind it, and in the end whether that holds.
#[derive(Debug)]
pub(crate) struct Judgement<'a> {
    before: &'a Before<'a>,
    judge: Judge<'a>,
}

impl Judging {
    /// Reads timeouts and sockets, in the calling thread's namespace.
    pub(crate) fn before_the_table<'a>(
        &'a self,
        own: &'a Result<OwnAddresses, String>,
    ) -> Result<Before<'a>, Unjudged> {
        let own = own.as_ref().map_err(|error| Unjudged::Addresses(error.clone()))?;
        let timeouts = self.timeouts()?;
        let connected = Connected::read().map_err(|error| Unjudged::Sockets(error.to_string()))?;
        Ok(Before { judging: self, own, timeouts, connected })
    }

    fn timeouts(&self) -> Result<TcpTimeouts, Unjudged> {
        TcpTimeouts::read(&self.procfs).map_err(|error| Unjudged::Timeouts(error.to_string()))
    }
}

impl Before<'_> {
    /// For the dump that now begins.
    pub(crate) fn judgement(&self) -> Result<Judgement<'_>, Unjudged> {
        let judge = Judge::new(&self.connected, self.own, self.timeouts.clone(), self.judging.grace);
        let judge = judge.map_err(Unjudged::Cannot)?;
        let (grace, established, busy) =
            (self.judging.grace, self.timeouts.default().established, self.timeouts.busy());
        if u64::from(established - busy) <= grace.as_secs() + 1 {
            return Err(Unjudged::NoRoom { grace, established, busy });
        }
        Ok(Judgement { before: self, judge })
    }
}

impl Judgement<'_> {
    /// What stands behind an entry.
    #[inline]
    pub(crate) fn of(&mut self, flow: &Flow) -> Behind {
        self.judge.judge(flow)
    }

    /// What was found, if it holds. To be asked when the dump has ended.
    pub(crate) fn found(self, summary: &Summary, dump: &Dump) -> Result<Judged, Unjudged> {
        // An empty table was judged too.
        self.holds(dump).map(|()| summary.judged.unwrap_or_default())
    }

    fn holds(&self, dump: &Dump) -> Result<(), Unjudged> {
        let judging = self.before.judging;
        self.judge.in_time().map_err(|cannot| match cannot {
            CannotJudge::TooSlow { grace, .. } => Unjudged::TooSlow(grace),
            other => Unjudged::Cannot(other),
        })?;
        if dump.interrupted {
            return Err(Unjudged::Interrupted);
        }
        // A connection made after the sockets were read, under a timeout just lowered, would look idle for days.
        if judging.timeouts()? != self.before.timeouts {
            return Err(Unjudged::TimeoutsChanged);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GRACE: Duration = Duration::from_secs(30);

    /// A procfs with the timeouts of a host as it comes.
    fn procfs() -> (tempfile::TempDir, Judging) {
        let procfs = tempfile::tempdir().unwrap();
        let judging = Judging { grace: GRACE, procfs: procfs.path().to_owned() };
        fs::create_dir_all(procfs.path().join("sys/net/netfilter")).unwrap();
        for (name, seconds) in [("established", 432_000), ("unacknowledged", 300), ("max_retrans", 300)] {
            set(&judging, name, seconds);
        }
        (procfs, judging)
    }

    fn set(judging: &Judging, name: &str, seconds: u32) {
        let file = judging.procfs.join(format!("sys/net/netfilter/nf_conntrack_tcp_timeout_{name}"));
        fs::write(file, format!("{seconds}\n")).unwrap();
    }

    const WHOLE: Dump = Dump { entries: 0, malformed: None, interrupted: false, elapsed: Duration::ZERO };

    /// What a dump of an empty table finds while `meanwhile` happens.
    fn found(judging: &Judging, dump: &Dump, meanwhile: impl FnOnce()) -> Result<Judged, Unjudged> {
        let own = Ok(OwnAddresses::default());
        let before = judging.before_the_table(&own)?;
        let judgement = before.judgement()?;
        meanwhile();
        judgement.found(&Summary::new(), dump)
    }

    #[test]
    fn an_empty_table_is_judged_and_nothing_is_found() {
        let (_procfs, judging) = procfs();
        assert_eq!(found(&judging, &WHOLE, || ()), Ok(Judged::default()));
    }

    #[test]
    fn what_would_be_a_guess_is_not_said() {
        let (_procfs, judging) = procfs();
        assert_eq!(found(&judging, &Dump { interrupted: true, ..WHOLE }, || ()), Err(Unjudged::Interrupted));
        let lowered = found(&judging, &WHOLE, || set(&judging, "established", 1000));
        assert_eq!(lowered, Err(Unjudged::TimeoutsChanged));
        assert!(found(&judging, &WHOLE, || ()).is_ok(), "the next dump knows the new ones");
        set(&judging, "established", 300);
        assert!(matches!(found(&judging, &WHOLE, || ()), Err(Unjudged::Cannot(_))));
        set(&judging, "established", 331);
        assert!(matches!(found(&judging, &WHOLE, || ()), Err(Unjudged::NoRoom { established: 331, .. })));
        set(&judging, "established", 332);
        assert!(found(&judging, &WHOLE, || ()).is_ok());
        let hasty = Judging { grace: Duration::ZERO, ..judging.clone() };
        set(&judging, "established", 432_000);
        assert_eq!(found(&hasty, &WHOLE, || ()), Err(Unjudged::TooSlow(Duration::ZERO)));
        let nowhere = Judging { procfs: "/nowhere".into(), ..judging };
        let error = found(&nowhere, &WHOLE, || ()).unwrap_err().to_string();
        assert!(error.contains("/nowhere/sys/net/netfilter/nf_conntrack_tcp_timeout_established"), "{error}");
        let homeless = judging_without_addresses(&nowhere);
        assert_eq!(homeless, Err(Unjudged::Addresses("EPERM".into())));
    }

    fn judging_without_addresses(judging: &Judging) -> Result<(), Unjudged> {
        judging.before_the_table(&Err("EPERM".into())).map(drop)
    }
}
