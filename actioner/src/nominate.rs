//! Alerts only *nominate*: whom, the rule says; what is true of them, the live table says.

use crate::alert::Alert;
use crate::evidence::Evidence;
use crate::guard::ban_prefix;
use crate::host::Host;
use crate::policy::{Policy, Rule, Sources};
use crate::refusal::Refusal;
use crate::source;
use conntrack::Summary;
use conntrack::summary::SourceCounts;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

/// The rule that an alert falls under, or why there is none: table identity first, then matchers.
///
/// # Errors
/// [`Refusal::OtherHost`], [`Refusal::NoRule`].
pub fn rule_for<'p>(policy: &'p Policy, host: &Host, alert: &Alert) -> Result<&'p Rule, Refusal> {
    host.is_meant(&policy.this_host, alert)?;
    policy.rule_for(&alert.labels).ok_or(Refusal::NoRule)
}

/// A nominated source and what the live table shows of it. None: it cannot be known.
pub type Nominee = (IpAddr, Option<Evidence>);

/// Nominates from one reading of the live table. What many alerts ask for alike is worked out once.
#[derive(Debug)]
pub struct Nominator<'s> {
    summary: &'s Summary,
    /// By the rule's name.
    tops: HashMap<String, Vec<Nominee>>,
    /// Sums over networks wider than a host, by the length of their prefix.
    sums: HashMap<(bool, u8), HashMap<IpNet, Evidence>>,
}

impl<'s> Nominator<'s> {
    /// On this reading.
    pub fn new(summary: &'s Summary) -> Nominator<'s> {
        Nominator { summary, tops: HashMap::new(), sums: HashMap::new() }
    }

    /// The sources that an alert nominates under a rule.
    ///
    /// # Errors
    /// [`Refusal::NotASource`]: the label holds no address.
    pub fn nominate(&mut self, rule: &Rule, alert: &Alert) -> Result<Vec<Nominee>, Refusal> {
        match &rule.sources {
            Sources::Label(label) => {
                let source = source::parse(alert.label(label))
                    .map_err(|source| Refusal::NotASource { label: label.clone(), source })?;
                Ok(vec![(source, self.evidence(rule, source))])
            }
            Sources::Top(most) => Ok(self.top(rule, *most as usize)),
            // Nobody by name: the rule is about the table as a whole (decide_all).
            Sources::All => Ok(Vec::new()),
        }
    }

    /// The live table's `most` largest remote sources by what the rule requires; equal ones by address.
    pub fn top(&mut self, rule: &Rule, most: usize) -> Vec<Nominee> {
        if let Some(known) = self.tops.get(&rule.name).filter(|known| known.len() >= most) {
            return known.iter().take(most).copied().collect();
        }
        let judged = self.summary.judged.is_some();
        let rank = |counts| Evidence::of(counts, judged).rank(&rule.require.source);
        let sources = self.summary.sources.iter().map(|(source, counts)| (rank(counts), source));
        let mut ranked: Vec<(u64, IpAddr)> = sources.filter(|(count, _)| *count > 0).collect();
        ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        ranked.truncate(most);
        let top: Vec<Nominee> = ranked
            .into_iter()
            .map(|(_, source)| (source.to_canonical(), self.evidence(rule, source)))
            .collect();
        self.tops.insert(rule.name.clone(), top.clone());
        top
    }

    /// What the live table shows of all sources together.
    pub fn all(&self) -> Evidence {
        Evidence::of_all(self.summary)
    }

    /// What the live table shows of one address; None: it may not have found room in the bounded map.
    pub fn of_source(&self, source: IpAddr) -> Option<Evidence> {
        let counts = self.summary.sources.get(source)?;
        Some(Evidence::of(counts, self.summary.judged.is_some()))
    }

    /// What is known of what would be banned for `source`: of the source, or summed over the rule's prefix. None: the
    /// source may not have found room in the bounded map, so nothing is known.
    pub fn evidence(&mut self, rule: &Rule, source: IpAddr) -> Option<Evidence> {
        let net = match &rule.ban {
            Some(ban) => ban_prefix(source, ban.ipv4_prefix, ban.ipv6_prefix),
            None => source.into(),
        };
        if net.prefix_len() == net.max_prefix_len() {
            return self.of_source(net.addr());
        }
        let length = (net.addr().is_ipv4(), net.prefix_len());
        let sums = self.sums.entry(length).or_insert_with(|| sums(self.summary, length));
        Some(sums.get(&net).copied().unwrap_or_default())
    }
}

fn sums(summary: &Summary, (ipv4, bits): (bool, u8)) -> HashMap<IpNet, Evidence> {
    let judged = summary.judged.is_some();
    let mut sums: HashMap<IpNet, Evidence> = HashMap::new();
    for (source, counts) in summary.sources.iter().filter(|(source, _)| source.is_ipv4() == ipv4) {
        let nothing = Evidence::of(SourceCounts::default(), judged);
        let sum = sums.entry(ban_prefix(source, bits, bits)).or_insert(nothing);
        *sum = sum.plus(Evidence::of(counts, judged));
    }
    sums
}
