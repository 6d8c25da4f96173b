//! From text to policy: the tree is walked once, in the order of the sections, and every slip is logged on the way.

mod conditions;
mod networks;
mod rule;
mod rules;
mod settings;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Policy;
use super::fields::{Field, Fields};
use super::problem::{Findings, Log, PolicyErrors};
use super::settings::Watch;
use super::tree;

/// DESIGN.md's default.
const SOCKETLESS_GRACE: Duration = Duration::from_secs(30);

/// What accompanies the walk: where relative patterns start, and what was read beside the policy's own text.
struct Walk<'p> {
    base: &'p Path,
    hash: Sha256,
    /// Of the included files; the policy's own log is absorbed first.
    included: Findings,
    directories: Vec<PathBuf>,
}

impl Walk<'_> {
    /// Every byte that shaped the policy counts, and which file it came from.
    fn hash(&mut self, name: &str, text: &str) {
        for part in [name, text] {
            self.hash.update(part.len().to_le_bytes());
            self.hash.update(part);
        }
    }
}

/// Reads a policy's text. `file` names it in messages.
pub(super) fn policy(file: &str, text: &str, base: &Path) -> Result<Policy, PolicyErrors> {
    let mut log = Log::new(file, text);
    let mut walk =
        Walk { base, hash: Sha256::new(), included: Findings::default(), directories: vec![base.to_owned()] };
    walk.hash("", text);
    let policy = tree::parse(text, &mut log)
        .and_then(|root| sections(Field::new("", &root).fields(&mut log)?, &mut walk, &mut log));
    let mut findings = Findings::default();
    findings.absorb(log);
    findings.append(walk.included);
    let warnings = findings.conclude()?;
    let hash = walk.hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let policy =
        policy.ok_or_else(|| PolicyErrors::whole(file, "could not be read, but no reason is known"))?;
    Ok(Policy { hash, warnings, directories: walk.directories, ..policy })
}

fn sections(mut fields: Fields<'_>, walk: &mut Walk<'_>, log: &mut Log<'_>) -> Option<Policy> {
    let enforce = fields.take("enforce").and_then(|field| field.switch(log)).unwrap_or(false);
    let this_host = fields.take("this_host");
    let never_ban = fields.require("never_ban", settings::WHY_NEVER_BAN, log);
    let never_ban_files = fields.take("never_ban_files");
    let limits = fields.take("limits").map(|field| settings::limits(&field, log)).unwrap_or_default();
    let firewall = fields.take("firewall").map(|field| settings::firewall(&field, log)).unwrap_or_default();
    let watch = fields.take("watch");
    let keep_reachable = fields.take("keep_reachable");
    let grace = fields.take("socketless_grace");
    let rule_files = fields.take("rule_files");
    let rules = fields.take("rules");
    let place = fields.place();
    fields.close(log);

    let never_ban = settings::never_ban(never_ban.as_ref(), never_ban_files.as_ref(), walk, log);
    let rules = rules::all(rules.as_ref(), rule_files.as_ref(), &limits, walk, log);
    if rules.is_empty() && log.errors() == 0 {
        log.warn(super::problem::Place { width: 1, ..place }, "there are no rules: every alert is refused");
    }
    let watch: Option<Watch> = watch.and_then(|field| watch::watch(&field, &rules, log));
    let keep_reachable =
        keep_reachable.and_then(|field| settings::keep_reachable(&field, &firewall.set, log));
    Some(Policy {
        enforce,
        this_host: this_host.map(|field| settings::this_host(&field, log)).unwrap_or(super::ThisHost::Auto),
        never_ban,
        limits,
        firewall,
        watch,
        keep_reachable,
        socketless_grace: grace
            .and_then(|field| field.duration(Duration::from_secs(1), log))
            .unwrap_or(SOCKETLESS_GRACE),
        rules,
        hash: String::new(),
        warnings: Vec::new(),
        directories: Vec::new(),
    })
}
