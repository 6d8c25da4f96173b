//! Bytes that no kernel would send: what must hold whatever is in them. The bodies of the fuzz targets in `fuzz/`; `make test`
//! calls them with everything that was ever found worth keeping there. Not for programs.

use crate::delete::{self, Deleted};
use crate::flow::{Flow, Zone};
use crate::follow;
use crate::kept::{Kept, Room};
use crate::key::{FlowKey, FlowKeys};
use crate::link::{Answer, read_answer};
use crate::netlink::{Message, Messages, Requests};
use crate::own::{OwnAddresses, RTM_NEWNEXTHOP, RTM_NEWROUTE};
use crate::reader::{Half, Reader};
use crate::{decode, listeners, sockets, stats};
use std::time::Duration;

const CTA_TUPLE_REPLY: u8 = 2;

/// A dump, statistics and refused deletions of ctnetlink. What was read can be named in a deletion that names the same.
pub fn table(bytes: &[u8]) {
    let mut kept = Kept::within(&Room::of(1 << 20));
    let mut flows = Vec::new();
    let mut whole = Reader::whole(|flow: &Flow| flows.push(*flow));
    let read = each(bytes, |message| whole.see(message).is_ok());
    let dump = whole.dump(Answer::default(), Duration::ZERO);
    assert!(dump.entries + dump.malformed.map_or(0, |(count, _)| count) <= read);
    for flow in &flows {
        kept.keep(flow);
        renamed(flow);
        for end in [flow.original.src, flow.original.dst, flow.reply.src, flow.reply.dst] {
            assert!(flow.touches(end));
        }
    }
    assert!(kept.is_whole() || flows.len() > 1000);
    halves(bytes, &flows);
    each(bytes, |message| {
        let _ = (stats::limits(message.payload), stats::cpu(message.payload), message.errno());
        true
    });
    let _ = delete::count(bytes, &mut Deleted::default());
    let sequence = Messages(bytes).find_map(Result::ok).map_or(0, |message| message.sequence);
    let _ = read_answer(bytes, sequence, &mut false, &mut |_| Ok(()));
}

/// Shows each message until one is malformed or not wanted; how many there were.
fn each(bytes: &[u8], mut see: impl FnMut(Message<'_>) -> bool) -> u64 {
    Messages(bytes).map_while(Result::ok).take_while(|message| see(*message)).count() as u64
}

/// A kernel that splits its table shows each entry to one of the two that ask.
fn halves(bytes: &[u8], flows: &[Flow]) {
    const NLM_F_DUMP_FILTERED: u16 = 0x20;
    let mut shown = 0;
    for half in [Half::Replied, Half::Unreplied] {
        let mut reader = Reader::half(half, |_: &Flow| shown += 1);
        each(bytes, |message| {
            reader.see(Message { flags: message.flags | NLM_F_DUMP_FILTERED, ..message }).is_ok()
        });
    }
    assert_eq!(shown, flows.len(), "an entry is in one half");
}

/// The key's own bytes, read as an entry, make the same key, which writes the same bytes; so does one that was kept.
fn renamed(flow: &Flow) {
    let key = flow.key();
    let written = entry(flow);
    let again = decode::flow(&written).expect("what we wrote").expect("of a family that we know");
    let (expected, zone) = match flow.zone {
        // A zone of the answers alone is no part of the original tuple, and the kernel looks for none.
        Zone::Reply(_) => (Flow { zone: Zone::Both(0), ..*flow }.key(), Zone::Both(0)),
        zone => (key, zone),
    };
    assert_eq!((again.key(), again.zone), (expected, zone));
    assert_eq!(entry(&again), written);
    let mut keys = FlowKeys::bounded(1 << 10);
    keys.push(key);
    assert!(keys.iter().eq([key]), "kept keys come back");
    assert_eq!(key.source(), flow.original.src);
}

/// An entry's message: what a deletion names, and the same addresses as its answers'.
fn entry(flow: &Flow) -> Vec<u8> {
    let mut request = Requests::new();
    let key = flow.key();
    request.raw(&[key.nfgen_family(), 0, 0, 0]);
    key.write(&mut request);
    let mut answers = Requests::new();
    FlowKey::of(&Flow { zone: Zone::Both(0), ..*flow }).write(&mut answers);
    let mut tuple = answers.bytes().to_vec();
    let len = usize::from(u16::from_ne_bytes([tuple[0], tuple[1]]));
    tuple.truncate(len);
    tuple[2..4].copy_from_slice(&(0x8000 | u16::from(CTA_TUPLE_REPLY)).to_ne_bytes());
    request.raw(&tuple);
    request.bytes().to_vec()
}

/// What inet_diag answers: to a dump, a look-up and a destruction.
pub fn sockets(bytes: &[u8]) {
    let sequence = Messages(bytes).find_map(Result::ok).map_or(0, |message| message.sequence);
    let _ = sockets::found(bytes, sequence);
    let answers = sockets::count(bytes, &mut sockets::Destroyed::default());
    let messages = Messages(bytes).count();
    assert!(answers.is_ok_and(|answers| answers <= messages) || answers.is_err());
    for message in Messages(bytes).map_while(Result::ok) {
        let port = listeners::local_port(message.payload);
        if let Ok(socket) = sockets::socket(message.payload) {
            assert_eq!(port, Ok(socket.local.port()));
            assert_eq!(socket.local.ip(), socket.local.ip().to_canonical());
            socket.names_itself();
        }
    }
}

/// Routes, next hops and what is announced of them. What was read is in the list.
pub fn routes(bytes: &[u8]) {
    let mut own = OwnAddresses::default();
    for message in Messages(bytes).map_while(Result::ok) {
        let _ = match message.kind {
            RTM_NEWROUTE => own.route(message.payload),
            RTM_NEWNEXTHOP => own.next_hop_object(message.payload),
            _ => Ok(()),
        };
    }
    assert!(own.includes(&own.clone()));
    assert!(own.hosts().all(|host| own.contains(host) && own.touches(&host.into()).is_some()));
    if let Some(news) = follow::announced(bytes, &own) {
        let mut merged = own.clone();
        merged.merge(news);
        assert!(merged.includes(&own));
    }
}
