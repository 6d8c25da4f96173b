//! Errors of netlink that a kernel seldom gives, on both programs as they run: what the user sees, and that it is over with them.

use std::net::SocketAddr;

use tests::{
    Result,
    injection::{Injection, Whose},
    netns::Namespace,
    programs::{Program, Running},
    wait::wait_until,
};

use crate::{
    kept::banned,
    lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, message, quiet},
};

/// What the kernel says, the word of the metric and what stands in the log. Who is out of luck with EINTR asks again.
const ERRORS: [(&str, &str, &str); 3] = [
    ("ENOBUFS", "overrun", "dropped part of its answer"),
    ("ENOMEM", "no_memory", "this host is out of memory"),
    ("EPERM", "not_permitted", "CAP_NET_ADMIN is missing"),
];
const HIM_TOO: &str = "198.51.100.67";
const DUMPED: [&str; 3] = ["flows", "sources", "sockets"];

fn scrape(lab: &Namespace, exporter: &Running) -> String {
    let answer = exporter.get(lab, "/metrics").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[track_caller]
fn shows(metrics: &str, lines: &[String]) {
    for line in lines {
        assert!(metrics.lines().any(|shown| shown == line), "no {line} in\n{metrics}");
    }
}

fn success(collectors: &[&str], holds: bool) -> Vec<String> {
    let line =
        |name| format!("nf_conntrack_scrape_collector_success{{collector=\"{name}\"}} {}", u8::from(holds));
    collectors.iter().map(line).collect()
}

#[test]
fn an_exporter_whose_dumps_fail_says_why_shows_the_rest_and_all_again_when_they_do_not() -> Result<()> {
    let lab = quiet("dumps")?;
    fill(&lab, HIM, 60)?;
    let address: SocketAddr = Program::Exporter.default_address();
    let exporter = Program::Exporter.start(&lab, address, &[])?;
    shows(&scrape(&lab, &exporter), &success(&DUMPED, true));
    let collector = Whose::Thread("collector");

    let injected =
        Injection::start(&lab, &exporter.process, collector, "recvfrom,sendto:error=EINTR:when=1..9")?;
    let metrics = scrape(&lab, &exporter);
    shows(&metrics, &success(&DUMPED, true));
    shows(&metrics, &[format!("nf_conntrack_source_entries{{source=\"{HIM}\"}} 60")]);
    assert!(
        !metrics.lines().any(|line| line.contains("dump_errors_total{") && !line.ends_with(" 0")),
        "{metrics}"
    );
    assert!(injected.end()? >= 9, "the calls were interrupted");

    for (errno, reason, words) in ERRORS {
        let injected =
            Injection::start(&lab, &exporter.process, collector, &format!("recvfrom:error={errno}"))?;
        for time in 1..=2 {
            let metrics = scrape(&lab, &exporter);
            shows(&metrics, &success(&DUMPED, false));
            shows(&metrics, &success(&["table", "stat", "timeouts"], true));
            shows(&metrics, &[format!("conntrack_exporter_dump_errors_total{{reason=\"{reason}\"}} {time}")]);
            assert!(
                !metrics.contains("nf_conntrack_source_entries{"),
                "{errno}: no half of a dump\n{metrics}"
            );
        }
        assert!(injected.end()? > 1);
        let log = exporter.process.log();
        assert!(log.contains(words), "{errno}: {log}");
        let metrics = scrape(&lab, &exporter);
        shows(&metrics, &success(&DUMPED, true));
        shows(&metrics, &[format!("nf_conntrack_source_entries{{source=\"{HIM}\"}} 60")]);
    }
    let log = exporter.process.log();
    assert_eq!(
        log.matches("collector=flows").count(),
        2 * ERRORS.len(),
        "told when it begins and ends: {log}"
    );
    Ok(())
}

/// The survey's thread is a new one each time: its first calls fail, after those of the threads that serve have.
fn while_surveys_fail<'n>(lab: &'n Namespace, actioner: &mut Actioner<'n>, what: &str) -> Result<Injection> {
    let injected = Injection::start(lab, actioner.process(), Whose::Threads, what)?;
    wait_until("the doors to work again", SOON, || match actioner.metrics() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    })?;
    Ok(injected)
}

