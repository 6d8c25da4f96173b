//! Bytes that nobody sends who means well, and files that a disk has bent: what must hold whatever is in them. The bodies of the
//! fuzz targets in `fuzz/`; `make test` calls them with everything that was ever found worth keeping there. Not for programs.

use crate::alert::Origin;
use crate::audit::{self, BadLine};
use crate::firewall;
use crate::matcher::Matcher;
use crate::now::Now;
use crate::policy::Policy;
use crate::state::saved::Clock;
use crate::store::{self, Loaded};
use crate::{replay, review, source, webhook};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// The policy that is shipped.
static PACKAGED: LazyLock<Policy> = LazyLock::new(|| {
    let text = include_str!("../../packaging/policy.yaml");
    Policy::parse(text, Path::new("/nonexistent")).expect("the policy that is shipped")
});

/// What the kernel answers to ipset's requests: what was read is a prefix that a set can hold.
pub fn sets(bytes: &[u8]) {
    firewall::read_hostile(bytes);
}

/// A webhook's body: each alert of a message that is taken is decided upon, and what is refused is refused shortly.
pub fn webhook(bytes: &[u8]) {
    let read = match webhook::parse(bytes, Origin::Webhook) {
        Ok(read) => read,
        Err(error) => return assert!(error.to_string().len() < 1000, "{error}"),
    };
    assert!(!read.alerts.is_empty() && read.group_key.len() <= 3000 && read.receiver.len() <= 300);
    for alert in &read.alerts {
        let Some(rule) = PACKAGED.rule_for(&alert.labels) else { continue };
        assert!(rule.matchers.iter().all(|matcher| matcher.matches(&alert.labels)));
        for value in alert.labels.values() {
            match source::parse(value) {
                Ok(source) => assert_eq!(source, source.to_canonical()),
                Err(error) => assert!(error.to_string().len() < 1000, "{error}"),
            }
        }
    }
}

/// A policy: read again, it is the same. Files that it names are not read here.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if text.contains("_files") {
        return;
    }
    let read = Policy::parse(text, Path::new("/nonexistent"));
    assert_eq!(read, Policy::parse(text, Path::new("/nonexistent")));
    match read {
        Ok(policy) => assert_eq!(policy.hash.len(), 16, "what was read can be named"),
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            assert!(errors.to_string().len() < 200_000, "a problem is told in a line or two");
        }
    }
}

/// Matchers: what was read is written so that it is read as the same.
pub fn matchers(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let matchers = match Matcher::parse(text) {
        Ok(matchers) => matchers,
        Err(error) => return assert!(error.to_string().len() < 2000, "{error}"),
    };
    for matcher in matchers {
        let written = matcher.to_string();
        assert_eq!(Matcher::parse(&written).as_deref(), Ok(&[matcher][..]), "{written}");
    }
}

/// `state.json`: what is taken is written so that it is read as the same, in the same boot and after another.
pub fn store(bytes: &[u8]) {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    for (boot_id, boot) in [("hostile", 1_000_000), ("another", 100)] {
        let now = Now { boot: Duration::from_secs(boot), wall: at(1_800_000_000) };
        let clock = Clock { machine: String::new(), boot_id: boot_id.to_owned(), now };
        let Ok(Loaded::State { state, .. }) = store::read(bytes, &clock) else { continue };
        let saved = state.save(&clock);
        let written = serde_json::to_vec(&saved).expect("a state can be written");
        let Ok(Loaded::State { state: again, same_boot: true }) = store::read(&written, &clock) else {
            panic!("what was written cannot be read")
        };
        assert_eq!(again.save(&clock), saved);
        for ban in state.enforced(now) {
            assert!(!ban.timeout.is_zero(), "a ban that has ended is none");
        }
    }
}

/// The audit log: each line is a line or a bad one, `replay` decides it and `report` counts it, and both can be shown.
pub fn audit(bytes: &[u8]) {
    let file = Path::new("audit.jsonl");
    let mut bad: Vec<BadLine> = Vec::new();
    let (mut lines, mut decisions) = (0, 0);
    audit::read_from(bytes, file, &mut bad, &mut |line| {
        lines += 1;
        decisions += usize::from(line.is_decision());
    })
    .expect("memory can be read");
    assert!(lines + bad.len() <= bytes.split(|byte| *byte == b'\n').count());
    let replayed = replay::replay_from(&PACKAGED, bytes);
    assert_eq!(replayed.decisions.len(), decisions);
    let _ = (replay::text(&replayed, replay::Shown::Everything), replay::json(&replayed).to_string());
    let reviewed = review::review_from(bytes);
    let _ = (review::text(&reviewed), review::json(&reviewed).to_string());
}
