//! How the kernel's sets differ from what should be in them. Pure.

use crate::firewall::{Ban, Element};
use ipnet::IpNet;
use std::collections::HashMap;
use std::time::Duration;

/// So much may the kernel's clock and ours differ: it shows whole seconds, and a batch takes its time.
const TOLERANCE: Duration = Duration::from_secs(2);

/// What is not as it should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Bans that the kernel does not have.
    pub missing: Vec<Ban>,
    /// Bans that would end too early there.
    pub shorter: Vec<Ban>,
    /// Bans that would end too late there, or never.
    pub longer: Vec<Ban>,
    /// What is banned there and should not be.
    pub foreign: Vec<IpNet>,
}

impl Differences {
    /// Whether all is as it should be.
    pub fn is_empty(&self) -> bool {
        *self == Differences::default()
    }
}

/// Compares. `for_ever` says what is banned without end, which we keep and cannot write.
pub fn differences(
    desired: impl Iterator<Item = Ban>,
    for_ever: impl Fn(&IpNet) -> bool,
    elements: &[Element],
) -> Differences {
    let mut there: HashMap<IpNet, Option<Duration>> =
        elements.iter().map(|element| (element.net, element.remaining)).collect();
    let mut differences = Differences::default();
    for ban in desired {
        match there.remove(&ban.net) {
            // It would have to be written for so short that it is not worth a thought.
            None if ban.timeout <= TOLERANCE => {}
            None => differences.missing.push(ban),
            Some(_) if for_ever(&ban.net) => {}
            Some(Some(left)) if left + TOLERANCE < ban.timeout => differences.shorter.push(ban),
            Some(Some(left)) if left <= ban.timeout + TOLERANCE => {}
            Some(_) => differences.longer.push(ban),
        }
    }
    // One that has just ended by our clock ends by the kernel's in a moment.
    let ends = |left: &Option<Duration>| left.is_some_and(|left| left <= TOLERANCE);
    let foreign = there.into_iter().filter(|(net, left)| !ends(left) && !for_ever(net));
    differences.foreign.extend(foreign.map(|(net, _)| net));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ban(text: &str, seconds: u64) -> Ban {
        Ban { net: net(text), timeout: Duration::from_secs(seconds) }
    }

    fn found(desired: &[Ban], elements: &[(&str, Option<u64>)]) -> Differences {
        let elements: Vec<Element> = elements
            .iter()
            .map(|(text, left)| Element { net: net(text), remaining: left.map(Duration::from_secs) })
            .collect();
        differences(desired.iter().copied(), |kept| *kept == net("192.0.2.99/32"), &elements)
    }

    #[test]
    fn what_agrees_within_two_seconds_agrees() {
        for left in [598, 599, 600, 601, 602] {
            assert!(found(&[ban("192.0.2.1/32", 600)], &[("192.0.2.1/32", Some(left))]).is_empty(), "{left}");
        }
        assert!(found(&[], &[("192.0.2.1/32", Some(2))]).is_empty(), "it has just ended");
        assert!(found(&[ban("192.0.2.1/32", 1)], &[]).is_empty(), "it is just about to end");
        assert!(found(&[], &[("192.0.2.99/32", None)]).is_empty(), "for ever, and known");
    }

    #[test]
    fn each_difference_is_told_from_the_others() {
        let wanted = ban("192.0.2.1/32", 600);
        assert_eq!(found(&[wanted], &[]).missing, [wanted]);
        assert_eq!(found(&[wanted], &[("192.0.2.1/32", Some(597))]).shorter, [wanted]);
        assert_eq!(found(&[wanted], &[("192.0.2.1/32", Some(603))]).longer, [wanted]);
        assert_eq!(found(&[wanted], &[("192.0.2.1/32", None)]).longer, [wanted]);
        let other = found(&[wanted], &[("192.0.2.0/24", Some(600)), ("192.0.2.7/32", None)]);
        assert_eq!(other.missing, [wanted], "a prefix around it is another element");
        let mut foreign = other.foreign;
        foreign.sort();
        assert_eq!(foreign, [net("192.0.2.0/24"), net("192.0.2.7/32")]);
    }
}
