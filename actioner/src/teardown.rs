//! `teardown`: what we put into the kernel is taken out, and nothing else.

use crate::cli::Teardown;
use crate::policy::Policy;
use crate::run::configured_firewall;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Removes our drop rules and sets. Says what was removed.
///
/// # Errors
/// An actioner runs, or a rule that is not ours refers to a set; a sentence.
pub fn teardown(flags: &Teardown) -> Result<String, String> {
    if UnixStream::connect(&flags.admin_socket).is_ok() {
        return Err(format!(
            "an actioner answers on {}: stop it first, or it puts everything back",
            flags.admin_socket.display()
        ));
    }
    may_change_the_firewall()?;
    let policy = policy(&flags.policy_file)?;
    let named = match flags.policy_file.try_exists() {
        Ok(false) => format!(
            " (there is no {}, so the sets are taken to have their default name; if your policy names others, say --policy.file)",
            flags.policy_file.display()
        ),
        _ => String::new(),
    };
    let mut firewall = configured_firewall(&policy).map_err(|error| error.to_string())?;
    let reachable = crate::reach::remove(&policy.firewall.set);
    let gone = firewall.teardown().map_err(|error| error.to_string())?;
    let reachable = reachable.map_err(|error| format!("the rules of keep_reachable: {error}"))?;
    if gone.rules == 0 && gone.sets.is_empty() && !reachable {
        return Ok(format!(
            "nothing to remove: no set {0}-4 or {0}-6, and no rule of ours{named}",
            policy.firewall.set
        ));
    }
    let reachable = if reachable { ", and the rules of keep_reachable" } else { "" };
    Ok(format!("removed {} drop rules and the sets {}{reachable}{named}", gone.rules, gone.sets.join(", ")))
}

/// Whether this process has the right to; asked before, for iptables says it in its own words.
///
/// # Errors
/// A sentence.
pub fn may_change_the_firewall() -> Result<(), String> {
    match rustix::thread::capabilities(None) {
        Ok(own) if !own.effective.contains(rustix::thread::CapabilitySet::NET_ADMIN) => {
            Err("not permitted: changing sets and rules needs CAP_NET_ADMIN, so run it as root (sudo)"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// The policy names the sets; where there is no policy, they have their default name.
fn policy(file: &Path) -> Result<Policy, String> {
    match file.try_exists() {
        Ok(false) => Policy::parse("never_ban: []\n", Path::new(".")).map_err(|errors| errors.to_string()),
        _ => Policy::load(file).map_err(|errors| {
            format!(
                "{errors}\nSo the name of our sets is not known and nothing was removed. If it is the default, conntrack-guard: \
                 run this again with --policy.file and a file that does not exist"
            )
        }),
    }
}
