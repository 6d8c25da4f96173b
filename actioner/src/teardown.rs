//! `teardown`: what we put into the kernel is taken out, and nothing else. The store's bans end with it, or the next start would put them back.

use crate::cli::Teardown;
use crate::now::Now;
use crate::policy::Policy;
use crate::run::configured_firewall;
use crate::state::State;
use crate::store::{Loaded, Store};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Removes our drop rules and sets, and ends the bans that the store knows. Says what was done.
///
/// # Errors
/// An actioner runs, a rule that is not ours refers to a set, or the store cannot be written; a sentence.
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
    // Before anything is touched: it is locked by an actioner that runs with another socket.
    let stored = StoredBans::open(&flags.storage)?;
    let mut firewall = configured_firewall(&policy).map_err(|error| error.to_string())?;
    let reachable = crate::reach::remove(&policy.firewall.set);
    let gone = firewall.teardown().map_err(|error| error.to_string())?;
    let reachable = reachable.map_err(|error| format!("the rules of keep_reachable: {error}"))?;
    let removed = if gone.rules == 0 && gone.sets.is_empty() && !reachable {
        format!("nothing to remove: no set {0}-4 or {0}-6, and no rule of ours{named}", policy.firewall.set)
    } else {
        let reachable = if reachable { ", and the rules of keep_reachable" } else { "" };
        format!("removed {} drop rules and the sets {}{reachable}{named}", gone.rules, gone.sets.join(", "))
    };
    let active = stored.active();
    if flags.keep_bans {
        return Ok(format!(
            "{removed}; {active} bans are kept in the store, and the next start puts them in the kernel again"
        ));
    }
    let lifted = stored
        .lift()
        .map_err(|error| format!("{removed}; but its bans would come back with the next start: {error}"))?;
    Ok(match lifted {
        0 => removed,
        lifted => format!(
            "{removed}; {lifted} bans are ended in the store, too (--keep-bans leaves them to the next start)"
        ),
    })
}

/// What a store's next reader would put in the kernel, held so that nobody does meanwhile.
#[derive(Debug)]
pub struct StoredBans(Option<(Store, Box<State>)>);

impl StoredBans {
    /// Of this storage directory; without one there are none.
    ///
    /// # Errors
    /// An actioner uses it, or it cannot be opened: a sentence.
    pub fn open(storage: &Path) -> Result<StoredBans, String> {
        if !storage.exists() {
            return Ok(StoredBans(None));
        }
        let (store, loaded) = Store::open(storage, Now::read())?;
        Ok(StoredBans(match loaded {
            Loaded::State { state, .. } => Some((store, state)),
            Loaded::Nothing | Loaded::SetAside(_) => None,
        }))
    }

    /// How many there are.
    pub fn active(&self) -> usize {
        self.0.as_ref().map_or(0, |(_, state)| state.active(Now::read()))
    }

    /// Ends them, those of dry run too; offences and grace are remembered. Says how many there were.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn lift(self) -> Result<usize, String> {
        let Some((mut store, mut state)) = self.0 else { return Ok(0) };
        let lifted = state.lift_all();
        store.save(&state, Now::read());
        store.failing().map_or(Ok(lifted), |why| Err(why.to_owned()))
    }
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
