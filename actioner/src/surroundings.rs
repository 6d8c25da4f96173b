//! What a decision must know of this host, kept up to date between decisions: who it is, and whom it spares.

use crate::host::Host;
use crate::now::Now;
use crate::spared::{Files, Memory, Remembered, Spared, Why};
use conntrack::follow::Followed;
use std::net::IpAddr;
use std::sync::Arc;

/// Owned by whoever decides. Addresses and gateways follow the kernel's announcements; the small files are read each time.
#[derive(Debug)]
pub struct Surroundings {
    table_id: String,
    addresses: Followed,
    files: Files,
    remembered: Remembered,
    unwritten: bool,
    troubles: Vec<String>,
}

impl Surroundings {
    /// Of the calling thread's network namespace, for good.
    ///
    /// # Errors
    /// procfs or rtnetlink could not be read; the text says which.
    pub fn open(files: Files) -> Result<Surroundings, String> {
        Ok(Surroundings {
            table_id: conntrack::identity::table_id().map_err(|error| error.to_string())?,
            addresses: Followed::open().map_err(|error| error.to_string())?,
            files,
            remembered: Remembered::default(),
            unwritten: false,
            troubles: Vec::new(),
        })
    }

    /// This host as it is now. Whom it called, only a survey can say: [`Spared::called`] is empty.
    ///
    /// # Errors
    /// rtnetlink could not be read.
    pub fn host(&mut self, now: Now) -> Result<Host, String> {
        let own = self.addresses.current().map_err(|error| error.to_string())?;
        let resolvers = self.notice(now);
        let spared = Spared {
            resolvers,
            sessions: self.remembered.addresses(Why::SshSession, now),
            webhook_peers: self.remembered.addresses(Why::WebhookPeer, now),
            called: Arc::default(),
        };
        // It can change while we run, and costs a microsecond.
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Host { table_id: self.table_id.clone(), name, own, spared })
    }

    /// Looks who is logged in, so that sessions between two decisions are remembered as well.
    pub fn look_round(&mut self, now: Now) {
        self.notice(now);
    }

    /// A webhook from there passed authentication.
    pub fn remember_webhook_peer(&mut self, address: IpAddr, now: Now) {
        self.unwritten |= self.remembered.remember(Why::WebhookPeer, address, now);
    }

    /// Takes in what a store kept of an earlier run, told by this boot's clock.
    pub fn restore(&mut self, rows: &[Memory], now: Now) {
        self.remembered.restore(rows, true, now);
    }

    /// What a store should keep, if it is other than when this was last asked; at most once an hour for a peer.
    pub fn to_store(&mut self, now: Now) -> Option<Vec<Memory>> {
        std::mem::take(&mut self.unwritten).then(|| self.remembered.rows(now))
    }

    /// What is remembered.
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    fn notice(&mut self, now: Now) -> std::collections::BTreeSet<IpAddr> {
        let mut troubles = Vec::new();
        let resolvers = self.files.resolvers(&mut troubles);
        for peer in self.files.sessions(&mut troubles) {
            self.unwritten |= self.remembered.remember(Why::SshSession, peer, now);
        }
        self.unwritten |= self.remembered.expire(now);
        if troubles != self.troubles {
            troubles.iter().for_each(|trouble| tracing::error!("{trouble}"));
            self.troubles = troubles;
        }
        resolvers
    }
}
