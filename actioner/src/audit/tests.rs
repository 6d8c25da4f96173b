use super::*;
use crate::alert::Origin;
use crate::host::Host;
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::spared::Spared;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

struct Log {
    directory: tempfile::TempDir,
    host: Host,
    policy: Policy,
    metrics: Metrics,
}

impl Log {
    fn new() -> Log {
        Log {
            directory: tempfile::tempdir().unwrap(),
            host: Host {
                table_id: "feed".into(),
                name: "web1".into(),
                own: Default::default(),
                spared: Spared::default(),
            },
            policy: Policy::parse("never_ban: []\n", Path::new(".")).unwrap(),
            metrics: Metrics::new(std::iter::empty()),
        }
    }

    fn open(&self, max_size: u64) -> Audit {
        let rotation = Rotation { max_size, keep: 2 };
        Audit::open(self.directory.path(), Now::read(), rotation, self.metrics.clone()).unwrap()
    }

    fn record(&self, audit: &mut Audit, name: &str) {
        let alert = Alert {
            labels: [("alertname".to_owned(), name.to_owned())].into(),
            annotations: BTreeMap::new(),
            fingerprint: String::new(),
            starts_at: String::new(),
            firing: true,
            origin: Origin::Webhook,
            receiver: "r".into(),
            group_key: "k".into(),
        };
        let context = Context {
            host: &self.host,
            policy: &self.policy,
            budget: [1.0, 2.0],
            now: Now::read(),
            table_after: None,
            survey: None,
        };
        audit.record(&alert, &Plan::refused(Refusal::NoRule), &Outcome::default(), context);
        assert!(audit.written_within(Duration::from_secs(10)));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The alert names in a file; None for a line that is none.
    fn names(&self, name: &str) -> Vec<Option<String>> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        let name = |line: Value| line["labels"]["alertname"].as_str().map(str::to_owned);
        text.lines().map(|line| serde_json::from_str(line).ok().and_then(name)).collect()
    }

    fn lost(&self) -> u64 {
        self.metrics.audit_lost_so_far()
    }
}

fn some(names: &[&str]) -> Vec<Option<String>> {
    names.iter().map(|name| Some((*name).to_owned())).collect()
}

#[test]
fn a_torn_line_costs_itself_and_no_other() {
    let log = Log::new();
    log.record(&mut log.open(0), "A\n\"");
    let file = log.path(FILE);
    let text = fs::read_to_string(&file).unwrap() + "{\"schema\":1,\"tim";
    fs::write(&file, text).unwrap();
    log.record(&mut log.open(0), "B");
    log.record(&mut log.open(0), "C");
    let names = log.names(FILE);
    assert_eq!(names, [some(&["A\n\""]), vec![None], some(&["B", "C"])].concat());
}

#[test]
fn a_full_file_is_set_aside_and_the_oldest_is_dropped() {
    let log = Log::new();
    let mut audit = log.open(1);
    for name in ["A", "B", "C", "D"] {
        log.record(&mut audit, name);
    }
    assert_eq!(log.names(FILE), some(&["D"]));
    assert_eq!(log.names("audit.jsonl.1"), some(&["C"]));
    assert_eq!(log.names("audit.jsonl.2"), some(&["B"]));
    assert!(!log.path("audit.jsonl.3").exists());
    drop(audit);
    let size = fs::metadata(log.path(FILE)).unwrap().len();
    let mut audit = log.open(2 * size + 8);
    log.record(&mut audit, "E");
    log.record(&mut audit, "F");
    assert_eq!(log.names("audit.jsonl.1"), some(&["D", "E"]), "what was there before counts");
    assert_eq!((log.names(FILE), log.lost()), (some(&["F"]), 0));
}

#[test]
fn a_line_without_end_is_passed_over_and_not_kept() {
    let log = Log::new();
    let mut audit = log.open(0);
    log.record(&mut audit, "A");
    let mut text = fs::read(log.path(FILE)).unwrap();
    let a_line = text.clone();
    text.extend(vec![b'x'; 17 << 20]);
    text.push(b'\n');
    text.extend(&a_line);
    text.extend(vec![b'x'; 17 << 20]);
    fs::write(log.path(FILE), text).unwrap();
    let mut lines = 0;
    let bad = read(&[log.path(FILE)], |_| lines += 1).unwrap();
    assert_eq!(lines, 2);
    let told: Vec<(u64, &str)> = bad.iter().map(|bad| (bad.line, bad.error.as_str())).collect();
    assert_eq!(told, [(2, "it is longer than 16 MiB"), (4, "it is longer than 16 MiB")]);
}

