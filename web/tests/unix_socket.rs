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
use web::{BindError, Limits, Listen, Server};

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
