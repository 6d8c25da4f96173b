//! What the kernel answers to ipset's requests. Pure.

use std::time::Duration;

use conntrack::netlink::{Attribute, Attributes, Malformed, Message, Messages, NLMSG_DONE, NLMSG_ERROR};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    KernelError,
    attribute::{attr, data},
    wire::Command,
};

const NLM_F_CAPPED: u16 = 0x100;
const NLMSG_HEADER: usize = 16;
const NFGENMSG: usize = 4;

/// An element as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub(super) net: IpNet,
    /// Seconds left; `None` in a set without timeouts, 0 for ever.
    pub(super) timeout: Option<u32>,
    /// An exception: packets from here pass.
    pub(super) nomatch: bool,
}

impl Held {
    /// `None`: for ever.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.timeout.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// What a set is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub(super) type_name: String,
    pub(super) family: u8,
    pub(super) max_elements: Option<u32>,
    /// Of elements added without one; `None`: the set knows no timeouts.
    pub(super) default_timeout: Option<u32>,
    /// Rules and lists that refer to the set.
    pub(super) references: u32,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Ok,
    Refused {
        error: KernelError,
        /// The number of the bad element: those before it were handled, those after it were not.
        line: Option<u32>,
    },
}

/// Whether a message ends the answer, and how.
pub(super) fn end(message: &Message<'_>) -> Result<Option<End>, Malformed> {
    if !matches!(message.kind, NLMSG_ERROR | NLMSG_DONE) {
        return Ok(None);
    }
    let code = message.errno()?;
    if code == 0 {
        return Ok(Some(End::Ok));
    }
    let line = if message.kind == NLMSG_ERROR && message.flags & NLM_F_CAPPED == 0 {
        echoed_line(message)?
    } else {
        None
    };
    Ok(Some(End::Refused { error: KernelError::from_code(code), line }))
}

/// The kernel sends a refused batch back with the bad element's number in it (`call_ad`, ip_set_core.c).
fn echoed_line(message: &Message<'_>) -> Result<Option<u32>, Malformed> {
    let echoed = message.payload.get(4..).filter(|echoed| echoed.len() >= NLMSG_HEADER);
    let echoed = echoed.ok_or(Malformed("an error without the header of its request"))?;
    // Only headers come back of requests that failed as a whole, on a socket with NETLINK_CAP_ACK.
    let Some(attributes) = echoed.get(NLMSG_HEADER + NFGENMSG..) else { return Ok(None) };
    for attribute in Attributes(attributes) {
        let attribute = attribute?;
        if attribute.kind == attr::LINENO {
            return attribute.be32().map(|line| Some(line).filter(|line| *line > 0));
        }
    }
    Ok(None)
}

/// Reads one message of a listing: the header, which only the first carries, and the elements.
pub(super) fn listing(
    message: &Message<'_>,
    header: &mut Option<Header>,
    each: &mut dyn FnMut(Held),
) -> Result<(), Malformed> {
    if message.kind != Command::List.message_type() {
        return Err(Malformed("a message that is no part of an ipset listing"));
    }
    let attributes =
        message.payload.get(NFGENMSG..).ok_or(Malformed("an ipset message without its family header"))?;
    for attribute in Attributes(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            attr::TYPENAME => header.get_or_insert_default().type_name = text(&attribute)?,
            attr::FAMILY => header.get_or_insert_default().family = attribute.byte()?,
            attr::DATA => set_data(&attribute, header.get_or_insert_default())?,
            attr::ADT => {
                for element in attribute.nested() {
                    each(held(&element?)?);
                }
            }
            _ => (),
        }
    }
    Ok(())
}

fn set_data(attribute: &Attribute<'_>, header: &mut Header) -> Result<(), Malformed> {
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            data::MAXELEM => header.max_elements = Some(attribute.be32()?),
            data::TIMEOUT => header.default_timeout = Some(attribute.be32()?),
            data::REFERENCES => header.references = attribute.be32()?,
            _ => (),
        }
    }
    Ok(())
}

fn held(element: &Attribute<'_>) -> Result<Held, Malformed> {
    let (mut address, mut prefix, mut timeout, mut nomatch) = (None, None, None, false);
    for attribute in element.nested() {
        let attribute = attribute?;
        match attribute.kind {
            data::IP => address = attribute.nested().next().transpose()?,
            data::CIDR => prefix = Some(attribute.byte()?),
            data::TIMEOUT => timeout = Some(attribute.be32()?),
            data::CADT_FLAGS => nomatch = attribute.be32()? & data::NOMATCH != 0,
            _ => (),
        }
    }
    let address = address.ok_or(Malformed("a set element without an address"))?;
    let too_long = Malformed("a set element with a prefix longer than its address");
    let net = match address.kind {
        data::IPV4 => Ipv4Net::new(address.array::<4>()?.into(), prefix.unwrap_or(32)).map(IpNet::V4),
        data::IPV6 => Ipv6Net::new(address.array::<16>()?.into(), prefix.unwrap_or(128)).map(IpNet::V6),
        _ => return Err(Malformed("a set element of neither IPv4 nor IPv6")),
    };
    Ok(Held { net: net.map_err(|_| too_long)?, timeout, nomatch })
}

