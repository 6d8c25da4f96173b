//! A banned network's entries leave the table, its sockets first.

use crate::evidence::TableFill;
use crate::networks::Networks;
use crate::survey::{KEY_ROOM, Survey, fill, on_dump_thread};
use conntrack::sockets::{Destroyed, Socket, Sockets};
use conntrack::{Deleted, Error, FlowKeys, Kept, Table};
use foldhash::fast::RandomState;
use ipnet::IpNet;
use std::collections::HashMap;
use std::time::Duration;

/// So many keys are kept for one round of a deletion, 24 MiB if all are IPv6; the next round deletes what did not fit.
const KEYS: usize = KEY_ROOM / 44;
/// Dumps of one deletion: a source whose sockets could not be destroyed makes new entries while we delete.
const ROUNDS: u32 = 4;
/// A count that did not grow proves that nothing was made only where few entries can have expired meanwhile.
const FRESH: Duration = Duration::from_secs(1);
/// Who asked for a ban waits for a second dump of a table of so many entries, a quarter of a second; not for that of a larger one. By
/// number and not by time, so that a busy machine answers as an idle one does.
const WAITED_FOR: u64 = 200_000;

/// By network.
type Keys = HashMap<IpNet, FlowKeys, RandomState>;

/// What was removed for one banned network.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Entries that the kernel deleted.
    pub deleted: u64,
    /// More were there than `limits.deletes_per_action` allows.
    pub clipped: bool,
}

/// What a deletion did, over all its networks.
#[derive(Debug, Default)]
pub struct Removal {
    /// By network.
    pub by_net: HashMap<IpNet, Removed>,
    /// What the kernel said, all rounds together.
    pub deleted: Deleted,
    /// The sockets of the networks' peers.
    pub sockets: Destroyed,
    /// Why sockets could not be destroyed, if they could not even be listed.
    pub sockets_error: Option<String>,
    /// Dumps that were made for it.
    pub dumps: u32,
    /// Each round found entries, so there may be more.
    pub unfinished: bool,
    /// What the survey showed is gone, and the table was not looked at for what was made since: [`look_again`] does it.
    pub rest: Option<Rest>,
}

/// A deletion of which a part is to be done: entries made between the survey and the ban were not looked for yet.
#[derive(Debug)]
pub struct Rest {
    nets: Networks,
    most: u64,
    /// What was deleted so far counts towards `most`.
    so_far: HashMap<IpNet, Removed>,
}

impl Removal {
    /// Whether entries of `net` made since the survey are yet to be looked for.
    pub fn is_yet_to_look_again(&self, net: &IpNet) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.nets.of_address(net.addr()).is_some())
    }

    /// What was not done although it should have been; each a sentence.
    pub fn troubles(&self) -> Vec<String> {
        let errno = std::io::Error::from_raw_os_error;
        let mut troubles = Vec::new();
        if let Some((count, error)) = self.deleted.refusal() {
            troubles.push(format!("{count} entries were not deleted: {error}"));
        }
        troubles
            .extend(self.sockets_error.iter().map(|error| format!("sockets were not destroyed: {error}")));
        if self.sockets.unsupported {
            troubles.push("sockets were not destroyed, so their keep-alives can bring entries back: this kernel has no CONFIG_INET_DIAG_DESTROY".to_owned());
        }
        if let Some((count, first)) = self.sockets.failed {
            troubles.push(format!("{count} sockets were not destroyed: {}", errno(first)));
        }
        if self.unfinished {
            troubles.push(format!("entries were still found in round {ROUNDS} of the deletion: something makes them as fast as they are deleted"));
        }
        troubles
    }
}

/// Destroys the sockets whose peer is in `nets`, then deletes the entries that have one of them at either end, at most
/// `most` for each, by their keys. Without the sockets' end the host's own keep-alives would put the entries back, turned
/// round (DOMAIN.md, 3).
///
/// The keys are those that `survey` kept, if it did: then the slots are free without another dump. Whether anything was made
/// between its dump and the ban is looked for by a dump only if it may have been: `Removal::nothing_new_since`. That of a large table is
/// left to [`look_again`], so that nobody waits for it: [`Removal::rest`].
///
/// # Errors
/// The table could not be read or changed.
pub fn remove(
    nets: impl Iterator<Item = IpNet>,
    most: u64,
    survey: Option<&Survey>,
) -> Result<Removal, Error> {
    remove_waiting(nets, most, survey, WAITED_FOR)
}

/// The same, and leaves nothing, however long that takes.
///
/// # Errors
/// The table could not be read or changed.
pub fn remove_whole(
    nets: impl Iterator<Item = IpNet>,
    most: u64,
    survey: Option<&Survey>,
) -> Result<Removal, Error> {
    remove_waiting(nets, most, survey, u64::MAX)
}

