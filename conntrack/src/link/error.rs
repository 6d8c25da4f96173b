//! What a question to the kernel can fail by.

use crate::netlink::Malformed;
use rustix::io::Errno;
use std::io;

/// Why the kernel did not answer a question. Each names what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket: out of descriptors or memory, or a sandbox forbids AF_NETLINK.
    #[error("cannot open a netlink socket to ask for {asked}: {source}")]
    Open {
        /// What was to be asked.
        asked: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// EPERM.
    #[error(
        "the kernel refuses {asked}: CAP_NET_ADMIN is missing (run as root, or give the capability: AmbientCapabilities=CAP_NET_ADMIN)"
    )]
    NotPermitted {
        /// What was asked.
        asked: &'static str,
    },
    /// ENOBUFS: answers were lost, so what was read is not whole.
    #[error("the kernel dropped part of its answer to {asked} (ENOBUFS); what was read is not whole")]
    Overrun {
        /// What was asked.
        asked: &'static str,
    },
    /// `NLM_F_DUMP_INTR`: what was read changed meanwhile, so something may be missing.
    #[error("{asked} changed while they were read: something may be missing")]
    Interrupted {
        /// What was asked.
        asked: &'static str,
    },
    /// No answer in ten seconds.
    #[error("the kernel gave no answer to {asked} in 10 s")]
    Silent {
        /// What was asked.
        asked: &'static str,
    },
    /// A datagram larger than the buffer.
    #[error("an answer to {asked} has {bytes} bytes, more than fit into the buffer: it was cut short")]
    Truncated {
        /// What was asked.
        asked: &'static str,
        /// The datagram's true length.
        bytes: usize,
    },
    /// ENOMEM: the kernel is out of memory, and so is the host.
    #[error(
        "the kernel has no memory left for {asked} (ENOMEM): this host is out of memory, see `dmesg` and `free -m`; the next question is asked all the same"
    )]
    NoMemory {
        /// What was asked.
        asked: &'static str,
    },
    /// The kernel answered with another errno.
    #[error("the kernel refuses {asked}: {source}")]
    Refused {
        /// What was asked.
        asked: &'static str,
        /// The errno.
        source: io::Error,
    },
    /// The answer is not what the protocol says.
    #[error("cannot read the kernel's answer to {asked}: {source}")]
    Malformed {
        /// What was asked.
        asked: &'static str,
        /// What did not fit.
        source: Malformed,
    },
}

impl Error {
    /// A word for a metric's `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Open { .. } => "open",
            Error::NotPermitted { .. } => "not_permitted",
            Error::Overrun { .. } => "overrun",
            Error::Interrupted { .. } => "interrupted",
            Error::Silent { .. } => "silent",
            Error::Truncated { .. } => "truncated",
            Error::NoMemory { .. } => "no_memory",
            Error::Refused { .. } => "refused",
            Error::Malformed { .. } => "malformed",
        }
    }

    pub(crate) fn from_io(asked: &'static str, source: io::Error) -> Error {
        match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::ACCESS) => Error::NotPermitted { asked },
            Some(Errno::NOBUFS) => Error::Overrun { asked },
            Some(Errno::NOMEM) => Error::NoMemory { asked },
            Some(Errno::AGAIN) => Error::Silent { asked },
            _ => Error::Refused { asked, source },
        }
    }
}

/// Every value of [`Error::reason`], so that a counter can show its zeros.
pub const REASONS: [&str; 9] = [
    "open",
    "not_permitted",
    "overrun",
    "silent",
    "truncated",
    "no_memory",
    "refused",
    "malformed",
    "interrupted",
];
