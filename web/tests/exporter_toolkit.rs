//! Every field of exporter-toolkit's web configuration, as its docs/web-configuration.md and web/tls_config.go have them
//! (2026-07-23, 19a7c2d): honoured, or refused with a sentence that says why and what to do. docs/web.md has a row for each.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod client;
mod secure;

use std::collections::BTreeSet;

use Verdict::{Honoured, Refused};
use secure::{Site, TLS};

const PAGE: &str = include_str!("../../docs/web.md");

#[derive(Clone, Copy)]
enum Verdict {
    Honoured,
    /// Why, and what to do.
    Refused(&'static str, &'static str),
}

/// Field, value, and what becomes of it.
const FIELDS: &[(&str, &str, Verdict)] = &[
    ("tls_server_config.cert", "INLINE server.pem", Honoured),
    ("tls_server_config.key", "INLINE server.key", Honoured),
    ("tls_server_config.client_ca", "INLINE clients.pem", Honoured),
    ("tls_server_config.cert_file", "server.pem", Honoured),
    (
        "tls_server_config.cert_file",
        "''",
        Refused("TLS needs a certificate", "cert_file (or cert) is missing"),
    ),
    ("tls_server_config.key_file", "server.key", Honoured),
    ("tls_server_config.client_ca_file", "clients.pem", Honoured),
    ("tls_server_config.client_auth_type", "''", Honoured),
    ("tls_server_config.client_auth_type", "NoClientCert", Honoured),
    ("tls_server_config.client_auth_type", "RequestClientCert", Honoured),
    ("tls_server_config.client_auth_type", "RequireClientCert", Honoured),
    ("tls_server_config.client_auth_type", "RequireAnyClientCert", Honoured),
    ("tls_server_config.client_auth_type", "VerifyClientCertIfGiven, client_ca_file: clients.pem", Honoured),
    (
        "tls_server_config.client_auth_type",
        "RequireAndVerifyClientCert, client_ca_file: clients.pem",
        Honoured,
    ),
    (
        "tls_server_config.client_auth_type",
        "RequireAndVerifyClientCert",
        Refused("whose certificates are to be verified?", "client_ca_file (or client_ca) is missing"),
    ),
    (
        "tls_server_config.client_allowed_sans",
        "[a], client_auth_type: RequireAndVerifyClientCert, client_ca_file: clients.pem",
        Honoured,
    ),
    (
        "tls_server_config.client_allowed_sans",
        "[a], client_auth_type: RequestClientCert",
        Refused(
            "nobody verifies anybody can write any name",
            "needs client_auth_type: RequireAndVerifyClientCert",
        ),
    ),
    ("tls_server_config.min_version", "TLS13", Honoured),
    ("tls_server_config.min_version", "TLS12", Honoured),
    ("tls_server_config.min_version", "TLS11", Refused("rustls has TLS12 and TLS13 only", "write TLS12")),
    ("tls_server_config.min_version", "TLS10", Refused("rustls has TLS12 and TLS13 only", "write TLS12")),
    ("tls_server_config.max_version", "TLS13", Honoured),
    ("tls_server_config.max_version", "TLS12", Honoured),
    ("tls_server_config.max_version", "TLS11", Refused("rustls has TLS12 and TLS13 only", "write TLS12")),
    ("tls_server_config.cipher_suites", "[TLS_AES_128_GCM_SHA256]", Honoured),
    ("tls_server_config.cipher_suites", "[TLS_AES_256_GCM_SHA384]", Honoured),
    ("tls_server_config.cipher_suites", "[TLS_CHACHA20_POLY1305_SHA256]", Honoured),
    ("tls_server_config.cipher_suites", "[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]", Honoured),
    ("tls_server_config.cipher_suites", "[TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]", Honoured),
    ("tls_server_config.cipher_suites", "[TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]", Honoured),
    ("tls_server_config.cipher_suites", "[TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]", Honoured),
    ("tls_server_config.cipher_suites", "[TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256]", Honoured),
    ("tls_server_config.cipher_suites", "[TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]", Honoured),
    (
        "tls_server_config.cipher_suites",
        "[TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]",
        Refused("neither CBC", "leave it out"),
    ),
    (
        "tls_server_config.cipher_suites",
        "[TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA]",
        Refused("neither CBC", "leave it out"),
    ),
    (
        "tls_server_config.cipher_suites",
        "[TLS_RSA_WITH_AES_128_GCM_SHA256]",
        Refused("forward secrecy", "leave it out"),
    ),
    ("tls_server_config.prefer_server_cipher_suites", "false", Honoured),
    ("tls_server_config.curve_preferences", "[X25519, CurveP256, CurveP384]", Honoured),
    ("tls_server_config.curve_preferences", "[CurveP521]", Refused("ring has X25519", "leave it out")),
    ("http_server_config.http2", "false", Honoured),
    ("http_server_config.headers.Content-Security-Policy", "default-src 'self'", Honoured),
    ("http_server_config.headers.X-Frame-Options", "sameorigin", Honoured),
    ("http_server_config.headers.X-Content-Type-Options", "nosniff", Honoured),
    ("http_server_config.headers.X-XSS-Protection", "1", Honoured),
    ("http_server_config.headers.Strict-Transport-Security", "max-age=1", Honoured),
    ("basic_auth_users", "{a: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi}", Honoured),
    (
        "basic_auth_users",
        "{a: $2y$31$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi}",
        Refused("doubles the time of a check", "hash the password anew"),
    ),
    ("rate_limit.interval", "1s", Honoured),
    ("rate_limit.interval", "1m0.5s", Honoured),
    ("rate_limit.interval", "1000000000", Refused("with its units", "as 100ms")),
    ("rate_limit.burst", "20", Honoured),
];

