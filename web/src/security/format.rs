//! The file of `--web.config.file`, in the format of Prometheus' exporter-toolkit
//! (<https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>), and what is wrong with one.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_yaml::DuplicateKeyPolicy;

use super::names::{Curve, Suite, Version};

/// The whole file. All of it may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) tls_server_config: Option<TlsSection>,
    pub(super) http_server_config: Option<HttpSection>,
    pub(super) basic_auth_users: Option<Users>,
    pub(super) rate_limit: Option<RateSection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TlsSection {
    pub(super) cert: Option<String>,
    pub(super) key: Option<Secret>,
    pub(super) client_ca: Option<String>,
    pub(super) cert_file: Option<String>,
    pub(super) key_file: Option<String>,
    pub(super) client_ca_file: Option<String>,
    pub(super) client_auth_type: Option<ClientAuth>,
    pub(super) client_allowed_sans: Option<Vec<String>>,
    pub(super) min_version: Option<Version>,
    pub(super) max_version: Option<Version>,
    pub(super) cipher_suites: Option<Vec<Suite>>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    pub(super) curve_preferences: Option<Vec<Curve>>,
}

/// Go's `tls.ClientAuthType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum ClientAuth {
    #[serde(rename = "NoClientCert", alias = "")]
    None,
    #[serde(rename = "RequestClientCert")]
    Request,
    #[serde(rename = "RequireAnyClientCert", alias = "RequireClientCert")]
    RequireAny,
    #[serde(rename = "VerifyClientCertIfGiven")]
    VerifyIfGiven,
    #[serde(rename = "RequireAndVerifyClientCert")]
    RequireAndVerify,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HttpSection {
    pub(super) http2: Option<bool>,
    pub(super) headers: Option<Headers>,
}

/// The headers that exporter-toolkit lets a configuration add.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Headers {
    #[serde(rename = "Strict-Transport-Security")]
    pub(super) strict_transport_security: Option<String>,
    #[serde(rename = "X-Content-Type-Options")]
    pub(super) x_content_type_options: Option<ContentTypeOptions>,
    #[serde(rename = "X-Frame-Options")]
    pub(super) x_frame_options: Option<FrameOptions>,
    #[serde(rename = "X-XSS-Protection")]
    pub(super) x_xss_protection: Option<String>,
    #[serde(rename = "Content-Security-Policy")]
    pub(super) content_security_policy: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ContentTypeOptions {
    NoSniff,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FrameOptions {
    Deny,
    SameOrigin,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RateSection {
    pub(super) interval: Option<Interval>,
    pub(super) burst: Option<u32>,
}

/// A duration as Go writes it: `100ms`, `1m30s`, `0.5s`; `0` is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval(pub(super) Duration);

/// Of Go's `time.ParseDuration`, in nanoseconds.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// As Go's `time.ParseDuration` reads it; nothing below zero.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut nanoseconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..end])?;
        nanoseconds += number * unit;
        rest = &rest[end..];
    }
    // Go's durations end at 292 years.
    (!text.is_empty() && nanoseconds < i64::MAX as f64).then(|| Duration::from_nanos(nanoseconds as u64))
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration(&text).map(Self).ok_or_else(|| {
            D::Error::custom(
                "a duration must be written with its units, as 100ms, 0.5s or 1m30s; 0 is no limit",
            )
        })
    }
}

/// A text that is in no message, no log line and no `{:?}`.
#[derive(Clone)]
pub(super) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SecretText)
    }
}

struct SecretText;

impl<'de> Visitor<'de> for SecretText {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text (which is not shown)")
    }

    fn visit_str<E>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Secret, A::Error> {
        Err(A::Error::invalid_type(Unexpected::Seq, &self))
    }
}

/// User names and the bcrypt hashes of their passwords.
#[derive(Default)]
pub(super) struct Users(pub(super) HashMap<String, bcrypt::HashParts>);

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for Users {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UserMap)
    }
}

struct UserMap;

/// Beyond it a single check takes this class of machine more than ten seconds.
const MAX_COST: u32 = 18;

