use super::*;
use std::fs;

const GRACE: Duration = Duration::from_secs(30);
const SETTING: &str = "the grace";

/// A procfs with the timeouts of a host as it comes.
fn procfs() -> (tempfile::TempDir, Judging) {
    let procfs = tempfile::tempdir().unwrap();
    let judging = Judging { grace: GRACE, setting: SETTING, procfs: procfs.path().to_owned() };
    fs::create_dir_all(procfs.path().join("sys/net/netfilter")).unwrap();
    for (name, seconds) in [("established", 432_000), ("unacknowledged", 300), ("max_retrans", 300)] {
        set(&judging, name, seconds);
    }
    (procfs, judging)
}

fn set(judging: &Judging, name: &str, seconds: u32) {
    let file = judging.procfs.join(format!("sys/net/netfilter/nf_conntrack_tcp_timeout_{name}"));
    fs::write(file, format!("{seconds}\n")).unwrap();
}

fn dump(interrupted: bool) -> Dump {
    Dump { interrupted, ..Dump::default() }
}

/// What a dump of an empty table finds while `meanwhile` happens.
fn judged(judging: &Judging, dump: &Dump, meanwhile: impl FnOnce()) -> Result<(), Unjudged> {
    let own = OwnAddresses::default();
    let before = judging.before_the_table(&own)?;
    let judgement = before.judgement()?;
    meanwhile();
    before.holds([&judgement], dump)
}

#[test]
fn what_would_be_a_guess_is_not_said() {
    let (_procfs, judging) = procfs();
    let whole = dump(false);
    assert_eq!(judged(&judging, &whole, || ()), Ok(()));
    assert_eq!(judged(&judging, &dump(true), || ()), Err(Unjudged::Interrupted));
    let lowered = judged(&judging, &whole, || set(&judging, "established", 1000));
    assert_eq!(lowered, Err(Unjudged::TimeoutsChanged));
    assert!(judged(&judging, &whole, || ()).is_ok(), "the next dump knows the new ones");
    set(&judging, "established", 300);
    assert!(matches!(judged(&judging, &whole, || ()), Err(Unjudged::Cannot(_))));
    set(&judging, "established", 331);
    let no_room = judged(&judging, &whole, || ()).unwrap_err();
    assert!(matches!(no_room, Unjudged::NoRoom { established: 331, busy: 300, .. }));
    assert!(no_room.to_string().ends_with("lower the grace"), "{no_room}");
    set(&judging, "established", 332);
    assert!(judged(&judging, &whole, || ()).is_ok());
    let hasty = Judging { grace: Duration::ZERO, ..judging.clone() };
    set(&judging, "established", 432_000);
    let too_slow = Unjudged::TooSlow { grace: Duration::ZERO, setting: SETTING };
    assert_eq!(judged(&hasty, &whole, || ()), Err(too_slow));
    let nowhere = Judging { procfs: "/nowhere".into(), ..judging };
    let error = judged(&nowhere, &whole, || ()).unwrap_err().to_string();
    assert!(error.contains("/nowhere/sys/net/netfilter/nf_conntrack_tcp_timeout_established"), "{error}");
}
