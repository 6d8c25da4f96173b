//! Two actioners on the same sets would take out each other's bans: who holds the sets' lock is believed only if he could keep sets.

use std::process::Command;
use tests::{Result, netns::Namespace, programs::Program, wait::wait_until};

use crate::lab::{Home, POLICY, SOON, quiet};

/// Takes the name of the lock, and stays.
const HOLDER: &str = r#"use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0) or die; bind(S, pack_sockaddr_un("\0conntrack-guard/conntrack-guard")) or die $!; listen(S, 9); sleep"#;

/// Whether an actioner ends at its start, because `holder` has the name; else it says that it goes on.
fn ended_beside(lab: &Namespace, holder: &[&str]) -> Result<bool> {
    let mut command = Command::new(holder[0]);
    command.args(&holder[1..]).args(["perl", "-e", HOLDER]);
    let mut holder = lab.spawn(command)?;
    wait_until("the name to be taken", SOON, || {
        holder.running().map_err(|failure| failure.to_string())?;
        let names = lab.output(&["cat", "/proc/net/unix"]).map_err(|failure| failure.to_string())?;
        if names.contains("@conntrack-guard/conntrack-guard") { Ok(()) } else { Err(names) }
    })?;
    let home = Home::new(POLICY);
    let mut start = Command::new(Program::Actioner.path()?);
    start.arg("--policy.file").arg(home.path("policy.yaml"));
    start.arg("--storage.path").arg(home.path("storage"));
    start.arg("--admin.socket").arg(home.path("admin.sock"));
    start.args(["--web.listen-address", "127.0.0.1:0"]);
    let mut second = lab.spawn(start)?;
    wait_until("what it says of the lock", SOON, || {
        let said = second.log();
        let goes_on = said.contains("going on without the lock") && second.running().is_ok();
        let refused = said.contains("another conntrack-actioner") && matches!(second.ended(), Ok(Some(_)));
        if goes_on || refused { Ok(refused) } else { Err(said) }
    })
}

#[test]
fn a_units_actioner_is_not_root_and_holds_the_sets_all_the_same() -> Result<()> {
    let lab = quiet("units")?;
    let nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
    let able = ["--inh-caps=+net_admin", "--ambient-caps=+net_admin"];
    assert!(ended_beside(&lab, &[&nobody[..], &able].concat())?);
    // Neither a user without the capability, nor one who has it in a user namespace of his own, keeps a host unprotected.
    assert!(!ended_beside(&lab, &nobody)?);
    assert!(!ended_beside(&lab, &[&nobody[..], &["unshare", "--user", "--map-root-user"]].concat())?);
    Ok(())
}
