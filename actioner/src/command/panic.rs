//! `panic` and `resume`: everything off and everything on again, with the actioner dead or alive.
//!
//! `panic` trusts nobody: it leaves the file that keeps an actioner off, tells the running one, and then empties our sets
//! itself and looks whether they are.

use super::{Said, text};
use crate::admin_client::{Client, Trouble, actor};
use crate::audit::rfc3339;
use crate::cli::{Panic, Resume};
use crate::exit::Exit;
use crate::firewall::{Firewall, FirewallError};
use crate::panic_file::{self, Panicked};
use crate::policy::Policy;
use crate::run::configured_firewall;
use crate::teardown::{StoredBans, may_change_the_firewall};
use ipnet::IpNet;
use serde_json::json;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

/// A running actioner is waited for so long: whoever panics has no time, and does not need it.
const PATIENCE: Duration = Duration::from_secs(2);
/// One that hangs in the middle of a batch may still ban; so often, so long apart, our sets are emptied again.
const ROUNDS: usize = 5;
const BETWEEN: Duration = Duration::from_millis(200);

/// Who may still ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    Nobody,
    /// It has said that it stops.
    Obeyed,
    /// It runs, and nobody knows what it does.
    Unheard,
}

/// Stops everything.
pub fn panic(flags: &Panic) -> Said {
    let mut done = Vec::new();
    let mut troubles = Vec::new();
    let panicked = Panicked { since: rfc3339(SystemTime::now()), by: actor::name() };
    match panic_file::write(&flags.storage, &panicked) {
        Ok(()) => done.push(format!("{} keeps the actioner off", panic_file::path(&flags.storage).display())),
        Err(error) => troubles.push(format!(
            "cannot write {}: {error}; so an actioner that is started again will ban again: do not start it",
            panic_file::path(&flags.storage).display()
        )),
    }
    let client = Client::new(&flags.socket.admin_socket).patient_for(PATIENCE);
    let runs = match client.post("/api/v1/panic", &json!({})) {
        Ok(answer) => {
            done.push(format!("the running actioner: {}", text(&answer["done"])));
            Runs::Obeyed
        }
        Err(Trouble::Unreachable { error, .. }) if error.kind() != std::io::ErrorKind::PermissionDenied => {
            done.push("no actioner runs".to_owned());
            Runs::Nobody
        }
        Err(Trouble::Silent { .. }) => {
            let waited = humantime::format_duration(PATIENCE);
            done.push(format!(
                "the actioner has not answered within {waited}; it finds the file as soon as it can"
            ));
            Runs::Unheard
        }
        Err(trouble) => {
            troubles.push(trouble.to_string());
            Runs::Unheard
        }
    };
    match empty_our_sets(&flags.policy_file, runs) {
        Ok(emptied) => done.push(emptied),
        Err(trouble) => troubles.push(trouble),
    }
    let mut said = Said::done(done.join("\n"));
    if troubles.is_empty() {
        said.text += "nothing is banned and nothing will be until: conntrack-actioner resume\n";
    } else {
        said.warning = Some(troubles.join("\nconntrack-actioner: "));
        said.exit = Exit::Failed;
    }
    said
}

/// Empties the sets and looks whether they are empty, again and again while somebody may fill them.
fn empty_our_sets(policy_file: &Path, runs: Runs) -> Result<String, String> {
    may_change_the_firewall()?;
    let (policy, guessed) = policy(policy_file)?;
    let set = &policy.firewall.set;
    let by_hand = |error: &dyn std::fmt::Display| {
        format!(
            "the sets {set}-4 and {set}-6 are NOT empty: {error}. By hand: ipset flush {set}-4; ipset flush {set}-6"
        )
    };
    let mut firewall = configured_firewall(&policy).map_err(|error| by_hand(&error))?;
    let mut taken = 0;
    for round in 0..ROUNDS {
        let in_it = emptied(firewall.as_mut()).map_err(|error| by_hand(&error))?;
        taken += in_it;
        // One that has not heard us might ban between two looks.
        if in_it == 0 && (round > 0 || runs != Runs::Unheard) {
            return Ok(format!(
                "the sets {set}-4 and {set}-6 are empty ({taken} bans were taken out here){guessed}"
            ));
        }
        thread::sleep(BETWEEN);
    }
    Err(by_hand(&"somebody fills them again and again; stop it first (systemctl stop conntrack-actioner)"))
}

/// Takes out what is in, and says how many that were.
fn emptied(firewall: &mut dyn Firewall) -> Result<usize, FirewallError> {
    let nets: Vec<IpNet> = firewall.list()?.iter().map(|element| element.net).collect();
    if !nets.is_empty() {
        firewall.unban(&nets)?;
    }
    Ok(nets.len())
}

/// The policy names the sets. One that cannot be read must not be in the way: then they have their default name.
fn policy(file: &Path) -> Result<(Policy, String), String> {
    let (problem, default) = match Policy::load(file) {
        Ok(policy) => return Ok((policy, String::new())),
        Err(errors) => (errors.to_string(), Policy::parse("never_ban: []\n", Path::new("."))),
    };
    let problem = problem.lines().next().unwrap_or_default().to_owned();
    let policy = default.map_err(|errors| errors.to_string())?;
    Ok((policy, format!("; that is their default name, for the policy cannot be read ({problem})")))
}

/// Ends a panic or a pause.
///
/// # Errors
/// [`Trouble`]: the file cannot be removed, or no actioner answers and nobody had panicked.
pub fn resume(flags: &Resume) -> Result<Said, Trouble> {
    let file = panic_file::path(&flags.storage);
    let is_there = || file.symlink_metadata().is_ok();
    let was_there = is_there();
    // A running one removes the file itself, once it has heeded it.
    match Client::new(&flags.socket.admin_socket).post("/api/v1/resume", &json!({})) {
        Ok(answer) => {
            let became = what_became(&file, was_there, is_there());
            Ok(Said::done(became + &text(&answer["done"])).unless_stored(&answer))
        }
        Err(Trouble::Unreachable { error, .. })
            if was_there && error.kind() != std::io::ErrorKind::PermissionDenied =>
        {
            // What the panic lifted must not come back with the next start.
            let resumed = StoredBans::open(&flags.storage).and_then(StoredBans::lift).and_then(|_| {
                panic_file::remove(&flags.storage)
                    .map_err(|error| format!("cannot remove {}: {error}", file.display()))
            });
            resumed.map_err(|error| Trouble::Failed(format!("{error}; so nothing is resumed")))?;
            Ok(Said::done(what_became(&file, was_there, false) + "no actioner runs; the next one acts again"))
        }
        Err(trouble) => Err(trouble),
    }
}

/// What `resume` did with the file of a panic, as a line of its own.
fn what_became(file: &Path, was_there: bool, is_there: bool) -> String {
    let file = file.display();
    match (was_there, is_there) {
        (_, true) => format!(
            "{file} is still there: the running actioner keeps its store elsewhere, and one that starts with this --storage.path stays off \
             (name the running one's --storage.path, and remove this file by hand)\n"
        ),
        (true, false) => format!("{file} is removed\n"),
        (false, false) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_running_actioner_does_not_know_is_not_said_to_be_removed() {
        let file = Path::new("/var/lib/conntrack-guard/panic");
        assert_eq!(what_became(file, false, false), "");
        assert_eq!(what_became(file, true, false), "/var/lib/conntrack-guard/panic is removed\n");
        assert!(what_became(file, true, true).contains("is still there"));
    }
}
