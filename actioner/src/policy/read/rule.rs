//! One rule, and whether its parts fit each other.

use std::time::Duration;

use super::super::fields::{Field, Fields};
use super::super::problem::{Log, Place};
use super::super::rule::{BanAction, DeleteAction, Require, Rule, Sources};
use super::super::settings::Limits;
use super::conditions;
use crate::matcher::Matcher;

const LONGEST_NAME: usize = 64;
const DAY: Duration = Duration::from_secs(24 * 3600);
const SECOND: Duration = Duration::from_secs(1);

/// The rule, and the place of its name. An empty name or missing matchers are logged already.
pub(super) fn rule(field: &Field<'_>, limits: &Limits, log: &mut Log<'_>) -> Option<(Place, Rule)> {
    let mut fields = field.fields(log)?;
    let name = fields.require("name", "metrics and audit lines call the rule by it", log);
    let matched = fields.require("matchers", "say which alerts it is for, such as ['alertname=\"X\"']", log);
    let enforce = fields.take("enforce").and_then(|field| field.switch(log));
    let errors = log.errors();
    let sources = fields.take("sources");
    let required = fields.take("require");
    let actions = fields.require("actions", "say what is done, such as [ban: {for: 10m}]", log);
    let whole = Place { width: 1, ..fields.place() };
    fields.close(log);
    let complete = log.errors() == errors;

    let place = name.as_ref().map_or(whole, Field::place);
    let name = name.and_then(|field| field.name(LONGEST_NAME, log)).unwrap_or_default().to_owned();
    let matchers = matched.map(|field| matchers(&field, log)).unwrap_or_default();
    let errors = log.errors();
    let sources_read = sources.as_ref().and_then(|field| nominated(field, log));
    let require = required.as_ref().map(|field| conditions::require(field, log)).unwrap_or_default();
    let actions = actions.map(|field| actions_of(&field, limits, log)).unwrap_or_default();
    let (ban, delete) = (actions.ban.map(|(_, ban)| ban), actions.delete.map(|(_, delete)| delete));
    let sources_known = sources_read.clone().unwrap_or(Sources::Label("source".to_owned()));
    let rule = Rule { name, enforce, matchers, sources: sources_known, require, ban, delete };
    // Parts that could not be read would be found missing: that would report one slip twice.
    if complete && log.errors() == errors {
        let places = Places {
            whole,
            sources: sources.as_ref().map_or(whole, Field::place),
            require: required.as_ref().map_or(whole, Field::place),
            ban: actions.ban.map_or(whole, |(place, _)| place),
            delete: actions.delete.map_or(whole, |(place, _)| place),
        };
        fit(&rule, &places, log);
    }
    Some((place, rule))
}

/// A list of texts, each one or more matchers; together at least one.
pub(super) fn matchers(field: &Field<'_>, log: &mut Log<'_>) -> Vec<Matcher> {
    let errors = log.errors();
    let mut all = Vec::new();
    for item in field.filled("matcher", log).unwrap_or_default() {
        let Some(text) = item.text("a matcher in quotes, such as 'alertname=\"X\"'", log) else { continue };
        match Matcher::parse(text) {
            Ok(mut matchers) => all.append(&mut matchers),
            Err(error) => log.error(item.place(), format!("`{}`: {error}", item.path)),
        }
    }
    if all.is_empty() && log.errors() == errors {
        log.error(
            field.place(),
            format!("`{}` holds no matcher: write 'alertname=~\".+\"' for every alert", field.path),
        );
    }
    all
}

fn nominated(field: &Field<'_>, log: &mut Log<'_>) -> Option<Sources> {
    const SHAPE: &str = "{label: source}, {top: 10} or all";
    if field.is("all") {
        return Some(Sources::All);
    }
    let Some(mut fields) = field.fields_quietly() else {
        field.expected(SHAPE, log);
        return None;
    };
    let (label, top) = (fields.take("label"), fields.take("top"));
    let errors = log.errors();
    fields.close(log);
    if log.errors() > errors {
        return None;
    }
    match (label, top) {
        (Some(label), None) => Some(Sources::Label(label.text("a label's name", log)?.to_owned())),
        // More than the bans that may be in force at once are never worth nominating.
        (None, Some(top)) => Some(Sources::Top(top.number(1..=65_536, log)?)),
        (Some(_), Some(_)) => {
            log.error(field.place(), format!("`{}` holds both label and top: choose one", field.path));
            None
        }
        (None, None) => {
            log.error(field.place(), format!("`{}` must be {SHAPE}", field.path));
            None
        }
    }
}

#[derive(Default)]
struct Actions {
    ban: Option<(Place, BanAction)>,
    delete: Option<(Place, DeleteAction)>,
}

