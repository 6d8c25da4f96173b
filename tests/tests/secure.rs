//! Both programs behind TLS, passwords, tokens and certificates, as real Alertmanagers and Prometheis meet them; and what the
//! actioner does not do for strangers.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    Result,
    certificates::{Authority, Validity},
    http::{self, Server},
    netns::Namespace,
    programs::{Program, Running},
    servers::{Alertmanager, Prometheus, Release},
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(30);
const PASSWORD: &str = "fakepassword";
/// Of `fakepassword`.
const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
const TOKEN: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const DRY: &str = "never_ban: []\nrules:\n- {name: r, matchers: ['alertname=\"A\"'], require: {source: {assured: 9}}, \
    actions: [{ban: {for: 1m}}]}\n";

/// A namespace, an authority, and a directory with every file that a configuration can name.
struct Stage {
    namespace: Namespace,
    authority: Authority,
    directory: TempDir,
}

impl Stage {
    fn new(name: &str) -> Result<Self> {
        let namespace = Namespace::new(name)?;
        namespace.track_connections()?;
        let directory = tempfile::tempdir().expect("a directory");
        let stage = Self { namespace, authority: Authority::new("ours"), directory };
        let (server, client) =
            (stage.authority.server(), stage.authority.client("am", &["am.example"], Validity::Now));
        let expired = stage.authority.client("am", &["am.example"], Validity::Expired);
        stage.write("ca.pem", &stage.authority.pem());
        for (name, made) in [("server", server), ("client", client), ("expired", expired)] {
            stage.write(&format!("{name}.pem"), &made.certificate);
            stage.write(&format!("{name}.key"), &made.key);
        }
        stage.write("token", TOKEN);
        stage.write("wrong-token", "a-wrong-token-of-this-test");
        stage.write("policy.yaml", DRY);
        Ok(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn actioner(&self, more: &[&str]) -> Command {
        let mut command = Command::new(Program::Actioner.path().expect("it is built"));
        for (flag, file) in
            [("--policy.file", "policy.yaml"), ("--storage.path", "storage"), ("--admin.socket", "sock")]
        {
            command.arg(flag).arg(self.path(file));
        }
        command.args(more);
        command
    }

    /// It is asked over its unix socket, where nothing is to be proved.
    fn start(&self, more: &[&str]) -> Result<Running> {
        Running::start(&self.namespace, self.actioner(more), Server::Unix(self.path("sock")))
    }

    fn metric(&self, sample: &str) -> f64 {
        let text = http::get(&Server::Unix(self.path("sock")), "/metrics", &[]).map(|answer| answer.text());
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| {
            line.strip_prefix("conntrack_actioner_")?.strip_prefix(sample)?.strip_prefix(' ')
        });
        line.unwrap_or_else(|| panic!("no {sample} in\n{text}")).parse().expect("a number")
    }

    /// What a client of Alertmanager or Prometheus shows.
    fn client(&self, show: &str) -> Value {
        let tls = |name: Option<&str>| {
            let mut tls = json!({"ca_file": self.text("ca.pem"), "server_name": "localhost"});
            if let Some(name) = name {
                tls["cert_file"] = self.text(&format!("{name}.pem")).into();
                tls["key_file"] = self.text(&format!("{name}.key")).into();
            }
            tls
        };
        let bearer =
            |file| json!({"tls_config": tls(None), "authorization": {"credentials_file": self.text(file)}});
        let basic = |password: &str| json!({"tls_config": tls(None), "basic_auth": {"username": "am", "password": password}});
        match show {
            "password" => basic(PASSWORD),
            "wrong password" => basic("guess"),
            "token" => bearer("token"),
            "wrong token" => bearer("wrong-token"),
            "certificate" => json!({"tls_config": tls(Some("client"))}),
            "expired certificate" => json!({"tls_config": tls(Some("expired"))}),
            _ => json!({"tls_config": tls(None)}),
        }
    }
}

/// A certificate for the server, and more lines of that section.
fn tls(more: &str) -> String {
    format!("tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n{more}")
}

/// One Alertmanager, whose every alert goes to a receiver that shows the wrong thing and to one that shows the right one.
fn alertmanager_is_heard(name: &str, config: &str, flags: &[&str], wrong: &str, right: &str) -> Result<()> {
    let stage = Stage::new(name)?;
    stage.write("web.yml", config);
    // Enforcing, on an address that others reach: it is permitted because they must prove who they are.
    stage.write("policy.yaml", &format!("enforce: true\n{DRY}"));
    let (web, token) = (stage.text("web.yml"), stage.text("token"));
    let mut arguments = vec!["--web.listen-address=:10049", "--web.config.file", &web, "--log.level=debug"];
    arguments.extend(flags);
    if flags.contains(&"--web.bearer-token-file") {
        arguments.push(&token);
    }
    let actioner = stage.start(&arguments)?;
    let receiver = |show: &str| json!({"name": show, "webhook_configs": [{"url": "https://127.0.0.1:10049/webhook", "http_config": stage.client(show)}]});
    let route = |show: &str, on: bool| json!({"receiver": show, "continue": on});
    let configuration = json!({
        "route": {"receiver": right, "group_wait": "0s", "routes": [route(wrong, true), route(right, false)]},
        "receivers": [receiver(wrong), receiver(right)],
    });
    let address: SocketAddr = "127.0.0.1:9093".parse().expect("an address");
    let mut alertmanager = Alertmanager::start(&stage.namespace, address, &configuration.to_string())?;
    let alert = json!([{"labels": {"alertname": "A", "source": "198.51.100.66", "table_id": "another"}}]);
    let posted = alertmanager.running().post(
        &stage.namespace,
        "/api/v2/alerts",
        &["Content-Type: application/json"],
        alert.to_string().as_bytes(),
    )?;
    assert_eq!(posted.status, 200, "{}", posted.text());
    let turned_away = match wrong {
        "expired certificate" => "web_refused_total{reason=\"client_certificate\"}",
        _ => "webhooks_total{code=\"401\"}",
    };
    wait_until("both receivers to have been answered", SOON, || {
        match (stage.metric("webhooks_total{code=\"200\"}"), stage.metric(turned_away)) {
            (heard, refused) if heard >= 1.0 && refused >= 1.0 => Ok(()),
            seen => {
                Err(format!("{seen:?}\n{}\n{}", actioner.process.log(), alertmanager.running().process.log()))
            }
        }
    })?;
    assert_eq!(
        stage.metric("alerts_total{rule=\"none\",outcome=\"refused\"}"),
        1.0,
        "one of them had an effect"
    );
    let log = actioner.process.log();
    for secret in [PASSWORD, HASH, TOKEN, "guess", "a-wrong-token-of-this-test", "PRIVATE KEY"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert!(log.contains("clients are turned away"), "{log}");
    Ok(())
}

#[test]
fn alertmanager_with_a_password_is_heard() -> Result<()> {
    let config = tls("") + &format!("basic_auth_users: {{am: {HASH}}}\n");
    alertmanager_is_heard("password", &config, &[], "wrong password", "password")
}

#[test]
fn alertmanager_with_a_token_is_heard() -> Result<()> {
    alertmanager_is_heard("token", &tls(""), &["--web.bearer-token-file"], "wrong token", "token")
}

#[test]
fn alertmanager_with_a_certificate_is_heard() -> Result<()> {
    let config = tls(
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  client_allowed_sans: [am.example]\n",
    );
    alertmanager_is_heard("certificate", &config, &[], "expired certificate", "certificate")
}

fn prometheus_scrapes(release: Release, name: &str) -> Result<()> {
    let stage = Stage::new(name)?;
    stage.write("web.yml", &(tls("") + &format!("basic_auth_users: {{am: {HASH}}}\n")));
    let mut command = Command::new(Program::Exporter.path()?);
    command.arg("--web.config.file").arg(stage.path("web.yml"));
    let exporter = stage.namespace.spawn(command)?;
    let job = |show: &str| {
        let mut job = stage.client(show);
        job["job_name"] = show.into();
        job["scheme"] = "https".into();
        job["static_configs"] = json!([{"targets": ["127.0.0.1:10048"]}]);
        job
    };
    let configuration = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [job("password"), job("wrong password"), job("nothing")],
    });
    let address = "127.0.0.1:9090".parse().expect("an address");
    let files = [("prometheus.yml", &*configuration.to_string())];
    let prometheus = Prometheus::configured(&stage.namespace, address, release, &files)?;
    let seen = |expression: &str| -> Result<Vec<f64>> {
        Ok(prometheus.query(&stage.namespace, expression)?.into_iter().map(|(_, value)| value).collect())
    };
    wait_until("a scrape with the password, and none without", SOON, || {
        let all = [
            "count(nf_conntrack_entries)",
            r#"min_over_time(up{job!="password"}[1m])"#,
            "up{job=\"password\"}",
            r#"conntrack_exporter_web_refused_total{reason=~".*_credentials"} > 0"#,
        ]
        .map(|expression| seen(expression).unwrap_or_default());
        match &all {
            [entries, others, up, refused]
                if *entries == [1.0] && *others == [0.0, 0.0] && *up == [1.0] && refused.len() == 2 =>
            {
                Ok(())
            }
            seen => Err(format!("{seen:?}\n{}", exporter.log())),
        }
    })
}

