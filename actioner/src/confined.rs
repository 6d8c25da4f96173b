//! What the actioner keeps when it gives up the rest: see [`web::confine`].

use crate::cli::Run;
use crate::policy::Policy;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use web::Security;
use web::confine::{Capability, Confined, Confinement, Starts, beside};

/// Where the rule tools are, and what they load.
const PROGRAMS: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// What iptables-legacy locks, in every namespace of the network.
const XTABLES_LOCK: &str = "/run/xtables.lock";

/// Gives up all that is not needed to decide and to enforce. Before any thread is started, and after the sockets are bound:
/// `made` is the directory that was made for ours.
pub(crate) fn confined(flags: &Run, policy: &Policy, security: &Security, made: Option<&Path>) -> Confined {
    if flags.confine.no_confine {
        return Confined::not_at_all();
    }
    keep(flags, policy, security, made).apply()
}

fn keep(flags: &Run, policy: &Policy, security: &Security, made: Option<&Path>) -> Confinement {
    // What is not there cannot be kept, and all of /run is too much.
    let _ = OpenOptions::new().create(true).append(true).mode(0o600).open(XTABLES_LOCK);
    let mut reads: Vec<PathBuf> = ["/proc", "/sys", "/etc", "/run"].map(PathBuf::from).to_vec();
    reads.extend(beside(&security.files()));
    reads.extend(beside(std::slice::from_ref(&flags.policy_file)));
    reads.extend(policy.directories.iter().cloned());
    let mut writes: Vec<PathBuf> = [XTABLES_LOCK, "/dev/null"].map(PathBuf::from).to_vec();
    writes.push(flags.storage.clone());
    writes.extend(beside(std::slice::from_ref(&flags.admin_socket)));
    // NET_RAW is iptables', which asks for our sets by a raw socket; SYS_NICE raises a dump that starves.
    let capabilities = vec![Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_SYS_NICE];
    let removes = made.and_then(Path::parent).map(Path::to_owned).into_iter().collect();
    Confinement { capabilities, reads, writes, removes, starts: Starts::ProgramsIn(PROGRAMS) }
}
