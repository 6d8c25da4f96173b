//! Who was turned away, and whether the configuration in force is the one in the file: for `/metrics`.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a client was turned away before its request reached a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// The handshake failed: no common version or suite, what was sent is not TLS, or the client refused our certificate.
    TlsHandshake,
    /// The handshake was not over in time.
    TlsTimeout,
    /// Plain HTTP where TLS is spoken.
    PlainHttp,
    /// The client's certificate is missing, expired, of another authority, or has none of the allowed names.
    ClientCertificate,
    /// No password and no token where one is asked for.
    NoCredentials,
    /// A wrong password or token.
    WrongCredentials,
    /// More passwords wait to be checked than this host can take.
    Busy,
    /// More requests than `rate_limit` allows.
    RateLimited,
    /// More requests of one connection under way than it may have, those that it took back included.
    RequestFlood,
}

impl Reason {
    const ALL: [Self; 9] = [
        Self::TlsHandshake,
        Self::TlsTimeout,
        Self::PlainHttp,
        Self::ClientCertificate,
        Self::NoCredentials,
        Self::WrongCredentials,
        Self::Busy,
        Self::RateLimited,
        Self::RequestFlood,
    ];

    /// For the log.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::TlsHandshake => "the TLS handshake failed",
            Self::TlsTimeout => "the TLS handshake was not over in time",
            Self::PlainHttp => "an HTTP request where TLS is spoken",
            Self::ClientCertificate => "the client's certificate",
            Self::NoCredentials => "it shows neither password nor token",
            Self::WrongCredentials => "a wrong password or token",
            Self::Busy => "too many passwords wait to be checked",
            Self::RateLimited => "more requests than rate_limit allows",
            Self::RequestFlood => {
                "more requests of one connection under way than it may have, those that it took back included"
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    reason: Reason,
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let word = match self {
            Self::TlsHandshake => "tls_handshake",
            Self::TlsTimeout => "tls_timeout",
            Self::PlainHttp => "plain_http",
            Self::ClientCertificate => "client_certificate",
            Self::NoCredentials => "no_credentials",
            Self::WrongCredentials => "wrong_credentials",
            Self::Busy => "busy",
            Self::RateLimited => "rate_limited",
            Self::RequestFlood => "request_flood",
        };
        word.encode(encoder)
    }
}

/// What a server's [`Security`](super::Security) counts. Clones share the values.
#[derive(Debug, Clone)]
pub struct Counters {
    refused: Family<Label, Counter>,
    reload_ok: Gauge,
}

impl Counters {
    pub(super) fn new() -> Self {
        let counters = Self { refused: Family::default(), reload_ok: Gauge::default() };
        for reason in Reason::ALL {
            drop(counters.of(reason));
        }
        counters.reload_ok.set(1);
        counters
    }

    /// Shows them as `PREFIX_web_refused_total` and `PREFIX_web_config_last_reload_successful`.
    pub fn register(&self, registry: &mut Registry, prefix: &str) {
        registry.register(
            format!("{prefix}_web_refused"),
            "Clients turned away before a request of theirs was handled, by reason",
            self.refused.clone(),
        );
        registry.register(
            format!("{prefix}_web_config_last_reload_successful"),
            "1 if the web configuration and the files it names are in force as they are now, 0 if an earlier state is",
            self.reload_ok.clone(),
        );
    }

    fn of(&self, reason: Reason) -> Counter {
        self.refused.get_or_create_owned(&Label { reason })
    }

    pub(crate) fn refuse(&self, reason: Reason) {
        self.of(reason).inc();
    }

    pub(super) fn reloaded(&self, successful: bool) {
        self.reload_ok.set(i64::from(successful));
    }
}