impl<'de> Visitor<'de> for UserMap {
    type Value = Users;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("user names with bcrypt hashes, such as `alice: $2y$10$…`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Users, A::Error> {
        let mut users = HashMap::new();
        while let Some(name) = entries.next_key::<String>()? {
            let hash: BcryptHash = entries.next_value()?;
            if name.contains(':') {
                let what = format!("the user name {name:?} holds a colon, which no client can send");
                return Err(A::Error::custom(what));
            }
            users.insert(name, hash.0);
        }
        Ok(Users(users))
    }
}

struct BcryptHash(bcrypt::HashParts);

impl<'de> Deserialize<'de> for BcryptHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Secret(text) = Secret::deserialize(deserializer)?;
        let known = ["$2y$", "$2b$", "$2a$"].iter().any(|version| text.starts_with(version));
        let parts = bcrypt::HashParts::from_str(&text).ok().filter(|_| known).ok_or_else(|| {
            D::Error::custom(
                "a password must be written as its bcrypt hash, $2y$, $2b$ or $2a$ (htpasswd -nBC 10 \"\" makes one)",
            )
        })?;
        match parts.get_cost() {
            4..=MAX_COST => Ok(Self(parts)),
            cost => Err(D::Error::custom(format!(
                "a bcrypt cost of {cost} is refused: 4 to {MAX_COST} are accepted, for each further one doubles the time of a check, and \
                 anybody can ask for one; hash the password anew (htpasswd -nBC 10 \"\"), 10 is usual"
            ))),
        }
    }
}

/// What is wrong with the text of a file, without any of its values: they may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// From 1; none if it is about the whole.
    pub(super) place: Option<(u64, u64)>,
    pub(super) what: String,
}

/// Reads the text of a file.
pub(super) fn parse(text: &str) -> Result<File, Fault> {
    let mut options = serde_yaml::Options::default();
    options.strict_booleans = true;
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    options.with_snippet = false;
    let blank = text.lines().map(str::trim_start).all(|line| line.is_empty() || line.starts_with('#'));
    if blank {
        return Ok(File::default());
    }
    let file: Option<File> =
        serde_yaml::from_str_with_options(text, options).map_err(|error| fault(&error))?;
    Ok(file.unwrap_or_default())
}

fn fault(error: &serde_yaml::Error) -> Fault {
    use serde_yaml::Error as E;
    let listed = |expected: &[&str]| {
        let named: Vec<&str> = expected.iter().copied().filter(|name| !name.is_empty()).collect();
        named.join(", ")
    };
    let what = match error.without_snippet() {
        E::SerdeUnknownField { field, expected, .. } => {
            format!("unknown key {field:?}; known here: {}", listed(expected))
        }
        E::SerdeUnknownVariant { variant, expected, .. } => {
            format!("{variant:?} is none of {}", listed(expected))
        }
        E::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} stands twice"),
        E::DuplicateMappingKey { .. } => "a key stands twice".to_owned(),
        E::SerdeInvalidType { expected, .. } | E::SerdeInvalidValue { expected, .. } => {
            format!("expected {expected}")
        }
        E::Unexpected { expected: "mapping start", .. } => "expected a mapping of keys to values".to_owned(),
        E::Unexpected { expected, .. } => format!("expected {expected}"),
        E::InvalidScalar { ty, .. } => format!("expected a value of the kind {ty}"),
        E::InvalidBooleanStrict { .. } => "expected true or false".to_owned(),
        E::NullIntoString { .. } => "a value is missing".to_owned(),
        E::Message { msg, .. } | E::ExternalMessage { msg, .. } => msg.clone(),
        E::MultipleDocuments { .. } => "a second document begins here: the file is one".to_owned(),
        _ => "not valid YAML, or not of the shape that the documentation shows".to_owned(),
    };
    let place = error.location().map(|location| (location.line(), location.column()));
    Fault { place, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("100ms", 100),
            ("0.5s", 500),
            (".5s", 500),
            ("1m30s", 90_000),
            ("1h0m0.25s", 3_600_250),
            ("5000000ns", 5),
            ("7000us", 7),
            ("7000µs", 7),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "1", "s", "-1s", "1 s", "1d", "1.5.5s", "..s", "1e3s", "9999999999h", "1s1", "ms1"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
