//! Which configurations are accepted, and what is said of the others: where, what, and no secret.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod client;
mod secure;

use proptest::prelude::*;
use secure::{MUTUAL, Site, TLS};
use tests::certificates::Authority;

/// As exporter-toolkit's own tests have them (web/testdata), less what ring has not.
#[test]
fn what_exporter_toolkit_accepts_is_accepted() {
    let site = Site::new();
    let tls = |more: &str| TLS.replace('}', &format!(", {more}}}"));
    let inline = {
        let server = site.authority.server();
        let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
        format!(
            "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca: |\n    {}\n",
            indented(&server.certificate),
            indented(&server.key),
            indented(&site.clients.pem())
        )
    };
    for config in [
        "",
        "# nothing\n\n",
        "---\n",
        "tls_server_config:\nbasic_auth_users:\nhttp_server_config:\nrate_limit:\n",
        TLS,
        MUTUAL,
        &inline,
        &tls("client_auth_type: RequireAnyClientCert"),
        &tls(
            "client_auth_type: NoClientCert, prefer_server_cipher_suites: false, min_version: TLS12, max_version: TLS12",
        ),
        &tls(
            "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_AES_128_GCM_SHA256]",
        ),
        &tls("curve_preferences: [CurveP256, CurveP384, X25519]"),
        &(TLS.to_owned() + "http_server_config: {http2: false}\n"),
        "basic_auth_users:\n  alice: $2y$12$1DpfPeqF9HzHJt.EWswy1exHluGfbnhnn3yXhR7Xes6m3WJqFg0Wy\n  \
         bob: $2b$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n  \
         carol: $2a$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n",
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    Strict-Transport-Security: max-age=31536000; includeSubDomains\n    \
         X-Content-Type-Options: nosniff\n    X-XSS-Protection: 1\n    Content-Security-Policy: \"default-src 'self' *.test.example.net\"\n",
        "rate_limit: {interval: 1s, burst: 10}\n",
        "rate_limit: {interval: 0, burst: 0}\n",
    ] {
        assert_eq!(site.try_security(config).map(drop), Ok(()), "{config}");
    }
}

