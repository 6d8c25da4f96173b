//! ipset's netlink requests, as bytes (`linux/netfilter/ipset/ip_set.h`). Pure: `client` sends them.
//!
//! Protocol 6, which kernels from 3.1 to those that speak 7 all accept (`IPSET_PROTOCOL_MIN`).

use conntrack::netlink::Requests;
use ipnet::IpNet;

use super::{
    Family,
    attribute::{attr, data},
};

/// The most elements in one message: a nest's length is 16 bits and an IPv6 element takes 52 bytes.
pub(super) const MOST_ELEMENTS: usize = 1000;

/// What an element gets that somebody adds by hand without a timeout, in seconds. Ours always carry theirs; with 0
/// here a slip of the hand would be a ban for ever. It also sets the kernel's pace of collecting the expired.
pub(super) const DEFAULT_TIMEOUT: u32 = 600;

/// Revision 2 has all we use (timeouts; exceptions shown), so that old `ipset` programs can list our sets.
const REVISION: u8 = 2;
pub(super) const TYPE_NAME: &str = "hash:net";

const NFNL_SUBSYS_IPSET: u16 = 6;
const PROTOCOL: u8 = 6;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLA_F_NET_BYTEORDER: u16 = 0x4000;
const IPSET_FLAG_LIST_HEADER: u32 = 1 << 2;

/// `enum ipset_cmd`, what we use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Command {
    Create = 2,
    Destroy = 3,
    List = 7,
    Add = 9,
    Delete = 10,
}

impl Command {
    pub(super) const fn message_type(self) -> u16 {
        NFNL_SUBSYS_IPSET << 8 | self as u16
    }

    /// The word of the `ipset` program for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Command::Create => "create",
            Command::Destroy => "destroy",
            Command::List => "list",
            Command::Add => "add",
            Command::Delete => "del",
        }
    }
}

/// An element to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub(super) net: IpNet,
    /// Never 0, which is for ever.
    pub(super) seconds: u32,
}

/// What a write does to an element that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Its timeout becomes the written one, shorter or longer.
    Overwrite,
    /// The write is refused with `IPSET_ERR_EXIST` and changes nothing.
    Refuse,
}

/// How much of a set is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    Header,
    Elements,
}

impl Family {
    /// `nfgen_family` and `IPSET_ATTR_FAMILY`: `NFPROTO_IPV4` and `NFPROTO_IPV6`.
    pub(super) const fn nfproto(self) -> u8 {
        match self {
            Family::Ipv4 => 2,
            Family::Ipv6 => 10,
        }
    }
}

fn message(
    out: &mut Requests,
    command: Command,
    flags: u16,
    sequence: u32,
    set: &str,
    body: impl FnOnce(&mut Requests),
) {
    out.clear();
    out.message(command.message_type(), flags, sequence, |out| {
        out.raw(&[Family::Ipv4.nfproto(), 0, 0, 0]); // struct nfgenmsg
        out.attribute(attr::PROTOCOL, &[PROTOCOL]);
        text(out, attr::SETNAME, set);
        body(out);
    });
}

fn text(out: &mut Requests, kind: u16, text: &str) {
    let mut terminated = Vec::with_capacity(text.len() + 1);
    terminated.extend_from_slice(text.as_bytes());
    terminated.push(0);
    out.attribute(kind, &terminated);
}

fn word(out: &mut Requests, kind: u16, word: u32) {
    out.attribute(kind | NLA_F_NET_BYTEORDER, &word.to_be_bytes());
}

/// A set with timeouts, with so many buckets that `max_elements` fit without growing it: the kernel rehashes everything
/// when one bucket would hold more than 12.
pub(super) fn create(out: &mut Requests, sequence: u32, set: &str, family: Family, max_elements: u32) {
    message(out, Command::Create, NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE, sequence, set, |out| {
        text(out, attr::TYPENAME, TYPE_NAME);
        out.attribute(attr::REVISION, &[REVISION]);
        out.attribute(attr::FAMILY, &[family.nfproto()]);
        out.nest(attr::DATA, |out| {
            word(out, data::TIMEOUT, DEFAULT_TIMEOUT);
            word(out, data::HASHSIZE, hash_size(max_elements));
            word(out, data::MAXELEM, max_elements);
        });
    });
}

/// Buckets for so many elements: at two a bucket on average, 65,536 of them overflow a bucket once in a hundred sets.
pub(super) fn hash_size(max_elements: u32) -> u32 {
    (max_elements / 2).clamp(1024, 1 << 24).next_power_of_two()
}

/// An absent set is refused with `ENOENT`; without `NLM_F_EXCL` it would pass for destroyed (`flag_exist`, ip_set_core.c).
pub(super) fn destroy(out: &mut Requests, sequence: u32, set: &str) {
    message(out, Command::Destroy, NLM_F_ACK | NLM_F_EXCL, sequence, set, |_| ());
}

pub(super) fn list(out: &mut Requests, sequence: u32, set: &str, listing: Listing) {
    message(out, Command::List, NLM_F_ACK | NLM_F_DUMP, sequence, set, |out| match listing {
        Listing::Header => word(out, attr::FLAGS, IPSET_FLAG_LIST_HEADER),
        Listing::Elements => (),
    });
}

