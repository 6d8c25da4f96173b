//! Passwords and tokens: who shows the right one is heard, and nobody else, whatever he sends.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod client;
mod secure;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use client::{Client, GET, ask, connect, serving_on};
use secure::{MUTUAL, Site, basic, get_as, refused, serving_secured, users, who};
use tests::certificates::Validity;
use tokio::net::UnixStream;
use web::{Limits, Listen, Request, Response, Security, Server, StatusCode};

const TOKEN: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";

fn with_token(site: &Site, security: Security) -> Security {
    site.write("token", &format!("{TOKEN}\n"));
    security.with_bearer_token("--web.bearer-token-file", &site.path("token")).unwrap()
}

#[tokio::test]
async fn a_user_with_his_password_is_heard_and_named() {
    let site = Site::new();
    let security = site.security(&users("alice", "se:cret ü"));
    assert!(security.authenticates());
    let counters = security.counters().clone();
    serving_secured(security, Limits::default(), who, async |address| {
        for _ in 0..2 {
            let answer = ask(address, &get_as(&basic("alice", "se:cret ü"))).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "Some(User(\"alice\"))"));
        }
        let shouted = get_as(&basic("alice", "se:cret ü").replace("Basic", "BASIC"));
        assert_eq!(ask(address, &shouted).await.status, 200, "the scheme's case does not matter");

        let bare = ask(address, GET).await;
        assert_eq!((bare.status, bare.body.as_str()), (401, "Unauthorized\n"));
        assert!(bare.head.contains("www-authenticate: basic realm=\"conntrack-guard\"\r\n"), "{}", bare.head);
        let wrong = [
            basic("alice", "se:cret"),
            basic("alice", ""),
            basic("Alice", "se:cret ü"),
            basic("bob", "fakepassword"),
            basic("", ""),
            "Basic".to_owned(),
            "Basic ".to_owned(),
            "Basic !!!!".to_owned(),
            "Basic YWxpY2U=".to_owned(),
            format!("Bearer {TOKEN}"),
            "Digest username=alice".to_owned(),
            format!("Basic {}", "QUFB".repeat(3000)),
        ];
        for wrong in &wrong {
            assert_eq!(ask(address, &get_as(wrong)).await.status, 401, "{wrong}");
        }
    })
    .await;
    assert_eq!(refused(&counters, "no_credentials"), 1);
    assert_eq!(refused(&counters, "wrong_credentials"), 12);
}

#[tokio::test]
async fn the_token_is_one_more_way_in() {
    let site = Site::new();
    for (security, challenge) in [
        (with_token(&site, Security::default()), "www-authenticate: bearer\r\n"),
        (
            with_token(&site, site.security(&users("alice", "secret"))),
            "realm=\"conntrack-guard\", bearer\r\n",
        ),
    ] {
        assert!(security.authenticates() && !security.encrypts());
        let both = challenge.contains("realm");
        serving_secured(security, Limits::default(), who, async |address| {
            let right = ask(address, &get_as(&format!("Bearer {TOKEN}"))).await;
            assert_eq!((right.status, right.body.as_str()), (200, "Some(Bearer)"));
            let bare = ask(address, GET).await;
            assert_eq!(bare.status, 401);
            assert!(bare.head.contains(challenge), "{}", bare.head);
            for wrong in [
                format!("Bearer {TOKEN}0"),
                format!("Bearer {}", &TOKEN[1..]),
                "Bearer ".to_owned(),
                format!("Token {TOKEN}"),
            ] {
                assert_eq!(ask(address, &get_as(&wrong)).await.status, 401, "{wrong}");
            }
            let user = ask(address, &get_as(&basic("alice", "secret"))).await.status;
            assert_eq!(user, if both { 200 } else { 401 });
        })
        .await;
    }
}

#[tokio::test]
async fn whoever_is_not_known_gets_no_byte_of_his_body_read_and_no_handler_runs() {
    let site = Site::new();
    let (runs, told) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
    let tell = Rc::clone(&told);
    let security = site
        .security(&users("alice", "secret"))
        .on_refusal(move |path, status| tell.borrow_mut().push((path.to_owned(), status.as_u16())));
    let counted = Rc::clone(&runs);
    let handler = move |_: Request| {
        counted.set(counted.get() + 1);
        async { Response::text(StatusCode::OK, "") }
    };
    serving_secured(security, Limits::default(), handler, async |address| {
        let post = |length: usize, more: &str| {
            format!("POST /webhook?x HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{more}\r\n")
        };
        let mut careful = connect(address).await;
        careful.send(&post(5, "Expect: 100-continue\r\n")).await;
        assert!(careful.head().await.starts_with("http/1.1 401"), "it is not told to go on");
        let mut eager = connect(address).await;
        eager.send(&post(10_000_000, "")).await;
        eager.send(&"x".repeat(10_000_000)).await;
        assert_eq!(eager.answer().await.status, 401, "and is not taken back by a reset");
    })
    .await;
    assert_eq!(runs.get(), 0);
    assert_eq!(*told.borrow(), [("/webhook".to_owned(), 401), ("/webhook".to_owned(), 401)]);
}

