//! Alerts only *nominate*: whom, the rule says; what is true of them, the live table says.

use crate::alert::Alert;
use crate::evidence::Evidence;
use crate::guard::ban_prefix;
use crate::host::Host;
use crate::policy::{Policy, Rule, Sources};
use crate::refusal::Refusal;
use crate::source;
use conntrack::Summary;
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

/// The sources that an alert nominates under a rule.
///
/// # Errors
/// [`Refusal::NotASource`]: the label holds no address.
pub fn nominate(rule: &Rule, alert: &Alert, summary: &Summary) -> Result<Vec<Nominee>, Refusal> {
    match &rule.sources {
        Sources::Label(label) => {
            let source = source::parse(alert.label(label))
                .map_err(|source| Refusal::NotASource { label: label.clone(), source })?;
            Ok(vec![(source, evidence(rule, source, summary))])
        }
        Sources::Top(most) => Ok(top(rule, *most as usize, summary)),
        Sources::All => Err(Refusal::EvidenceUnavailable(
            "the rule deletes socketless entries of all sources, and this version does not measure sockets"
                .to_owned(),
        )),
    }
}

/// What is known of what would be banned for `source`: of the source, or summed over the rule's prefix.
fn evidence(rule: &Rule, source: IpAddr, summary: &Summary) -> Option<Evidence> {
    let net = match &rule.ban {
        Some(ban) => ban_prefix(source, ban.ipv4_prefix, ban.ipv6_prefix),
        None => source.into(),
    };
    Evidence::of(net, &summary.sources)
}

/// The live table's largest remote sources by what the rule requires; equal ones by address.
fn top(rule: &Rule, most: usize, summary: &Summary) -> Vec<Nominee> {
    let mut ranked: Vec<(u64, IpAddr)> = summary
        .sources
        .iter()
        .map(|(source, counts)| (Evidence::from(counts).rank(&rule.require.source), source))
        .filter(|(count, _)| *count > 0)
        .collect();
    ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.truncate(most);
    ranked.into_iter().map(|(_, source)| (source.to_canonical(), evidence(rule, source, summary))).collect()
}
