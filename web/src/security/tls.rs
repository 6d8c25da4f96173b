//! `tls_server_config` as rustls takes it.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    CommonState, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};

use super::Identity;
use super::client::{AnyCertificate, WithNames, called};
use super::format::{ClientAuth, TlsSection};
use super::names::{Suite, Version};
use super::watched::Files;

/// TLS as a file asks for it.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    /// What is asked of clients.
    pub(super) clients: Clients,
}

impl Tls {
    /// For a new connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Who is at the other end of a connection that this TLS was agreed on with.
    pub(crate) fn certified(&self, connection: &CommonState) -> Option<Identity> {
        let first = connection.peer_certificates()?.first()?;
        (self.clients != Clients::Unverified).then(|| Identity::Certificate(called(first)))
    }
}

/// What a client's certificate is worth. In the order of strictness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Clients {
    /// Nothing: it is not asked for, or not verified.
    Unverified,
    /// Who shows one is known by it; who shows none is let in.
    VerifiedIfGiven,
    /// Nobody is let in without.
    Verified,
}

/// Reads the section and the files it names, which are relative to `base`; `None` where it asks for no TLS, as
/// exporter-toolkit sees it. Errors never hold what stands in a key.
pub(super) fn read(
    section: &TlsSection,
    http2: bool,
    base: &Path,
    files: &mut Files,
) -> Result<Option<Tls>, String> {
    let auth = section.client_auth_type;
    let cert = source("cert", section.cert.as_deref(), section.cert_file.as_deref())?;
    let key = source("key", section.key.as_ref().map(|key| key.0.as_str()), section.key_file.as_deref())?;
    let authority = source("client_ca", section.client_ca.as_deref(), section.client_ca_file.as_deref())?;
    if cert.is_none() && key.is_none() && authority.is_none() && auth.is_none() {
        return nothing_else(section).map(|()| None);
    }
    let cert = cert.ok_or("cert_file (or cert) is missing: TLS needs a certificate and its key")?;
    let key = key.ok_or("key_file (or key) is missing: TLS needs a certificate and its key")?;
    let chain = certificates(&cert, base, files)?;
    let key = key.read(base, files)?;
    let key = PrivateKeyDer::from_pem_slice(key.text.as_bytes()).map_err(|_| {
        format!("{} holds no private key in PEM (PKCS#8, PKCS#1 or SEC1, without a passphrase)", key.name)
    })?;
    let provider = Arc::new(provider(section));
    let (verifier, clients) = verifier(section, authority, &provider, base, files)?;
    let versions = versions(section)?;
    let builder =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions).map_err(|error| {
            format!("no TLS is possible with these versions, cipher suites and curves: {error}")
        })?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("certificate ({}) and key cannot be used together: {error}", cert.name()))?;
    config.ignore_client_order = section.prefer_server_cipher_suites.unwrap_or(true);
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // A resumed session would not look at the client's certificate again, which may have expired since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Some(Tls { config: Arc::new(config), clients }))
}

/// Whoever writes only these believes to have TLS.
fn nothing_else(section: &TlsSection) -> Result<(), String> {
    let any = section.client_allowed_sans.is_some()
        || section.min_version.is_some()
        || section.max_version.is_some()
        || section.cipher_suites.is_some()
        || section.curve_preferences.is_some();
    if any {
        Err("cert_file and key_file are missing: TLS needs a certificate and its key".to_owned())
    } else {
        Ok(())
    }
}

/// PEM, in the file itself or in one that it names.
#[derive(Clone, Copy)]
enum Source<'s> {
    Inline(&'static str, &'s str),
    File(&'static str, &'s str),
}

struct Pem {
    name: String,
    text: String,
}

fn source<'s>(
    name: &'static str,
    inline: Option<&'s str>,
    file: Option<&'s str>,
) -> Result<Option<Source<'s>>, String> {
    match (inline.filter(|text| !text.is_empty()), file.filter(|path| !path.is_empty())) {
        (Some(_), Some(_)) => Err(format!("{name} and {name}_file are both given: one of them is right")),
        (Some(text), None) => Ok(Some(Source::Inline(name, text))),
        (None, Some(path)) => Ok(Some(Source::File(name, path))),
        (None, None) => Ok(None),
    }
}

