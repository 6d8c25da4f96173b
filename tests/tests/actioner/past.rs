//! The audit log of a real run, read back: report and replay. And the log on disks that do not do as they should.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;
use tests::{Result, wait::wait_until};

use crate::lab::{HIM, Home, POLICY, SOON, count, dry, fill, members, quiet, read_audit};

const OTHER: &str = "198.51.100.67";

/// What a command says, which must end well.
fn said(home: &Home, lab: &tests::netns::Namespace, words: &[&str], flags: &[&str]) -> Result<String> {
    let output = home.run(lab, &[], words, flags)?;
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_week_of_dry_run_is_summed_up_and_another_policy_is_tried_on_it() -> Result<()> {
    let lab = quiet("past")?;
    fill(&lab, HIM, 30)?;
    fill(&lab, OTHER, 15)?;
    let home = Home::new(&dry());
    {
        let actioner = home.start(&lab)?;
        assert_eq!(count(&actioner.alert(&[HIM, OTHER])?, "dry_run"), 1);
        assert_eq!(count(&actioner.alert(&[HIM, OTHER])?, "already_banned"), 1);
    }
    let report = said(&home, &lab, &["report"], &["--storage.path"])?;
    for words in [
        "RULE hoarder (dry run",
        "would ban     1 times, 1 sources",
        "they held     30 entries",
        "2 require_not_met",
    ] {
        assert!(report.contains(words), "no {words:?} in\n{report}");
    }

    let log = home.path("storage/audit.jsonl").display().to_string();
    let policy = home.path("new.yaml").display().to_string();
    let replay = |text: &str, more: &[&str]| -> Result<String> {
        fs::write(&policy, text).unwrap();
        said(&home, &lab, &[&["replay", "--policy", &policy, &log], more].concat(), &[])
    };
    let same = replay(&dry(), &[])?;
    assert!(same.contains("4 decisions: 4 the same, 0 different, 0 not known"), "{same}");
    let lower = replay(&dry().replace("assured: 20", "assured: 10"), &[])?;
    assert!(lower.contains("4 decisions: 2 the same, 2 different"), "{lower}");
    assert!(lower.contains(&format!("sources banned now and not then: 1: {OTHER}")), "{lower}");
    let higher: serde_json::Value =
        serde_json::from_str(&replay(&dry().replace("assured: 20", "assured: 40"), &["--json"])?).unwrap();
    assert_eq!(higher["summary"]["banned_only_then"], serde_json::json!([HIM]), "{higher}");
    Ok(())
}

#[test]
fn a_log_that_logrotate_renamed_is_let_go_of_at_sighup() -> Result<()> {
    let lab = quiet("rotated")?;
    let home = Home::new(&dry());
    let mut actioner = home.start(&lab)?;
    actioner.alert(&[HIM])?;
    assert_eq!(actioner.audit().len(), 1);
    let (log, rotated) = (home.path("storage/audit.jsonl"), home.path("storage/rotated"));
    fs::rename(&log, &rotated).unwrap();
    actioner.process().signal(Signal::SIGHUP)?;
    let inode = fs::metadata(&rotated).unwrap().ino();
    let descriptors = format!("/proc/{}/fd", actioner.process().id());
    wait_until("the renamed log to be closed", SOON, || {
        let open = fs::read_dir(&descriptors).unwrap().flatten();
        match open.filter_map(|fd| fs::metadata(fd.path()).ok()).any(|file| file.ino() == inode) {
            true => Err("it is open"),
            false => Ok(()),
        }
    })?;
    actioner.alert(&[HIM])?;
    assert_eq!((read_audit(&rotated).len(), actioner.audit().len()), (1, 1));
    Ok(())
}

/// Enforcement does not wait for a disk: full and read-only ones cost lines, which are counted and said.
#[test]
fn a_disk_that_takes_no_lines_costs_lines_and_no_ban() -> Result<()> {
    for (name, prepare, error) in [
        ("readonly", "mount -t tmpfs -o ro none STORAGE", "Read-only file system"),
        (
            "full",
            "mount -t tmpfs -o size=64k none STORAGE; cat /dev/zero > STORAGE/fill 2>/dev/null",
            "No space left",
        ),
    ] {
        let lab = quiet(name)?;
        fill(&lab, HIM, 30)?;
        let home = Home::new(POLICY);
        let actioner = home.start_on(&lab, prepare)?;
        assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1, "{name}");
        assert_eq!(members(&lab, "conntrack-guard-4")?.len(), 1, "{name}");
        wait_until("the lines to be counted as lost", SOON, || {
            match actioner.metric("audit_errors_total") {
                Ok(lost) if lost >= 1.0 => Ok(()),
                other => Err(format!("{name}: {other:?}")),
            }
        })?;
        let log = actioner.log();
        assert!(log.contains("level=error") && log.contains(error) && log.contains("audit"), "{name}: {log}");
    }
    Ok(())
}
