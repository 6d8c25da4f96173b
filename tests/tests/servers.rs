//! Debian's Prometheus and Alertmanager start, scrape and answer in a namespace.

use std::{net::SocketAddr, time::Duration};

use tests::{
    Result,
    netns::Namespace,
    servers::{Alertmanager, Prometheus, PrometheusSetup},
    wait::wait_until,
};

#[test]
fn prometheus_and_alertmanager_run_in_a_namespace_and_answer() -> Result<()> {
    let namespace = Namespace::new("monitoring")?;
    let (at, alerts_at) = ([127, 0, 0, 1], SocketAddr::from(([127, 0, 0, 1], 9093)));
    let configuration = r#"{"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}"#;
    let alertmanager = Alertmanager::start(&namespace, alerts_at, configuration)?;
    let status = alertmanager.api(&namespace, "/api/v2/status")?;
    assert!(status["versionInfo"]["version"].is_string(), "{status}");

    let setup = PrometheusSetup {
        jobs: vec![
            ("itself".into(), vec!["127.0.0.1:9090".into()]),
            ("nobody".into(), vec!["127.0.0.1:1".into()]),
        ],
        alertmanagers: vec![alerts_at.to_string()],
        ..PrometheusSetup::default()
    };
    let prometheus = Prometheus::start(&namespace, (at, 9090).into(), &setup)?;
    wait_until("both targets to be scraped", Duration::from_secs(30), || {
        match prometheus.query(&namespace, "sum by (job) (up)") {
            Ok(series) if series.len() == 2 => {
                for (labels, value) in series {
                    assert_eq!(value, f64::from(u8::from(labels["job"] == "itself")), "{labels:?}");
                }
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })?;
    assert_eq!(prometheus.query(&namespace, "scalar(vector(2)) + 1")?[0].1, 3.0);
    let refused = prometheus.query(&namespace, "sum(").unwrap_err().to_string();
    assert!(refused.contains("parse error"), "{refused}");
    wait_until("Prometheus to know its Alertmanager", Duration::from_secs(30), || {
        let known =
            prometheus.api(&namespace, "/api/v1/alertmanagers").map_err(|failure| failure.to_string())?;
        let active = &known["data"]["activeAlertmanagers"];
        if active.as_array().is_some_and(|all| all.len() == 1) { Ok(()) } else { Err(known.to_string()) }
    })
}

#[test]
fn a_server_that_refuses_its_configuration_says_why() -> Result<()> {
    let namespace = Namespace::new("monitoring")?;
    let at = SocketAddr::from(([127, 0, 0, 1], 9093));
    let failure = Alertmanager::start(&namespace, at, "route: nonsense").unwrap_err().to_string();
    assert!(failure.contains("ended by itself") && failure.contains("nonsense"), "{failure}");
    Ok(())
}
