//! A web configuration that was read whole and can be served.

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use hyper::header::{HeaderName, HeaderValue};

use super::format::{self, ContentTypeOptions, FrameOptions, Headers};
use super::password::Users;
use super::rate::Bucket;
use super::tls::{self, Clients, Tls};
use super::watched::Files;

/// What a file asks for.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) tls: Option<Rc<Tls>>,
    pub(super) users: Users,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) rate: Option<Bucket>,
}

impl Settings {
    /// Reads the file, and those it names. Errors begin with the file's name, and hold none of its secrets.
    pub(super) fn read(path: &Path, files: &mut Files) -> Result<Self, String> {
        let name = path.display();
        let text = files.read(path).map_err(|error| format!("{name}: {error}"))?;
        let file = format::parse(&text).map_err(|fault| match fault.place {
            Some((line, column)) => format!("{name}:{line}:{column}: {}", fault.what),
            None => format!("{name}: {}", fault.what),
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::of(file, base, files).map_err(|error| format!("{name}: {error}"))
    }

    /// What was read, made ready; names in it are relative to `base`.
    fn of(file: format::File, base: &Path, files: &mut Files) -> Result<Self, String> {
        let http = file.http_server_config.unwrap_or_default();
        let tls =
            tls::read(&file.tls_server_config.unwrap_or_default(), http.http2.unwrap_or(true), base, files)
                .map_err(|error| format!("tls_server_config: {error}"))?;
        let headers = headers(http.headers.unwrap_or_default())
            .map_err(|header| format!("headers: the value of {header} cannot be sent"))?;
        let rate = file.rate_limit.unwrap_or_default();
        let rate = rate
            .interval
            .and_then(|interval| Bucket::new(interval.0, rate.burst.unwrap_or(0), Instant::now()));
        let tls = tls.map(Rc::new);
        Ok(Self { tls, users: Users::new(&file.basic_auth_users.unwrap_or_default().0), headers, rate })
    }

    /// What a client's certificate is worth.
    pub(super) fn clients(&self) -> Clients {
        self.tls.as_ref().map_or(Clients::Unverified, |tls| tls.clients)
    }

    /// What this must not become while it is served: a file that is emptied and written again would open the door for a
    /// moment. `Err` names it.
    pub(super) fn may_become(&self, new: &Self) -> Result<(), String> {
        let what = if self.tls.is_some() != new.tls.is_some() {
            "turns TLS on or off"
        } else if new.clients() < self.clients() {
            "verifies clients less than before"
        } else if new.users.is_empty() && !self.users.is_empty() {
            "takes away all of basic_auth_users"
        } else {
            return Ok(());
        };
        Err(format!("it {what}, which needs a restart"))
    }
}

/// Makes a configuration ready that names no files, and sees that no secret is in what is shown of it.
pub(super) fn judge(file: format::File, base: &Path) {
    let tls = file.tls_server_config.as_ref();
    if tls.is_some_and(|tls| {
        [&tls.cert_file, &tls.key_file, &tls.client_ca_file].iter().any(|file| file.is_some())
    }) {
        return;
    }
    let key = tls.and_then(|tls| tls.key.as_ref()).map(|key| key.0.clone());
    let shown = format!("{file:?}");
    let made = format!("{:?}", Settings::of(file, base, &mut Files::default()));
    let secret = key.filter(|key| key.len() > 40);
    assert!(secret.is_none_or(|key| !shown.contains(&key) && !made.contains(&key)));
}

fn headers(wanted: Headers) -> Result<Vec<(HeaderName, HeaderValue)>, &'static str> {
    let options = wanted.x_content_type_options.map(|ContentTypeOptions::NoSniff| "nosniff".to_owned());
    let frames = wanted.x_frame_options.map(|frames| match frames {
        FrameOptions::Deny => "deny".to_owned(),
        FrameOptions::SameOrigin => "sameorigin".to_owned(),
    });
    let all = [
        ("Strict-Transport-Security", wanted.strict_transport_security),
        ("X-Content-Type-Options", options),
        ("X-Frame-Options", frames),
        ("X-XSS-Protection", wanted.x_xss_protection),
        ("Content-Security-Policy", wanted.content_security_policy),
    ];
    let given =
        all.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    given
        .map(|(name, value)| {
            let value = HeaderValue::from_str(&value).map_err(|_| name)?;
            Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| name)?, value))
        })
        .collect()
}
