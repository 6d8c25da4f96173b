//! Starting without what it needs.

use tests::Result;

use crate::lab::{Home, POLICY, dry, quiet};

const ALL: [&str; 3] = ["--policy.file", "--storage.path", "--admin.socket"];
const WITHOUT_NET_ADMIN: [&str; 6] =
    ["timeout", "20", "setpriv", "--bounding-set", "-net_admin", "--inh-caps=-net_admin"];

#[test]
fn without_the_capability_it_says_so_at_once_in_both_modes() -> Result<()> {
    let lab = quiet("unable")?;
    for policy in [POLICY.to_owned(), dry()] {
        let output = Home::new(&policy).run(&lab, &WITHOUT_NET_ADMIN, &["run"], &ALL)?;
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("CAP_NET_ADMIN"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    Ok(())
}

#[test]
fn what_is_wrong_with_the_start_is_a_sentence() -> Result<()> {
    let lab = quiet("start")?;
    let missing = Home::new(POLICY);
    std::fs::remove_file(missing.path("policy.yaml")).unwrap();
    let broken = Home::new("rules: 7\nrulez: []\n");
    let storage = Home::new(POLICY);
    std::fs::write(storage.path("storage"), "a file in its place").unwrap();
    let socket = Home::new(POLICY);
    std::fs::write(socket.path("admin.sock"), "a file in its place").unwrap();
    for (home, words) in [
        (&missing, ["policy.yaml", "No such file"]),
        (&broken, ["rulez", "never_ban"]),
        (&storage, ["audit log", "--storage.path"]),
        (&socket, ["admin.sock", "not a socket"]),
    ] {
        let output = home.run(&lab, &["timeout", "20"], &["run"], &ALL)?;
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
    assert_eq!(crate::lab::sets(&lab)?, [""; 0], "a start that fails leaves nothing behind");
    Ok(())
}