#[test]
fn prometheus_with_a_password_scrapes() -> Result<()> {
    prometheus_scrapes(Release::Debian12, "prometheus")
}

#[test]
fn prometheus_3_with_a_password_scrapes() -> Result<()> {
    prometheus_scrapes(Release::Next, "prometheus3")
}

#[test]
fn it_does_not_enforce_for_strangers_unless_it_was_told_to() -> Result<()> {
    let stage = Stage::new("strangers")?;
    let enforce = format!("enforce: true\n{DRY}");
    stage.write("policy.yaml", &enforce);
    let open = ["--web.listen-address=:10049"];
    let output = stage.namespace.run(|| stage.actioner(&open).output()).expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--web.allow-unauthenticated-webhooks"), "{said}");
    {
        let actioner =
            stage.start(&["--web.listen-address=:10049", "--web.allow-unauthenticated-webhooks"])?;
        assert_eq!(stage.metric("enforcing"), 1.0);
        assert!(
            actioner.process.log().contains("anybody who reaches this address"),
            "{}",
            actioner.process.log()
        );
    }
    stage.write("policy.yaml", DRY);
    stage.write("web.yml", "");
    let web = stage.text("web.yml");
    let mut actioner = stage.start(&[open[0], "--web.config.file", &web])?;
    stage.write("policy.yaml", &enforce);
    actioner.process.signal(Signal::SIGHUP)?;
    wait_until("the reload to be refused", SOON, || {
        let log = actioner.process.log();
        if log.contains("could send webhooks") { Ok(()) } else { Err(log) }
    })?;
    assert_eq!((stage.metric("enforcing"), stage.metric("policy_last_reload_successful")), (0.0, 0.0));
    // With passwords it may; and then they cannot be taken away while it runs.
    stage.write("web.yml", &format!("basic_auth_users: {{am: {HASH}}}\n"));
    actioner.process.signal(Signal::SIGHUP)?;
    wait_until("it to enforce", SOON, || {
        if stage.metric("enforcing") == 1.0 { Ok(()) } else { Err("not yet") }
    })?;
    stage.write("web.yml", "");
    let tcp = Server::Tcp(Program::Actioner.default_address());
    let refused = stage.namespace.run(|| http::post(&tcp, "/webhook", &[], b"{}"))?;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"conntrack-guard\""));
    assert_eq!(stage.metric("web_config_last_reload_successful"), 0.0);
    assert_eq!(stage.metric("webhooks_total{code=\"401\"}"), 1.0);
    let scrape = stage.namespace.run(|| http::get(&tcp, "/-/healthy", &[]))?;
    assert_eq!(scrape.status, 401, "as in exporter-toolkit, all of it is behind the password");
    Ok(())
}

#[test]
fn what_is_wrong_with_the_configuration_ends_the_start_with_line_and_column() -> Result<()> {
    let stage = Stage::new("wrong")?;
    stage.write("web.yml", "basic_auth_users:\n  am: hush\n");
    let web = stage.text("web.yml");
    let mut exporter = Command::new(Program::Exporter.path()?);
    exporter.args(["--web.config.file", &web]);
    let mut actioner = stage.actioner(&["--web.config.file", &web]);
    for command in [&mut exporter, &mut actioner] {
        let output = stage.namespace.run(|| command.output()).expect("it runs");
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            !output.status.success()
                && said.contains("web.yml:2:7: a password must be written as its bcrypt hash"),
            "{said}"
        );
        assert!(!said.contains("hush"), "{said}");
    }
    Ok(())
}
