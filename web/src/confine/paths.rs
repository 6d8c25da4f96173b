//! Paths that may still be opened, by Landlock (Linux 5.13 and later; more of it with later kernels).

use super::{Confinement, Starts};
use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    path_beneath_rules,
};
use std::path::{Path, PathBuf};

/// The latest rights that we know of. Older kernels are asked for those they have.
const KNOWN: ABI = ABI::V5;

pub(super) fn keep_only(confinement: &Confinement) -> Result<(), String> {
    match restrict(confinement).map_err(|error| error.to_string())? {
        RulesetStatus::NotEnforced => Err("this kernel has none, or it is switched off (lsm=)".to_owned()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

fn restrict(confinement: &Confinement) -> Result<RulesetStatus, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    // No devices, no links to other directories' files, nothing that could be started.
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    let programs = match confinement.starts {
        Starts::ProgramsIn(directories) => directories,
        Starts::Nothing => &[],
    };
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(named(&confinement.reads), read))?
        .add_rules(path_beneath_rules(named(&confinement.writes), write))?
        .add_rules(path_beneath_rules(named(&confinement.removes), AccessFs::RemoveDir))?
        .add_rules(path_beneath_rules(programs, read | AccessFs::Execute))?;
    Ok(ruleset.restrict_self()?.ruleset)
}

/// The directory of a file that is named without one is the current one.
fn named(paths: &[PathBuf]) -> impl Iterator<Item = &Path> {
    paths.iter().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path })
}
