//! The live table, read for a decision, and read again for a deletion. Dumps run on threads of their own at nice 10.

use crate::evidence::TableFill;
use crate::live::LiveSockets;
use crate::spared::{Called, Collector, Flood};
use conntrack::dead::{Buried, DeadSlot};
use conntrack::listeners::Listeners;
use conntrack::own::OwnAddresses;
use conntrack::socketless::{Before, Behind, Judging, Unjudged};
use conntrack::sockets::{Destroyed, Socket, Sockets};
use conntrack::{Deleted, Dump, Error, Flow, FlowKeys, Pace, Summary, Table};
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

/// So many keys are kept for one round of a deletion, 24 MiB if all are IPv6; the next round deletes what did not fit.
const KEYS: usize = (24 << 20) / 44;
/// Rounds of one deletion: a source whose sockets could not be destroyed makes new entries while we delete.
const ROUNDS: usize = 4;

/// What one dump showed.
#[derive(Debug)]
pub struct Survey {
    /// Entries by state and by source, this host's own set apart.
    pub summary: Summary,
    /// How full the table is, read after the dump, which reaps what had expired.
    pub table: TableFill,
    /// How the dump went.
    pub dump: Dump,
    /// Entries without a socket, as many as were to be kept; or why they cannot be told.
    pub dead: Result<Vec<DeadSlot>, Unjudged>,
    /// Peers that this host itself called.
    pub called: Arc<Called>,
    /// Why fewer of them may be known than there are, or more be taken for one.
    pub called_trouble: Option<String>,
    /// Whether somebody forges sources.
    pub flood: Option<Flood>,
    /// Established sockets by peer; None: the sockets could not be read.
    pub live: Option<LiveSockets>,
}

/// What is to be found out beside what the table holds.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// How entries without a socket are told; None: they are not.
    pub judging: Option<Judging>,
    /// So many dead slots are kept for a deletion.
    pub dead_slots: u64,
}

/// Reads the whole table, and the sockets before it if they are asked for. A table that changed its shape underneath is read once more.
///
/// # Errors
/// The kernel did not show the table. What is wrong with the sockets is in [`Survey::dead`].
pub fn take(own: &OwnAddresses, ask: &Ask) -> Result<Survey, Error> {
    on_dump_thread(|table| {
        let mut read = || read(table, own, ask);
        let mut survey = read()?;
        if survey.dump.interrupted {
            survey = read()?;
        }
        survey.summary.set_local_apart(own);
        if survey.called.clipped {
            survey.called = Arc::new(called_sources(table, own, &survey.summary)?);
        }
        survey.flood = Flood::in_table(&survey.summary, is_liberal());
        survey.table = fill(table)?;
        Ok(survey)
    })
}

fn read(table: &mut Table, own: &OwnAddresses, ask: &Ask) -> Result<Survey, Error> {
    let mut summary = Summary::new();
    let mut slots = Vec::new();
    // Before the judgement's own reading of the sockets, whose age counts.
    let (listeners, mut called_trouble) = listeners();
    let mut calls = Collector::new(own, &listeners);
    let mut live = None;
    if called_trouble.is_none() {
        let mut counted = LiveSockets::default();
        called_trouble = see_sockets(|socket| {
            calls.socket(socket);
            counted.add(socket.peer.ip(), socket.state);
        });
        live = called_trouble.is_none().then_some(counted);
    }
    let before = ask.judging.as_ref().ok_or(Unjudged::NotAsked);
    let before = before.and_then(|judging| judging.before_the_table(own));
    let mut judgement = before.as_ref().map_err(Unjudged::clone).and_then(Before::judgement);
    let dump = match &mut judgement {
        Err(_) => table.visit(|flow| {
            calls.flow(flow);
            summary.add(flow);
        })?,
        Ok(judgement) => table.visit(|flow| {
            calls.flow(flow);
            let behind = judgement.of(flow);
            summary.add_judged(flow, behind);
            if behind == Behind::Nothing && (slots.len() as u64) < ask.dead_slots {
                slots.extend(DeadSlot::of(flow));
            }
        })?,
    };
    let dead = before.as_ref().map_err(Unjudged::clone).and_then(|before| {
        before.holds([&judgement?], &dump)?;
        Ok(slots)
    });
    // An empty table is judged, too.
    summary.judged = dead.is_ok().then(|| summary.judged.unwrap_or_default());
    let called = Arc::new(calls.finish());
    Ok(Survey { summary, table: TableFill::default(), dump, dead, called, called_trouble, flood: None, live })
}

/// Without them every assured entry of our own leads to somebody we called: rather one spared too many. Sockets then say
/// nothing, or whoever connects would be spared.
fn listeners() -> (Listeners, Option<String>) {
    match Listeners::read() {
        Ok(listeners) => (listeners, None),
        Err(error) => {
            let trouble =
                format!("{error}: whoever this host sends to is taken for one it called, and spared");
            (Listeners::default(), Some(trouble))
        }
    }
}

fn see_sockets(each: impl FnMut(&Socket)) -> Option<String> {
    let seen = Sockets::open().and_then(|mut sockets| sockets.visit(each));
    seen.err().map(|error| format!("{error}: peers that this host called are known by their entries alone"))
}

