//! What is no message of Alertmanager gets a sentence that says why, and never our memory.

use conntrack_actioner::alert::Origin;
use conntrack_actioner::webhook::{Notification, WebhookError, parse};

fn good(alerts: &str) -> String {
    format!(r#"{{"version":"4","receiver":"r","groupKey":"k","truncatedAlerts":0,"alerts":{alerts}}}"#)
}

const ALERT: &str = r#"{"status":"firing","labels":{"alertname":"A","source":"192.0.2.1"}}"#;

fn read(body: &str) -> Result<Notification, WebhookError> {
    parse(body.as_bytes(), Origin::Webhook)
}

/// The sentence for a body that must be refused.
fn refusal(body: &str) -> String {
    read(body).expect_err("the body should be refused").to_string()
}

#[test]
fn the_smallest_message_is_enough() {
    let notification = parse(good(&format!("[{ALERT}]")).as_bytes(), Origin::Admin).unwrap();
    let alert = &notification.alerts[0];
    assert!(alert.firing);
    assert_eq!(alert.label("source"), "192.0.2.1");
    assert_eq!((alert.fingerprint.as_str(), alert.starts_at.as_str()), ("", ""));
    assert_eq!(alert.origin, Origin::Admin);
}

#[test]
fn fields_of_newer_versions_are_passed_over() {
    let alert = ALERT.replacen('{', r#"{"routeLabels":{"a":[1,{"b":null}]},"values":[1,2],"#, 1);
    let body =
        good(&format!("[{alert}]")).replacen('{', r#"{"notification_reason":"first","x":{"y":[]},"#, 1);
    assert_eq!(read(&body).unwrap().alerts.len(), 1);
}

#[test]
fn an_empty_body_says_what_was_expected() {
    for body in ["", " ", "\r\n\t "] {
        assert!(matches!(read(body), Err(WebhookError::Empty)), "{body:?}");
    }
}

#[test]
fn what_is_not_json_says_where() {
    let cases = [
        ("hello", "the body is not JSON: expected value (line 1, column 1)"),
        ("{\n \"version\": \"4\",\n}", "the body is not JSON: trailing comma (line 3, column 1)"),
        (r#"{"version":"4""#, "the body is not JSON: EOF while parsing an object (line 1, column 14)"),
    ];
    for (body, sentence) in cases {
        assert_eq!(refusal(body), sentence, "{body}");
    }
    let two = format!("{0}{0}", good(&format!("[{ALERT}]")));
    assert!(refusal(&two).starts_with("the body is not JSON: trailing characters"), "{}", refusal(&two));
    let form = "alertname=A&source=192.0.2.1";
    assert!(refusal(form).starts_with("the body is not JSON"), "{}", refusal(form));
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let mut body = good(&format!("[{ALERT}]")).into_bytes();
    let at = body.iter().position(|byte| *byte == b'A').unwrap();
    body[at] = 0xff;
    let error = parse(&body, Origin::Webhook).unwrap_err();
    assert!(matches!(error, WebhookError::NotJson { .. }), "{error}");
    assert!(error.to_string().contains("invalid unicode"), "{error}");
}

#[test]
fn wrong_types_say_what_belongs_there() {
    let alerts = |alerts: &str| refusal(&good(alerts));
    let cases = [
        (refusal("[]"), "expected Alertmanager's message, an object"),
        (refusal(r#"["4","r","k","u",0,[]]"#), "expected Alertmanager's message, an object"),
        (alerts(r#"[["firing",{"a":"b"}]]"#), "expected an alert, an object"),
        (refusal("null"), "expected Alertmanager's message, an object"),
        (refusal(r#"{"version":4}"#), "invalid type: integer `4`, expected a string"),
        (alerts("{}"), "expected a list of alerts"),
        (alerts("[7]"), "expected an alert, an object"),
        (alerts(r#"[{"status":"firing","labels":[]}]"#), "expected labels, an object of texts"),
        (alerts(r#"[{"status":"firing","labels":{"a":1}}]"#), "invalid type: integer `1`, expected a string"),
        (alerts(r#"[{"status":"firing"}]"#), "missing field `labels`"),
        (alerts(r#"[{"labels":{}}]"#), "missing field `status`"),
        (
            alerts(r#"[{"status":true,"labels":{}}]"#),
            "expected an alert's status, \"firing\" or \"resolved\"",
        ),
    ];
    for (sentence, part) in cases {
        assert!(sentence.starts_with("the body is not Alertmanager's webhook message: "), "{sentence}");
        assert!(sentence.contains(part), "{sentence}");
        assert!(sentence.contains("(line 1, column "), "{sentence}");
    }
}

#[test]
fn an_unknown_status_is_no_guess() {
    let sentence = refusal(&good(r#"[{"status":"suppressed","labels":{}}]"#));
    assert!(
        sentence.contains(r#"the alert's status is "suppressed", which is neither "firing" nor "resolved""#)
    );
}

#[test]
fn another_version_is_named_even_where_its_shape_differs() {
    let found = |body: &str| match read(body) {
        Err(WebhookError::Version { found }) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(found(&good("[]").replace("\"4\"", "\"3\"")), "\"3\"");
    assert_eq!(found(&good("[]").replace("\"4\"", "\"\"")), "\"\"");
    assert_eq!(found(r#"{"version":"5","alerts":{"by":"source"}}"#), "\"5\"");
    assert_eq!(found(r#"{"alerts":[]}"#), "missing");
    assert_eq!(found(r#"{"version":null,"alerts":[]}"#), "missing");
}

#[test]
fn no_alerts_are_an_error() {
    for body in [good("[]"), good("null"), r#"{"version":"4"}"#.to_owned()] {
        assert_eq!(read(&body), Err(WebhookError::NoAlerts), "{body}");
    }
}

#[test]
fn doubled_keys_are_refused() {
    let twice = |alert: &str| refusal(&good(&format!("[{alert}]")));
    let labels = twice(r#"{"status":"firing","labels":{"source":"192.0.2.1","source":"192.0.2.2"}}"#);
    assert!(labels.contains("\"source\" stands twice in one object"), "{labels}");
    let status = twice(r#"{"status":"firing","status":"resolved","labels":{}}"#);
    assert!(status.contains("duplicate field `status`"), "{status}");
    let envelope = refusal(&good("[]").replacen('{', r#"{"alerts":[],"#, 1));
    assert!(envelope.contains("duplicate field `alerts`"), "{envelope}");
}

#[test]
fn deep_nesting_costs_no_stack() {
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert!(refusal(&deep).contains("expected Alertmanager's message"), "{}", refusal(&deep));
    assert!(refusal(&good(&deep)).contains("expected an alert"), "{}", refusal(&good(&deep)));
    let label = refusal(&good(&format!(r#"[{{"status":"firing","labels":{{"a":{deep}}}}}]"#)));
    assert!(label.contains("invalid type: sequence, expected a string"), "{label}");
    assert!(refusal(&deep[..1_000_000]).starts_with("the body is not"), "{}", refusal(&deep[..1_000_000]));
    let unknown = good(&format!("[{ALERT}]")).replacen('{', &format!(r#"{{"x":{deep},"#), 1);
    assert_eq!(read(&unknown).unwrap().alerts.len(), 1);
}

#[test]
fn bounds_hold_and_name_themselves() {
    let many = vec![ALERT; 20_001].join(",");
    assert!(refusal(&good(&format!("[{many}]"))).contains("more than 20000 alerts in one message"));
    let labels: Vec<String> = (0..257).map(|n| format!(r#""l{n}":"v""#)).collect();
    let crowded = format!(r#"[{{"status":"firing","labels":{{{}}}}}]"#, labels.join(","));
    assert!(refusal(&good(&crowded)).contains("more than 256 labels"));
    let long = format!(r#"[{{"status":"firing","labels":{{"a":"{}"}}}}]"#, "x".repeat(64 * 1024 + 1));
    assert!(refusal(&good(&long)).contains("the value of \"a\" is longer than 65536 bytes"));
    let name = format!(r#"[{{"status":"firing","labels":{{"{}":"v"}}}}]"#, "x".repeat(1025));
    assert!(refusal(&good(&name)).contains("name is longer than 1024 bytes"));
}

#[test]
fn five_thousand_alerts_are_fine() {
    let many = vec![ALERT; 5000].join(",");
    assert_eq!(read(&good(&format!("[{many}]"))).unwrap().alerts.len(), 5000);
}

/// The sender's group key, however long, is held once and not once for each alert.
#[test]
fn a_long_group_key_is_shared() {
    let body = good(&format!("[{}]", vec![ALERT; 1000].join(",")))
        .replace("\"k\"", &format!("\"{}\"", "k".repeat(100_000)));
    let notification = read(&body).unwrap();
    for alert in &notification.alerts {
        assert!(std::sync::Arc::ptr_eq(&alert.group_key, &notification.group_key));
    }
}

/// Whoever reads the answer or the log is not shown a page of the sender's choice, nor its control characters.
#[test]
fn little_of_what_was_sent_is_repeated() {
    let flood = "EVIL\\u001b[31m\\n".repeat(1000);
    let bodies = [
        good(&format!(r#"[{{"status":"{flood}","labels":{{}}}}]"#)),
        good(&format!(
            r#"[{{"status":"firing","labels":{{"{}":"a","{}":"b"}}}}]"#,
            &flood[..900],
            &flood[..900]
        )),
        good(&format!(r#"[{{"status":"firing","labels":"{flood}"}}]"#)),
        good(&format!(r#""{flood}""#)),
        good("[]").replace("\"4\"", &format!("\"{flood}\"")),
        good("[]").replace(":0,", &format!(":\"{flood}\",")),
        flood.clone(),
    ];
    for body in bodies {
        let sentence = refusal(&body);
        assert!(sentence.len() < 280, "{} bytes: {sentence}", sentence.len());
        assert!(sentence.matches("EVIL").count() <= 8, "{sentence}");
        assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
    }
}
