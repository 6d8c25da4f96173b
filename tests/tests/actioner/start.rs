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
        (&missing, ["No such file", "--policy.file"]),
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
    let socket = storage.path("made/actioner.sock").display().to_string();
    let words = ["run", "--admin.socket", &socket];
    let output = storage.run(&lab, &["timeout", "20"], &words, &["--policy.file", "--storage.path"])?;
    assert!(output.status.code() == Some(1) && !storage.path("made").exists(), "{output:?}");
    Ok(())
}

#[test]
fn it_shows_what_it_costs() -> Result<()> {
    let lab = quiet("cost")?;
    let home = Home::new(&dry());
    let actioner = home.start(&lab)?;
    let metrics = actioner.metrics()?;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().unwrap()
    };
    assert!(value("process_cpu_seconds_total") < 60.0);
    assert!((1e6..1e9).contains(&value("process_resident_memory_bytes")));
    assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
    assert!((5.0..200.0).contains(&value("process_open_fds")));
    assert!(value("process_max_fds") >= value("process_open_fds"));
    assert!(value("process_start_time_seconds") > 1.7e9);
    assert!(metrics.contains("# TYPE process_cpu_seconds_total counter"), "{metrics}");
    Ok(())
}
