//! Whom TLS lets in, and what it makes of everything else.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod client;
mod secure;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{Client, GET, ask, connect, hello};
use secure::{MUTUAL, Site, TLS, Tls, refused, serving_secured, who};
use tests::certificates::{Authority, Validity};
use tokio_rustls::rustls::version;
use web::Limits;

/// What comes of one request: its answer, or nothing. With TLS 1.3 a client learns only after its handshake that its
/// certificate was refused.
async fn answer(tls: &Tls, address: SocketAddr) -> Option<String> {
    let stream = tls.connect(address).await.ok()?;
    let mut client = Client::new(stream);
    client.try_send(GET).await;
    let rest = client.until_quiet().await;
    rest.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[tokio::test]
async fn requests_come_through_and_the_connection_is_kept() {
    let site = Site::new();
    serving_secured(site.security(TLS), Limits::default(), hello, async |address| {
        let mut client = Client::new(site.client(None).connect(address).await.unwrap());
        for _ in 0..3 {
            assert_eq!(client.ask(GET).await.body, "GET /\n");
        }
    })
    .await;
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_so() {
    let site = Site::new();
    let security = site.security(TLS);
    let counters = security.counters().clone();
    serving_secured(security, Limits::default(), hello, async |address| {
        for request in [
            GET.to_owned(),
            format!("POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(50_000)),
        ] {
            let mut client = connect(address).await;
            client.try_send(&request).await;
            let answer = client.rest().await;
            assert!(answer.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
            assert!(answer.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{answer}");
        }
    })
    .await;
    assert_eq!(refused(&counters, "plain_http"), 2);
}

#[tokio::test]
async fn garbage_is_closed_and_counted_and_a_health_check_is_neither() {
    let site = Site::new();
    let security = site.security(TLS);
    let counters = security.counters().clone();
    serving_secured(security, Limits::default(), hello, async |address| {
        for garbage in [
            "\u{16}\u{3}\u{1}\u{7f}\u{7f}rubbish",
            "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}",
            "\u{16}\u{3}\u{1}\u{0}\u{5}\u{2}\u{0}\u{0}\u{1}\u{0}",
        ] {
            let mut client = connect(address).await;
            client.try_send(garbage).await;
            client.say_no_more().await;
            client.skip_rest().await;
        }
        let mut health_check = connect(address).await;
        health_check.say_no_more().await;
        health_check.skip_rest().await;
        assert_eq!(answer(&site.client(None), address).await.unwrap(), "GET /\n");
    })
    .await;
    assert_eq!(refused(&counters, "tls_handshake"), 3);
}

#[tokio::test]
async fn a_handshake_that_is_half_open_ends_and_nobody_else_notices() {
    let site = Site::new();
    let limits = Limits { header_timeout: Duration::from_millis(200), ..Limits::default() };
    let security = site.security(TLS);
    let counters = security.counters().clone();
    serving_secured(security, limits, hello, async |address| {
        let mut honest = Client::new(site.client(None).connect(address).await.unwrap());
        let began = Instant::now();
        let mut silent = connect(address).await;
        // The head of a record of 512 bytes, of which two come.
        let mut slow = connect(address).await;
        slow.send("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}").await;
        assert_eq!(honest.ask(GET).await.status, 200);
        silent.skip_rest().await;
        slow.skip_rest().await;
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(180) && took < Duration::from_secs(5), "{took:?}");
        // After the handshake the first request has its time too.
        let mut idle = Client::new(site.client(None).connect(address).await.unwrap());
        idle.skip_rest().await;
        assert_eq!(honest.ask(GET).await.status, 200, "a pause between requests is none of it");
    })
    .await;
    assert_eq!(refused(&counters, "tls_timeout"), 2);
}

#[tokio::test]
async fn only_a_client_with_a_valid_certificate_of_the_right_authority_is_heard() {
    let site = Site::new();
    let security = site.security(MUTUAL);
    assert!(security.authenticates() && security.encrypts());
    let counters = security.counters().clone();
    serving_secured(security, Limits::default(), who, async |address| {
        let right = site.clients.client("alertmanager", &["am.example"], Validity::Now);
        let said = answer(&site.client(Some(&right)), address).await;
        assert_eq!(said.as_deref(), Some("Some(Certificate(\"am.example\"))"));
        let nameless = site.clients.client("am", &[], Validity::Now);
        let said = answer(&site.client(Some(&nameless)), address).await.unwrap();
        assert!(said.contains("Certificate(\"CN=am"), "{said}");

        let expired = site.clients.client("alertmanager", &["am.example"], Validity::Expired);
        let foreign = Authority::new("clients").client("alertmanager", &["am.example"], Validity::Now);
        let servers = site.authority.server();
        for wrong in [None, Some(&expired), Some(&foreign), Some(&servers)] {
            assert_eq!(answer(&site.client(wrong), address).await, None, "{wrong:?}");
        }
        let old = Tls::new(&site.authority, Some(&expired), &[&version::TLS12], &[]);
        assert_eq!(answer(&old, address).await, None);
    })
    .await;
    assert_eq!(refused(&counters, "client_certificate"), 5);
}

#[tokio::test]
async fn a_certificate_must_have_one_of_the_allowed_names() {
    let site = Site::new();
    let config = MUTUAL.replace("}", ", client_allowed_sans: [am.example, 192.0.2.7, '2001:db8::7']}");
    serving_secured(site.security(&config), Limits::default(), who, async |address| {
        for (names, heard) in [
            (&["other.example", "am.example"][..], true),
            (&["192.0.2.7"], true),
            (&["2001:db8::7"], true),
            (&["AM.example", "am.example.org", "192.0.2.8"], false),
            (&[], false),
        ] {
            let client = site.clients.client("am.example", names, Validity::Now);
            assert_eq!(answer(&site.client(Some(&client)), address).await.is_some(), heard, "{names:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_laxer_ways_of_go_are_as_lax_as_there_and_name_nobody_who_was_not_verified() {
    let site = Site::new();
    let right = site.clients.client("alertmanager", &["am.example"], Validity::Now);
    let foreign = Authority::new("other").client("alertmanager", &["am.example"], Validity::Expired);
    let (none, named) = (Some("None"), Some("Some(Certificate(\"am.example\"))"));
    for (way, without, with_right, with_foreign) in [
        ("RequestClientCert", none, none, none),
        ("RequireAnyClientCert", None, none, none),
        ("RequireClientCert", None, none, none),
        ("VerifyClientCertIfGiven", none, named, None),
    ] {
        let security = site.security(&MUTUAL.replace("RequireAndVerifyClientCert", way));
        assert!(!security.authenticates(), "{way} lets in who shows nothing, or anything");
        serving_secured(security, Limits::default(), who, async |address| {
            for (client, expected) in
                [(None, without), (Some(&right), with_right), (Some(&foreign), with_foreign)]
            {
                let said = answer(&site.client(client), address).await;
                assert_eq!(said.as_deref(), expected, "{way}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn versions_suites_and_curves_are_those_that_were_asked_for() {
    let site = Site::new();
    let config = |more: &str| TLS.replace('}', &format!(", {more}}}"));
    let (new, old) = (&[&version::TLS13][..], &[&version::TLS12][..]);
    for (more, with_13, with_12) in [
        ("min_version: TLS13", true, false),
        ("max_version: TLS12", false, true),
        ("cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]", true, true),
        ("cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]", true, false),
        ("cipher_suites: [TLS_AES_256_GCM_SHA384]", true, false),
        ("curve_preferences: [CurveP384, X25519]", true, true),
    ] {
        serving_secured(site.security(&config(more)), Limits::default(), hello, async |address| {
            for (versions, works) in [(new, with_13), (old, with_12)] {
                let tls = Tls::new(&site.authority, None, versions, &[]);
                assert_eq!(answer(&tls, address).await.is_some(), works, "{more} {versions:?}");
            }
        })
        .await;
    }
    serving_secured(
        site.security(&config("cipher_suites: [TLS_CHACHA20_POLY1305_SHA256]")),
        Limits::default(),
        hello,
        async |address| {
            let stream = Tls::new(&site.authority, None, new, &[]).connect(address).await.unwrap();
            let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
            assert!(format!("{suite:?}").contains("CHACHA20"), "{suite:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn what_is_turned_away_for_want_of_room_is_closed_without_words_that_tls_would_not_understand() {
    let site = Site::new();
    let limits = Limits { max_connections: 1, ..Limits::default() };
    serving_secured(site.security(TLS), limits, hello, async |address| {
        let mut first = Client::new(site.client(None).connect(address).await.unwrap());
        assert_eq!(first.ask(GET).await.status, 200);
        assert_eq!(connect(address).await.rest().await, "");
        assert_eq!(first.ask(GET).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn without_a_configuration_nothing_is_asked() {
    let security = web::Security::default();
    assert!(!security.authenticates() && !security.encrypts());
    serving_secured(security, Limits::default(), who, async |address| {
        assert_eq!(ask(address, GET).await.body, "None");
    })
    .await;
}