/// At most [`MOST_ELEMENTS`] writes. The first has the line number `first_line`, which is at least 1.
pub(super) fn add(
    out: &mut Requests,
    sequence: u32,
    set: &str,
    writes: &[Write],
    existing: Existing,
    first_line: u32,
) {
    let flags = NLM_F_ACK
        | match existing {
            Existing::Overwrite => 0,
            Existing::Refuse => NLM_F_EXCL,
        };
    message(out, Command::Add, flags, sequence, set, |out| {
        elements(out, first_line, writes.iter().map(|write| (&write.net, Some(write.seconds))));
    });
}

/// As [`add`]. An element that is not there is refused with `IPSET_ERR_EXIST`.
pub(super) fn delete(out: &mut Requests, sequence: u32, set: &str, nets: &[IpNet], first_line: u32) {
    message(out, Command::Delete, NLM_F_ACK | NLM_F_EXCL, sequence, set, |out| {
        elements(out, first_line, nets.iter().map(|net| (net, None)));
    });
}

fn elements<'a>(
    out: &mut Requests,
    first_line: u32,
    elements: impl Iterator<Item = (&'a IpNet, Option<u32>)>,
) {
    // Without one at this level the kernel refuses the whole nest; in an error it holds the number of the bad element.
    word(out, attr::LINENO, 0);
    out.nest(attr::ADT, |out| {
        for ((net, seconds), line) in elements.zip(first_line..) {
            out.nest(attr::DATA, |out| {
                out.nest(data::IP, |out| match net {
                    IpNet::V4(net) => {
                        out.attribute(data::IPV4 | NLA_F_NET_BYTEORDER, &net.network().octets());
                    }
                    IpNet::V6(net) => {
                        out.attribute(data::IPV6 | NLA_F_NET_BYTEORDER, &net.network().octets());
                    }
                });
                out.attribute(data::CIDR, &[net.prefix_len()]);
                if let Some(seconds) = seconds {
                    word(out, data::TIMEOUT, seconds);
                }
                word(out, data::LINENO, line);
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What `ipset` 7.17 sends, but for the protocol (6 for its 7), the revision (2 for 7), and where it has
    /// no prefix length for hosts.
    #[test]
    fn create_is_what_the_ipset_program_sends() {
        let mut out = Requests::new();
        create(&mut out, 0x6b03_367a, "conntrack-guard-4", Family::Ipv4, 65_536);
        assert_eq!(
            hex(out.bytes()),
            "70000000020605067a36036b0000000002000000050001000600000016000200636f6e6e747261636b2d67756172642d340000000d00\
             0300686173683a6e657400000000050004000200000005000500020000001c00078008000640000002580800124000008000080013\
             4000010000"
        );
    }

    #[test]
    fn a_listing_is_what_the_ipset_program_asks_for() {
        let mut out = Requests::new();
        list(&mut out, 0x6b03_3679, "conntrack-guard-4", Listing::Header);
        assert_eq!(
            hex(out.bytes()),
            "3c000000070605037936036b0000000002000000050001000600000016000200636f6e6e747261636b2d67756172642d34000000\
             0800064000000004"
        );
        list(&mut out, 0x6b03_3679, "conntrack-guard-4", Listing::Elements);
        assert_eq!(
            hex(out.bytes()),
            "34000000070605037936036b0000000002000000050001000600000016000200636f6e6e747261636b2d67756172642d34000000"
        );
    }

    #[test]
    fn a_batch_is_what_ipset_restore_sends() {
        let write = |net: &str, seconds| Write { net: net.parse().unwrap(), seconds };
        let writes = [write("192.0.2.8/32", 3), write("192.0.2.7/32", 4), write("192.0.2.9/32", 3)];
        let mut out = Requests::new();
        add(&mut out, 0x6b03_367c, "conntrack-guard-4", &writes, Existing::Refuse, 1);
        let element = |ip: &str, seconds: u8, line: u8| {
            format!(
                "280007800c00018008000140{ip}05000300200000000800064000000{seconds:03x}0800094000000{line:03x}"
            )
        };
        let expected = [
            "b8000000090605027c36036b0000000002000000050001000600000016000200636f6e6e747261636b2d67756172642d34000000",
            "08000940000000007c000880",
            &element("c0000208", 3, 1),
            &element("c0000207", 4, 2),
            &element("c0000209", 3, 3),
        ]
        .concat();
        assert_eq!(hex(out.bytes()), expected);
    }

    #[test]
    fn a_full_message_keeps_its_nest_within_16_bits() {
        let writes = vec![Write { net: "2001:db8::/64".parse().unwrap(), seconds: 1 }; MOST_ELEMENTS];
        let mut out = Requests::new();
        add(&mut out, 1, &"x".repeat(31), &writes, Existing::Overwrite, 1);
        assert!(out.bytes().len() < usize::from(u16::MAX), "{}", out.bytes().len());
    }

    #[test]
    fn host_bits_are_not_written() {
        let (mut host, mut network) = (Requests::new(), Requests::new());
        delete(&mut host, 1, "s", &["198.51.100.7/24".parse().unwrap()], 1);
        delete(&mut network, 1, "s", &["198.51.100.0/24".parse().unwrap()], 1);
        assert_eq!(host.bytes(), network.bytes());
    }

    #[test]
    fn sets_are_presized() {
        assert_eq!(hash_size(1), 1024);
        assert_eq!(hash_size(65_536), 32_768);
        assert_eq!(hash_size(u32::MAX), 1 << 24);
    }
}
