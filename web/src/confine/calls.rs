//! System calls that neither program has a use for, and whoever took one over has.
//!
//! A list of what is forbidden, for iptables inherits it, of every release: a list of what is allowed would break with the next.

use super::Starts;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use std::collections::BTreeMap;
use std::env::consts::ARCH;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// They end the process (SIGSYS): other processes' memory, mounts, namespaces, kernels, clocks, keys, quotas, rings.
const KILLED: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
    libc::SYS_vhangup,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lookup_dcookie,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_nfsservctl,
];

/// They start a program, or another process for one.
const STARTING: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// They are refused as the kernel refuses them to those without CAP_SYS_MODULE: iptables-legacy asks modprobe(8), and goes on.
const REFUSED: &[i64] = &[libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module];

/// A new namespace; of clone(2), whose first argument they are on both of our architectures.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// ptrace, kexec_load and process_vm_* by the x32 ABI, whose numbers are not the usual ones with a bit set.
#[cfg(target_arch = "x86_64")]
const X32_KILLED: &[i64] = &[521, 528, 539, 540];

/// execve and execveat by it.
#[cfg(target_arch = "x86_64")]
const X32_STARTING: &[i64] = &[520, 545];

/// From now on, for this thread and what it starts.
pub(super) fn forbid(starts: Starts) -> Result<(), String> {
    // clone3 hides its flags in memory: as to a kernel without it, libc then says the same with clone.
    let hidden = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filters = [
        (whole(&[libc::SYS_clone3]), hidden),
        (whole(REFUSED), refused),
        (killed(starts)?, SeccompAction::KillProcess),
    ];
    filters.into_iter().try_for_each(|(rules, action)| {
        let program = compiled(rules, action)?;
        apply_filter(&program).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error.to_string(),
            error => error.to_string(),
        })
    })
}

fn killed(starts: Starts) -> Result<Rules, String> {
    let mut rules = whole(KILLED);
    #[cfg(target_arch = "x86_64")]
    rules.append(&mut whole(X32_KILLED));
    let mut clone = Vec::new();
    for namespace in NAMESPACES {
        clone.push(flags(namespace, namespace)?);
    }
    if starts == Starts::Nothing {
        rules.append(&mut whole(STARTING));
        clone.push(flags(libc::CLONE_THREAD, 0)?);
        #[cfg(target_arch = "x86_64")]
        rules.append(&mut whole(X32_STARTING));
    }
    #[cfg(target_arch = "x86_64")]
    rules.insert(other_abi(libc::SYS_clone), clone.clone());
    rules.insert(libc::SYS_clone, clone);
    Ok(rules)
}

/// These calls, whatever their arguments.
fn whole(calls: &[i64]) -> Rules {
    let rules = calls.iter().map(|call| (*call, Vec::new()));
    #[cfg(target_arch = "x86_64")]
    let rules = rules.flat_map(|(call, any)| [(call, any.clone()), (other_abi(call), any)]);
    rules.collect()
}

/// The same call by the x32 ABI, which a kernel may have beside the usual one.
#[cfg(target_arch = "x86_64")]
fn other_abi(call: i64) -> i64 {
    call | 0x4000_0000
}

/// A first argument of which the bits of `mask` are `value`.
fn flags(mask: libc::c_int, value: libc::c_int) -> Result<SeccompRule, String> {
    let bits = |flags: libc::c_int| u64::from(flags.cast_unsigned());
    let condition =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bits(mask)), bits(value));
    condition.and_then(|condition| SeccompRule::new(vec![condition])).map_err(|error| error.to_string())
}

fn compiled(rules: Rules, action: SeccompAction) -> Result<BpfProgram, String> {
    let architecture: TargetArch = ARCH.try_into().map_err(|_| format!("not for {ARCH}"))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture);
    let compiled = filter.and_then(BpfProgram::try_from);
    compiled.map_err(|error| error.to_string())
}