#[test]
fn an_actioner_that_cannot_read_the_table_decides_nothing_is_asked_again_and_then_acts() -> Result<()> {
    let lab = quiet("surveys")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let mut actioner = home.start(&lab)?;
    let alert = message(&[actioner.about(HIM)]);
    // Each has its word and its sentence in the exporter's test; the way is the same here.
    let (errno, _, words) = ERRORS[0];
    let before = actioner.metric("webhooks_total{code=\"503\"}")?;
    let injected = while_surveys_fail(&lab, &mut actioner, &format!("recvfrom:error={errno}:when=1..40"))?;
    // Who this host is may be what it cannot read first.
    wait_until("the table to be what cannot be read", SOON, || {
        let answer = actioner.post(&alert).map_err(|error| error.to_string())?;
        let said = answer.text();
        assert_eq!(answer.status, 503, "Alertmanager sends it again: {said}");
        match said.contains(words) && said.contains("the live table cannot be read, so nothing was decided") {
            true => Ok(()),
            false => Err(format!("{errno}: {said}\n{}", actioner.log())),
        }
    })?;
    assert!(actioner.log().contains(words), "{errno}: {}", actioner.log());
    assert!(actioner.metric("webhooks_total{code=\"503\"}")? > before);
    assert!(banned(&lab).is_empty());
    assert!(injected.end()? > 1);
    let injected = while_surveys_fail(&lab, &mut actioner, "recvfrom:error=EINTR:when=1..9")?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1, "who is interrupted asks again");
    assert!(injected.end()? >= 9);
    assert_eq!(banned(&lab), [HIM]);
    Ok(())
}

/// The thread of the effects alone, which reads and writes the sets, and asks who this host is.
#[test]
fn bans_that_the_kernel_does_not_answer_for_are_not_called_in_force_and_are_soon_after() -> Result<()> {
    let lab = quiet("answers")?;
    let home = Home::new(POLICY);
    let mut actioner = home.start(&lab)?;
    fill(&lab, HIM, 30)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    enforced(&actioner, 1.0)?;
    let (errno, _, words) = ERRORS[0];
    let what = format!("recvfrom:error={errno}");
    let injected = Injection::start(&lab, actioner.process(), Whose::Thread("effects"), &what)?;
    enforced(&actioner, 0.0)?;
    let stood = actioner.metric("last_look_timestamp_seconds")?;
    let read_back = actioner.status()?["looked"]["bans"].clone();
    assert!(read_back.is_string(), "{read_back}");
    assert_eq!(actioner.metric("active_bans")?, 1.0, "what was decided is not forgotten");
    fill(&lab, HIM_TOO, 30)?;
    let answer = actioner.post(&message(&[actioner.about(HIM_TOO)]))?;
    assert!(answer.status == 503 || answer.text().contains("\"failed\":1"), "{}", answer.text());
    assert_eq!(actioner.metric("last_look_timestamp_seconds")?, stood, "nothing newer is known");
    assert_eq!(actioner.status()?["looked"]["bans"], read_back, "and `status` says so");
    assert!(injected.end()? > 1);
    let log = actioner.log();
    assert!(log.contains(words) && log.contains("whether bans are in force is not known"), "{log}");
    let answer = actioner.alert(&[HIM_TOO])?;
    assert_eq!(count(&answer, "banned") + count(&answer, "already_banned"), 1, "{answer}");
    enforced(&actioner, 2.0)?;
    assert_eq!(banned(&lab), [HIM, HIM_TOO]);
    Ok(())
}

fn enforced(actioner: &Actioner<'_>, wanted: f64) -> Result<()> {
    wait_until("enforced_bans", SOON + SOON, || match actioner.metric("enforced_bans") {
        Ok(found) if found == wanted => Ok(()),
        other => Err(format!("{other:?}, not {wanted}\n{}", actioner.log())),
    })
}
