//! A disk that fills or becomes read-only under us costs durability, loudly, and no ban.

use std::{fs, panic::resume_unwind, path::PathBuf, thread};

use serde_json::Value;
use tests::{Result, netns::Namespace, wait::wait_until};

use crate::{
    kept::banned,
    lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, quiet},
    orders::must,
};

const HIM_TOO: &str = "198.51.100.67";

/// A store's directory on a disk of its own, which only the actioner's mount namespace has.
struct Disk {
    pid: String,
    storage: PathBuf,
}

impl Disk {
    fn of(home: &Home, actioner: &mut Actioner<'_>) -> Disk {
        Disk { pid: actioner.process().id().to_string(), storage: home.path("storage") }
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}/{name}", self.pid, self.storage.display()))
    }

    fn fill(&self) {
        let filled = fs::write(self.path("fill"), vec![1; 8 << 20]);
        assert!(filled.is_err(), "the disk is full: {filled:?}");
    }

    fn empty(&self) {
        fs::remove_file(self.path("fill")).unwrap();
    }

    /// As a file system that remounts itself read-only: what is open stays open.
    fn protect(&self, lab: &Namespace) -> Result<()> {
        self.inside(lab, "mount --bind STORAGE STORAGE && mount -o remount,bind,ro STORAGE")
    }

    fn inside(&self, lab: &Namespace, script: &str) -> Result<()> {
        let script = script.replace("STORAGE", &self.storage.display().to_string());
        lab.command(&["nsenter", "-t", &self.pid, "-m", "sh", "-c", &script]).map(drop)
    }

    /// Whose bans are written down.
    fn stored(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("state.json")).unwrap_or_else(|_| "{}".to_owned());
        let state: Value = serde_json::from_str(&text).unwrap();
        let bans = state["enforced"]["bans"].as_array().cloned().unwrap_or_default();
        let mut nets: Vec<String> = bans.iter().map(|ban| ban["net"].as_str().unwrap().to_owned()).collect();
        nets.sort();
        nets
    }
}

/// Each is done, and the person is told that a restart would undo it, and why.
fn orders_that_are_not_written_down(home: &Home, lab: &Namespace) -> Result<()> {
    const BRIEF: &str = "198.51.100.68";
    let orders: [(&[&str], &str); 4] = [
        (&["ban", BRIEF, "--for", "1h", "--reason", "x"], "a reboot would end it"),
        (&["unban", BRIEF], "it would be banned again"),
        (&["pause"], "a crash or a restart would end it"),
        (&["resume"], "what it ended would be back"),
    ];
    for (words, undone) in orders {
        must(home, lab, words, 6, &["in force, but not written down", undone, "state.json"])?;
    }
    Ok(())
}

fn degraded(actioner: &Actioner<'_>, wanted: f64) -> Result<()> {
    wait_until("store_degraded", SOON, || match actioner.metric("store_degraded") {
        Ok(found) if found == wanted => Ok(()),
        other => Err(format!("{other:?}\n{}", actioner.log())),
    })
}

fn costs_durability_and_no_ban(name: &str, at_start: bool) -> Result<()> {
    let lab = quiet(name)?;
    fill(&lab, HIM, 30)?;
    fill(&lab, HIM_TOO, 30)?;
    let home = Home::new(POLICY);
    let script = match (name, at_start) {
        ("full", true) => "mount -t tmpfs -o size=64k none STORAGE; cat /dev/zero > STORAGE/fill 2>/dev/null",
        ("ro", true) => "mount -t tmpfs -o ro,size=1m none STORAGE",
        _ => "mount -t tmpfs -o size=1m none STORAGE",
    };
    let mut actioner = home.start_on(&lab, script)?;
    let disk = Disk::of(&home, &mut actioner);
    if !at_start {
        assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1, "{name}");
        assert_eq!((disk.stored(), actioner.metric("store_degraded")?), (vec![format!("{HIM}/32")], 0.0));
        if name == "full" { disk.fill() } else { disk.protect(&lab)? }
    }
    let named = if at_start { vec![HIM, HIM_TOO] } else { vec![HIM_TOO] };
    assert_eq!(count(&actioner.alert(&named)?, "banned"), named.len() as u64, "{name}, {at_start}");
    assert_eq!(banned(&lab), [HIM, HIM_TOO], "{name}, {at_start}: enforcement goes on");
    degraded(&actioner, 1.0)?;
    let log = actioner.log();
    assert!(log.contains("would not survive a reboot"), "{name}, {at_start}: {log}");
    assert_eq!(disk.stored().len(), usize::from(!at_start), "the old file stays whole");
    orders_that_are_not_written_down(&home, &lab)?;
    assert_eq!(banned(&lab), [HIM, HIM_TOO], "{name}, {at_start}: they are carried out");

    match (name, at_start) {
        ("full", _) => disk.empty(),
        (_, true) => disk.inside(&lab, "mount -o remount,rw STORAGE")?,
        (_, false) => disk.inside(&lab, "umount STORAGE")?,
    }
    degraded(&actioner, 0.0)?;
    assert_eq!(disk.stored(), [format!("{HIM}/32"), format!("{HIM_TOO}/32")], "{name}, {at_start}");
    assert!(actioner.log().contains("can be written down again"), "{}", actioner.log());
    Ok(())
}

/// Each on a disk of its own, for each waits until the store is tried again.
#[test]
fn a_disk_that_fills_or_becomes_read_only_costs_durability_loudly_and_no_ban() -> Result<()> {
    thread::scope(|scope| {
        let all = [("full", false), ("ro", false), ("full", true), ("ro", true)]
            .map(|(name, at_start)| scope.spawn(move || costs_durability_and_no_ban(name, at_start)));
        all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
