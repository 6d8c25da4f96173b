//! The firewall on two ipsets, whoever speaks to the kernel for them.

use std::{
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use super::{
    Ban, BanError, Client, Config, Element, Enforced, Ensured, EnsuredFamily, Family, Firewall,
    FirewallError, KernelError, Rule, TornDown,
    plan::{self, Asks},
    reply::{Header, Held},
    rule,
    standing::Standing,
    wire::{Existing, TYPE_NAME, Write},
};

/// How often a batch is read back and mended where another program wrote at the same moment.
const READINGS: usize = 4;
/// A rule's hold on its set ends after the rule itself: the kernel lets go of it in a work queue (nf_tables_trans_destroy_work).
const RELEASE: Duration = Duration::from_secs(2);

/// Why an element was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Kernel(KernelError),
    Library(String),
}

/// What is asked of a set in the kernel. Two implementations: [`Client`] and the thread of `libipset`.
pub trait Sets: Send {
    /// What the set is; `None` if there is none.
    fn header(&mut self, set: &str) -> Result<Option<Header>, FirewallError>;
    /// Makes an empty set; `false` if there is one of that name.
    fn create(&mut self, set: &str, family: Family, max_elements: u32) -> Result<bool, FirewallError>;
    /// Destroys a set with all in it; `false` if there is none. [`FirewallError::InUse`] while a rule refers to it.
    fn destroy(&mut self, set: &str) -> Result<bool, FirewallError>;
    /// Shows each element; `false` if there is no such set.
    fn visit(&mut self, set: &str, each: &mut dyn FnMut(Held)) -> Result<bool, FirewallError>;
    /// Adds elements, and returns the numbers of those that were refused.
    fn add(
        &mut self,
        set: &str,
        writes: &[Write],
        existing: Existing,
    ) -> Result<Vec<(usize, Refusal)>, FirewallError>;
    /// Deletes elements and returns how many there were.
    fn delete(&mut self, set: &str, nets: &[IpNet]) -> Result<usize, FirewallError>;
}

/// Bans in two sets, `NAME-4` and `NAME-6`, and their drop rules.
#[derive(Debug)]
pub struct SetFirewall<S> {
    sets: S,
    config: Config,
    rules: Standing,
}

/// The firewall on our own netlink client.
pub type Ipset = SetFirewall<Client>;

impl Ipset {
    /// Opens the firewall of the calling thread's network namespace. Changes nothing.
    ///
    /// # Errors
    /// A configuration that can never work, or no netlink socket.
    pub fn open(config: Config) -> Result<Ipset, FirewallError> {
        Ok(SetFirewall { config: checked(config)?, sets: Client::open()?, rules: Standing::default() })
    }
}

pub(super) fn checked(config: Config) -> Result<Config, FirewallError> {
    let fits = (1..=29).contains(&config.set.len());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    // A leading dash would be an option to iptables.
    if !fits || !config.set.bytes().all(plain) || config.set.starts_with('-') {
        return Err(FirewallError::SetName { set: config.set });
    }
    if config.max_elements == 0 {
        return Err(FirewallError::NoRoom);
    }
    Ok(config)
}

impl<S: Sets> SetFirewall<S> {
    #[cfg(feature = "libipset")]
    pub(super) fn new(config: Config, sets: S) -> Self {
        SetFirewall { sets, config, rules: Standing::default() }
    }

    fn name(&self, family: Family) -> String {
        match family {
            Family::Ipv4 => format!("{}-4", self.config.set),
            Family::Ipv6 => format!("{}-6", self.config.set),
        }
    }

    fn ensure_family(&mut self, family: Family) -> Result<EnsuredFamily, FirewallError> {
        let set = self.name(family);
        let (mut header, mut set_created) = (self.sets.header(&set)?, false);
        if header.is_none() {
            set_created = self.sets.create(&set, family, self.config.max_elements)?;
            header = self.sets.header(&set)?;
        }
        let header = header.ok_or_else(|| FirewallError::Kernel {
            command: "create",
            set: set.clone(),
            error: KernelError::NO_SUCH_SET,
        })?;
        let max_elements = fit(&header, &set, family)?;
        let rule = match (self.config.manage_rule, header.references) {
            (true, _) => self.rules.ensure(family, &set)?,
            (false, 0) => Rule::Missing,
            (false, _) => Rule::Foreign,
        };
        Ok(EnsuredFamily { set_created, max_elements, rule })
    }

    /// Reads the set, writes what is missing or too short, and reads again until all stands or has been refused.
    fn enforce(&mut self, set: &str, asks: &mut Asks) -> Result<(), FirewallError> {
        let started = Instant::now();
        for reading in 1.. {
            asks.begin_reading(started.elapsed());
            if !self.sets.visit(set, &mut |held| asks.see(held))? {
                asks.refuse_all(&Refusal::Kernel(KernelError::NO_SUCH_SET));
                return Ok(());
            }
            // Renewals first: what is there may end while thousands are added.
            let mut wrote = false;
            for existing in [Existing::Overwrite, Existing::Refuse] {
                let (numbers, writes) = asks.outstanding(existing);
                if writes.is_empty() || reading == READINGS {
                    continue;
                }
                wrote = true;
                for (index, refusal) in self.sets.add(set, &writes, existing)? {
                    asks.refused(numbers[index], refusal);
                }
            }
            if !wrote {
                break;
            }
        }
        Ok(())
    }

