//! The live table, read for a decision. Dumps run on threads of their own at nice 10.
//!
//! One thread reads it, also where the exporter takes two ([`Table::visit_in_two`]), a third less time on a table half unanswered. An
//! entry that is answered while two read their halves is seen by both or by none. A graph does not show that; here a ban stands on the
//! count, and an entry that none has seen is one whose key was not kept: what spares a deletion its second dump is that the keys of a
//! network are all that the table held of it (`Removal::nothing_new_since`). A second dump would cost more than the split saves.

use crate::evidence::TableFill;
use crate::live::LiveSockets;
use crate::spared::{Called, Collector, Flood};
use conntrack::dead::{Buried, DeadSlot};
use conntrack::listeners::Listeners;
use conntrack::own::OwnAddresses;
use conntrack::socketless::{Before, Behind, Judging, Unjudged};
use conntrack::sockets::{Socket, Sockets};
use conntrack::summary::Shared;
use conntrack::{Dump, Error, Flow, Kept, Pace, Room, Summary, Table};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// So many bytes of keys are kept from a survey: 1.2 million IPv4 entries. What does not fit costs a dump after the ban.
pub const KEY_ROOM: usize = 24 << 20;

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
    /// The keys of its entries, if they were to be kept.
    pub kept: Option<Kept>,
    /// When it began.
    pub began: Instant,
}

/// What is to be found out beside what the table holds.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// How entries without a socket are told; None: they are not.
    pub judging: Option<Judging>,
    /// So many dead slots are kept for a deletion.
    pub dead_slots: u64,
    /// The keys of all entries are kept in so many bytes, for [`remove`](crate::removal::remove): [`KEY_ROOM`], or none.
    pub key_room: usize,
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
    let shared = Shared::new();
    let mut counts = shared.part();
    let mut slots = Vec::new();
    let mut kept = (ask.key_room > 0).then(|| Kept::within(&Room::of(ask.key_room)));
    let mut keep = |flow: &Flow| {
        if let Some(kept) = &mut kept {
            kept.keep(flow);
        }
    };
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
    let began = Instant::now();
    let before = ask.judging.as_ref().ok_or(Unjudged::NotAsked);
    let before = before.and_then(|judging| judging.before_the_table(own));
    let mut judgement = before.as_ref().map_err(Unjudged::clone).and_then(Before::judgement);
    let dump = match &mut judgement {
        Err(_) => table.visit(|flow| {
            calls.flow(flow);
            counts.add(flow);
            keep(flow);
        })?,
        Ok(judgement) => table.visit(|flow| {
            calls.flow(flow);
            keep(flow);
            let behind = judgement.of(flow);
            counts.add_judged(flow, behind);
            if behind == Behind::Nothing && (slots.len() as u64) < ask.dead_slots {
                slots.extend(DeadSlot::of(flow));
            }
        })?,
    };
    let dead = before.as_ref().map_err(Unjudged::clone).and_then(|before| {
        before.holds([&judgement?], &dump)?;
        Ok(slots)
    });
    let counts = counts.finish();
    let mut summary = shared.whole([counts]);
    // An empty table is judged, too.
    summary.judged = dead.is_ok().then(|| summary.judged.unwrap_or_default());
    let called = Arc::new(calls.finish());
    Ok(Survey {
        summary,
        table: TableFill::default(),
        dump,
        dead,
        called,
        called_trouble,
        flood: None,
        live,
        kept,
        began,
    })
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

pub(crate) fn on_dump_thread<T: Send>(
    work: impl FnOnce(&mut Table) -> Result<T, Error> + Send,
) -> Result<T, Error> {
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