#[test]
fn what_is_wrong_is_said_with_line_and_column() {
    let site = Site::new();
    site.write("other.key", &Authority::new("other").server().key);
    site.write("junk", "-----BEGIN PRIVATE KEY----- hush\nhush\n");
    let tls =
        |more: &str| format!("tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n{more}");
    let mut wrong = Vec::new();
    for (config, words) in [
        (tls("  cert_filse: x\n"), &[":4:3: unknown key \"cert_filse\"", "cert_file,"][..]),
        ("http_server_config:\n  headers:\n    Content-Type: foo\n".into(), &[":3:5: unknown key \"Content-Type\"", "X-Frame-Options"]),
        ("tls_server_config: {}\ntls_server_config: {}\n".into(), &[":2:1: the key \"tls_server_config\" stands twice"]),
        ("basic_auth_users:\n  alice: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n  alice: hush\n".into(), &[":3:3: the key \"alice\" stands twice"]),
        ("http_server_config:\n  http2: yes\n".into(), &[":2:10: expected true or false"]),
        ("http_server_config:\n  headers:\n    X-Frame-Options: foo\n".into(), &[":3:22: \"foo\" is none of deny, sameorigin"]),
        ("http_server_config:\n  headers:\n    X-Content-Type-Options: sniff\n".into(), &["\"sniff\" is none of nosniff"]),
        (tls("  client_auth_type: x\n"), &[":4:21: \"x\" is none of NoClientCert", "RequireAndVerifyClientCert"]),
        (tls("  min_version: TLS11\n"), &[":4:16: TLS11 is not served: rustls has TLS12 and TLS13 only"]),
        (tls("  min_version: TLS111\n"), &[":4:16: unknown TLS version \"TLS111\""]),
        (tls("  min_version: TLS13\n  max_version: TLS12\n"), &["min_version is above max_version"]),
        (tls("  cipher_suites:\n  - TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\n"), &[":5:5: ", "rustls has neither CBC"]),
        (tls("  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA2048]\n"), &[":4:19: unknown cipher suite", "TLS_AES_128_GCM_SHA256"]),
        (tls("  curve_preferences: [CurveP521]\n"), &[":4:23: CurveP521 is not served"]),
        (tls("  curve_preferences: [CurveP257]\n"), &["unknown curve \"CurveP257\""]),
        ("rate_limit: {interval: fast}\n".into(), &[":1:24: a duration must be written with its units"]),
        ("rate_limit: {burst: -1}\n".into(), &[":1:21: expected"]),
        ("basic_auth_users:\n  john: hush\n".into(), &[":2:9: a password must be written as its bcrypt hash"]),
        ("basic_auth_users:\n  john: $2x$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n".into(), &["bcrypt hash, $2y$"]),
        ("basic_auth_users:\n  john: $2y$31$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n".into(), &["a bcrypt cost of 31 is refused"]),
        ("basic_auth_users:\n  john: [hush]\n".into(), &[":2:"]),
        ("basic_auth_users: hush\n".into(), &[":1:19: expected a mapping of keys to values"]),
        ("basic_auth_users:\n- hush\n".into(), &[":2:"]),
        ("basic_auth_users:\n  'a:b': $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n".into(), &["holds a colon"]),
        ("hush\nhush\n".into(), &["web.yml"]),
        ("tls_server_config: {key: [hush]}\n".into(), &[":1:"]),
        (tls("  key: hush\n"), &["key and key_file are both given"]),
        ("tls_server_config: {cert_file: server.pem, key: hush}\n".into(), &["key holds no private key in PEM"]),
        ("tls_server_config: {cert_file: server.pem, key_file: junk}\n".into(), &["key_file junk holds no private key in PEM"]),
        ("tls_server_config: {cert_file: junk, key_file: server.key}\n".into(), &["cert_file junk is not whole PEM"]),
        ("tls_server_config: {cert_file: server.key, key_file: server.key}\n".into(), &["cert_file server.key holds no certificate"]),
        ("tls_server_config: {cert_file: server.pem, key_file: other.key}\n".into(), &["cannot be used together"]),
        ("tls_server_config: {cert_file: absent, key_file: server.key}\n".into(), &["cert_file absent cannot be read: No such file"]),
        ("tls_server_config: {cert_file: ., key_file: server.key}\n".into(), &["not a regular file"]),
        ("tls_server_config: {cert_file: '', key_file: server.key}\n".into(), &["cert_file (or cert) is missing"]),
        ("tls_server_config: {cert_file: server.pem}\n".into(), &["key_file (or key) is missing"]),
        ("tls_server_config: {min_version: TLS13}\n".into(), &["cert_file and key_file are missing"]),
        (tls("  client_ca_file: clients.pem\n"), &["client_ca_file without client_auth_type"]),
        (tls("  client_auth_type: VerifyClientCertIfGiven\n"), &["client_ca_file (or client_ca) is missing"]),
        (tls("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: /dev/null\n"), &["/dev/null cannot be read: it is not a regular file"]),
        (tls("  client_auth_type: RequireAnyClientCert\n  client_allowed_sans: [a]\n"), &["client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert"]),
        (MUTUAL.replace('}', ", client_allowed_sans: []}"), &["client_allowed_sans is empty"]),
        ("http_server_config: {headers: {X-XSS-Protection: \"a\\nb\"}}\n".into(), &["the value of X-XSS-Protection cannot be sent"]),
        ("{}\n---\n{}\n".into(), &["web.yml"]),
    ] {
        let error = site.try_security(&config).map(drop).expect_err(&config);
        let placed = error.starts_with("--web.config.file: ") && error.contains("web.yml");
        if !placed || words.iter().any(|word| !error.contains(word)) || error.contains("hush") {
            wrong.push(format!("{config}{words:?}\n{error}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let absent = web::Security::open(Some(&site.path("absent.yml"))).unwrap_err().to_string();
    assert!(absent.contains("absent.yml: No such file"), "{absent}");
}

#[test]
fn nothing_that_can_be_printed_holds_a_secret() {
    let site = Site::new();
    let key = site.authority.server().key;
    site.write("token", "hush-hush-hush");
    let security = site.security(
        &(TLS.to_owned()
            + "basic_auth_users: {alice: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi}\n"),
    );
    let security = security.with_bearer_token("--web.bearer-token-file", &site.path("token")).unwrap();
    let printed = format!("{security:?}");
    assert!(
        !printed.contains("QOauhQ") && !printed.contains("hush") && !printed.contains(&key[60..100]),
        "{printed}"
    );
}

proptest! {
    /// Whatever stands in the file: an answer, and never what stands where a secret should.
    #[test]
    fn no_file_makes_it_panic_or_tell(text in "(basic_auth_users|tls_server_config|http_server_config|rate_limit|[a-z{}\\[\\]&*!|>'\"%@`#,?: \\n-]{0,12})?[: \\n{\\[]{0,4}(alice|key|cert|headers)?[: \\n\\[]{0,3}(hush[0-9]{0,3}|\"hush\"|\\$2y\\$10\\$hush)[\\]} \\n]{0,3}") {
        let site = tempfile::tempdir().unwrap();
        let path = site.path().join("web.yml");
        std::fs::write(&path, &text).unwrap();
        if let Err(error) = web::Security::open(Some(&path)) {
            let error = error.to_string();
            // A key is named, for its owner must find it; a value is not.
            let as_key = error.contains("unknown key") || error.contains("stands twice");
            prop_assert!(as_key || !error.contains("hush"), "{text:?}: {error}");
        }
    }
}
