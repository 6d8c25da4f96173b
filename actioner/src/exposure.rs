//! Whether strangers could make this program act: it does not enforce for them unless it was told to.

use crate::policy::Policy;
use std::net::SocketAddr;
use std::rc::Rc;
use web::{Listen, Security};

/// Who can reach the webhook.
#[derive(Debug)]
pub struct Exposure {
    /// Addresses listened on that others can reach.
    open_to_others: Vec<SocketAddr>,
    security: Rc<Security>,
    /// `--web.allow-unauthenticated-webhooks`.
    allowed: bool,
}

impl Exposure {
    /// From what is listened on and what is asked there.
    pub fn new(listen: &[Listen], security: Rc<Security>, allowed: bool) -> Exposure {
        let reachable = |listen: &Listen| match listen {
            Listen::Tcp(address) => (!address.ip().to_canonical().is_loopback()).then_some(*address),
            Listen::Unix { .. } => None,
        };
        let open_to_others: Vec<SocketAddr> = listen.iter().filter_map(reachable).collect();
        if !open_to_others.is_empty() && security.authenticates() && !security.encrypts() {
            tracing::warn!(
                addresses = ?open_to_others,
                "passwords and tokens come in clear: tls_server_config in --web.config.file encrypts them"
            );
        }
        Exposure { open_to_others, security, allowed }
    }

    /// Whether this policy may be put in force here.
    ///
    /// # Errors
    /// Why not, and what would help.
    pub fn permits(&self, policy: &Policy) -> Result<(), String> {
        let Some(address) = self.open_to_others.first() else { return Ok(()) };
        if !policy.enforces_anything() || self.security.authenticates() {
            return Ok(());
        }
        if self.allowed {
            tracing::warn!(%address, "enforcing, and anybody who reaches this address may send webhooks");
            return Ok(());
        }
        Err(format!(
            "the policy enforces, and anybody who reaches {address} could send webhooks: ask for a password, a certificate \
             (--web.config.file) or a token (--web.bearer-token-file), listen on 127.0.0.1, set `enforce: false`, or say \
             --web.allow-unauthenticated-webhooks"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn policy(enforce: bool) -> Policy {
        let text = format!(
            "enforce: {enforce}\nnever_ban: []\nrules:\n- {{name: r, matchers: ['alertname=\"A\"'], require: {{source: {{assured: 9}}}}, \
             actions: [{{ban: {{for: 1m}}}}]}}\n"
        );
        Policy::parse(&text, Path::new(".")).unwrap()
    }

    fn permitted(listen: &[&str], security: Security, allowed: bool, enforce: bool) -> Result<(), String> {
        let tcp = |address: &&str| Listen::Tcp(address.parse().unwrap());
        let mut listen: Vec<Listen> = listen.iter().map(tcp).collect();
        listen.push(Listen::Unix { path: "/run/x.sock".into(), mode: 0o600 });
        Exposure::new(&listen, Rc::new(security), allowed).permits(&policy(enforce))
    }

    fn with_token() -> Security {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "0a1b2c3d4e5f60718293a4b5c6d7e8f9").unwrap();
        Security::default().with_bearer_token("--web.bearer-token-file", &path).unwrap()
    }

    #[test]
    fn strangers_may_send_webhooks_only_where_nothing_is_enforced_or_it_was_said() {
        for open in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
            for listen in [&[open][..], &["127.0.0.1:1", open]] {
                let refused = permitted(listen, Security::default(), false, true).unwrap_err();
                for word in [open, "--web.config.file", "--web.allow-unauthenticated-webhooks"] {
                    assert!(refused.contains(word), "{refused}");
                }
                assert_eq!(permitted(listen, Security::default(), false, false), Ok(()));
                assert_eq!(permitted(listen, Security::default(), true, true), Ok(()));
                assert_eq!(permitted(listen, with_token(), false, true), Ok(()));
            }
        }
        for own in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(permitted(&[own], Security::default(), false, true), Ok(()), "{own}");
        }
    }
}
