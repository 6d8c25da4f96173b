//! What our programs say is understood: by a strict reader, by promtool, and by Debian's Prometheus 2.42 and Prometheus 3,
//! which must receive every series and every type, in either form.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use tests::{
    Result,
    exposition::{Form, Series},
    http::{self, Server},
    programs::{Program, workspace},
    quiet::Stage,
    receiver::{Answer, Receiver},
    servers::{Binary, Prometheus, Release},
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(30);
const PROGRAMS: [Program; 2] = [Program::Exporter, Program::Actioner];

#[test]
fn both_forms_are_strictly_right_and_say_the_same() -> Result<()> {
    let stage = Stage::start()?;
    for program in PROGRAMS {
        let open = stage.exposed(program, Form::OpenMetrics)?;
        let classic = stage.exposed(program, Form::Classic)?;
        let made = |series: &Series| series.0.ends_with("_created");
        let open_series: BTreeSet<_> = open.series().into_iter().filter(|series| !made(series)).collect();
        assert_eq!(open_series, classic.series(), "{}", program.name());
        assert!(open_series.len() > 20, "{open_series:#?}");
        for (family, kind) in &open.types {
            let (name, kind) = match kind.as_str() {
                "counter" => (format!("{family}_total"), "counter"),
                "info" => (format!("{family}_info"), "gauge"),
                other => (family.clone(), other),
            };
            assert_eq!(classic.types.get(&name).map(String::as_str), Some(kind), "{name}");
            assert_eq!(classic.helps.get(&name), open.helps.get(family), "{name}");
        }
        assert_eq!(classic.types.len(), open.types.len());
    }
    Ok(())
}

#[test]
fn promtool_finds_no_fault_with_the_classic_form() -> Result<()> {
    let stage = Stage::start()?;
    for program in PROGRAMS {
        for release in [Release::Debian12, Release::Next] {
            let text = stage.text(program, Form::Classic)?;
            let mut promtool = Command::new(Binary::Promtool.path_of(release)?)
                .args(["check", "metrics"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("promtool starts");
            let mut stdin = promtool.stdin.take().expect("a pipe");
            stdin.write_all(text.as_bytes()).expect("promtool reads");
            drop(stdin);
            let output = promtool.wait_with_output().expect("promtool ends");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(
                output.status.success() && said.is_empty(),
                "{} {release:?}: {said}\n{text}",
                program.name()
            );
        }
    }
    Ok(())
}

/// A Prometheus asks for OpenMetrics by itself; the classic form it gets through a relay that asks for it.
fn relay(stage: &Stage, program: Program, address: SocketAddr) -> Result<Receiver> {
    let server = Server::from(program.default_address());
    Receiver::start(&stage.scene.server, address, move |_| {
        let answer = http::get(&server, "/metrics", &[Form::Classic.accept()]).expect("the program answers");
        let content_type = answer.header("content-type").unwrap_or_default().to_owned();
        Answer { content_type, body: answer.text() }
    })
}

fn arrives_whole(release: Release) -> Result<()> {
    let stage = Stage::start()?;
    let server = &stage.scene.server;
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let relays = [at(9101), at(9102)];
    let _relays = [relay(&stage, PROGRAMS[0], relays[0])?, relay(&stage, PROGRAMS[1], relays[1])?];
    let mut jobs = Vec::new();
    for (program, relay) in PROGRAMS.into_iter().zip(relays) {
        jobs.push((
            program,
            Form::OpenMetrics,
            format!("{}-open", program.name()),
            program.default_address(),
        ));
        jobs.push((program, Form::Classic, format!("{}-classic", program.name()), relay));
    }
    let scrapes: Vec<_> = jobs
        .iter()
        .map(|(_, _, job, address)| {
            serde_json::json!({"job_name": job, "static_configs": [{"targets": [address.to_string()]}]})
        })
        .collect();
    let configuration = serde_json::json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": scrapes,
    });
    let files = [("prometheus.yml", &*configuration.to_string())];
    let prometheus = Prometheus::configured(server, at(9090), release, &files)?;

    for (program, form, job, _) in &jobs {
        wait_until(&format!("every series of {job}"), SOON, || {
            let said = |failure: tests::Failure| failure.to_string();
            let wanted = stage.exposed(*program, *form).map_err(said)?.series();
            let arrived = arrived(&prometheus, &stage, job).map_err(said)?;
            let missing: Vec<_> = wanted.difference(&arrived).collect();
            let more: Vec<_> = arrived.difference(&wanted).collect();
            if missing.is_empty() && more.is_empty() {
                return Ok(());
            }
            Err(format!("{} arrived, missing {missing:#?}, not exposed {more:#?}", arrived.len()))
        })?;
        let exposed = stage.exposed(*program, *form)?;
        let types = types(&prometheus, &stage, job)?;
        for (family, kind) in &exposed.types {
            let total = format!("{family}_total");
            let known = types.get(family).or_else(|| types.get(&total));
            assert_eq!(known, Some(kind), "{job}: the type of {family}; Prometheus knows {types:#?}");
        }
    }
    Ok(())
}

/// Every series of the job that came from the target, as [`Exposed::series`] has it.
fn arrived(prometheus: &Prometheus, stage: &Stage, job: &str) -> Result<BTreeSet<Series>> {
    let all = prometheus.query(&stage.scene.server, &format!("{{job=\"{job}\"}}"))?;
    let series = all.into_iter().map(|(mut labels, _)| {
        let name = labels.remove("__name__").unwrap_or_default();
        labels.retain(|label, _| label != "job" && label != "instance");
        if let Some(le) = labels.get_mut("le") {
            *le = le.replace("+Inf", "inf").parse::<f64>().expect("a number").to_string();
        }
        (name, labels)
    });
    // What Prometheus adds of its own to every target.
    let own = |name: &str| name == "up" || name.starts_with("scrape_");
    Ok(series.filter(|(name, _)| !own(name)).collect())
}

fn types(prometheus: &Prometheus, stage: &Stage, job: &str) -> Result<BTreeMap<String, String>> {
    let path = format!("/api/v1/targets/metadata?match_target=%7Bjob%3D%22{job}%22%7D");
    let answer = prometheus.api(&stage.scene.server, &path)?;
    let all = answer["data"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(all.iter().map(|one| (text(&one["metric"]), text(&one["type"]))).collect())
}

#[test]
fn everything_arrives_in_debians_prometheus() -> Result<()> {
    arrives_whole(Release::Debian12)
}

#[test]
fn everything_arrives_in_prometheus_3() -> Result<()> {
    arrives_whole(Release::Next)
}

#[test]
fn rules_and_example_configurations_pass_the_tools_of_prometheus_3() -> Result<()> {
    // `make test` asks Debian 12's as well.
    Binary::Promtool.path_of(Release::Next)?;
    let servers = workspace().join("target/servers/next");
    let output = Command::new("bash")
        .arg(workspace().join("alerts/check.sh"))
        .arg(servers)
        .output()
        .expect("bash starts");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}
