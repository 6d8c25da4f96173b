//! The sections beside rules and watch.

use super::super::fields::{Field, Fields};
use super::super::not_yet;
use super::super::problem::Log;
use super::super::settings::{
    Backend, FirewallPolicy, KeepReachable, Limits, NeverBan, ThisHost, WidestPrefix,
};
use super::{Walk, networks, rule};

pub(super) const WHY_NEVER_BAN: &str = "say who must never be banned, lest a slip locks you out, such as \
    never_ban: [private, 192.0.2.10]; who really means nobody writes never_ban: []";

/// The name ipset gives a set is at most 31 characters (IPSET_MAXNAMELEN less its end), of which `-4` takes two.
const LONGEST_SET: usize = 29;
/// A chain's name has 28 at most (XT_EXTENSION_MAXNAMELEN less its end), of which `-out` takes four.
const LONGEST_CHAINED: usize = 24;

pub(super) fn this_host(field: &Field<'_>, log: &mut Log<'_>) -> ThisHost {
    if field.items_quietly().is_none() {
        field.word(&[("auto", ())], log);
        return ThisHost::Auto;
    }
    ThisHost::Matchers(rule::matchers(field, log))
}

pub(super) fn never_ban(
    list: Option<&Field<'_>>,
    files: Option<&Field<'_>>,
    walk: &mut Walk<'_>,
    log: &mut Log<'_>,
) -> NeverBan {
    let mut never = list.map(|field| networks::list(field, log)).unwrap_or_default();
    if let Some(files) = files {
        networks::files(files, &mut never, walk, log);
    }
    never
}

pub(super) fn limits(field: &Field<'_>, log: &mut Log<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut fields) = field.fields(log) else { return limits };
    // More than this many elements were never measured (DOMAIN.md, 4).
    const MOST_BANS: u32 = 65_536;
    let mut bans = |name, value: &mut u32, log: &mut Log<'_>| {
        if let Some(number) = fields.take(name).and_then(|field| field.number(1..=MOST_BANS, log)) {
            *value = number;
        }
    };
    bans("bans_per_minute", &mut limits.bans_per_minute, log);
    bans("bans_per_hour", &mut limits.bans_per_hour, log);
    bans("active_bans", &mut limits.active_bans, log);
    if let Some(field) = fields.take("widest_prefix") {
        limits.widest_prefix = widest_prefix(&field, limits.widest_prefix, log);
    }
    if let Some(number) = fields.take("deletes_per_action").and_then(|field| field.number(1..=u64::MAX, log))
    {
        limits.deletes_per_action = number;
    }
    fields.close(log);
    limits
}

/// Wider than a /8, or an IPv6 /16, is no source any more but a part of the world.
fn widest_prefix(field: &Field<'_>, default: WidestPrefix, log: &mut Log<'_>) -> WidestPrefix {
    let Some(mut fields) = field.fields(log) else { return default };
    let ipv4 = fields.take("ipv4").and_then(|field| field.number(8..=32, log)).unwrap_or(default.ipv4);
    let ipv6 = fields.take("ipv6").and_then(|field| field.number(16..=128, log)).unwrap_or(default.ipv6);
    fields.close(log);
    WidestPrefix { ipv4, ipv6 }
}

pub(super) fn firewall(field: &Field<'_>, log: &mut Log<'_>) -> FirewallPolicy {
    let mut firewall = FirewallPolicy::default();
    let Some(mut fields) = field.fields(log) else { return firewall };
    if let Some(backend) = fields.take("backend").and_then(|field| backend(&field, log)) {
        firewall.backend = backend;
    }
    if let Some(set) = fields.take("set").and_then(|field| field.name(LONGEST_SET, log)) {
        set.clone_into(&mut firewall.set);
    }
    if let Some(manage) = fields.take("manage_rule").and_then(|field| field.switch(log)) {
        firewall.manage_rule = manage;
    }
    fields.close(log);
    firewall
}

fn backend(field: &Field<'_>, log: &mut Log<'_>) -> Option<Backend> {
    match field.text("ipset or libipset", log)? {
        "nftables" => {
            log.error(field.place(), format!("`{}`: {}", field.path, not_yet::NFTABLES));
            None
        }
        "libipset" if !cfg!(feature = "libipset") => {
            let why = "this program was built without libipset; use ipset, or build with --features libipset";
            log.error(field.place(), format!("`{}`: {why}", field.path));
            None
        }
        _ => field.word(&[("ipset", Backend::Ipset), ("libipset", Backend::Libipset)], log),
    }
}

pub(super) fn keep_reachable(field: &Field<'_>, set: &str, log: &mut Log<'_>) -> Option<KeepReachable> {
    if set.len() > LONGEST_CHAINED {
        log.error(field.place(), format!("`keep_reachable` needs chains named after `firewall.set` with -in and -out, and {set:?} is longer than {LONGEST_CHAINED} characters: shorten it"));
    }
    let mut fields: Fields<'_> = field.fields(log)?;
    let ports = fields.require("ports", "list the TCP ports that must answer, such as [10048, 10049]", log);
    let from = fields.require("from", "list who must reach them, such as [127.0.0.0/8, private]", log);
    fields.close(log);
    let ports: Vec<u16> = ports
        .and_then(|field| field.filled("port", log))?
        .iter()
        .filter_map(|item| item.number(1..=u16::MAX, log))
        .collect();
    let from = from?;
    from.filled("network", log)?;
    let place = from.place();
    let from = networks::list(&from, log);
    let private = if from.private { &NeverBan::PRIVATE[..] } else { &[] };
    if let Some(everybody) = from.networks.iter().find(|net| net.prefix_len() == 0) {
        log.error(place, format!("`keep_reachable.from`: {everybody} is everybody: whoever is covered passes this host's INPUT rules for these ports, so name the networks you trust"));
    }
    let mut ports = ports;
    ports.sort_unstable();
    ports.dedup();
    Some(KeepReachable { ports, from: private.iter().chain(&from.networks).copied().collect() })
}