/// A configuration with this field, and what it needs beside it.
fn config(site: &Site, field: &str, value: &str) -> String {
    let indented =
        |name: &str| std::fs::read_to_string(site.path(name)).unwrap().trim().replace('\n', "\n    ");
    let inline = |field: &str, name: &str| format!("  {field}: |\n    {}\n", indented(name));
    let with = |cert: &str, key: &str, more: &str| format!("tls_server_config:\n{cert}{key}{more}");
    let (cert, key) = ("  cert_file: server.pem\n", "  key_file: server.key\n");
    match field.split('.').collect::<Vec<_>>()[..] {
        ["tls_server_config", "cert"] => with(&inline("cert", "server.pem"), key, ""),
        ["tls_server_config", "key"] => with(cert, &inline("key", "server.key"), ""),
        ["tls_server_config", "client_ca"] => with(
            cert,
            key,
            &(inline("client_ca", "clients.pem") + "  client_auth_type: RequireAndVerifyClientCert\n"),
        ),
        ["tls_server_config", "cert_file"] => with(&format!("  cert_file: {value}\n"), key, ""),
        ["tls_server_config", "key_file"] => with(cert, &format!("  key_file: {value}\n"), ""),
        ["tls_server_config", "client_ca_file"] => TLS
            .replace('}', &format!(", client_auth_type: VerifyClientCertIfGiven, client_ca_file: {value}}}")),
        ["tls_server_config", name] => TLS.replace('}', &format!(", {name}: {value}}}")),
        [section, "headers", name] => format!("{section}: {{headers: {{{name}: \"{value}\"}}}}\n"),
        [section, name] => format!("{section}: {{{name}: {value}}}\n"),
        _ => format!("{field}: {value}\n"),
    }
}

#[test]
fn every_field_is_honoured_or_refused_with_a_sentence() {
    let site = Site::new();
    let mut wrong = Vec::new();
    for (field, value, verdict) in FIELDS {
        let config = config(&site, field, value);
        match (verdict, site.try_security(&config).map(drop)) {
            (Honoured, Ok(())) => {}
            (Refused(why, what_to_do), Err(said)) if said.contains(why) && said.contains(what_to_do) => {}
            (_, said) => wrong.push(format!("{field}: {value}: {said:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_has_a_row_for_each_field_and_for_no_other() {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let shown: BTreeSet<&str> = rows.map(|(field, _)| field).collect();
    let known: BTreeSet<&str> = FIELDS.iter().map(|(field, ..)| *field).collect();
    assert_eq!(shown, known);
}

/// What is known here is what the program itself names: no field is missing above.
#[test]
fn no_field_is_read_that_is_not_in_the_table() {
    let site = Site::new();
    let mut read = BTreeSet::new();
    for (section, inside) in [
        ("", "x: 1\n"),
        ("tls_server_config.", "tls_server_config: {x: 1}\n"),
        ("http_server_config.", "http_server_config: {x: 1}\n"),
        ("http_server_config.headers.", "http_server_config: {headers: {x: 1}}\n"),
        ("rate_limit.", "rate_limit: {x: 1}\n"),
    ] {
        let said = site.try_security(inside).unwrap_err();
        let (_, names) = said.split_once("known here: ").unwrap_or_else(|| panic!("{said}"));
        read.extend(names.split(", ").map(|name| format!("{section}{}", name.trim())));
    }
    let known = |name: &String| {
        FIELDS.iter().any(|(field, ..)| field == name || field.starts_with(&format!("{name}.")))
    };
    assert!(read.iter().all(known), "{read:?}");
    assert_eq!(
        read.len(),
        FIELDS.iter().map(|(field, ..)| *field).collect::<BTreeSet<_>>().len() + 4,
        "{read:?}"
    );
}
