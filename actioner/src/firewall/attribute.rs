//! The numbers of ipset's netlink attributes (`linux/netfilter/ipset/ip_set.h`).

/// Attributes of a command.
pub(super) mod attr {
    pub(in super::super) const PROTOCOL: u16 = 1;
    pub(in super::super) const SETNAME: u16 = 2;
    pub(in super::super) const TYPENAME: u16 = 3;
    pub(in super::super) const REVISION: u16 = 4;
    pub(in super::super) const FAMILY: u16 = 5;
    pub(in super::super) const FLAGS: u16 = 6;
    pub(in super::super) const DATA: u16 = 7;
    pub(in super::super) const ADT: u16 = 8;
    pub(in super::super) const LINENO: u16 = 9;
}

/// Attributes of an element or of a set's header, inside [`attr::DATA`].
pub(super) mod data {
    pub(in super::super) const IP: u16 = 1;
    pub(in super::super) const CIDR: u16 = 3;
    pub(in super::super) const TIMEOUT: u16 = 6;
    pub(in super::super) const CADT_FLAGS: u16 = 8;
    pub(in super::super) const LINENO: u16 = 9;
    pub(in super::super) const HASHSIZE: u16 = 18;
    pub(in super::super) const MAXELEM: u16 = 19;
    pub(in super::super) const REFERENCES: u16 = 25;
    /// `IPSET_ATTR_IPADDR_IPV4`, inside [`IP`].
    pub(in super::super) const IPV4: u16 = 1;
    /// `IPSET_ATTR_IPADDR_IPV6`, inside [`IP`].
    pub(in super::super) const IPV6: u16 = 2;
    /// `IPSET_FLAG_NOMATCH`, in [`CADT_FLAGS`].
    pub(in super::super) const NOMATCH: u32 = 1 << 2;
}
