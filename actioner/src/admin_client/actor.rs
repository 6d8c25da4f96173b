//! Who gives an order, for the audit log: the account, and behind sudo the person.

use std::env;
use std::fs;

/// `root (sudo: alice)`; the user's number where the account has no name.
pub fn name() -> String {
    let id = rustix::process::geteuid().as_raw();
    let account = account(&fs::read_to_string("/etc/passwd").unwrap_or_default(), id);
    let person = env::var("SUDO_USER").or_else(|_| env::var("DOAS_USER")).ok();
    said(account.unwrap_or_else(|| format!("uid {id}")), person)
}

fn account(passwd: &str, id: u32) -> Option<String> {
    let named = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    };
    passwd.lines().find_map(named)
}

fn said(account: String, person: Option<String>) -> String {
    let name = match person.filter(|person| !person.is_empty() && *person != account) {
        Some(person) => format!("{account} (sudo: {person})"),
        None => account,
    };
    // It becomes a header: what no header takes is left out.
    name.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_person_behind_sudo_is_named() {
        assert_eq!(said("root".into(), Some("alice".into())), "root (sudo: alice)");
        assert_eq!(said("root".into(), Some("root".into())), "root");
        assert_eq!(said("root".into(), None), "root");
        assert_eq!(said("root".into(), Some("a\r\nb".into())), "root (sudo: ab)");
    }

    #[test]
    fn accounts_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbroken\n";
        assert_eq!(account(passwd, 1000), Some("alice".to_owned()));
        assert_eq!(account(passwd, 7), None);
    }
}