fn remove_waiting(
    nets: impl Iterator<Item = IpNet>,
    most: u64,
    survey: Option<&Survey>,
    waited_for: u64,
) -> Result<Removal, Error> {
    let nets = Networks::of(nets);
    on_dump_thread(|table| {
        let mut removal = Removal::default();
        removal.destroy_sockets(&nets);
        if let Some((survey, kept)) = survey.and_then(|survey| Some((survey, survey.kept.as_ref()?))) {
            let keys = keys_in(kept, &nets, most, &mut removal.by_net);
            removal.delete(table, keys)?;
            if removal.nothing_new_since(survey, kept, fill(table)?) {
                return Ok(removal);
            }
            if survey.dump.entries > waited_for {
                let so_far = removal.by_net.clone();
                removal.rest = Some(Rest { nets, most, so_far });
                return Ok(removal);
            }
            removal.destroy_sockets(&nets);
        }
        removal.find_and_delete(table, &nets, most)?;
        Ok(removal)
    })
}

/// Does what [`remove`] left: what it did alone is in what comes back.
///
/// # Errors
/// The table could not be read or changed.
pub fn look_again(rest: Rest) -> Result<Removal, Error> {
    let Rest { nets, most, so_far } = rest;
    on_dump_thread(|table| {
        let mut removal = Removal { by_net: so_far.clone(), ..Removal::default() };
        removal.destroy_sockets(&nets);
        removal.find_and_delete(table, &nets, most)?;
        for (net, removed) in &mut removal.by_net {
            let before = so_far.get(net).copied().unwrap_or_default();
            removed.deleted -= before.deleted;
            removed.clipped &= !before.clipped;
        }
        Ok(removal)
    })
}

impl Removal {
    /// Dumps and deletes until a dump finds no more.
    fn find_and_delete(&mut self, table: &mut Table, nets: &Networks, most: u64) -> Result<(), Error> {
        while self.dumps < ROUNDS {
            if self.dumps > 0 {
                self.destroy_sockets(nets);
            }
            self.dumps += 1;
            let keys = keys_of(table, nets, most, &mut self.by_net)?;
            if keys.is_empty() {
                return Ok(());
            }
            self.delete(table, keys)?;
        }
        self.unfinished = true;
        Ok(())
    }

    fn destroy_sockets(&mut self, nets: &Networks) {
        match destroy_sockets(nets) {
            Ok(destroyed) => self.sockets = plus(self.sockets, destroyed),
            Err(error) => self.sockets_error = Some(error.to_string()),
        }
    }

    fn delete(&mut self, table: &mut Table, keys: Keys) -> Result<(), Error> {
        for (net, keys) in keys {
            let deleted = table.delete(keys.iter())?;
            self.by_net.entry(net).or_default().deleted += deleted.deleted;
            self.deleted.deleted += deleted.deleted;
            self.deleted.absent += deleted.absent;
            self.deleted.failed = self.deleted.failed.or(deleted.failed);
        }
        Ok(())
    }

    /// Whether no entry of a network can have been made after the survey saw its place in the table: all keys found room, no
    /// network had a socket that lived, and there are no more entries now than those that were not deleted.
    fn nothing_new_since(&self, survey: &Survey, kept: &Kept, now: TableFill) -> bool {
        let seen = kept.is_whole() && !survey.dump.interrupted && survey.began.elapsed() < FRESH;
        let no_sockets = self.sockets == Destroyed::default() && self.sockets_error.is_none();
        let gone = self.deleted.deleted + self.deleted.absent;
        seen && no_sockets && self.deleted.failed.is_none() && now.entries + gone <= survey.table.entries
    }
}

/// The kept keys of each network's entries, as many as may be deleted.
fn keys_in(kept: &Kept, nets: &Networks, most: u64, by_net: &mut HashMap<IpNet, Removed>) -> Keys {
    let mut keys = Keys::default();
    for (net, key) in kept.with_end(|address| nets.of_address(address)) {
        let own = keys.entry(net).or_insert_with(|| FlowKeys::bounded(usize::MAX));
        if own.len() as u64 >= most {
            by_net.entry(net).or_default().clipped = true;
        } else {
            own.push(key);
        }
    }
    keys
}

/// The keys of each network's entries, as many as may still be deleted and as fit.
fn keys_of(
    table: &mut Table,
    nets: &Networks,
    most: u64,
    by_net: &mut HashMap<IpNet, Removed>,
) -> Result<Keys, Error> {
    let mut keys = Keys::default();
    let mut kept = 0;
    table.visit(|flow| {
        let Some(net) = nets.of_flow(flow) else { return };
        let removed = by_net.entry(net).or_default();
        let found = keys.get(&net).map_or(0, FlowKeys::len) as u64;
        if removed.deleted + found >= most {
            removed.clipped = true;
        } else if kept < KEYS {
            kept += 1;
            keys.entry(net).or_insert_with(|| FlowKeys::bounded(usize::MAX)).push(flow.key());
        }
    })?;
    Ok(keys)
}

fn destroy_sockets(nets: &Networks) -> Result<Destroyed, Error> {
    let mut sockets = Sockets::open()?;
    let mut found: Vec<Socket> = Vec::new();
    sockets.visit(|socket| {
        if nets.of_address(socket.peer.ip()).is_some() {
            found.push(*socket);
        }
    })?;
    sockets.destroy(&found)
}

fn plus(sum: Destroyed, more: Destroyed) -> Destroyed {
    Destroyed {
        destroyed: sum.destroyed + more.destroyed,
        absent: sum.absent + more.absent,
        unsupported: sum.unsupported || more.unsupported,
        failed: sum.failed.or(more.failed),
    }
}