fn text(attribute: &Attribute<'_>) -> Result<String, Malformed> {
    let bytes = attribute.value.strip_suffix(&[0]).ok_or(Malformed("a name without its final zero"))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// What an answer, or one that nobody should have sent, says.
pub(super) type Everything = (Option<Header>, Vec<Held>, Option<End>);

/// Reads everything in `bytes` in every way there is.
pub(super) fn everything(bytes: &[u8]) -> Result<Everything, Malformed> {
    let (mut header, mut elements, mut last) = (None, Vec::new(), None);
    for message in Messages(bytes) {
        let message = message?;
        match end(&message)? {
            Some(end) => last = Some(end),
            None => listing(&message, &mut header, &mut |held| elements.push(held))?,
        }
    }
    Ok((header, elements, last))
}

#[cfg(test)]
mod tests {
    use super::everything as read;
    use super::*;

    /// What Linux 6.18 answered to `ipset list conntrack-guard-4`.
    const LISTING_4: &str = "0c010000070602007936036bc244000002000000050001000700000016000200636f6e6e747261636b2d67756172642d340000000d000300686173683a6e6574000000000500050002000000050004000700000006000b40000000004400078008001240000004000800134000010000050015000c000000080011401a93c8b0080019400000000008001a4000000288080018400000000308000640000002586c000880280007800c00018008000100cb007109050003002000000008000840000000040800064000000004200007800c00018008000100c633640005000300180000000800064000000000200007800c00018008000100c00002070500030020000000080006400000012b";
    const LISTING_6: &str = "fc000000070602007936036bd544000002000000050001000700000016000200636f6e6e747261636b2d67756172642d360000000d000300686173683a6e657400000000050005000a000000050004000700000006000b40000100004400078008001240000004000800134000000064050015000c000000080011405682e0c3080019400000000008001a4000000598080018400000000208000640000002585c0008802c000780180001801400020020010db8000100000000000000000000050003003000000008000640000002572c000780180001801400020020010db80000000000000000000000070500030080000000080006400000012b";
    /// To an `ipset restore` of three lines, the second of them there already.
    const SECOND_LINE: &str = "b4000000020000007c36036bd9440000f9efffffa0000000090605027c36036b0000000002000000050001000700000016000200636f6e6e747261636b2d67756172642d34000000080009400000000264000880200007800c00018008000140c000020808000640000000030800094000000001200007800c00018008000140c000020708000640000000040800094000000002200007800c00018008000140c000020908000640000000030800094000000003";
    const NO_SUCH_SET: &str = "3c000000020000007936036bce440000feffffff28000000070605037936036b000000000200000005000100070000000b0002006e6f737563680000";
    const ACKNOWLEDGED: &str = "24000000020000017a36036bbc4400000000000054000000090605027a36036b00000000";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_set_is_listed_with_its_exceptions_and_permanent_elements() {
        let (header, elements, _) = read(&bytes(LISTING_4)).unwrap();
        let header = header.unwrap();
        assert_eq!((header.type_name.as_str(), header.family), ("hash:net", 2));
        assert_eq!(
            (header.max_elements, header.default_timeout, header.references),
            (Some(65_536), Some(600), 0)
        );
        let held =
            |net: &str, timeout, nomatch| Held { net: net.parse().unwrap(), timeout: Some(timeout), nomatch };
        assert_eq!(
            elements,
            [
                held("203.0.113.9/32", 4, true),
                held("198.51.100.0/24", 0, false),
                held("192.0.2.7/32", 299, false)
            ]
        );
        let (header, elements, _) = read(&bytes(LISTING_6)).unwrap();
        assert_eq!(header.unwrap().family, 10);
        assert_eq!(elements, [held("2001:db8:1::/48", 599, false), held("2001:db8::7/128", 299, false)]);
    }

    #[test]
    fn a_refused_batch_names_its_line() {
        let refused = |error, line| Some(End::Refused { error, line });
        assert_eq!(read(&bytes(SECOND_LINE)).unwrap().2, refused(KernelError::Exist, Some(2)));
        assert_eq!(read(&bytes(NO_SUCH_SET)).unwrap().2, refused(KernelError::System(2), None));
        assert_eq!(read(&bytes(ACKNOWLEDGED)).unwrap().2, Some(End::Ok));
    }

    #[test]
    fn every_cut_is_an_error_and_none_a_panic() {
        for whole in [LISTING_4, LISTING_6, SECOND_LINE, NO_SUCH_SET, ACKNOWLEDGED].map(bytes) {
            for cut in 1..whole.len() {
                assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    /// The message's own length says that it ends here, so that every layer inside meets its end too early.
    #[test]
    fn no_shortened_message_panics() {
        for whole in [LISTING_4, LISTING_6, SECOND_LINE, NO_SUCH_SET].map(bytes) {
            for cut in NLMSG_HEADER..whole.len() {
                let mut short = whole[..cut].to_vec();
                short[..4].copy_from_slice(&u32::try_from(cut).unwrap().to_ne_bytes());
                let _ = read(&short);
            }
            for at in NLMSG_HEADER..whole.len() {
                for value in [0, 1, 3, 0x7f, 0xff] {
                    let mut bent = whole.clone();
                    bent[at] = value;
                    let _ = read(&bent);
                }
            }
        }
    }

    #[test]
    fn prefixes_longer_than_their_address_are_refused() {
        let mut bent = bytes(LISTING_4);
        let at = bent.windows(5).position(|window| window == [5, 0, 3, 0, 24]).unwrap();
        bent[at + 4] = 33;
        assert!(read(&bent).is_err());
    }
}
