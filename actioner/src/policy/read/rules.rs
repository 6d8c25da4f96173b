//! The list of rules, with those of `rule_files` behind it, and what only the whole list shows.

use std::collections::HashMap;

use super::super::fields::Field;
use super::super::problem::{Log, Place};
use super::super::rule::Rule;
use super::super::settings::Limits;
use super::super::{files, tree};
use super::{Walk, rule};
use crate::matcher::Matcher;

/// What the rules before this one were: names must differ, and one may take another's alerts.
#[derive(Default)]
struct Before {
    /// Where each name stands first, as `FILE:LINE`.
    names: HashMap<String, String>,
    /// Name and matchers, in order.
    matchers: Vec<(String, Vec<Matcher>)>,
}

pub(super) fn all(
    rules: Option<&Field<'_>>,
    rule_files: Option<&Field<'_>>,
    limits: &Limits,
    walk: &mut Walk<'_>,
    log: &mut Log<'_>,
) -> Vec<Rule> {
    let mut before = Before::default();
    let mut found = Vec::new();
    if let Some(field) = rules {
        one_list(field, limits, &mut before, &mut found, log);
    }
    if let Some(field) = rule_files {
        walk.each_file(field, files::MAX_POLICY, log, |walk, name, text| {
            let mut log = Log::new(name, text);
            if let Some(root) = tree::parse(text, &mut log) {
                one_file(&root, limits, &mut before, &mut found, &mut log);
            }
            walk.included.absorb(log);
        });
    }
    found
}

/// A file of rules is a list, or a mapping with the one key `rules`.
fn one_file(
    root: &tree::Node,
    limits: &Limits,
    before: &mut Before,
    found: &mut Vec<Rule>,
    log: &mut Log<'_>,
) {
    let whole = Field::new("rules", root);
    if whole.items_quietly().is_some() {
        one_list(&whole, limits, before, found, log);
        return;
    }
    let Some(mut fields) = Field::new("", root).fields(log) else { return };
    let rules = fields.require("rules", "a file of rules is a list of them, or has the one key rules", log);
    fields.close(log);
    if let Some(field) = rules {
        one_list(&field, limits, before, found, log);
    }
}

fn one_list(
    field: &Field<'_>,
    limits: &Limits,
    before: &mut Before,
    found: &mut Vec<Rule>,
    log: &mut Log<'_>,
) {
    for item in field.items(log).unwrap_or_default() {
        let errors = log.errors();
        let Some((place, rule)) = rule::rule(&item, limits, log) else { continue };
        before.compare(place, &rule, log);
        if log.errors() == errors {
            found.push(rule);
        }
    }
}

impl Before {
    fn compare(&mut self, place: Place, rule: &Rule, log: &mut Log<'_>) {
        if rule.name.is_empty() {
            return;
        }
        if let Some(first) = self.names.get(&rule.name) {
            log.error(place, format!("the rule name `{}` stands twice: the first is at {first}", rule.name));
        }
        self.names.entry(rule.name.clone()).or_insert_with(|| log.position(place));
        if rule.matchers.is_empty() {
            return;
        }
        // Whatever satisfies the later rule's matchers satisfies the earlier's, if those are among them.
        let earlier =
            self.matchers.iter().find(|(_, earlier)| earlier.iter().all(|m| rule.matchers.contains(m)));
        if let Some((name, _)) = earlier {
            let why = "its matchers hold wherever this rule's do, and the first rule that matches decides";
            log.warn(
                place,
                format!("the rule `{}` never decides: `{name}` stands before it, {why}", rule.name),
            );
        }
        self.matchers.push((rule.name.clone(), rule.matchers.clone()));
    }
}
