//! Sockets in the file system, and addresses that cannot be had.

mod client;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use client::{Client, GET, hello, serving_on};
use tokio::net::UnixStream;
use web::{BindError, Limits, Listen, Request, Server};

fn bind(path: &Path, mode: u32) -> Result<Server, BindError> {
    Server::bind(&[Listen::Unix { path: path.to_owned(), mode }], Limits::default())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("the socket is there").permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_ours_is_removed_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = bind(&path, 0o600).unwrap();
    serving_on(server, hello, async || {
        let mut client = Client::new(UnixStream::connect(&path).await.unwrap());
        assert_eq!(client.ask(GET).await.status, 200);
    })
    .await;
    assert!(!path.exists());
}

#[tokio::test]
async fn the_mode_is_the_one_asked_for_whatever_the_umask() {
    let directory = tempfile::tempdir().unwrap();
    for asked in [0o600, 0o660, 0o666] {
        let path = directory.path().join(format!("{asked:o}.sock"));
        let _server = bind(&path, asked).unwrap();
        assert_eq!(mode(&path), asked);
    }
}

#[tokio::test]
async fn there_is_no_moment_in_which_others_could_connect() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                seen |= fs::symlink_metadata(&path).map_or(0, |file| file.permissions().mode() & 0o7777);
            }
            seen
        });
        for _ in 0..1000 {
            drop(bind(&path, 0o600).unwrap());
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(format!("{:o}", watching.join().unwrap()), "600");
    });
}

#[tokio::test]
async fn a_living_socket_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let living = bind(&path, 0o600).unwrap();
    let error = bind(&path, 0o600).unwrap_err();
    assert!(matches!(error, BindError::SocketInUse(_)), "{error}");
    assert!(error.to_string().contains("another process listens there"), "{error}");
    serving_on(living, hello, async || {
        let mut client = Client::new(UnixStream::connect(&path).await.unwrap());
        assert_eq!(client.ask(GET).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_a_socket_is_never_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "data").unwrap();
    let error = bind(&path, 0o600).unwrap_err().to_string();
    assert!(error.contains("precious: that is not a socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

#[tokio::test]
async fn a_socket_that_took_the_place_of_ours_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let server = bind(&path, 0o600).unwrap();
    fs::rename(&path, directory.path().join("aside")).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
}

#[tokio::test]
async fn a_missing_directory_is_named_with_what_to_do() {
    let error = bind(Path::new("/nonexistent/web.sock"), 0o600).unwrap_err().to_string();
    assert!(error.contains("cannot listen on /nonexistent/web.sock: No such file or directory"), "{error}");
    assert!(error.contains("its directory must exist"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_flag_that_chooses_another() {
    let holder = Server::bind(&client::loopback(), Limits::default()).unwrap();
    let address = holder.addresses()[0];
    let error = Server::bind(&[Listen::Tcp(address)], Limits::default()).unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen on {address}: the port is in use")), "{error}");
    assert!(error.contains("--web.listen-address"), "{error}");
    let elsewhere = Listen::Tcp("192.0.2.1:9".parse().unwrap());
    let error = Server::bind(&[elsewhere], Limits::default()).unwrap_err().to_string();
    assert!(error.contains("cannot listen on 192.0.2.1:9: Cannot assign requested address"), "{error}");
}

/// Behind the file's mode are no strangers, but programs that forget to close: they keep no order out.
#[tokio::test]
async fn a_full_unix_socket_lets_the_longest_idle_go_and_nobody_who_waits_for_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let listen = Listen::Unix { path: path.clone(), mode: 0o600 };
    let server = Server::bind(&[listen], Limits { max_connections: 3, ..Limits::default() }).unwrap();
    let (release, released) = tokio::sync::watch::channel(false);
    let (begins, mut begun) = tokio::sync::watch::channel(0);
    let handler = move |request: Request| {
        let (mut released, begins) = (released.clone(), begins.clone());
        async move {
            if request.path() == "/slow" {
                begins.send_modify(|begun| *begun += 1);
                released.wait_for(|released| *released).await.unwrap();
            }
            hello(request).await
        }
    };
    let connect = async || Client::new(UnixStream::connect(&path).await.unwrap());
    serving_on(server, handler, async || {
        let mut slow = async |wanted: i32| {
            let mut one = connect().await;
            one.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
            begun.wait_for(|begun| *begun == wanted).await.unwrap();
            one
        };
        let mut works = slow(1).await;
        let (mut silent, mut served) = (connect().await, connect().await);
        assert_eq!(served.ask(GET).await.status, 200);
        let mut order = connect().await;
        assert_eq!(order.ask(GET).await.status, 200);
        assert_eq!(silent.rest().await, "", "it has sent nothing for longest");
        assert_eq!(served.ask(GET).await.status, 200);
        for _ in 0..100 {
            assert_eq!(connect().await.ask(GET).await.status, 200);
        }
        order.skip_rest().await;

        let (mut second, mut third) = (slow(2).await, slow(3).await);
        let mut last = connect().await;
        last.try_send(GET).await;
        assert_eq!(last.answer().await.status, 503, "all three wait for answers");
        release.send(true).unwrap();
        for one in [&mut works, &mut second, &mut third] {
            assert_eq!(one.answer().await.body, "GET /slow\n");
        }
    })
    .await;
}
