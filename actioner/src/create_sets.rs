//! `create-sets`: our sets exist, empty, before a saved ruleset that names them is loaded.
//!
//! A ruleset saved by `iptables-save` or `nft list ruleset` while the actioner enforced names our sets, and where one of them is
//! missing nothing of it loads: the host comes up without a firewall. So a unit runs this before whatever loads rulesets.

use crate::cli::CreateSets;
use crate::firewall::{self, Ensured, EnsuredFamily, Firewall, FirewallError, Ipset};
use crate::policy::Policy;
use crate::teardown::may_change_the_firewall;

/// Makes the sets that are missing, with the header that a running actioner gives them, and touches no rule and no set that is there.
/// Says what it made.
///
/// # Errors
/// A set could not be made, or one of that name is something else; or the policy cannot be read, and the sets were made under their
/// default name: rather those than no firewall. A sentence.
pub fn create_sets(flags: &CreateSets) -> Result<String, String> {
    may_change_the_firewall()?;
    let named = match flags.policy_file.try_exists() {
        Ok(false) => Ok(firewall::Config::default()),
        _ => Policy::load(&flags.policy_file).map(|policy| policy.firewall_config()),
    };
    let config = named.as_ref().map_or_else(|_| firewall::Config::default(), Clone::clone);
    let set = config.set.clone();
    let made = make(config).map_err(|error| error.to_string()).and_then(|ensured| said(&set, ensured))?;
    match named {
        Ok(_) => Ok(made),
        Err(errors) => Err(format!("{errors}\nSo the sets were taken to have their default name: {made}")),
    }
}

/// Without the right to manage the rule, `ensure` sees to the sets alone, and starts no program.
fn make(config: firewall::Config) -> Result<Ensured, FirewallError> {
    Ipset::open(firewall::Config { manage_rule: false, ..config })?.ensure()
}

/// # Errors
/// IPv6 has no set.
fn said(set: &str, ensured: Ensured) -> Result<String, String> {
    let line = |name: &str, family: &EnsuredFamily| match family.set_created {
        true => format!("{name}: made, empty, room for {}", family.max_elements),
        false => format!("{name}: was there, and was left as it is"),
    };
    let ipv4 = line(&format!("{set}-4"), &ensured.ipv4);
    let ipv6 = ensured.ipv6.map_err(|error| format!("{ipv4}\n{set}-6: {error}"))?;
    Ok(format!("{ipv4}\n{}", line(&format!("{set}-6"), &ipv6)))
}
