//! All that a judgement needs, in the order that makes no mistake: timeouts, sockets, table, timeouts again. Where any step fails
//! nothing is said of sockets, and why.

use super::connected::Connected;
use super::judge::{Behind, CannotJudge, Judge};
use crate::flow::Flow;
use crate::own::OwnAddresses;
use crate::table::Dump;
use crate::timeouts::TcpTimeouts;
use std::path::PathBuf;
use std::time::Duration;

/// How entries without a socket are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judging {
    /// Idle for longer without a socket is dead.
    pub grace: Duration,
    /// What the user sets the grace by: a flag, a line of a policy. Named in errors.
    pub setting: &'static str,
    /// Where procfs is mounted.
    pub procfs: PathBuf,
}

/// Why nothing is said of sockets. A text stays the same from dump to dump, so that it can be told once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unjudged {
    /// They were not to be read.
    #[error("sockets were not asked for")]
    NotAsked,
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
         begin, so no slot would ever be dead: lower {setting}"
    )]
    NoRoom {
        /// As configured.
        grace: Duration,
        /// Seconds.
        established: u32,
        /// Seconds.
        busy: u32,
        /// [`Judging::setting`].
        setting: &'static str,
    },
    /// Reading took longer than the grace.
    #[error(
        "sockets and table took longer to read than the grace of {grace:?}, so a closing connection would look dead: raise {setting}"
    )]
    TooSlow {
        /// As configured.
        grace: Duration,
        /// [`Judging::setting`].
        setting: &'static str,
    },
    /// Somebody wrote the sysctls or a policy meanwhile.
    #[error(
        "TCP timeouts (sysctls or policies) changed while the table was read, so idle cannot be told from busy this time"
    )]
    TimeoutsChanged,
    /// The hash was resized underneath.
    #[error("the table changed its size while it was read, so entries may be missing or double this time")]
    Interrupted,
}

/// What was read before the table.
#[derive(Debug)]
pub struct Before<'a> {
    judging: &'a Judging,
    own: &'a OwnAddresses,
    timeouts: TcpTimeouts,
    connected: Connected,
}

/// Says of each entry what stands behind it.
#[derive(Debug)]
pub struct Judgement<'a>(Judge<'a>);

impl Judging {
    /// Reads timeouts and sockets, in the calling thread's namespace.
    ///
    /// # Errors
    /// They cannot be read, or leave no room for a judgement.
    pub fn before_the_table<'a>(&'a self, own: &'a OwnAddresses) -> Result<Before<'a>, Unjudged> {
        let timeouts = self.timeouts()?;
        let connected = Connected::read().map_err(|error| Unjudged::Sockets(error.to_string()))?;
        Ok(Before { judging: self, own, timeouts, connected })
    }

    fn timeouts(&self) -> Result<TcpTimeouts, Unjudged> {
        TcpTimeouts::read(&self.procfs).map_err(|error| Unjudged::Timeouts(error.to_string()))
    }
}

impl Before<'_> {
    /// For the dump that now begins; one for each thread that reads a part of it.
    ///
    /// # Errors
    /// [`Unjudged::Cannot`], [`Unjudged::NoRoom`].
    pub fn judgement(&self) -> Result<Judgement<'_>, Unjudged> {
        let Judging { grace, setting, .. } = *self.judging;
        let judge = Judge::new(&self.connected, self.own, self.timeouts.clone(), grace);
        let judge = judge.map_err(Unjudged::Cannot)?;
        let (established, busy) = (self.timeouts.default().established, self.timeouts.busy());
        if u64::from(established - busy) <= grace.as_secs() + 1 {
            return Err(Unjudged::NoRoom { grace, established, busy, setting });
        }
        Ok(Judgement(judge))
    }

    /// Whether what `judgements` said holds. To be asked when the dump has ended.
    ///
    /// # Errors
    /// Why it does not.
    pub fn holds<'j>(
        &self,
        judgements: impl IntoIterator<Item = &'j Judgement<'j>>,
        dump: &Dump,
    ) -> Result<(), Unjudged> {
        let Judging { grace, setting, .. } = *self.judging;
        for Judgement(judge) in judgements {
            judge.in_time().map_err(|cannot| match cannot {
                CannotJudge::TooSlow { .. } => Unjudged::TooSlow { grace, setting },
                other => Unjudged::Cannot(other),
            })?;
        }
        if dump.interrupted {
            return Err(Unjudged::Interrupted);
        }
        // A connection made after the sockets were read, under a timeout just lowered, would look idle for days.
        if self.judging.timeouts()? != self.timeouts {
            return Err(Unjudged::TimeoutsChanged);
        }
        Ok(())
    }
}

impl Judgement<'_> {
    /// What stands behind an entry.
    #[inline]
    pub fn of(&mut self, flow: &Flow) -> Behind {
        self.0.judge(flow)
    }
}

#[cfg(test)]
#[path = "judging_tests.rs"]
mod tests;
