//! `testdata/dump-6.18.bin`: a real dump of Linux 6.18 (x86_64), thirteen entries made by `conntrack -I` in a namespace
//! with `nf_conntrack_acct=1`.

use super::*;
use crate::key::FlowKey;
use crate::netlink::{Messages, Requests};

const DUMP: &[u8] = include_bytes!("testdata/dump-6.18.bin");

fn flows() -> Vec<Flow> {
    Messages(DUMP).map(|message| flow(message.unwrap().payload).unwrap().unwrap()).collect()
}

fn from(source: &str, zone: Zone) -> Flow {
    let source: IpAddr = source.parse().unwrap();
    flows().into_iter().find(|flow| flow.original.src == source && flow.zone == zone).unwrap()
}

#[test]
fn every_entry_decodes_to_what_was_put_in() {
    assert_eq!(flows().len(), 13);
    let default = Zone::Both(0);
    let tcp = flows().into_iter().find(|flow| flow.mark == 42).unwrap();
    assert_eq!(tcp.original.l4, L4::Ports { src: 40000, dst: 443 });
    assert_eq!(tcp.reply.src, "192.0.2.1".parse::<IpAddr>().unwrap());
    assert_eq!(tcp.state, State::Tcp(TcpState::Established));
    assert!(tcp.status.assured() && tcp.status.seen_reply() && tcp.timeout.unwrap() > 431_000);
    assert_eq!(tcp.counters, Some([Counters::default(); 2]));
    assert_eq!(from("198.51.100.9", default).original.l4, L4::Icmp { id: 77, kind: 8, code: 0 });
    assert_eq!(from("198.51.100.9", default).reply.l4, L4::Icmp { id: 77, kind: 0, code: 0 });
    let icmpv6 = from("2001:db8::9", default);
    assert_eq!((icmpv6.family, icmpv6.original.l4), (Family::Ipv6, L4::Icmp { id: 78, kind: 128, code: 0 }));
    assert_eq!(from("198.51.100.10", default).original.l4, L4::Ports { src: 1, dst: 2 });
    assert_eq!(from("198.51.100.11", default).state, State::Sctp(SctpState::Established));
    assert_eq!(from("198.51.100.12", default).original.protocol, Protocol(136));
    let unknown = from("198.51.100.13", default);
    assert_eq!(
        (unknown.original.protocol, unknown.original.l4, unknown.state),
        (Protocol(253), L4::None, State::Unreplied)
    );
    assert_eq!(from("198.51.100.14", Zone::Both(5)).state, State::Tcp(TcpState::CloseWait));
    assert_eq!(from("198.51.100.14", Zone::Original(9)).state, State::Tcp(TcpState::TimeWait));
    assert_eq!(from("198.51.100.15", Zone::Reply(11)).state, State::Tcp(TcpState::LastAck));
    let nat = from("198.51.100.16", default);
    assert_eq!(nat.reply.src, "10.0.0.2".parse::<IpAddr>().unwrap());
    assert!(nat.status.dnat() && !nat.status.snat() && nat.state.half_open());
    assert_eq!(from("2001:db8::a", default).state, State::Tcp(TcpState::FinWait));
}

/// The key's message must carry the very bytes of the kernel's own original tuple, zone and id.
#[test]
fn a_key_writes_the_tuple_as_the_kernel_wrote_it() {
    for message in Messages(DUMP) {
        let payload = message.unwrap().payload;
        let flow = flow(payload).unwrap().unwrap();
        let mut written = Requests::new();
        FlowKey::of(&flow).write(&mut written);
        let value = |bytes: &[u8], kind: u16| {
            Attributes(bytes).map(Result::unwrap).find(|a| a.kind == kind).map(|a| a.value.to_vec())
        };
        for kind in [CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID] {
            assert_eq!(
                value(written.bytes(), kind),
                value(&payload[NFGENMSG..], kind),
                "attribute {kind} of {flow:?}"
            );
        }
    }
}