    fn teardown_family(&mut self, family: Family, gone: &mut TornDown) -> Result<(), FirewallError> {
        let set = self.name(family);
        if self.config.manage_rule {
            gone.rules += match rule::remove(family, &set) {
                // Without the tool no rule of ours was made; if one was, the set is in use and says so.
                Err(FirewallError::ToolMissing { .. }) => 0,
                removed => removed?,
            };
        }
        let started = Instant::now();
        loop {
            match self.sets.destroy(&set) {
                Err(FirewallError::InUse { .. }) if started.elapsed() < RELEASE => {
                    thread::sleep(Duration::from_millis(5));
                }
                destroyed => {
                    if destroyed? {
                        gone.sets.push(set);
                    }
                    return Ok(());
                }
            }
        }
    }
}

/// Whether a set that we found can be ours, and how much it holds.
fn fit(header: &Header, set: &str, family: Family) -> Result<u32, FirewallError> {
    let like_ours = header.type_name == TYPE_NAME && header.family == family.nfproto();
    match (header.max_elements, header.default_timeout) {
        (Some(max_elements), Some(_)) if like_ours => Ok(max_elements),
        (_, timeout) => Err(FirewallError::OtherKind {
            set: set.to_owned(),
            found: described(&header.type_name, header.family, timeout.is_some()),
            wanted: described(TYPE_NAME, family.nfproto(), true),
        }),
    }
}

fn described(type_name: &str, nfproto: u8, timeouts: bool) -> String {
    let family = match nfproto {
        2 => "inet",
        10 => "inet6",
        _ => "no one family",
    };
    format!("{type_name} of {family} {} timeouts", if timeouts { "with" } else { "without" })
}

impl<S: Sets> Firewall for SetFirewall<S> {
    fn ensure(&mut self) -> Result<Ensured, FirewallError> {
        let ipv4 = self.ensure_family(Family::Ipv4)?;
        Ok(Ensured { ipv4, ipv6: self.ensure_family(Family::Ipv6) })
    }

    fn ban(&mut self, bans: &[Ban]) -> Result<Vec<Result<Enforced, BanError>>, FirewallError> {
        let families = [Family::Ipv4, Family::Ipv6];
        let mut asks = families.map(|family| {
            let room = bans.iter().filter(|ban| Family::of(&ban.net) == family).count();
            Asks::new(self.name(family), room)
        });
        let slot = |ban: &Ban| usize::from(Family::of(&ban.net) == Family::Ipv6);
        // Numbers alone: what is wrong with a ban can be said again, and 65,536 places for it cost more than the asking.
        let ask = |ban: &Ban| match (plan::refuse(ban), ban.seconds()) {
            (None, Ok(seconds)) => Some(asks[slot(ban)].push(ban.net, seconds)),
            _ => None,
        };
        let numbers: Vec<Option<usize>> = bans.iter().map(ask).collect();
        for (family, asks) in families.into_iter().zip(&mut asks) {
            if asks.is_empty() {
                continue;
            }
            match self.enforce(&self.name(family), asks) {
                // One family's trouble is not the other's.
                Err(FirewallError::Kernel { error, .. }) => asks.refuse_all(&Refusal::Kernel(error)),
                enforced => enforced?,
            }
        }
        let outcome = |(ban, number): (&Ban, Option<usize>)| match number {
            Some(number) => asks[slot(ban)].outcome(number),
            None => Err(plan::refuse(ban).unwrap_or(BanError::Timeout { timeout: ban.timeout })),
        };
        Ok(bans.iter().zip(numbers).map(outcome).collect())
    }

    fn unban(&mut self, nets: &[IpNet]) -> Result<usize, FirewallError> {
        let mut gone = 0;
        for family in [Family::Ipv4, Family::Ipv6] {
            let held = |net: &&IpNet| Family::of(net) == family && net.prefix_len() > 0;
            let nets: Vec<IpNet> = nets.iter().filter(held).map(IpNet::trunc).collect();
            if !nets.is_empty() {
                gone += self.sets.delete(&self.name(family), &nets)?;
            }
        }
        Ok(gone)
    }

    fn list(&mut self) -> Result<Vec<Element>, FirewallError> {
        let mut elements = Vec::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            self.sets.visit(&self.name(family), &mut |held| {
                if !held.nomatch {
                    elements.push(Element { net: held.net, remaining: held.remaining() });
                }
            })?;
        }
        Ok(elements)
    }

    fn teardown(&mut self) -> Result<TornDown, FirewallError> {
        let mut gone = TornDown::default();
        let torn = [Family::Ipv4, Family::Ipv6].map(|family| self.teardown_family(family, &mut gone));
        torn.into_iter().collect::<Result<(), _>>()?;
        Ok(gone)
    }
}
