//! What Go calls a version, a cipher suite or a curve of TLS, and what rustls has of it.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use tokio_rustls::rustls::crypto::{SupportedKxGroup, ring};
use tokio_rustls::rustls::{CipherSuite, NamedGroup, SupportedCipherSuite};

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// A cipher suite that can be had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suite(pub(super) SupportedCipherSuite);

/// A curve that can be had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curve(pub(super) &'static dyn SupportedKxGroup);

impl Version {
    fn named(name: &str) -> Result<Self, String> {
        match name {
            "TLS12" => Ok(Self::Tls12),
            "TLS13" => Ok(Self::Tls13),
            "TLS10" | "TLS11" => {
                Err(format!("{name} is not served: rustls has TLS12 and TLS13 only; write TLS12"))
            }
            _ => Err(format!("unknown TLS version {name:?}; known here: TLS12, TLS13")),
        }
    }
}

impl Suite {
    fn named(name: &str) -> Result<Self, String> {
        let all = ring::ALL_CIPHER_SUITES;
        if let Some(suite) =
            all.iter().find(|suite| go_name(suite.suite()) == name || rust_name(suite.suite()) == name)
        {
            return Ok(Self(*suite));
        }
        let known: Vec<String> = all.iter().map(|suite| go_name(suite.suite())).collect();
        let known = known.join(", ");
        let weak = ["_CBC_", "_RC4_", "_3DES_", "TLS_RSA_"].iter().any(|part| name.contains(part));
        Err(if weak {
            format!(
                "{name:?} is not served: rustls has neither CBC nor RC4, nor suites without forward secrecy; leave it out; known here: {known}"
            )
        } else {
            format!("unknown cipher suite {name:?}; known here: {known}")
        })
    }
}

/// `TLS13_AES_128_GCM_SHA256`, as rustls writes it.
fn rust_name(suite: CipherSuite) -> String {
    suite.as_str().unwrap_or_default().to_owned()
}

/// `TLS_AES_128_GCM_SHA256`, as RFC 8446 and Go write it.
fn go_name(suite: CipherSuite) -> String {
    rust_name(suite).replace("TLS13_", "TLS_")
}

impl Curve {
    fn named(name: &str) -> Result<Self, String> {
        let group = match name {
            "X25519" => NamedGroup::X25519,
            "CurveP256" => NamedGroup::secp256r1,
            "CurveP384" => NamedGroup::secp384r1,
            "CurveP521" | "X25519MLKEM768" => {
                return Err(format!(
                    "{name} is not served: ring has X25519, CurveP256 and CurveP384; leave it out"
                ));
            }
            _ => return Err(format!("unknown curve {name:?}; known here: X25519, CurveP256, CurveP384")),
        };
        let found = ring::ALL_KX_GROUPS.iter().find(|known| known.name() == group);
        found.map(|group| Self(*group)).ok_or_else(|| format!("{name} is not served by this build"))
    }
}

macro_rules! read_by_name {
    ($($kind:ty),*) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::named(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )*};
}

read_by_name!(Version, Suite, Curve);
