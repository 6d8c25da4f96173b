//! Our own ipset client over netlink: a few messages, and batches of up to a thousand elements in one.

use std::ops::Range;

use conntrack::{
    Channel, Link,
    netlink::{Malformed, Message, Messages, Requests},
};
use ipnet::IpNet;

use super::{
    Family, FirewallError, KernelError, batch,
    reply::{self, End, Header, Held},
    sets::{Refusal, Sets},
    wire::{self, Command, Existing, Listing, Write},
};

pub(super) const ASKED: &str = "ipset";
/// The sets of the network namespace in which it was opened, over netlink.
#[derive(Debug)]
pub struct Client {
    /// Absent after an answer that was not read to its end.
    link: Option<Link>,
    requests: Requests,
}

impl Client {
    /// A client in the calling thread's network namespace.
    pub(super) fn open() -> Result<Client, FirewallError> {
        let mut client = Client { link: None, requests: Requests::new() };
        client.connected().map_err(|source| FirewallError::Link {
            command: "open",
            set: String::new(),
            source,
        })?;
        Ok(client)
    }

    fn connected(&mut self) -> Result<&mut Link, conntrack::Error> {
        match self.link.take() {
            Some(link) => Ok(self.link.insert(link)),
            None => Ok(self.link.insert(Link::open(Channel::Netfilter, ASKED)?)),
        }
    }

    /// Sends what `encode` writes and reads the answer to its end.
    fn exchange(
        &mut self,
        encode: impl FnOnce(&mut Requests, u32),
        each: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<End, conntrack::Error> {
        self.connected()?;
        let Some(mut link) = self.link.take() else { unreachable!("connected just now") };
        let sequence = link.next_sequence();
        encode(&mut self.requests, sequence);
        let end = answer(&mut link, &self.requests, sequence, each)?;
        self.link = Some(link);
        Ok(end)
    }

    /// A request that is about one set and has no answer but yes and no.
    fn request(
        &mut self,
        command: Command,
        set: &str,
        encode: impl FnOnce(&mut Requests, u32),
    ) -> Result<Result<(), KernelError>, FirewallError> {
        match self.exchange(encode, |_| Ok(())) {
            Ok(End::Ok) => Ok(Ok(())),
            Ok(End::Refused { error, .. }) => Ok(Err(error)),
            Err(source) => Err(FirewallError::Link { command: command.word(), set: set.to_owned(), source }),
        }
    }

    fn listing(
        &mut self,
        set: &str,
        listing: Listing,
        each: &mut dyn FnMut(Held),
    ) -> Result<Option<Header>, FirewallError> {
        let mut header = None;
        let end = self.exchange(
            |out, sequence| wire::list(out, sequence, set, listing),
            |message| reply::listing(message, &mut header, each),
        );
        match end {
            Ok(End::Ok) => Ok(header),
            Ok(End::Refused { error: KernelError::NO_SUCH_SET, .. }) => Ok(None),
            Ok(End::Refused { error, .. }) => Err(refused(Command::List, set, error)),
            Err(source) => Err(FirewallError::Link { command: "list", set: set.to_owned(), source }),
        }
    }

    /// Sends `total` elements in as few messages as may be, and returns the bad ones.
    fn batches(
        &mut self,
        command: Command,
        set: &str,
        total: usize,
        encode: impl Fn(&mut Requests, u32, Range<usize>),
    ) -> Result<Vec<(usize, KernelError)>, FirewallError> {
        let send =
            |range: Range<usize>| self.exchange(|out, sequence| encode(out, sequence, range), |_| Ok(()));
        batch::send_all(total, send).map_err(|error| match error {
            batch::Error::Refused(error) => refused(command, set, error),
            batch::Error::Link(source) => {
                FirewallError::Link { command: command.word(), set: set.to_owned(), source }
            }
        })
    }
}

fn answer(
    link: &mut Link,
    requests: &Requests,
    sequence: u32,
    mut each: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
) -> Result<End, conntrack::Error> {
    link.send(requests, ASKED)?;
    let malformed = |source| conntrack::Error::Malformed { asked: ASKED, source };
    loop {
        for message in Messages(link.receive(ASKED)?) {
            let message = message.map_err(malformed)?;
            if message.sequence != sequence {
                continue;
            }
            match reply::end(&message).map_err(malformed)? {
                Some(end) => return Ok(end),
                None => each(&message).map_err(malformed)?,
            }
        }
    }
}

fn refused(command: Command, set: &str, error: KernelError) -> FirewallError {
    FirewallError::Kernel { command: command.word(), set: set.to_owned(), error }
}

impl Sets for Client {
    fn header(&mut self, set: &str) -> Result<Option<Header>, FirewallError> {
        self.listing(set, Listing::Header, &mut |_| ())
    }