impl Source<'_> {
    fn name(&self) -> String {
        match self {
            Self::Inline(name, _) => (*name).to_owned(),
            Self::File(name, path) => format!("{name}_file {path}"),
        }
    }

    fn read(&self, base: &Path, files: &mut Files) -> Result<Pem, String> {
        let text = match self {
            Self::Inline(_, text) => (*text).to_owned(),
            Self::File(_, path) => files
                .read(&base.join(path))
                .map_err(|error| format!("{} cannot be read: {error}", self.name()))?,
        };
        Ok(Pem { name: self.name(), text })
    }
}

fn certificates(
    source: &Source<'_>,
    base: &Path,
    files: &mut Files,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = source.read(base, files)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.text.as_bytes()).collect();
    let wrong = |what| format!("{} {what}", pem.name);
    // The parser's own words can quote a line, and people do put keys into the wrong file.
    match read {
        Ok(chain) if chain.is_empty() => Err(wrong("holds no certificate in PEM")),
        Ok(chain) => Ok(chain),
        Err(_) => Err(wrong("is not whole PEM")),
    }
}

fn provider(section: &TlsSection) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if let Some(suites) = section.cipher_suites.as_ref().filter(|suites| !suites.is_empty()) {
        let chosen: Vec<SupportedCipherSuite> = suites.iter().map(|Suite(suite)| *suite).collect();
        // As in Go, a list without a suite of TLS 1.3 does not concern TLS 1.3.
        let chosen_13 = chosen.iter().any(|suite| suite.tls13().is_some());
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() && !chosen_13);
        provider.cipher_suites.extend(chosen);
    }
    if let Some(curves) = section.curve_preferences.as_ref().filter(|curves| !curves.is_empty()) {
        provider.kx_groups =
            curves.iter().map(|curve| -> &'static dyn SupportedKxGroup { curve.0 }).collect();
    }
    provider
}

fn versions(section: &TlsSection) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let least = section.min_version.unwrap_or(Version::Tls12);
    let most = section.max_version.unwrap_or(Version::Tls13);
    if least > most {
        return Err("min_version is above max_version".to_owned());
    }
    let both = [(Version::Tls13, &TLS13), (Version::Tls12, &TLS12)];
    Ok(both.into_iter().filter(|(version, _)| (least..=most).contains(version)).map(|(_, tls)| tls).collect())
}

type Verifier = Arc<dyn ClientCertVerifier>;

fn verifier(
    section: &TlsSection,
    authority: Option<Source<'_>>,
    provider: &Arc<CryptoProvider>,
    base: &Path,
    files: &mut Files,
) -> Result<(Option<Verifier>, Clients), String> {
    let auth = section.client_auth_type.unwrap_or(ClientAuth::None);
    let names = section.client_allowed_sans.as_ref();
    let verifies = matches!(auth, ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify);
    if authority.is_some() && auth == ClientAuth::None {
        return Err("client_ca_file without client_auth_type would check nobody: \
                    RequireAndVerifyClientCert lets in only who has a certificate of it"
            .to_owned());
    }
    if names.is_some() && !verifies {
        return Err(
            "client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert, for in a certificate \
                    that nobody verifies anybody can write any name"
                .to_owned(),
        );
    }
    if names.is_some_and(Vec::is_empty) {
        return Err(
            "client_allowed_sans is empty, so nobody could connect: name one, or remove the key".to_owned()
        );
    }
    match auth {
        ClientAuth::None => return Ok((None, Clients::Unverified)),
        ClientAuth::Request | ClientAuth::RequireAny => {
            let mandatory = auth == ClientAuth::RequireAny;
            let any = AnyCertificate::new(mandatory, provider.signature_verification_algorithms);
            return Ok((Some(Arc::new(any)), Clients::Unverified));
        }
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {}
    }
    let authority = authority
        .ok_or("client_ca_file (or client_ca) is missing: whose certificates are to be verified?")?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&authority, base, files)? {
        roots.add(certificate).map_err(|error| {
            format!("{} holds a certificate that is no authority's: {error}", authority.name())
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let (builder, clients) = match auth {
        ClientAuth::VerifyIfGiven => (builder.allow_unauthenticated(), Clients::VerifiedIfGiven),
        _ => (builder, Clients::Verified),
    };
    let verifier = builder.build().map_err(|error| format!("{}: {error}", authority.name()))?;
    let verifier: Verifier = match names {
        Some(names) => Arc::new(WithNames::new(verifier, names.clone())),
        None => verifier,
    };
    Ok((Some(verifier), clients))
}
