//! The firewall, kept standing: before bans are written, sets and drop rule are looked at, and put back where another
//! program took them away. A ban that nothing enforces is a failed ban.

use crate::alone::Alone;
use crate::enforce::Banned;
use crate::firewall::{
    Ban, BanError, Element, Enforced, Ensured, EnsuredFamily, Firewall, FirewallError, Rule,
};
use crate::now::Now;
use ipnet::IpNet;
use std::collections::HashMap;
use std::time::Duration;

/// So long a look at sets and rule is trusted: each costs two runs of iptables, some 10 ms.
const TRUSTED: Duration = Duration::from_secs(4);

/// Why there is no wall.
#[derive(Debug, thiserror::Error)]
pub enum NoWall {
    /// Another actioner keeps these sets, or the policy's firewall can never work.
    #[error("{0}")]
    Never(String),
    /// The kernel lacks a module, `iptables` is missing or says no: what changes while we run.
    #[error("{0}")]
    NotYet(String),
}

impl From<FirewallError> for NoWall {
    fn from(error: FirewallError) -> NoWall {
        match error {
            FirewallError::SetName { .. } | FirewallError::NoRoom => NoWall::Never(error.to_string()),
            error => NoWall::NotYet(error.to_string()),
        }
    }
}

/// A firewall with sets and drop rule in place.
pub struct Wall {
    firewall: Box<dyn Firewall>,
    _alone: Alone,
    set: String,
    /// When both were last looked at, without an error.
    looked: Now,
    /// What was put back and not yet asked for, in the metric's words.
    drifts: Vec<&'static str>,
    /// Why IPv4 and IPv6 sources cannot be banned, if they cannot.
    broken: [Option<String>; 2],
}

impl Wall {
    /// Puts sets and rule in place. `set` is their common name, for messages.
    ///
    /// # Errors
    /// Another actioner keeps these sets, or IPv4 sources could not be banned. What fails for IPv6 is logged, and fails the
    /// bans of that family.
    pub fn put_up(firewall: Box<dyn Firewall>, set: &str) -> Result<Wall, NoWall> {
        let broken = [None, None];
        let alone = Alone::with(set).map_err(NoWall::Never)?;
        let mut wall = Wall {
            firewall,
            _alone: alone,
            set: set.to_owned(),
            looked: Now::read(),
            drifts: Vec::new(),
            broken,
        };
        wall.ensure()?;
        Ok(wall)
    }

    /// Sets and rule exist and are ours. Says what it had to do.
    ///
    /// # Errors
    /// IPv4 cannot be put in place.
    pub fn ensure(&mut self) -> Result<Ensured, FirewallError> {
        // Before the look, which can wait for somebody's lock: what changes meanwhile may not be in it.
        let began = Now::read();
        let ensured = self.firewall.ensure().inspect_err(|error| {
            self.broken = [(); 2].map(|()| Some(error.to_string()));
        })?;
        let six = ensured.ipv6.as_ref().map_err(ToString::to_string);
        let broken = [
            self.nothing_drops(&ensured.ipv4, '4'),
            six.map_or_else(Some, |six| self.nothing_drops(six, '6')),
        ];
        for (family, (before, error)) in ["IPv4", "IPv6"].into_iter().zip(self.broken.iter().zip(&broken)) {
            if let Some(error) = error.as_ref().filter(|error| before.as_ref() != Some(error)) {
                tracing::error!(family, error, "sources of this family cannot be banned");
            }
        }
        self.broken = broken;
        self.looked = began;
        Ok(ensured)
    }

    /// The policy leaves the rule to somebody who has not made one.
    fn nothing_drops(&self, family: &EnsuredFamily, suffix: char) -> Option<String> {
        let set = &self.set;
        (family.rule == Rule::Missing).then(|| format!(
            "firewall.manage_rule is false and no rule refers to the set {set}-{suffix}, so NOTHING DROPS: add to raw PREROUTING -m set --match-set {set}-{suffix} src -j DROP"
        ))
    }

    /// Looks at sets and rule, unless that was done just now, and puts back what is missing ([`Wall::take_drifts`]); bans that
    /// were in a set that had to be made again are gone.
    ///
    /// # Errors
    /// IPv4 cannot be put in place.
    pub fn keep_standing(&mut self) -> Result<(), FirewallError> {
        if Now::read().boot.saturating_sub(self.looked.boot) < TRUSTED {
            return Ok(());
        }
        let ensured = self.ensure()?;
        for (family, ensured) in [("IPv4", Some(ensured.ipv4)), ("IPv6", ensured.ipv6.ok())] {
            let Some(ensured) = ensured else { continue };
            if ensured.set_created {
                self.drifts.push("set");
                tracing::error!(family, set = self.set, "our set was gone, with all bans in it: made again");
            }
            match ensured.rule {
                Rule::Inserted => {
                    self.drifts.push("rule");
                    tracing::error!(family, "our drop rule was gone, so no ban had effect: put back");
                }
                Rule::Mended { position, copies } => {
                    self.drifts.push("rule");
                    tracing::warn!(
                        family,
                        position,
                        copies,
                        "our drop rule was not first, or not alone: mended"
                    );
                }
                Rule::InPlace | Rule::Foreign | Rule::Missing => {}
            }
        }
        Ok(())
    }

    /// When sets and rule were last looked at, without an error.
    pub fn looked(&self) -> Now {
        self.looked
    }

    /// What had to be put back since this was last asked: `set`, `rule`.
    pub fn take_drifts(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.drifts)
    }

    /// Bans, and reads back what stands.
    pub fn ban(&mut self, bans: &[Ban]) -> HashMap<IpNet, Banned> {
        let all =
            |reason: &str| bans.iter().map(|ban| (ban.net, Banned::Failed(reason.to_owned()))).collect();
        let results = match self.keep_standing().and_then(|()| self.firewall.ban(bans)) {
            Ok(results) => results,
            Err(error) => return all(&error.to_string()),
        };
        let banned = |(ban, result): (&Ban, Result<Enforced, BanError>)| {
            let banned = match (result, &self.broken[usize::from(ban.net.addr().is_ipv6())]) {
                (_, Some(error)) => Banned::Failed(error.clone()),
                (Ok(enforced), _) => {
                    Banned::InForce { remaining: enforced.remaining, change: enforced.change }
                }
                (Err(error), _) => Banned::Failed(error.to_string()),
            };
            (ban.net, banned)
        };
        bans.iter().zip(results).map(banned).collect()
    }

    /// Whether packets of what is in the set of its family are dropped, as far as the last look could tell.
    pub fn drops(&self, net: &IpNet) -> bool {
        self.broken[usize::from(net.addr().is_ipv6())].is_none()
    }

    /// Takes these out of the sets, and says how many were in.
    ///
    /// # Errors
    /// The kernel refused; some may have been taken out.
    pub fn unban(&mut self, nets: &[IpNet]) -> Result<usize, FirewallError> {
        self.firewall.unban(nets)
    }

    /// What the sets hold.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn list(&mut self) -> Result<Vec<Element>, FirewallError> {
        self.firewall.list()
    }
}
