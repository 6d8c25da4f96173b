//! Everything full at once: both ports and the unix socket, in a process that may have 1,024 descriptors.

use std::{net::TcpStream, os::unix::net::UnixStream};

use tests::{Result, http::Server, programs::Program};

use super::many_descriptors;
use crate::{
    kept::banned,
    lab::{HIM, Home, POLICY, count, fill, message, quiet},
};

#[test]
fn where_every_door_is_full_an_alert_is_acted_on_and_orders_get_through() -> Result<()> {
    many_descriptors();
    let lab = quiet("full")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    // As systemd and most shells have it; here there is no more to be had either.
    let actioner = home.start_on(&lab, "ulimit -n 1024")?;
    assert!(actioner.log().contains("too few file descriptors"), "{}", actioner.log());
    let Server::Unix(path) = actioner.socket.clone() else { panic!("it has a socket") };
    let address = Program::Actioner.default_address();
    let _strangers: Vec<_> = lab.run(|| (0..600).map(|_| TcpStream::connect(address).unwrap()).collect());
    let _forgotten: Vec<_> = (0..600).map(|_| UnixStream::connect(&path).unwrap()).collect();

    let alert = message(&[actioner.about(HIM)]);
    let answer = actioner.post_over_socket(&alert)?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(count(&answer, "banned"), 1, "{answer}\n{}", actioner.log());
    let order = |words: &[&str], flags: &[&str]| {
        let output = home.run(&lab, &[], words, flags).unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        said
    };
    let said = order(&["ban", "198.51.100.9", "--for", "1h", "--reason", "seen"], &["--admin.socket"]);
    assert_eq!(banned(&lab), ["198.51.100.66", "198.51.100.9"], "{said}");
    let said = order(&["panic"], &["--policy.file", "--storage.path", "--admin.socket"]);
    assert!(said.contains("the running actioner:"), "it heard it itself: {said}");
    assert!(banned(&lab).is_empty());
    Ok(())
}
