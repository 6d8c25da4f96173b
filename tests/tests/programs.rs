//! Our two programs start in a namespace and see that namespace's table.

use std::time::Duration;

use tests::{
    Result,
    attack::{Pace, slow_fill},
    http::Server,
    programs::{Program, workspace},
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
};

#[test]
fn the_exporter_shows_the_slow_fill_and_its_source() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    let target = scene.server_socket(Family::V4, 80);
    let _responder = Responder::start(&scene.server, target, Accept::Deferred, KeepAlive::Off)?;
    let attacker = scene.peer("attacker");
    let pace = Pace { count: 60, per_second: 1000, within: Duration::from_secs(20) };
    let tally = slow_fill(&attacker.namespace, vec![attacker.v4.into()], target, pace)?.finish();
    assert_eq!(tally.made, 60, "{tally:?}");

    let address = Program::Exporter.default_address();
    let exporter = Program::Exporter.start(&scene.server, address, &[])?;
    let metrics = exporter.get(&scene.server, "/metrics")?.text();
    for line in [
        // Not the states: the scrape's own connection is among them.
        r#"nf_conntrack_prefix_entries{prefix="198.51.100.0/24"} 60"#,
        r#"nf_conntrack_source_assured_entries{source="198.51.100.66"} 60"#,
        "nf_conntrack_sources 1",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "no line {line} in\n{metrics}");
    }
    Ok(())
}

#[test]
fn the_actioner_answers_over_tcp_and_over_its_socket() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let policy = workspace().join("packaging/policy.yaml").display().to_string();
    let arguments =
        ["--policy.file", &policy, "--storage.path", &path("storage"), "--admin.socket", &path("admin.sock")];
    let address = Program::Actioner.default_address();
    let actioner = Program::Actioner.start(&scene.server, address, &arguments)?;
    let refused =
        actioner.post(&scene.server, "/webhook", &["Content-Type: application/json"], b"not JSON")?;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let socket = Server::Unix(directory.path().join("admin.sock"));
    assert_eq!(tests::http::get(&socket, "/-/healthy", &[])?.status, 200);
    Ok(())
}

#[test]
fn a_program_that_cannot_start_says_why() -> Result<()> {
    let scene = Topology::direct(&["attacker"])?;
    let address = Program::Exporter.default_address();
    let failure =
        Program::Exporter.start(&scene.server, address, &["--no-such-flag"]).unwrap_err().to_string();
    assert!(failure.contains("ended by itself") && failure.contains("--no-such-flag"), "{failure}");
    Ok(())
}
