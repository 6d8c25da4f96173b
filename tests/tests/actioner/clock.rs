//! A wall clock that jumps by a year, under a running actioner and between two of them. faketime (libfaketime) stands before the C
//! library's clock_gettime of that one process, and only CLOCK_REALTIME is shifted: CLOCK_BOOTTIME is the kernel's own, as it is
//! where somebody sets the clock.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tests::{Result, http, netns::Namespace, wait::wait_until};

use crate::{
    kept::{banned, forget_everything, kill},
    lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, members, quiet},
};

const SET: &str = "conntrack-guard-4";
const YEAR: i64 = 365 * 86_400;
/// He was unbanned by hand: no rule bans him for a day.
const GRACED: &str = "198.51.100.67";
/// He offends again after a ban of two seconds.
const AGAIN: &str = "198.51.100.68";
/// Banned by hand for a few seconds.
const BRIEF: &str = "198.51.100.69";
const BRIEFLY: Duration = Duration::from_secs(4);
const LASTS: Duration = Duration::from_secs(600);
/// The kernel and the reconciler count whole seconds; what a busy machine takes between two readings comes to it.
const TOLERANCE: Duration = Duration::from_secs(3);

/// Not confined: libfaketime keeps its shared memory in /dev/shm, in the rule tools too.
const SCRIPT: &str = "export LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1) FAKETIME_TIMESTAMP_FILE=CLOCK FAKETIME_NO_CACHE=1 \
                      FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1; set -- \"$@\" --no-confine";

/// The wall clock of the actioners of one home.
struct WallClock {
    file: PathBuf,
}

impl WallClock {
    fn of(home: &Home) -> WallClock {
        let clock = WallClock { file: home.path("clock") };
        clock.set(0);
        clock
    }

    /// So many seconds ahead of everybody else's.
    fn set(&self, ahead: i64) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{ahead:+}\n")).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }

    fn start<'n>(&self, home: &Home, lab: &'n Namespace) -> Result<Actioner<'n>> {
        home.start_on(lab, &SCRIPT.replace("CLOCK", &self.file.display().to_string()))
    }
}

fn stored(home: &Home) -> Value {
    serde_json::from_str(&fs::read_to_string(home.path("storage/state.json")).unwrap()).unwrap()
}

/// Ours, so many seconds ahead, in seconds since 1970.
fn wall(ahead: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + ahead
}

fn about(seconds: i64, wanted: i64, what: &str) {
    assert!((seconds - wanted).abs() < 30, "{what}: {seconds}, and {wanted} is right");
}

