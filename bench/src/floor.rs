//! What the kernel charges for a dump: one thread, the bytes thrown away.

use conntrack::{
    Channel, Flow, Link, Table,
    netlink::{Messages, NLM_F_DUMP, NLMSG_DONE, Requests},
    summary::{Part, Shared},
};
use std::{hint::black_box, net::Ipv4Addr};

use crate::measure::{Cost, on_this_thread};

const ASKED: &str = "a dump whose bytes are thrown away";

/// A plain dump of the calling thread's namespace, of which only the first header of each datagram is looked at.
pub(crate) fn raw() -> Cost {
    on_this_thread(|| {
        let mut link = Link::open(Channel::Netfilter, ASKED).expect("a netlink socket");
        let sequence = link.next_sequence();
        let mut request = Requests::new();
        request.message(1 << 8 | 1, NLM_F_DUMP, sequence, |r| r.raw(&[0; 4]));
        link.send(&request, ASKED).expect("a dump is asked for");
        loop {
            let received = link.receive(ASKED).expect("the kernel dumps");
            let first = Messages(received).next();
            if first.is_none_or(|message| message.is_ok_and(|message| message.kind == NLMSG_DONE)) {
                return;
            }
        }
    })
    .0
}

/// A dump of ours, on this thread, whose entries are read and not counted.
pub(crate) fn walked() -> Cost {
    on_this_thread(|| table().visit(|flow| _ = black_box(flow)).expect("a dump")).0
}

/// A dump of ours, on this thread, as the exporter makes it: every entry read and counted by state, mark and source.
pub(crate) fn counted(entries: u32) -> Cost {
    counted_as(entries, |part, flow| part.add(flow))
}

/// The same, as if there were eight sources.
pub(crate) fn counted_as_few(entries: u32) -> Cost {
    counted_as(entries, |part, flow| {
        let mut flow = *flow;
        flow.original.src = Ipv4Addr::from_bits(flow.id % 8).into();
        part.add(&flow);
    })
}

fn counted_as(entries: u32, add: impl Fn(&mut Part<'_>, &Flow)) -> Cost {
    let (cost, counted) = on_this_thread(|| {
        let shared = Shared::new();
        let mut part = shared.part();
        table().visit(|flow| add(&mut part, flow)).expect("a dump");
        let counts = part.finish();
        shared.whole([counts]).entries
    });
    assert!(counted >= u64::from(entries), "{counted} of {entries}");
    cost
}

fn table() -> Table {
    Table::open().expect("a table").in_one_thread()
}
