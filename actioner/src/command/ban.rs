//! `ban` and `unban`: by hand, with a name and a reason in the audit log.

use super::{Said, plain, text};
use crate::admin_client::{Client, Trouble};
use crate::source;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::time::Duration;

/// Whom an order is about: an address, or a network with its host bits zero.
///
/// # Errors
/// A sentence for the command line.
pub fn target(text: &str) -> Result<IpNet, String> {
    match text.parse::<IpNet>() {
        Ok(net) if net.trunc() != net => Err(format!(
            "{text} has host bits set: write {} for the network, or the address alone",
            net.trunc()
        )),
        Ok(net) => Ok(net),
        Err(_) => source::parse(text).map(IpNet::from).map_err(|error| error.to_string()),
    }
}

/// Bans it.
///
/// # Errors
/// [`Trouble`].
pub fn ban(client: &Client, whom: IpNet, lasts: Duration, reason: &str) -> Result<Said, Trouble> {
    let body = json!({"source": whom, "for_seconds": lasts.as_secs(), "reason": reason});
    let answer = client.post("/api/v1/bans", &body)?;
    let deleted = answer["entries_deleted"].as_u64();
    let deleted = deleted.map(|entries| format!("; {entries} of its entries deleted")).unwrap_or_default();
    let until = match answer["until"].as_str() {
        Some(until) => format!("until {}", plain(until)),
        None => "for ever, which is somebody else's doing".to_owned(),
    };
    let mut said = Said::done(format!(
        "{} is banned {until}{}, read back from the kernel{deleted}",
        text(&answer["net"]),
        compared(&answer)
    ));
    said.warning = answer["trouble"].as_str().map(plain);
    Ok(said.unless_stored(&answer))
}

/// What the order did to a ban that stood already. RFC 3339 in UTC is in the order of time.
fn compared(answer: &Value) -> String {
    let time = |name: &str| answer[name].as_str();
    match (time("until"), time("ordered_until"), time("until_before")) {
        (None, Some(ordered), _) => format!(" (you said until {}; unban ends both)", plain(ordered)),
        (Some(until), Some(ordered), _) if until > ordered => {
            format!(
                " (by a rule, whose longer ban stays; you said until {}; unban ends both)",
                plain(ordered)
            )
        }
        (_, _, Some(before)) => format!(" (before: until {})", plain(before)),
        _ => String::new(),
    }
}

/// Ends its ban, or every one.
///
/// # Errors
/// [`Trouble`].
pub fn unban(client: &Client, whom: Option<IpNet>) -> Result<Said, Trouble> {
    let answer = match whom {
        Some(net) => client.delete(&format!("/api/v1/bans?source={}", query(net)))?,
        None => client.delete("/api/v1/bans?all=true")?,
    };
    let unbanned: Vec<String> = answer["unbanned"].as_array().into_iter().flatten().map(text).collect();
    if unbanned.is_empty() {
        return Ok(Said::done("nothing was banned").unless_stored(&answer));
    }
    let who = match unbanned.len() {
        1..=10 => unbanned.join(", "),
        many => format!("{many} networks"),
    };
    let grace = match &answer["grace_until"] {
        Value::String(until) => format!("; no rule bans them again before {}", plain(until)),
        _ => String::new(),
    };
    Ok(Said::done(format!("no longer banned: {who}{grace}")).unless_stored(&answer))
}

/// As a query's value.
pub(super) fn query(net: IpNet) -> String {
    let text =
        if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
    text.replace(':', "%3A").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_read_and_mistakes_have_sentences() {
        assert_eq!(target("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(target("::ffff:192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(target("2001:db8::/64").unwrap().to_string(), "2001:db8::/64");
        assert!(target("192.0.2.7/24").unwrap_err().contains("192.0.2.0/24"));
        assert!(target("web1").unwrap_err().contains("never looked up"));
        assert_eq!(query("2001:db8::/64".parse().unwrap()), "2001%3Adb8%3A%3A%2F64");
    }
}
