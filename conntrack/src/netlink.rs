//! Netlink framing: messages in a receive buffer, attributes in a message, and requests to be sent.
//!
//! Layout: `struct nlmsghdr` and `struct nlattr` of `linux/netlink.h`; everything aligns to four bytes.
//! Reading never allocates and never panics: a length that does not fit is a [`Malformed`].

/// `NLMSG_ERROR`: an errno, or an acknowledgement when it is 0.
pub const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump, with an errno of its own in some kernels.
pub const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST`.
pub const NLM_F_REQUEST: u16 = 0x01;
/// `NLM_F_ACK`.
pub const NLM_F_ACK: u16 = 0x04;
/// `NLM_F_DUMP_INTR`: what was dumped changed underneath.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub const NLM_F_DUMP: u16 = 0x300;

const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;

const fn aligned(len: usize) -> usize {
    (len + 3) & !3
}

/// Bytes that are not the netlink message they should be. Names what was being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink bytes: {0}")]
pub struct Malformed(pub &'static str);

/// One netlink message: its header's fields and what follows.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: the request's.
    pub sequence: u32,
    /// The bytes after the header.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// The errno of an `NLMSG_ERROR` or `NLMSG_DONE` as a positive number; 0 is success.
    pub fn errno(&self) -> Result<i32, Malformed> {
        match self.payload.first_chunk::<4>() {
            Some(bytes) => Ok(i32::from_ne_bytes(*bytes).saturating_neg()),
            // NLMSG_DONE may come bare.
            None if self.kind == NLMSG_DONE && self.payload.is_empty() => Ok(0),
            None => Err(Malformed("an error message without its errno")),
        }
    }
}

/// The messages of one receive buffer.
#[derive(Debug, Clone)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let parsed = (|| {
            let header = self.0.first_chunk::<HEADER>()?;
            let word =
                |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
            let len = word(0) as usize;
            let payload = self.0.get(HEADER..len)?;
            let message = Message { kind: half(4), flags: half(6), sequence: word(8), payload };
            Some((message, self.0.get(aligned(len)..).unwrap_or(&[])))
        })();
        match parsed {
            Some((message, rest)) => {
                self.0 = rest;
                Some(Ok(message))
            }
            None => {
                self.0 = &[];
                Some(Err(Malformed("a message longer than what was received, or shorter than its header")))
            }
        }
    }
}

/// One attribute: its type without the flag bits, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// `nla_type & NLA_TYPE_MASK`.
    pub kind: u16,
    /// The bytes of the value, padding excluded.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The value as the attributes nested in it.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes(self.value)
    }
    /// A value of one byte.
    #[inline]
    pub fn byte(&self) -> Result<u8, Malformed> {
        self.value.first().copied().ok_or(Malformed("an empty attribute where a byte belongs"))
    }
    /// A value of two bytes in network order.
    #[inline]
    pub fn be16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }
    /// A value of four bytes in network order.
    #[inline]
    pub fn be32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }
    /// A value of four bytes in the host's order (rtnetlink, inet_diag).
    #[inline]
    pub fn ne32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }
    /// The first N bytes of the value.
    #[inline]
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.first_chunk::<N>().copied().ok_or(Malformed("an attribute shorter than its type"))
    }
}

/// The attributes of a message or of a nest.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((header, _)) = self.0.split_first_chunk::<ATTRIBUTE_HEADER>() else {
            self.0 = &[];
            return Some(Err(Malformed("an attribute header cut short")));
        };
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let Some(value) = self.0.get(ATTRIBUTE_HEADER..len) else {
            self.0 = &[];
            return Some(Err(Malformed("an attribute longer than what holds it")));
        };
        self.0 = self.0.get(aligned(len)..).unwrap_or(&[]);
        Some(Ok(Attribute { kind, value }))
    }
}

/// Requests being written into one buffer: one, or many for one `sendmsg`.
#[derive(Debug, Default)]
pub struct Requests {
    bytes: Vec<u8>,
}

impl Requests {
    /// An empty buffer.
    pub fn new() -> Requests {
        Requests::default()
    }

    /// Forgets what was written and keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// What is to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends one message; `body` writes what follows its header.
    pub fn message(&mut self, kind: u16, flags: u16, sequence: u32, body: impl FnOnce(&mut Requests)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        body(self);
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Appends bytes as they are: a family header.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }

    /// Appends a nest; `body` writes the attributes in it.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Requests)) {
        let start = self.bytes.len();
        self.attribute(kind | NLA_F_NESTED, &[]);
        body(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut requests = Requests::new();
        requests.message(7, NLM_F_ACK, 42, |r| {
            r.nest(1, |r| r.attribute(2, &[1, 2, 3]));
            r.attribute(9, &7u32.to_be_bytes());
        });
        requests.message(8, 0, 43, |_| ());
        let messages: Vec<_> = Messages(requests.bytes()).map(Result::unwrap).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!(
            (messages[0].kind, messages[0].flags, messages[0].sequence),
            (7, NLM_F_REQUEST | NLM_F_ACK, 42)
        );
        let attributes: Vec<_> = Attributes(messages[0].payload).map(Result::unwrap).collect();
        assert_eq!(attributes[0].kind, 1);
        assert_eq!(attributes[0].nested().next().unwrap().unwrap(), Attribute { kind: 2, value: &[1, 2, 3] });
        assert_eq!(attributes[1].be32().unwrap(), 7);
    }

    #[test]
    fn every_cut_is_an_error_and_ends() {
        let mut requests = Requests::new();
        requests.message(7, 0, 1, |r| r.attribute(1, &[1, 2, 3, 4]));
        for cut in 1..requests.bytes().len() {
            let mut messages = Messages(&requests.bytes()[..cut]);
            assert!(messages.next().unwrap().is_err(), "cut at {cut}");
            assert!(messages.next().is_none());
        }
    }

    #[test]
    fn lengths_below_their_header_are_errors() {
        assert!(Messages(&[0; 16]).next().unwrap().is_err());
        assert!(Attributes(&[3, 0, 1, 0]).next().unwrap().is_err());
        assert!(Attributes(&[4, 0, 1]).next().unwrap().is_err());
    }
}