    fn create(&mut self, set: &str, family: Family, max_elements: u32) -> Result<bool, FirewallError> {
        let encode = |out: &mut Requests, sequence| wire::create(out, sequence, set, family, max_elements);
        match self.request(Command::Create, set, encode)? {
            Ok(()) => Ok(true),
            Err(KernelError::Exist | KernelError::EXISTS) => Ok(false),
            Err(error) => Err(refused(Command::Create, set, error)),
        }
    }

    fn destroy(&mut self, set: &str) -> Result<bool, FirewallError> {
        match self.request(Command::Destroy, set, |out, sequence| wire::destroy(out, sequence, set))? {
            Ok(()) => Ok(true),
            Err(KernelError::NO_SUCH_SET) => Ok(false),
            Err(KernelError::Busy | KernelError::Referenced) => {
                Err(FirewallError::InUse { set: set.to_owned() })
            }
            Err(error) => Err(refused(Command::Destroy, set, error)),
        }
    }

    fn visit(&mut self, set: &str, each: &mut dyn FnMut(Held)) -> Result<bool, FirewallError> {
        Ok(self.listing(set, Listing::Elements, each)?.is_some())
    }

    fn add(
        &mut self,
        set: &str,
        writes: &[Write],
        existing: Existing,
    ) -> Result<Vec<(usize, Refusal)>, FirewallError> {
        let bad = self.batches(Command::Add, set, writes.len(), |out, sequence, range| {
            wire::add(out, sequence, set, &writes[range.clone()], existing, batch::first_line(&range));
        })?;
        Ok(bad.into_iter().map(|(index, error)| (index, Refusal::Kernel(error))).collect())
    }

    fn delete(&mut self, set: &str, nets: &[IpNet]) -> Result<usize, FirewallError> {
        let bad = self.batches(Command::Delete, set, nets.len(), |out, sequence, range| {
            wire::delete(out, sequence, set, &nets[range.clone()], batch::first_line(&range));
        });
        let bad = match bad {
            Err(FirewallError::Kernel { error: KernelError::NO_SUCH_SET, .. }) => return Ok(0),
            bad => bad?,
        };
        match bad.iter().find(|(_, error)| *error != KernelError::Exist) {
            Some((_, error)) => Err(refused(Command::Delete, set, *error)),
            None => Ok(nets.len() - bad.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A subsystem that no kernel has (NFNL_SUBSYS_COUNT, linux/netfilter/nfnetlink.h, is below twenty).
    const ABSENT: u16 = 0x7f;

    #[test]
    fn this_kernels_answer_for_an_absent_module_is_the_one_that_is_explained() {
        let mut link = Link::open(Channel::Netfilter, ASKED).unwrap();
        let sequence = link.next_sequence();
        let mut requests = Requests::new();
        wire::list(&mut requests, sequence, "conntrack-guard-4", Listing::Header);
        let list = Messages(requests.bytes()).next().unwrap().unwrap();
        let (kind, payload) = (ABSENT << 8 | list.kind & 0xff, list.payload.to_vec());
        let mut absent = Requests::new();
        absent.message(kind, list.flags, sequence, |request| request.raw(&payload));
        let end = answer(&mut link, &absent, sequence, |_| Ok(())).unwrap();
        let End::Refused { error, line: None } = end else { panic!("{end:?}") };
        let said = refused(Command::List, "conntrack-guard-4", error).to_string();
        assert!(said.contains("modprobe -a ip_set"), "{said}");
    }
}
