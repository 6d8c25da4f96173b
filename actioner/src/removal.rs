//! A banned network's entries leave the table, its sockets first.

use crate::evidence::TableFill;
use crate::survey::{KEY_ROOM, Survey, fill, on_dump_thread};
use conntrack::sockets::{Destroyed, Socket, Sockets};
use conntrack::{Deleted, Error, Flow, FlowKeys, Kept, Table};
use foldhash::fast::RandomState;
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So many keys are kept for one round of a deletion, 24 MiB if all are IPv6; the next round deletes what did not fit.
const KEYS: usize = KEY_ROOM / 44;
/// Dumps of one deletion: a source whose sockets could not be destroyed makes new entries while we delete.
const ROUNDS: u32 = 4;
/// A count that did not grow proves that nothing was made only where few entries can have expired meanwhile.
const FRESH: Duration = Duration::from_secs(1);

/// By network.
type Keys = HashMap<IpNet, FlowKeys, RandomState>;

/// Networks, asked for each entry: hosts by hash, the few wider ones one by one.
#[derive(Debug)]
struct Networks {
    hosts: HashSet<IpAddr, RandomState>,
    hint: Hint,
    wider: Vec<IpNet>,
}

/// A bit for each host among 65,536: a million entries are asked for both ends, and nearly all of them are nobody's. It fits a
/// first-level cache. Addresses chosen to share a bit cost the look-up that it saves, and nothing else.
#[derive(Debug)]
struct Hint(Box<[u64; 1024]>);

impl Hint {
    fn of(hosts: &[IpNet]) -> Hint {
        let mut hint = Hint(Box::new([0; 1024]));
        for host in hosts {
            let (word, bit) = Hint::place(host.addr());
            hint.0[word] |= bit;
        }
        hint
    }

    #[inline]
    fn place(address: IpAddr) -> (usize, u64) {
        let bits = match address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h] = address.segments().map(u32::from);
                (a ^ c ^ e ^ g) << 16 | (b ^ d ^ f ^ h)
            }
        };
        let place = bits.wrapping_mul(0x9e37_79b1) >> 16;
        (place as usize / 64, 1 << (place % 64))
    }

    #[inline]
    fn may_hold(&self, address: IpAddr) -> bool {
        let (word, bit) = Hint::place(address);
        self.0[word] & bit != 0
    }
}

impl Networks {
    fn of(nets: impl Iterator<Item = IpNet>) -> Networks {
        let (hosts, wider): (Vec<IpNet>, _) = nets.partition(|net| net.prefix_len() == net.max_prefix_len());
        Networks { hint: Hint::of(&hosts), hosts: hosts.iter().map(IpNet::addr).collect(), wider }
    }

    #[inline]
    fn of_address(&self, address: IpAddr) -> Option<IpNet> {
        let address = address.to_canonical();
        if self.hint.may_hold(address) && self.hosts.contains(&address) {
            return Some(address.into());
        }
        self.wider.iter().find(|net| net.contains(&address)).copied()
    }

    fn of_flow(&self, flow: &Flow) -> Option<IpNet> {
        let ends = [flow.original.src, flow.original.dst];
        let answers = [flow.reply.dst, flow.reply.src];
        let of = |addresses: [IpAddr; 2]| addresses.into_iter().find_map(|address| self.of_address(address));
        of(ends).or_else(|| if ends == answers { None } else { of(answers) })
    }
}

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
    /// How long it took until the entries that the survey had shown were gone; a dump that looks for more comes after that. Zero
    /// where no keys were kept.
    pub shown_gone: Duration,
    /// Each round found entries, so there may be more.
    pub unfinished: bool,
}

impl Removal {
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
/// between its dump and the ban is looked for by a dump only if it may have been: `Removal::nothing_new_since`.
///
/// # Errors
/// The table could not be read or changed.
pub fn remove(
    nets: impl Iterator<Item = IpNet>,
    most: u64,
    survey: Option<&Survey>,
) -> Result<Removal, Error> {
    let nets = Networks::of(nets);
    let began = Instant::now();
    on_dump_thread(|table| {
        let mut removal = Removal { unfinished: true, ..Removal::default() };
        removal.destroy_sockets(&nets);
        if let Some((survey, kept)) = survey.and_then(|survey| Some((survey, survey.kept.as_ref()?))) {
            let keys = keys_in(kept, &nets, most, &mut removal.by_net);
            removal.delete(table, keys)?;
            removal.shown_gone = began.elapsed();
            if removal.nothing_new_since(survey, kept, fill(table)?) {
                removal.unfinished = false;
                return Ok(removal);
            }
            removal.destroy_sockets(&nets);
        }
        while removal.dumps < ROUNDS {
            if removal.dumps > 0 {
                removal.destroy_sockets(&nets);
            }
            removal.dumps += 1;
            let keys = keys_of(table, &nets, most, &mut removal.by_net)?;
            if keys.is_empty() {
                removal.unfinished = false;
                break;
            }
            removal.delete(table, keys)?;
        }
        Ok(removal)
    })
}

impl Removal {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..200_000).prop_map(|bits| IpAddr::V4((bits * 77).into())),
            (0u128..200_000).prop_map(|bits| IpAddr::V6((bits << 64 | bits).into())),
        ]
    }

    proptest! {
        #[test]
        fn a_host_is_found_and_nobody_else(hosts in proptest::collection::vec(address(), 0..300), others in proptest::collection::vec(address(), 0..300)) {
            let networks = Networks::of(hosts.iter().map(|host| IpNet::from(host.to_canonical())));
            for address in hosts.iter().chain(&others) {
                let found = networks.of_address(*address).map(|net| net.addr());
                prop_assert_eq!(found, hosts.contains(address).then(|| address.to_canonical()));
            }
        }
    }
}