#[test]
fn a_file_that_was_moved_away_is_let_go_of() {
    let log = Log::new();
    let mut audit = log.open(0);
    log.record(&mut audit, "A");
    fs::rename(log.path(FILE), log.path("rotated")).unwrap();
    log.record(&mut audit, "B");
    fs::remove_file(log.path(FILE)).unwrap();
    // logrotate's `create`.
    fs::write(log.path(FILE), "").unwrap();
    log.record(&mut audit, "C");
    fs::remove_dir_all(log.directory.path()).unwrap();
    log.record(&mut audit, "D");
    assert_eq!((log.names(FILE), log.lost()), (some(&["D"]), 0));
}

#[test]
fn a_disk_that_takes_nothing_costs_lines_and_they_are_counted() {
    let log = Log::new();
    // Every write to it says ENOSPC.
    std::os::unix::fs::symlink("/dev/full", log.path(FILE)).unwrap();
    let mut audit = log.open(0);
    log.record(&mut audit, "A");
    log.record(&mut audit, "B");
    assert_eq!(log.lost(), 2);
    fs::remove_file(log.path(FILE)).unwrap();
    log.record(&mut audit, "C");
    assert_eq!((log.names(FILE), log.lost()), (some(&["C"]), 2));
}

#[test]
fn a_disk_that_hangs_delays_nobody_for_long() {
    let log = Log::new();
    let mut audit = log.open(0);
    log.record(&mut audit, "A");
    // A pipe that nobody reads: once it is full, the write never returns.
    fs::remove_file(log.path(FILE)).unwrap();
    let made = std::process::Command::new("mkfifo").arg(log.path(FILE)).status().unwrap();
    assert!(made.success());
    let event = Event {
        what: What::Drift,
        net: None,
        actor: "actioner".to_owned(),
        reason: Some("x".repeat(100_000)),
        detail: Default::default(),
    };
    let began = Instant::now();
    for _ in 0..300 {
        audit.record_event(&event);
        audit.settle();
    }
    assert!(log.lost() > 50, "16 MiB wait at most, and {} lines were lost", log.lost());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // The disk comes back, so that the end need not wait.
    let mut pipe = fs::File::open(log.path(FILE)).unwrap();
    std::thread::spawn(move || io::copy(&mut pipe, &mut io::sink()));
}

#[test]
fn a_place_that_will_never_do_is_an_error_at_the_start() {
    let log = Log::new();
    fs::write(log.path("file"), "").unwrap();
    let rotation = Rotation::default();
    let error = Audit::open(&log.path("file"), Now::read(), rotation, log.metrics.clone()).unwrap_err();
    assert!(error.to_string().contains("file/audit.jsonl"), "{error}");
}

#[test]
fn an_event_says_what_whom_and_who() {
    let log = Log::new();
    let mut audit = log.open(0);
    audit.record_event(&Event {
        what: What::Unban,
        net: Some("192.0.2.7/32".parse().unwrap()),
        actor: "root (sudo: alice)".to_owned(),
        reason: None,
        detail: [("offence".to_owned(), Value::from(2))].into_iter().collect(),
    });
    drop(audit);
    let line: Value = serde_json::from_str(fs::read_to_string(log.path(FILE)).unwrap().trim()).unwrap();
    assert_eq!((&line["event"], &line["net"]), (&"unban".into(), &"192.0.2.7/32".into()));
    assert_eq!((&line["actor"], &line["detail"]["offence"]), (&"root (sudo: alice)".into(), &2.into()));
}

#[test]
fn moments_always_have_three_decimals() {
    let at = |millis| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
    assert_eq!(at(1_795_381_200_120), "2026-11-22T21:00:00.120Z");
    assert_eq!(at(1_795_381_200_000), "2026-11-22T21:00:00.000Z");
}
