//! Capabilities of the calling thread, in all five sets.

use caps::{CapSet, Capability, CapsHashSet};

/// Keeps those of `kept` that the thread has.
pub(super) fn keep_only(kept: &[Capability]) -> Result<(), String> {
    let kept: CapsHashSet = kept.iter().copied().collect();
    // From here on a program that is started gains nothing by its file, whatever the bounding set holds.
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("no_new_privs is refused: {error}"))?;
    // First, for it needs a capability that goes with the rest; refused by AppArmor, say, it keeps no other set from shrinking.
    let bounding = shrink_bounding(&kept);
    // Permitted last: what is in no permitted set cannot be in the others.
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        shrink(set, &kept)?;
    }
    bounding.map_err(|why| format!("the bounding set stays: {why}"))
}

/// A set that holds nothing else already is left alone: systemd's `@privileged` forbids capset(2) even to give up.
fn shrink(set: CapSet, kept: &CapsHashSet) -> Result<(), String> {
    let held = caps::read(None, set).map_err(|error| error.to_string())?;
    match held.is_subset(kept) {
        true => Ok(()),
        false => caps::set(None, set, &(&held & kept)).map_err(|error| error.to_string()),
    }
}

/// The bounding set shrinks by CAP_SETPCAP alone; without it no_new_privs does the same for us.
fn shrink_bounding(kept: &CapsHashSet) -> Result<(), String> {
    let may = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP);
    if !may.map_err(|error| error.to_string())? {
        return Ok(());
    }
    let held = caps::read(None, CapSet::Bounding).map_err(|error| error.to_string())?;
    held.difference(kept).try_for_each(|capability| {
        caps::drop(None, CapSet::Bounding, *capability).map_err(|error| error.to_string())
    })
}