fn actions_of(field: &Field<'_>, limits: &Limits, log: &mut Log<'_>) -> Actions {
    let mut actions = Actions::default();
    for item in field.filled("action", log).unwrap_or_default() {
        let Some(mut fields) = item.fields(log) else { continue };
        let (ban, delete) = (fields.take("ban"), fields.take("delete"));
        let errors = log.errors();
        fields.close(log);
        if ban.is_none() && delete.is_none() && log.errors() == errors {
            log.error(item.place(), format!("`{}` must hold an action, ban or delete", item.path));
        }
        if let Some(field) = ban {
            once("ban", actions.ban.is_some(), &field, log);
            actions.ban = ban_of(&field, limits, log).map(|ban| (field.place(), ban)).or(actions.ban);
        }
        if let Some(field) = delete {
            once("delete", actions.delete.is_some(), &field, log);
            let words = [("all", DeleteAction::All), ("socketless", DeleteAction::Socketless)];
            actions.delete = field.word(&words, log).map(|delete| (field.place(), delete)).or(actions.delete);
        }
    }
    actions
}

fn once(action: &str, already: bool, field: &Field<'_>, log: &mut Log<'_>) {
    if already {
        log.error(field.place(), format!("a rule has one `{action}` at most; this is its second"));
    }
}

fn ban_of(field: &Field<'_>, limits: &Limits, log: &mut Log<'_>) -> Option<BanAction> {
    let mut fields: Fields<'_> = field.fields(log)?;
    let for_field = fields.require("for", "say how long the first ban lasts, such as 10m", log);
    let factor = fields.take("factor").and_then(|field| field.number(1..=1000, log)).unwrap_or(1);
    let max_field = fields.take("max");
    let widest = limits.widest_prefix;
    let ipv4_prefix = prefix(fields.take("ipv4_prefix"), "ipv4", widest.ipv4, 32, log);
    let ipv6_prefix = prefix(fields.take("ipv6_prefix"), "ipv6", widest.ipv6, 128, log);
    fields.close(log);
    let for_ = for_field.as_ref().and_then(|field| field.duration(SECOND, log))?;
    let max = match &max_field {
        Some(field) => field.duration(SECOND, log)?,
        None => for_.max(DAY),
    };
    if let (Some(field), true) = (max_field, max < for_) {
        let first = humantime::format_duration(for_);
        field.expected(&format!("at least as long as `for`, {first}"), log);
    }
    Some(BanAction { for_, factor, max, ipv4_prefix, ipv6_prefix })
}

fn prefix(field: Option<Field<'_>>, family: &str, widest: u8, longest: u8, log: &mut Log<'_>) -> u8 {
    let Some(field) = field else { return longest };
    let Some(length) = field.number(1..=longest, log) else { return longest };
    if length < widest {
        let limit = format!("`limits.widest_prefix.{family}` allows no wider than /{widest}");
        log.error(field.place(), format!("`{}`: a ban of a /{length} is too wide: {limit}", field.path));
    }
    length
}

/// Where each part stands; the rule itself where a part is missing.
struct Places {
    whole: Place,
    sources: Place,
    require: Place,
    ban: Place,
    delete: Place,
}

fn fit(rule: &Rule, places: &Places, log: &mut Log<'_>) {
    let named =
        if rule.name.is_empty() { "the rule".to_owned() } else { format!("the rule `{}`", rule.name) };
    let Require { source, .. } = rule.require;
    if rule.ban.is_some() && source.is_empty() {
        log.error(places.ban, format!("{named} bans without evidence: {NEEDS_EVIDENCE}"));
    } else if rule.ban.is_some() && !source.justify_a_ban() {
        log.error(
            places.require,
            format!("{named} would ban for half-open entries alone: {FORGED}; {NEEDS_EVIDENCE}"),
        );
    }
    if rule.ban.is_some() && source.justify_a_ban() && source.socketless.is_none() {
        log.warn(places.require, format!("{named} bans on evidence that can be forged: {FORGEABLE}"));
    }
    if rule.delete == Some(DeleteAction::All) && rule.ban.is_none() {
        log.error(places.delete, format!("{named}: {DELETE_NEEDS_BAN}"));
    }
    match rule.sources {
        Sources::All if rule.ban.is_some() || rule.delete == Some(DeleteAction::All) => {
            log.error(places.sources, format!("{named}: `sources: all` is only for `delete: socketless`, for it names everyone, the innocent too; use {{label: source}} or {{top: 10}}"));
        }
        Sources::Top(_) if source.is_empty() => {
            log.error(places.sources, format!("{named}: `top` ranks sources by what `require.source` asks of them, and it asks nothing; add a threshold there"));
        }
        _ => {}
    }
    if rule.ban.is_none() && rule.delete.is_none() {
        log.error(places.whole, format!("{named} does nothing: give it a ban, or delete: socketless"));
    }
}

const NEEDS_EVIDENCE: &str =
    "a ban needs a threshold in `require.source`, at least one of entries, assured, socketless";
const FORGED: &str = "their sender's address may be forged, so they prove nothing about it";
const FORGEABLE: &str = "half-open entries count as entries, and two datagrams with a forged sender to a UDP service that answers make an \
    assured one, so somebody can have an innocent banned; `socketless` cannot be forged";
const DELETE_NEEDS_BAN: &str = "`delete: all` stands only together with a ban: without one living connections \
    break and the source comes back at once; add a ban, or write delete: socketless";
