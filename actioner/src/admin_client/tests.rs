use super::*;
use crate::exit::Exit;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

/// A server that answers one request, and hands over what it was asked.
fn serve(answer: &'static str) -> (tempfile::TempDir, Client, thread::JoinHandle<String>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut some = [0; 4096];
        while !complete(&request) {
            let read = stream.read(&mut some).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&some[..read]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (directory, Client::new(&socket), asked)
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

fn trouble(answer: &'static str) -> Trouble {
    let (_directory, client, asked) = serve(answer);
    let trouble = client.get("/api/v1/bans").unwrap_err();
    asked.join().unwrap();
    trouble
}

#[test]
fn an_order_carries_its_body_and_who_gave_it() {
    let (_directory, client, asked) = serve("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\": 1}");
    let answer = client.post("/api/v1/pause", &serde_json::json!({"for_seconds": 7200})).unwrap();
    assert_eq!(answer["a"], 1);
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("POST /api/v1/pause HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("x-conntrack-guard-actor: ") && asked.ends_with("{\"for_seconds\":7200}"),
        "{asked}"
    );
}

#[test]
fn each_refusal_has_its_exit_status_and_keeps_its_sentence() {
    let refused =
        trouble("HTTP/1.1 409 Conflict\r\ncontent-length: 29\r\n\r\n{\"error\": \"127.0.0.1 is own\"}");
    assert_eq!(
        (refused.exit(), refused.to_string()),
        (Exit::Refused, "refused: 127.0.0.1 is own".to_owned())
    );
    let absent = trouble("HTTP/1.1 404 Not Found\r\ncontent-length: 22\r\n\r\n{\"error\": \"not there\"}");
    assert_eq!((absent.exit(), absent.to_string()), (Exit::NotFound, "not there".to_owned()));
    let old = trouble("HTTP/1.1 404 Not Found\r\ncontent-length: 12\r\n\r\nno such page");
    assert_eq!(old.exit(), Exit::Failed);
    assert!(old.to_string().contains("another version"), "{old}");
    let failed = trouble("HTTP/1.1 500 Oh\r\ncontent-length: 19\r\n\r\n{\"error\": \"kernel\"}");
    assert_eq!((failed.exit(), failed.to_string()), (Exit::Failed, "kernel".to_owned()));
}

#[test]
fn silence_and_absence_are_told_apart_and_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let absent = Client::new(&socket).get("/").unwrap_err();
    assert_eq!(absent.exit(), Exit::NoActioner);
    assert!(absent.to_string().contains("systemctl start conntrack-actioner"), "{absent}");
    let listener = UnixListener::bind(&socket).unwrap();
    let silent = Client::new(&socket).patient_for(Duration::from_millis(50)).get("/").unwrap_err();
    assert_eq!(silent.exit(), Exit::NoActioner);
    assert!(silent.to_string().contains("50ms") && silent.to_string().contains("panic"), "{silent}");
    drop(listener);
    let dead = Client::new(&socket).get("/").unwrap_err();
    assert!(dead.to_string().contains("ended without cleaning up"), "{dead}");
}
