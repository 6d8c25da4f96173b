//! Files that change under a running server.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod client;
mod secure;

use client::{Client, GET, ask};
use secure::{MUTUAL, Site, TLS, Tls, basic, get_as, reload_successful, serving_secured, users, who};
use tests::certificates::{Authority, Validity};
use tokio_rustls::rustls::version;
use web::{Limits, Security};

fn trusting(authority: &Authority) -> Tls {
    Tls::new(authority, None, &[&version::TLS13], &[])
}

#[tokio::test]
async fn a_rotated_certificate_is_shown_to_the_next_client_also_while_its_key_is_late() {
    let site = Site::new();
    let security = site.security(TLS);
    let counters = security.counters().clone();
    serving_secured(security, Limits::default(), who, async |address| {
        let before = trusting(&site.authority);
        let mut kept = Client::new(before.connect(address).await.unwrap());
        assert_eq!(kept.ask(GET).await.status, 200);
        let other = Authority::new("other");
        let renewed = other.server();
        site.write("server.pem", &renewed.certificate);
        assert!(before.connect(address).await.is_ok(), "certificate and key do not fit: those before stay");
        assert!(!reload_successful(&counters));
        site.write("server.key", &renewed.key);
        assert!(trusting(&other).connect(address).await.is_ok());
        assert!(before.connect(address).await.is_err());
        assert!(reload_successful(&counters));
        let last = kept.ask(GET).await;
        assert!(last.status == 200 && last.head.contains("connection: close"), "{}", last.head);
    })
    .await;
}

#[tokio::test]
async fn an_authority_that_is_withdrawn_ends_the_connections_of_its_clients() {
    let site = Site::new();
    serving_secured(site.security(MUTUAL), Limits::default(), who, async |address| {
        let certified = site.clients.client("am", &["am"], Validity::Now);
        let tls = site.client(Some(&certified));
        let mut client = Client::new(tls.connect(address).await.unwrap());
        assert_eq!(client.ask(GET).await.status, 200);
        let other = Authority::new("clients");
        site.write("clients.pem", &other.pem());
        let last = client.ask(GET).await;
        assert!(last.head.contains("connection: close"), "{}", last.head);
        assert_eq!(client.rest().await, "");
        let mut again = Client::new(tls.connect(address).await.unwrap());
        again.try_send(GET).await;
        again.skip_rest().await;
        let theirs = other.client("am", &["am"], Validity::Now);
        let mut theirs = Client::new(site.client(Some(&theirs)).connect(address).await.unwrap());
        assert_eq!(theirs.ask(GET).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn passwords_and_token_change_at_once() {
    let site = Site::new();
    site.write("token", "first-token-of-this-test");
    let security = site
        .security(&users("alice", "one"))
        .with_bearer_token("--web.bearer-token-file", &site.path("token"))
        .unwrap();
    serving_secured(security, Limits::default(), who, async |address| {
        let status = async |authorization: &str| ask(address, &get_as(authorization)).await.status;
        assert_eq!(status(&basic("alice", "one")).await, 200);
        site.write("web.yml", &users("alice", "two"));
        assert_eq!((status(&basic("alice", "one")).await, status(&basic("alice", "two")).await), (401, 200));
        site.write("web.yml", &users("bob", "two"));
        assert_eq!((status(&basic("alice", "two")).await, status(&basic("bob", "two")).await), (401, 200));
        assert_eq!(status("Bearer first-token-of-this-test").await, 200);
        site.write("token", "second-token-of-this-test");
        assert_eq!(status("Bearer first-token-of-this-test").await, 401);
        assert_eq!(status("Bearer second-token-of-this-test").await, 200);
        site.write("token", "");
        assert_eq!(status("Bearer second-token-of-this-test").await, 200, "an empty token opens nothing");
        assert_eq!(status("Bearer ").await, 401);
    })
    .await;
}

#[tokio::test]
async fn a_broken_file_leaves_what_was_before_and_shows_until_it_is_mended() {
    let site = Site::new();
    let good = users("alice", "one");
    let security = site.security(&good);
    let counters = security.counters().clone();
    serving_secured(security, Limits::default(), who, async |address| {
        let right = get_as(&basic("alice", "one"));
        for broken in [
            "basic_auth_users: {alice: one}\n",
            "basic_auth_userz: {}\n",
            "{{{",
            "tls_server_config: {cert_file: absent}\n",
        ] {
            site.write("web.yml", broken);
            assert_eq!(ask(address, &right).await.status, 200, "{broken}");
            assert_eq!(ask(address, GET).await.status, 401, "{broken}");
            assert!(!reload_successful(&counters), "{broken}");
            site.write("web.yml", &good);
            assert_eq!(ask(address, &right).await.status, 200);
            assert!(reload_successful(&counters));
        }
        std::fs::remove_file(site.path("web.yml")).unwrap();
        assert_eq!(ask(address, GET).await.status, 401);
        assert!(!reload_successful(&counters));
    })
    .await;
}

/// Who writes a file in two steps would else stand with an open door between them.
#[tokio::test]
async fn a_running_server_is_never_less_guarded_than_it_was() {
    let site = Site::new();
    let full = MUTUAL.to_owned() + &users("alice", "one");
    let lax = MUTUAL.replace("RequireAndVerify", "Request") + &users("alice", "one");
    for less in [
        "",
        "# nothing yet\n",
        MUTUAL,
        &users("alice", "one"),
        &lax,
        &(TLS.to_owned() + &users("alice", "one")),
    ] {
        let security = site.security(&full);
        let counters = security.counters().clone();
        serving_secured(security, Limits::default(), who, async |address| {
            site.write("web.yml", less);
            let plain = client::connect(address).await.ask(GET).await;
            assert_eq!(plain.status, 400, "TLS is still spoken: {less}");
            let mut stranger = Client::new(site.client(None).connect(address).await.unwrap());
            stranger.try_send(GET).await;
            assert!(!stranger.until_quiet().await.contains("200 OK"), "{less}");
            let certified = site.clients.client("am", &["am"], Validity::Now);
            let mut client = Client::new(site.client(Some(&certified)).connect(address).await.unwrap());
            assert_eq!(client.ask(GET).await.status, 401, "{less}");
            assert!(!reload_successful(&counters), "{less}");
        })
        .await;
    }
}

#[tokio::test]
async fn more_guard_may_be_added_while_it_runs() {
    let site = Site::new();
    let security = site.security("http_server_config: {http2: false}\n");
    assert!(!security.authenticates());
    serving_secured(security, Limits::default(), who, async |address| {
        assert_eq!(ask(address, GET).await.status, 200);
        site.write("web.yml", &users("alice", "one"));
        assert_eq!(ask(address, GET).await.status, 401);
    })
    .await;
    let security: Security = site.security("");
    site.write("web.yml", &users("alice", "one"));
    assert!(security.authenticates(), "who asks is told about the file as it is now");
}
