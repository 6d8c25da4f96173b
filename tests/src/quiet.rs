//! Both programs over a table in which nothing happens any more: what they say can be compared.

use tempfile::TempDir;

use crate::{
    Result,
    attack::{Pace, slow_fill},
    exposition::{Exposed, Form},
    failure::Tried,
    http,
    programs::{Program, Running, workspace},
    responder::{Accept, KeepAlive, Responder},
    topology::{Family, Topology},
};
use std::time::Duration;

/// Both programs over a table with sources of both families in it, in which nothing happens any more.
#[derive(Debug)]
pub struct Stage {
    /// Exporter, actioner.
    pub programs: [Running; 2],
    /// The actioner's `storage` and `socket`.
    pub directory: TempDir,
    /// Where they run.
    pub scene: Topology,
}

impl Stage {
    /// Starts them.
    ///
    /// # Errors
    /// When a program does not start, or the attacker has no firewall to swallow his goodbyes.
    pub fn start() -> Result<Self> {
        // Building them takes minutes on a fresh machine, and the entries made below would be gone by then.
        for program in [Program::Exporter, Program::Actioner] {
            program.path()?;
        }
        let scene = Topology::direct(&["attacker"])?;
        let attacker = scene.peer("attacker");
        for family in [Family::V4, Family::V6] {
            let target = scene.server_socket(family, 80);
            let _responder = Responder::start(&scene.server, target, Accept::AtOnce, KeepAlive::Off)?;
            let pace = Pace { count: 60, per_second: 1000, within: Duration::from_secs(20) };
            slow_fill(&attacker.namespace, vec![attacker.address(family)], target, pace)?.finish();
        }
        let directory = tempfile::tempdir().tried(|| "a directory for the actioner")?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        let policy = workspace().join("packaging/policy.yaml").display().to_string();
        let arguments =
            ["--policy.file", &policy, "--storage.path", &path("storage"), "--admin.socket", &path("socket")];
        let start =
            |program: Program, arguments| program.start(&scene.server, program.default_address(), arguments);
        let programs = [start(Program::Exporter, &[])?, start(Program::Actioner, &arguments)?];
        // An alert about nobody we know, so that the actioner has counted something.
        let alert = br#"{"version": "4", "status": "firing", "receiver": "r", "groupKey": "g", "alerts": [{"status": "firing",
            "labels": {"alertname": "A", "instance": "elsewhere:10048"}, "annotations": {}, "startsAt": "2026-01-01T00:00:00Z",
            "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "f"}]}"#;
        let answer = programs[1].post(&scene.server, "/webhook", &[], alert)?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Ok(Self { programs, directory, scene })
    }

    /// `GET /metrics` in that form.
    ///
    /// # Errors
    /// When it does not answer.
    ///
    /// # Panics
    /// When it answers with another status or type.
    pub fn text(&self, program: Program, form: Form) -> Result<String> {
        let answer = self
            .scene
            .server
            .run(|| http::get(&self.programs[program as usize].address, "/metrics", &[form.accept()]))?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let wanted = match form {
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Form::Classic => "text/plain; version=0.0.4; charset=utf-8",
        };
        assert_eq!(answer.header("content-type"), Some(wanted), "{}", program.name());
        Ok(answer.text())
    }

    /// The same, read strictly.
    ///
    /// # Errors
    /// When it does not answer.
    ///
    /// # Panics
    /// When what it says is not in that form.
    pub fn exposed(&self, program: Program, form: Form) -> Result<Exposed> {
        let text = self.text(program, form)?;
        let read = Exposed::parse(&text, form);
        Ok(read.unwrap_or_else(|wrong| panic!("{} in {form:?}: {wrong}\n{text}", program.name())))
    }
}
