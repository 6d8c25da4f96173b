//! Who this host is: which alerts are about its table, and which addresses are its own.

use crate::alert::Alert;
use crate::now::Now;
use crate::policy::ThisHost;
use crate::refusal::Refusal;
use crate::spared::{Files, Spared};
use crate::surroundings::Surroundings;
use conntrack::own::OwnAddresses;
use std::net::IpAddr;
use std::sync::Arc;

/// This host as a decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Of boot and network namespace: what our exporter's `nf_conntrack_table_info` says as well.
    pub table_id: String,
    /// The node name.
    pub name: String,
    /// Own addresses, gateways, broadcasts.
    pub own: Arc<OwnAddresses>,
    /// Whom it never bans beside these.
    pub spared: Spared,
}

impl Host {
    /// Reads it once, in the calling thread's network namespace. Whoever decides keeps [`Surroundings`] instead.
    ///
    /// # Errors
    /// procfs or rtnetlink could not be read; the text says which.
    pub fn read() -> Result<Host, String> {
        Surroundings::open(Files::default())?.host(Now::read())
    }

    /// Whether the alert is about this host's table. A loopback instance identifies nobody: every host has one.
    ///
    /// # Errors
    /// [`Refusal::OtherHost`] with what the alert said.
    pub fn is_meant(&self, policy: &ThisHost, alert: &Alert) -> Result<(), Refusal> {
        match policy {
            ThisHost::Matchers(matchers) => match matchers.iter().find(|m| !m.matches(&alert.labels)) {
                None => Ok(()),
                Some(matcher) => Err(Refusal::OtherHost(format!("this_host requires {matcher}"))),
            },
            ThisHost::Auto => self.is_meant_by_identity(alert),
        }
    }

    fn is_meant_by_identity(&self, alert: &Alert) -> Result<(), Refusal> {
        let table_id = alert.label("table_id");
        if !table_id.is_empty() {
            return if table_id == self.table_id {
                Ok(())
            } else {
                Err(Refusal::OtherHost(format!("its table_id is {table_id}, ours is {}", self.table_id)))
            };
        }
        let instance = alert.label("instance");
        let named = without_port(instance);
        let refused = |why: String| Err(Refusal::OtherHost(why));
        match named.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) if address.is_loopback() => refused(format!(
                "it has no table_id, and the instance {instance} is loopback, which every host has"
            )),
            Ok(address) if self.own.contains(address) => Ok(()),
            Ok(_) => {
                refused(format!("it has no table_id, and its instance {instance} is no address of this host"))
            }
            Err(_) if named.is_empty() => refused("it has neither table_id nor instance".to_owned()),
            Err(_) if is_localhost(named) => refused(format!(
                "it has no table_id, and the instance {instance} is what every host calls itself"
            )),
            Err(_) if named.eq_ignore_ascii_case(&self.name) => Ok(()),
            Err(_) => refused(format!(
                "it has no table_id, and its instance {instance:?} is not this host's name ({:?})",
                self.name
            )),
        }
    }
}

/// RFC 6761, 6.3, and what /etc/hosts of many distributions adds.
fn is_localhost(name: &str) -> bool {
    name.split('.').next().is_some_and(|first| first.eq_ignore_ascii_case("localhost"))
}

/// `host:port`, `[v6]:port`, `[v6]`, `host`, `v6` → host.
fn without_port(instance: &str) -> &str {
    if let Some(rest) = instance.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match instance.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => instance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Origin;

    fn host() -> Host {
        let own = OwnAddresses::of(
            ["192.0.2.10/32", "127.0.0.0/8", "2001:db8::10/128"].map(|n| n.parse().unwrap()),
            [],
        );
        Host { table_id: "aaaa".into(), name: "web1".into(), own: Arc::new(own), spared: Spared::default() }
    }

    fn alert(labels: &[(&str, &str)]) -> Alert {
        Alert {
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            annotations: Default::default(),
            fingerprint: String::new(),
            starts_at: String::new(),
            firing: true,
            origin: Origin::Webhook,
            receiver: "".into(),
            group_key: "".into(),
        }
    }

    fn meant(labels: &[(&str, &str)]) -> bool {
        host().is_meant(&ThisHost::Auto, &alert(labels)).is_ok()
    }

    #[test]
    fn the_table_id_decides_and_beats_the_instance() {
        assert!(meant(&[("table_id", "aaaa"), ("instance", "198.51.100.1:10048")]));
        assert!(!meant(&[("table_id", "bbbb"), ("instance", "192.0.2.10:10048")]));
    }

    #[test]
    fn without_one_the_instance_must_be_an_address_or_the_name_of_this_host() {
        for ours in
            ["192.0.2.10:10048", "192.0.2.10", "[2001:db8::10]:10048", "2001:db8::10", "web1:10048", "WEB1"]
        {
            assert!(meant(&[("instance", ours)]), "{ours}");
        }
        for other in ["192.0.2.11:10048", "web2:10048", "web1.example.com:10048", "", "[2001:db8::11]:1"] {
            assert!(!meant(&[("instance", other)]), "{other}");
        }
    }

    #[test]
    fn loopback_identifies_nobody() {
        for loopback in
            ["127.0.0.1:10048", "localhost:10048", "[::1]:10048", "127.0.0.1", "[::ffff:127.0.0.1]:1"]
        {
            assert!(!meant(&[("instance", loopback)]), "{loopback}");
        }
        assert!(!meant(&[]));
        for name in ["localhost", "localhost.localdomain", "LOCALHOST"] {
            let so_called = Host { name: name.to_owned(), ..host() };
            let alert = alert(&[("instance", "localhost.localdomain:10048")]);
            assert!(so_called.is_meant(&ThisHost::Auto, &alert).is_err(), "{name}");
        }
    }
}
