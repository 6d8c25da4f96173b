//! A server with a web configuration, and clients with certificates.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses its part, and all of it is tests")]

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tests::certificates::{Authority, Certified};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use web::security::Counters;
use web::{Limits, Request, Response, Security, Server, StatusCode};

use crate::client::{loopback, serving_on};

pub(crate) const TLS: &str = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n";

/// TLS that lets in only clients with a certificate.
pub(crate) const MUTUAL: &str = "tls_server_config: {cert_file: server.pem, key_file: server.key, \
    client_auth_type: RequireAndVerifyClientCert, client_ca_file: clients.pem}\n";

/// A directory with all that a configuration can name.
pub(crate) struct Site {
    directory: TempDir,
    pub(crate) authority: Authority,
    pub(crate) clients: Authority,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self {
            directory: tempfile::tempdir().unwrap(),
            authority: Authority::new("servers"),
            clients: Authority::new("clients"),
        };
        site.certify(&site.authority);
        site.write("clients.pem", &site.clients.pem());
        site
    }

    /// A new certificate for the server, with its key.
    pub(crate) fn certify(&self, authority: &Authority) {
        let server = authority.server();
        self.write("server.key", &server.key);
        self.write("server.pem", &server.certificate);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    pub(crate) fn try_security(&self, config: &str) -> Result<Security, String> {
        self.write("web.yml", config);
        Security::open(Some(&self.path("web.yml"))).map_err(|error| error.to_string())
    }

    pub(crate) fn security(&self, config: &str) -> Security {
        self.try_security(config).unwrap()
    }

    /// Trusts this site's server; shows `client`, if any.
    pub(crate) fn client(&self, client: Option<&Certified>) -> Tls {
        Tls::new(&self.authority, client, &[&version::TLS13, &version::TLS12], &[])
    }
}

/// A client of TLS.
pub(crate) struct Tls(TlsConnector);

impl Tls {
    pub(crate) fn new(
        authority: &Authority,
        client: Option<&Certified>,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            Some(client) => builder
                .with_client_auth_cert(
                    CertificateDer::pem_slice_iter(client.certificate.as_bytes())
                        .map(Result::unwrap)
                        .collect(),
                    PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Self(TlsConnector::from(Arc::new(config)))
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        self.0.connect(ServerName::try_from("localhost").unwrap(), tcp).await
    }
}

/// Serves with this security on a loopback port while `client` runs.
pub(crate) async fn serving_secured<H, F>(
    security: Security,
    limits: Limits,
    handler: H,
    client: impl AsyncFnOnce(SocketAddr),
) where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    let server = Server::bind(&loopback(), limits).unwrap().secured(Rc::new(security));
    let address = server.addresses()[0];
    serving_on(server, handler, async || client(address).await).await;
}

/// Answers with whom it was asked by.
pub(crate) async fn who(request: Request) -> Response {
    Response::text(StatusCode::OK, format!("{:?}", request.authenticated()))
}

/// How many were turned away for that reason.
pub(crate) fn refused(counters: &Counters, reason: &str) -> u64 {
    let sample = format!("t_web_refused_total{{reason=\"{reason}\"}} ");
    shown(counters).lines().find_map(|line| line.strip_prefix(&sample)?.parse().ok()).unwrap()
}

pub(crate) fn reload_successful(counters: &Counters) -> bool {
    shown(counters).contains("t_web_config_last_reload_successful 1\n")
}

fn shown(counters: &Counters) -> String {
    let mut registry = Registry::default();
    counters.register(&mut registry, "t");
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// `GET /` with this `Authorization`.
pub(crate) fn get_as(authorization: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: test\r\nAuthorization: {authorization}\r\n\r\n")
}

/// `basic_auth_users` with one user, at the least cost there is.
pub(crate) fn users(user: &str, password: &str) -> String {
    format!("basic_auth_users: {{{user}: {}}}\n", bcrypt::hash(password, 4).unwrap())
}