fn seconds(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

/// He has the time left that he would have without any jump.
fn lasts_until(lab: &Namespace, actioner: &Actioner<'_>, end: Instant, ahead: i64) -> Result<()> {
    let asked = Instant::now();
    let due = end.saturating_duration_since(asked);
    let left = members(lab, SET)?.into_iter().find(|(net, _)| net == HIM).map(|(_, left)| left);
    let left = Duration::from_secs(left.unwrap_or_else(|| panic!("{ahead} s ahead: he is free")).into());
    let right = |left: Duration| left.abs_diff(due) <= TOLERANCE + asked.elapsed();
    assert!(right(left), "{ahead} s ahead: {left:?} left, and {due:?} is right");
    let bans: Value =
        serde_json::from_str(&http::get(&actioner.socket, "/api/v1/bans", &[])?.text()).unwrap();
    let him = bans["bans"].as_array().unwrap().iter().find(|ban| ban["net"] == format!("{HIM}/32")).unwrap();
    let said = Duration::from_secs(him["remaining_seconds"].as_u64().unwrap());
    assert!(right(said) && him["in_kernel"] == true, "{ahead} s ahead, {due:?} is right: {him}");
    about(seconds(&him["until"]), wall(ahead) + due.as_secs() as i64, "until, for people");
    for what in ["ban_missing", "ban_shortened", "ban_lengthened", "ban_foreign", "set", "rule"] {
        assert_eq!(actioner.metric(&format!("drift_total{{what=\"{what}\"}}"))?, 0.0, "{ahead}: {what}");
    }
    Ok(())
}

/// The clock is set, and the actioner has something to do and looks at it.
fn jump(clock: &WallClock, home: &Home, actioner: &Actioner<'_>, ahead: i64) -> Result<()> {
    clock.set(ahead);
    assert_eq!(count(&actioner.alert(&[HIM])?, "already_banned"), 1);
    wait_until("the store to know of the jump", SOON, || {
        let written = stored(home)["wall"].as_i64().unwrap() / 1000;
        if (written - wall(ahead)).abs() < 30 { Ok(()) } else { Err(format!("{ahead}: {written}")) }
    })
}

#[test]
fn a_wall_clock_that_jumps_by_a_year_ends_no_ban_lengthens_none_and_forgets_nothing() -> Result<()> {
    let lab = quiet("clock")?;
    let brief = "- name: brief\n  matchers: ['alertname=\"Brief\"']\n  sources: {label: source}\n  require: {source: {assured: 20}}\n  \
                 actions: [{ban: {for: 2s, factor: 4, max: 1h}}]\n";
    let home = Home::new(&format!("{POLICY}{brief}"));
    let clock = WallClock::of(&home);
    for source in [HIM, GRACED, AGAIN] {
        fill(&lab, source, 30)?;
    }
    let mut actioner = clock.start(&home, &lab)?;
    assert_eq!(count(&actioner.alert(&[HIM, GRACED])?, "banned"), 2);
    let end = Instant::now() + LASTS;
    assert_eq!(http::delete(&actioner.socket, &format!("/api/v1/bans?source={GRACED}"))?.status, 200);
    fill(&lab, GRACED, 30)?;
    assert_eq!(brief_alert(&actioner)?, 1);
    let body = json!({"source": BRIEF, "for_seconds": BRIEFLY.as_secs(), "reason": "a test"}).to_string();
    let briefly = Instant::now();
    assert_eq!(http::post(&actioner.socket, "/api/v1/bans", &[], body.as_bytes())?.status, 200);

    for ahead in [YEAR, -YEAR] {
        jump(&clock, &home, &actioner, ahead)?;
        lasts_until(&lab, &actioner, end, ahead)?;
        if briefly.elapsed() + Duration::from_secs(1) < BRIEFLY {
            assert!(banned(&lab).contains(&BRIEF.to_owned()), "{ahead}: a ban ended early");
        }
        let answer = actioner.alert(&[HIM, GRACED])?;
        assert_eq!(count(&answer, "already_banned"), 1, "{ahead}: {answer}");
        assert_eq!(answer["reasons"]["unbanned_by_hand"]["count"], 1, "{ahead}: {answer}");
        let line = || match actioner.audit().pop() {
            Some(line)
                if line["verdict"] == "refused" && (seconds(&line["time"]) - wall(ahead)).abs() < 30 =>
            {
                Ok(())
            }
            other => Err(format!("{ahead}: {other:?}")),
        };
        wait_until("an audit line with the wall clock's time", SOON, line)?;
    }
    wait_until("the brief ban to end", SOON, || match banned(&lab) {
        bans if bans == [HIM] => Ok(()),
        bans => Err(format!("{bans:?}")),
    })?;
    assert!(briefly.elapsed() >= BRIEFLY, "not before its time: {:?}", briefly.elapsed());
    assert_eq!(brief_alert(&actioner)?, 1, "a year by the wall clock makes no offence forgotten");
    wait_until("his second offence", SOON, || match actioner.audit().pop() {
        Some(line) if line["source"] == AGAIN && line["result"]["offence"] == 2 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;

    // A restart in the same boot: the kernel has its bans, or somebody has emptied it.
    kill(&mut actioner)?;
    clock.set(YEAR);
    let mut second = clock.start(&home, &lab)?;
    lasts_until(&lab, &second, end, YEAR)?;
    kill(&mut second)?;
    forget_everything(&lab)?;
    clock.set(-YEAR);
    let third = clock.start(&home, &lab)?;
    lasts_until(&lab, &third, end, -YEAR)
}

fn brief_alert(actioner: &Actioner<'_>) -> Result<u64> {
    let mut alert = actioner.about(AGAIN);
    alert["labels"]["alertname"] = "Brief".into();
    let answer = actioner.post(&crate::lab::message(&[alert]))?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    Ok(count(&serde_json::from_str(&answer.text()).unwrap(), "banned"))
}

/// The kernel forgets, and the store is another boot's. Its boot clock cannot be set back here; that it is not asked is proven where
/// it is decided (state/saved.rs).
fn reboot(lab: &Namespace, home: &Home, actioner: &mut Actioner<'_>) -> Result<()> {
    kill(actioner)?;
    forget_everything(lab)?;
    let mut state = stored(home);
    state["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
    fs::write(home.path("storage/state.json"), state.to_string()).unwrap();
    Ok(())
}

#[test]
fn after_a_reboot_bans_have_the_time_left_that_the_wall_clock_tells_also_if_it_was_set_before() -> Result<()>
{
    const MINUTE: i64 = 60;
    let lab = quiet("clock-reboot")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let clock = WallClock::of(&home);
    let mut actioner = clock.start(&home, &lab)?;
    let end = Instant::now() + LASTS;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);

    // Set by a year while it ran; the machine is off for a minute.
    jump(&clock, &home, &actioner, YEAR)?;
    reboot(&lab, &home, &mut actioner)?;
    clock.set(YEAR + MINUTE);
    let mut second = clock.start(&home, &lab)?;
    let end = end - Duration::from_secs(60);
    lasts_until(&lab, &second, end, YEAR + MINUTE)?;

    // It comes up without a battery: nobody knows how long it was off, and no ban ends because of it, nor gets time that it had not.
    reboot(&lab, &home, &mut second)?;
    let (written, boot) = (stored(&home), |state: &Value| state["boot"].as_u64().unwrap());
    let left = written["enforced"]["bans"][0]["until"].as_u64().unwrap() - boot(&written);
    clock.set(-YEAR);
    let third = clock.start(&home, &lab)?;
    lasts_until(&lab, &third, Instant::now() + Duration::from_millis(left), -YEAR)?;
    assert_eq!(banned(&lab), [HIM]);
    Ok(())
}