#[test]
fn every_truncation_point_is_an_error_or_a_lesser_entry() {
    for message in Messages(DUMP) {
        let payload = message.unwrap().payload;
        let whole = flow(payload).unwrap().unwrap();
        for cut in 0..payload.len() {
            // A cut between two attributes after the id leaves an entry; its identity must be whole.
            if let Ok(Some(lesser)) = flow(&payload[..cut]) {
                assert_eq!(
                    (lesser.original, lesser.reply, lesser.id),
                    (whole.original, whole.reply, whole.id)
                );
            }
        }
    }
    for cut in 0..DUMP.len() {
        let whole = Messages(&DUMP[..cut]).take_while(Result::is_ok).count();
        assert!(whole <= 13);
    }
}

#[test]
fn an_offloaded_entry_has_neither_timeout_nor_tcp_state() {
    // What ctnetlink_fill_info leaves out for IPS_OFFLOAD: this machine's kernel has no flow table to make a real one.
    let Some(tcp) = Messages(DUMP).map(|m| m.unwrap().payload).find(|p| flow(p).unwrap().unwrap().mark == 42)
    else {
        panic!("the entry with mark 42 is gone from the capture");
    };
    let mut offloaded = Requests::new();
    offloaded.raw(&tcp[..NFGENMSG]);
    for attribute in Attributes(&tcp[NFGENMSG..]).map(Result::unwrap) {
        match attribute.kind {
            CTA_TIMEOUT | CTA_PROTOINFO => {}
            CTA_STATUS => offloaded.attribute(CTA_STATUS, &(1u32 << 14 | 0b1110).to_be_bytes()),
            kind => offloaded.attribute(kind, attribute.value),
        }
    }
    let flow = flow(offloaded.bytes()).unwrap().unwrap();
    assert_eq!((flow.state, flow.timeout), (State::Offload, None));
}

#[test]
fn another_family_is_passed_over_and_a_wrong_one_is_malformed() {
    let first = Messages(DUMP).next().unwrap().unwrap().payload;
    let mut other = first.to_vec();
    other[0] = 7;
    assert_eq!(flow(&other), Ok(None));
    other[0] = AF_INET6;
    assert!(flow(&other).is_err());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(noise: Vec<u8>, at in 0usize..3000, byte: u8) {
        let _ = flow(&noise);
        let mut dump = DUMP.to_vec();
        let at = at % dump.len();
        dump[at] = byte;
        for message in Messages(&dump).map_while(Result::ok) {
            let _ = flow(message.payload);
        }
    }
}

fn recorded_tuples() -> Vec<&'static [u8]> {
    let messages = Messages(DUMP).map(|message| message.unwrap().payload);
    let attributes = messages.flat_map(|payload| Attributes(&payload[NFGENMSG..]).map(Result::unwrap));
    attributes.filter(|a| [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY].contains(&a.kind)).map(|a| a.value).collect()
}

#[test]
fn what_the_kernel_writes_of_tuples_with_ports_is_read_at_once() {
    let plain = recorded_tuples().into_iter().filter(|value| plain::tuple(value).is_some()).count();
    let with_ports = |flow: &Flow| matches!(flow.original.l4, L4::Ports { .. });
    let zones = |flow: &Flow| usize::from(!matches!(flow.zone, Zone::Both(_)));
    let expected: usize = flows().iter().filter(|flow| with_ports(flow)).map(|flow| 2 - zones(flow)).sum();
    assert_eq!(plain, expected, "two an entry, less the one that has a zone in it");
}

#[test]
fn what_the_kernel_writes_of_entries_with_ports_and_without_a_zone_is_read_at_once() {
    let entries = Messages(DUMP).map(|message| message.unwrap().payload);
    let plain = entries
        .filter(|payload| plain::entry(&payload[NFGENMSG..], &mut Flow::BLANK.clone()).is_some())
        .count();
    let expected = |flow: &Flow| matches!((flow.original.l4, flow.zone), (L4::Ports { .. }, Zone::Both(0)));
    assert_eq!(plain, flows().iter().filter(|flow| expected(flow)).count());
    assert_eq!(plain, 7, "TCP, UDP, UDP-Lite and SCTP, one of them IPv6");
    let tcp = Messages(DUMP).map(|message| message.unwrap().payload).filter(|payload| {
        let attributes = Attributes(&payload[NFGENMSG..]).map(Result::unwrap);
        attributes.filter(|a| a.kind == CTA_PROTOINFO).any(|info| plain::tcp(info.value).is_some())
    });
    assert_eq!(tcp.count(), 6, "every TCP entry");
}