/// There were too many to keep: of those that this host called, the ones that are sources and so could be banned.
fn called_sources(table: &mut Table, own: &OwnAddresses, summary: &Summary) -> Result<Called, Error> {
    let (listeners, trouble) = listeners();
    let mut calls = Collector::new(own, &listeners).of_sources(&summary.sources);
    if trouble.is_none() {
        see_sockets(|socket| calls.socket(socket));
    }
    table.visit(|flow| calls.flow(flow))?;
    Ok(calls.finish())
}

/// `nf_conntrack_tcp_be_liberal`; unless the kernel says no, it may be.
fn is_liberal() -> bool {
    let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal");
    text.map_or(true, |text| text.trim() != "0")
}

/// How full the table is.
///
/// # Errors
/// The kernel does not say.
pub fn fill(table: &mut Table) -> Result<TableFill, Error> {
    let limits = table.limits()?;
    // Kernels before 4.18 do not say it over ctnetlink.
    let limit = limits.max.map_or_else(limit_from_procfs, u64::from);
    Ok(TableFill { entries: u64::from(limits.entries), limit })
}

fn limit_from_procfs() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn on_dump_thread<T: Send>(work: impl FnOnce(&mut Table) -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let dump = || work(&mut Table::open()?.at_pace(Pace::lower_this_thread()));
        let thread = thread::Builder::new().name("dump".to_owned()).spawn_scoped(scope, dump);
        let thread = thread.map_err(|source| Error::Open { asked: "a thread for the dump", source })?;
        // A panic has aborted the process by now (run.rs): this join cannot fail.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Deletes dead slots, each looked at once more just before.
///
/// # Errors
/// The kernel could not be asked.
pub fn bury(slots: &[DeadSlot]) -> Result<Buried, Error> {
    on_dump_thread(|table| table.bury(slots.iter().copied()))
}

/// Networks, asked for each entry: hosts by hash, the few wider ones one by one.
#[derive(Debug)]
struct Networks {
    hosts: HashSet<IpAddr>,
    wider: Vec<IpNet>,
}

impl Networks {
    fn of(nets: impl Iterator<Item = IpNet>) -> Networks {
        let (hosts, wider): (Vec<IpNet>, _) = nets.partition(|net| net.prefix_len() == net.max_prefix_len());
        Networks { hosts: hosts.iter().map(IpNet::addr).collect(), wider }
    }

    fn of_address(&self, address: IpAddr) -> Option<IpNet> {
        let address = address.to_canonical();
        if self.hosts.contains(&address) {
            return Some(address.into());
        }
        self.wider.iter().find(|net| net.contains(&address)).copied()
    }

    fn of_flow(&self, flow: &Flow) -> Option<IpNet> {
        [flow.original.src, flow.original.dst, flow.reply.src, flow.reply.dst]
            .into_iter()
            .find_map(|address| self.of_address(address))
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
/// `most` for each: by their keys, from dumps made for it after the ban, so that nothing new can follow. Without the
/// sockets' end the host's own keep-alives would put the entries back, turned round (DOMAIN.md, 3).
///
/// # Errors
/// The table could not be read or changed.
pub fn remove(nets: impl Iterator<Item = IpNet>, most: u64) -> Result<Removal, Error> {
    let nets = Networks::of(nets);
    on_dump_thread(|table| {
        let mut removal = Removal { unfinished: true, ..Removal::default() };
        for _ in 0..ROUNDS {
            match destroy_sockets(&nets) {
                Ok(destroyed) => removal.sockets = plus(removal.sockets, destroyed),
                Err(error) => removal.sockets_error = Some(error.to_string()),
            }
            let keys = keys_of(table, &nets, most, &mut removal.by_net)?;
            let mut done = true;
            for (net, keys) in keys {
                done &= keys.is_empty();
                let deleted = table.delete(keys.iter())?;
                removal.by_net.entry(net).or_default().deleted += deleted.deleted;
                removal.deleted.deleted += deleted.deleted;
                removal.deleted.absent += deleted.absent;
                removal.deleted.failed = removal.deleted.failed.or(deleted.failed);
            }
            if done {
                removal.unfinished = false;
                break;
            }
        }
        Ok(removal)
    })
}

/// The keys of each network's entries, as many as may still be deleted and as fit.
fn keys_of(
    table: &mut Table,
    nets: &Networks,
    most: u64,
    by_net: &mut HashMap<IpNet, Removed>,
) -> Result<HashMap<IpNet, FlowKeys>, Error> {
    let mut keys: HashMap<IpNet, FlowKeys> = HashMap::new();
    let mut kept = 0;
    table.visit(|flow| {
        let Some(net) = nets.of_flow(flow) else { return };
        let removed = by_net.entry(net).or_default();
        let own = keys.entry(net).or_insert_with(|| FlowKeys::bounded(usize::MAX));
        if removed.deleted + own.len() as u64 >= most {
            removed.clipped = true;
        } else if kept < KEYS {
            kept += 1;
            own.push(flow.key());
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
