//! Whose alerts, and through which door.

use serde_json::json;
use tests::Result;

use crate::lab::{HIM, Home, POLICY, count, fill, members, message, quiet, with_end};

#[test]
fn two_hosts_never_act_on_each_others_alerts() -> Result<()> {
    let labs = [quiet("one")?, quiet("two")?];
    let homes = [Home::new(POLICY), Home::new(POLICY)];
    for lab in &labs {
        fill(lab, HIM, 30)?;
        // The instance of an alert may be an address of the other.
    }
    labs[0].ip("addr add 192.0.2.11/32 dev lo\n")?;
    labs[1].ip("addr add 192.0.2.22/32 dev lo\n")?;
    let [one, two] = [homes[0].start(&labs[0])?, homes[1].start(&labs[1])?];
    assert_ne!(one.table_id, two.table_id);

    let labelled = |labels: serde_json::Value| {
        let mut alert = one.about(HIM);
        alert["labels"] = labels;
        message(&[alert])
    };
    let with =
        |name: &str, value: &str| labelled(json!({"alertname": "Hoarder", "source": HIM, name: value}));
    let crossed = [
        (&one, with("table_id", &two.table_id)),
        (&two, with("table_id", &one.table_id)),
        (&one, with("instance", "192.0.2.22:10048")),
        (&two, with("instance", "192.0.2.11:10048")),
        (&one, with("instance", "127.0.0.1:10048")),
        (&two, with("instance", "localhost:10048")),
        (&one, labelled(json!({"alertname": "Hoarder", "source": HIM}))),
        (
            &one,
            labelled(
                json!({"alertname": "Hoarder", "source": HIM, "table_id": two.table_id, "instance": "192.0.2.11:10048"}),
            ),
        ),
    ];
    for (actioner, body) in &crossed {
        let answer = actioner.post(body)?;
        let decided: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!((answer.status, count(&decided, "refused")), (200, 1), "{body}\n{decided}");
        assert_eq!(decided["reasons"]["other_host"]["count"], 1, "{decided}");
        let line = actioner.audit().pop().unwrap();
        assert_eq!(
            (&line["reason"], &line["rule"]),
            (&"other_host".into(), &serde_json::Value::Null),
            "{line}"
        );
    }
    for (lab, actioner) in labs.iter().zip([&one, &two]) {
        assert_eq!(members(lab, "conntrack-guard-4")?, []);
        assert_eq!(with_end(lab, HIM)?.len(), 30);
        assert!(actioner.metric("refusals_total{reason=\"other_host\"}")? >= 3.0);
        assert_eq!(actioner.dumps()?, 0.0, "a stranger's alert does not even cost a dump");
    }
    let answer = one.post(&with("instance", "192.0.2.11:10048"))?;
    assert!(answer.text().contains("\"banned\":1"), "{}", answer.text());
    assert_eq!(count(&two.alert(&[HIM])?, "banned"), 1);
    Ok(())
}

#[test]
fn the_same_webhook_over_the_unix_socket() -> Result<()> {
    let lab = quiet("socket")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    let answer = actioner.post_over_socket(&message(&[actioner.about(HIM)]))?;
    assert!(answer.status == 200 && answer.text().contains("\"banned\":1"), "{}", answer.text());
    assert_eq!(actioner.audit()[0]["origin"], "admin");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(home.path("admin.sock")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let refused = actioner.post_over_socket("{")?;
    assert_eq!(refused.status, 400);
    Ok(())
}

#[test]
fn firing_and_resolved_in_one_message_are_told_apart() -> Result<()> {
    let lab = quiet("mixed")?;
    for source in [HIM, "198.51.100.67"] {
        fill(&lab, source, 30)?;
    }
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    let mut resolved = actioner.about("198.51.100.67");
    resolved["status"] = "resolved".into();
    let answer = actioner.post(&message(&[resolved, actioner.about(HIM)]))?;
    let answer: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!((count(&answer, "banned"), count(&answer, "resolved")), (1, 1), "{answer}");
    let mut resolved = actioner.about(HIM);
    resolved["status"] = "resolved".into();
    actioner.post(&message(&[resolved]))?;
    assert_eq!(members(&lab, "conntrack-guard-4")?[0].0, HIM, "a ban never ends because its alert does");
    assert_eq!(with_end(&lab, "198.51.100.67")?.len(), 30);
    Ok(())
}

#[test]
fn those_whom_alertmanager_cut_off_are_found_in_the_live_table() -> Result<()> {
    let lab = quiet("truncated")?;
    for (source, entries) in [(HIM, 30), ("198.51.100.67", 40), ("198.51.100.68", 19)] {
        fill(&lab, source, entries)?;
    }
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    let body = message(&[actioner.about(HIM)]).replace("\"truncatedAlerts\":0", "\"truncatedAlerts\":7");
    let answer = actioner.post(&body)?;
    let answer: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!((count(&answer, "banned"), count(&answer, "refused")), (2, 1), "{answer}");
    let mut banned: Vec<_> = members(&lab, "conntrack-guard-4")?.into_iter().map(|(net, _)| net).collect();
    banned.sort_unstable();
    assert_eq!(banned, [HIM, "198.51.100.67"], "not the one that does not meet what is required");
    assert_eq!(actioner.metric("truncated_alerts_total")?, 7.0);
    assert!(actioner.log().contains("max_alerts"), "{}", actioner.log());
    Ok(())
}

#[test]
fn a_client_that_hangs_up_cancels_nothing() -> Result<()> {
    use std::io::Write;
    let lab = quiet("hangup")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    let body = message(&[actioner.about(HIM)]);
    lab.run(|| {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:10049").unwrap();
        write!(stream, "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .unwrap();
    });
    tests::wait::wait_until("his ban", crate::lab::SOON, || match members(&lab, "conntrack-guard-4") {
        Ok(bans) if bans.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })
}