/// Each connection is one of `max_connections`: with one bare request each, strangers could shut the port for minutes.
#[tokio::test]
async fn who_was_never_let_in_does_not_keep_his_connection() {
    let site = Site::new();
    let security = site.security(&users("alice", "secret"));
    let limits = Limits { max_connections: 1, ..Limits::default() };
    serving_secured(security, limits, who, async |address| {
        let mut stranger = connect(address).await;
        let answer = stranger.ask(GET).await;
        assert_eq!(answer.status, 401);
        assert!(answer.head.contains("connection: close\r\n"), "{}", answer.head);
        assert_eq!(stranger.rest().await, "");

        let known = get_as(&basic("alice", "secret"));
        let mut alice = loop {
            let mut client = connect(address).await;
            client.try_send(&known).await;
            // 503 as long as the stranger's slot is not yet free.
            if client.answer().await.status == 200 {
                break client;
            }
        };
        let erring = alice.ask(GET).await;
        assert_eq!(erring.status, 401);
        assert!(
            !erring.head.contains("connection: close"),
            "a slip costs nobody his connection: {}",
            erring.head
        );
        assert_eq!(alice.ask(&known).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_certificate_does_not_replace_the_password_where_both_are_asked_for() {
    let site = Site::new();
    let security = site.security(&(MUTUAL.to_owned() + &users("alice", "secret")));
    serving_secured(security, Limits::default(), who, async |address| {
        let certified = site.clients.client("am", &["am.example"], Validity::Now);
        let connected = async || Client::new(site.client(Some(&certified)).connect(address).await.unwrap());
        assert_eq!(connected().await.ask(GET).await.status, 401);
        assert_eq!(
            connected().await.ask(&get_as(&basic("alice", "secret"))).await.body,
            "Some(User(\"alice\"))"
        );
    })
    .await;
}

#[tokio::test]
async fn the_unix_socket_asks_for_nothing_and_knows_its_peer() {
    let site = Site::new();
    let path = site.path("sock");
    let listen = [Listen::Unix { path: path.clone(), mode: 0o600 }];
    let security = site.security(&(MUTUAL.to_owned() + &users("alice", "secret")));
    let server = Server::bind(&listen, Limits::default()).unwrap().secured(Rc::new(security));
    let handler = |request: Request| async move {
        Response::text(StatusCode::OK, format!("{} {:?}", request.peer(), request.authenticated()))
    };
    serving_on(server, handler, async || {
        let mut client = Client::new(UnixStream::connect(&path).await.unwrap());
        let me = format!("unix uid {} pid {} None", rustix::process::getuid().as_raw(), std::process::id());
        assert_eq!(client.ask(GET).await.body, me);
    })
    .await;
}

#[tokio::test]
async fn headers_and_rate_limit_are_those_of_the_configuration() {
    let site = Site::new();
    let config = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    Strict-Transport-Security: max-age=1\n    \
                  Content-Security-Policy: ''\nrate_limit: {interval: 1h, burst: 3}\n";
    let security = site.security(&(config.to_owned() + &users("alice", "secret")));
    let counters = security.counters().clone();
    serving_secured(security, Limits::default(), who, async |address| {
        let known = get_as(&basic("alice", "secret"));
        for (request, status) in [(known.as_str(), 200), (GET, 401), (&known, 200), (&known, 429)] {
            let answer = ask(address, request).await;
            assert_eq!(answer.status, status);
            assert!(answer.head.contains("x-frame-options: deny\r\n"), "{}", answer.head);
            assert!(answer.head.contains("strict-transport-security: max-age=1\r\n"), "{}", answer.head);
            assert!(!answer.head.contains("content-security-policy"), "{}", answer.head);
        }
    })
    .await;
    assert_eq!(refused(&counters, "rate_limited"), 1);
}

#[test]
fn a_token_file_that_holds_none_is_an_error_that_does_not_show_it() {
    let site = Site::new();
    let open = |path: &std::path::Path| {
        Security::default().with_bearer_token("--web.bearer-token-file", path).map(drop)
    };
    for (text, what) in [
        ("", "empty"),
        (" \n", "empty"),
        ("hush hush", "one line"),
        ("hush\nhush", "one line"),
        ("hüsh", "ASCII"),
    ] {
        site.write("token", text);
        let error = open(&site.path("token")).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("--web.bearer-token-file"), "{error}");
        assert!(!error.contains("hush") && !error.contains("hüsh"), "{error}");
    }
    assert!(open(&site.path("absent")).unwrap_err().to_string().contains("No such file"));
}

/// bcrypt looks at 72 bytes; what is longer costs a check like any other, and what is longer than a head may be costs none.
#[tokio::test]
async fn a_password_of_a_megabyte_ends_with_its_head_and_a_long_one_is_wrong() {
    let site = Site::new();
    let security = site.security(&users("alice", "secret"));
    let counters = security.counters().clone();
    serving_secured(security, Limits::default(), who, async |address| {
        for (password, status) in
            [("x".repeat(1 << 20), 431), ("x".repeat(10_000), 401), ("\0".repeat(72), 401)]
        {
            let mut client = connect(address).await;
            client.try_send(&get_as(&basic("alice", &password))).await;
            assert_eq!(client.answer().await.status, status, "{} bytes", password.len());
        }
        assert_eq!(ask(address, &get_as(&basic("alice", "secret"))).await.status, 200);
    })
    .await;
    assert_eq!(refused(&counters, "wrong_credentials"), 2);
}