/// Nothing recognised: the entry, each tuple and the TCP state walked attribute by attribute.
fn walked_whole(payload: &[u8]) -> Result<Option<Flow>, Malformed> {
    let mut flow = Flow::BLANK;
    Ok(read(payload, &mut flow, |_, _| None)?.then_some(flow))
}

proptest::proptest! {
    #[test]
    fn a_tuple_read_at_once_is_the_one_read_one_by_one(which in 0usize..26, changes in proptest::collection::vec((0usize..72, proptest::num::u8::ANY), 0..4)) {
        let mut value = recorded_tuples()[which].to_vec();
        for (at, byte) in changes {
            if let Some(changed) = value.get_mut(at) {
                *changed = byte;
            }
        }
        if let Some(plain) = plain::tuple(&value) {
            proptest::prop_assert_eq!(walked_tuple(Attribute { kind: CTA_TUPLE_ORIG, value: &value }), Ok((plain, None)));
        }
    }

    #[test]
    fn a_tcp_state_read_at_once_is_the_one_read_one_by_one(which in 0usize..13, changes in proptest::collection::vec((0usize..44, proptest::num::u8::ANY), 0..4)) {
        let payload = Messages(DUMP).nth(which).unwrap().unwrap().payload;
        let info = Attributes(&payload[NFGENMSG..]).map(Result::unwrap).find(|a| a.kind == CTA_PROTOINFO);
        if let Some(info) = info {
            let mut value = info.value.to_vec();
            for (at, byte) in changes {
                if let Some(changed) = value.get_mut(at) {
                    *changed = byte;
                }
            }
            if let Some(plain) = plain::tcp(&value) {
                proptest::prop_assert_eq!(walked_protoinfo(Some(&value), CTA_PROTOINFO_TCP), Ok(plain));
            }
        }
    }

    /// Changed bytes, entries cut short, and attributes that come twice, which the last of them wins.
    #[test]
    fn an_entry_read_at_once_is_the_one_read_one_by_one(
        which in 0usize..13, then in proptest::option::of(0usize..13), cut in 0usize..400,
        changes in proptest::collection::vec((0usize..400, proptest::num::u8::ANY), 0..4),
    ) {
        let payload = |which: usize| Messages(DUMP).nth(which).unwrap().unwrap().payload;
        let mut entry = payload(which).to_vec();
        entry.extend(then.map(payload).into_iter().flat_map(|more| &more[NFGENMSG..]));
        entry.truncate(entry.len().saturating_sub(cut.saturating_sub(300)));
        for (at, byte) in changes {
            if let Some(changed) = entry.get_mut(at) {
                *changed = byte;
            }
        }
        proptest::prop_assert_eq!(flow(&entry), walked_whole(&entry));
        // Nothing is left of the entry that was read before it.
        for before in flows() {
            let mut over = before;
            let read = flow_into(&entry, &mut over);
            proptest::prop_assert_eq!(read.map(|known| known.then_some(over)), flow(&entry));
        }
    }
}

#[test]
fn a_synproxy_is_one_that_chose_a_sequence_number() {
    let payload = Messages(DUMP).next().unwrap().unwrap().payload;
    assert!(!flow(payload).unwrap().unwrap().synproxy, "made by conntrack -I");
    let with = |isn: u32| {
        let mut entry = Requests::new();
        entry.raw(&payload[..NFGENMSG]);
        for attribute in
            Attributes(&payload[NFGENMSG..]).map(Result::unwrap).filter(|a| a.kind != CTA_SYNPROXY)
        {
            entry.attribute(attribute.kind, attribute.value);
        }
        entry.nest(CTA_SYNPROXY, |r| r.attribute(CTA_SYNPROXY_ISN, &isn.to_be_bytes()));
        flow(entry.bytes()).unwrap().unwrap().synproxy
    };
    assert!(with(7) && !with(0));
}
