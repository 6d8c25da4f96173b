//! A table so large that nobody waits for a second dump of it: what the banned made meanwhile is looked for after the answer.

use std::{
    net::SocketAddrV4,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::json;
use tests::{
    Result,
    entries::{Wanted, insert},
    wait::wait_until,
};

use crate::lab::{HIM, Home, POLICY, SOON, count, quiet};

/// One more than is waited for (`removal::WAITED_FOR`), and what others hold.
const ENTRIES: u32 = 200_001;

#[test]
fn what_the_banned_made_meanwhile_goes_after_the_answer_and_the_audit_log_says_so() -> Result<()> {
    let lab = quiet("large")?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    lab.run(|| insert((0..ENTRIES).map(|number| Wanted::nth(number, 100, true))));
    let his = |port| Wanted { source: SocketAddrV4::new(HIM.parse().unwrap(), port), to: 80, replied: true };
    lab.run(|| insert((1..=30).map(his)));

    let answered = AtomicBool::new(false);
    let (answer, made) = thread::scope(|scope| {
        // As fast as one who opens connections while the table is read; the ports bound it.
        let making = scope.spawn(|| {
            let made = |port: &u16| {
                lab.run(|| insert([his(*port)]));
                !answered.load(Ordering::Relaxed)
            };
            (31..=u16::MAX).take_while(made).count() as u64
        });
        let answer = actioner.alert(&[HIM]);
        answered.store(true, Ordering::Relaxed);
        (answer, making.join().expect("it makes entries"))
    });
    let answer = answer?;
    assert_eq!(count(&answer, "banned"), 1, "{answer}");

    let about_him = |event: &str| {
        let lines = actioner.audit();
        lines.into_iter().find(|line| line["event"] == event && line["net"] == format!("{HIM}/32"))
    };
    let later = wait_until("what he made meanwhile to be deleted", SOON, || {
        about_him("deletion").ok_or_else(|| actioner.log())
    })?;
    let decision = about_him("decision").expect("a line of the decision");
    assert_eq!(decision["result"]["looking_again"], true, "{decision}");
    assert_eq!((&later["actor"], &later["detail"]["rule"]), (&json!("policy"), &json!("hoarder")), "{later}");
    let deleted = [&decision["result"]["entries_deleted"], &later["detail"]["entries_deleted"]];
    let [at_once, later] = deleted.map(|deleted| deleted.as_u64().unwrap_or_else(|| panic!("{later}")));
    assert!(at_once >= 30 && later > 0, "{at_once} and {later}");
    // The last may have been made after the last look.
    assert!(at_once + later <= 30 + made + 1, "{at_once} and {later} of {made}");
    assert_eq!(
        actioner.metric("deleted_entries_total{rule=\"hoarder\"}")?,
        (at_once + later) as f64,
        "both are counted for the rule"
    );
    Ok(())
}
