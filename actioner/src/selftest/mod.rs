//! `selftest`: proves in a network namespace of its own, on this very kernel, that what we do works here, and says what is missing.
//!
//! Each check does what the running actioner does, by the same code, and looks at what the kernel made of it. The namespace
//! goes with the thread that made it: nothing of the host's is touched.

mod checks;
mod scratch;

use crate::command::Said;
use crate::exit::Exit;
use nix::sched::{CloneFlags, unshare};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::thread;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `ban`, `delete`, …
    pub name: &'static str,
    /// Whether it works here.
    pub ok: bool,
    /// What was seen.
    pub said: String,
    /// What to install or change, where it does not work.
    pub advice: Option<&'static str>,
}

impl Check {
    fn of(name: &'static str, found: Result<String, String>, advice: &'static str) -> Check {
        match found {
            Ok(said) => Check { name, ok: true, said, advice: None },
            Err(said) => Check { name, ok: false, said, advice: Some(advice) },
        }
    }
}

/// The command. `run_directory` is where the admin socket is made.
pub fn selftest(run_directory: Option<&Path>, json: bool) -> Said {
    let mut checks = in_a_namespace();
    checks.push(Check::of(
        "unix-socket",
        checks::unix_socket(run_directory),
        "make its directory writable, or choose another with --admin.socket",
    ));
    said(&checks, json)
}

fn in_a_namespace() -> Vec<Check> {
    let work = || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => checks::all(),
        Err(error) => vec![Check::of(
            "namespace",
            Err(format!("a network namespace cannot be made: {error}")),
            "run it as root (CAP_SYS_ADMIN), on a kernel with CONFIG_NET_NS; in a container, on the host",
        )],
    };
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn said(checks: &[Check], json: bool) -> Said {
    let failed = checks.iter().filter(|check| !check.ok).count();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut said = if json {
        Said::json(&json!({"ok": failed == 0, "kernel": kernel, "checks": checks}))
    } else {
        let mut text = String::new();
        for Check { name, ok, said, advice } in checks {
            let word = if *ok { "ok" } else { "MISSING" };
            let _ = writeln!(text, "{word:<8} {name:<12} {said}");
            if let Some(advice) = advice {
                let _ = writeln!(text, "{:21} -> {advice}", "");
            }
        }
        Said::done(text)
    };
    if failed > 0 {
        said.exit = Exit::Failed;
        said.warning = Some(format!("{failed} of {} checks failed on kernel {kernel}", checks.len()));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_to_do_and_fails() {
        let checks = [
            Check::of("ban", Ok("packets stop".to_owned()), "never shown"),
            Check::of("delete", Err("no such table".to_owned()), "modprobe nf_conntrack_netlink"),
        ];
        let page = said(&checks, false);
        assert_eq!(page.exit, Exit::Failed);
        assert!(page.text.contains("MISSING  delete       no such table\n"), "{}", page.text);
        assert!(page.text.contains("-> modprobe") && !page.text.contains("never shown"), "{}", page.text);
        assert_eq!(said(&checks[..1], false).exit, Exit::Done);
        let json = said(&checks, true);
        assert!(json.text.contains("\"ok\": false") && json.exit == Exit::Failed);
    }
}
