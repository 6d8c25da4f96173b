//! The firewall's programs: the one place where programs are started.

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    process::{Command, Stdio},
};

use super::FirewallError;

/// Runs a program to its end in the calling thread's network namespace and returns what it printed.
///
/// # Errors
/// [`FirewallError::ToolMissing`], or what it said on its standard error.
pub(crate) fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<String, FirewallError> {
    let failed = |reason: String| {
        let input = if input.is_empty() { String::new() } else { format!(" <<< {input:?}") };
        FirewallError::Tool { command: format!("{program} {}{input}", arguments.join(" ")), reason }
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => FirewallError::ToolMissing { program },
            _ => failed(format!("cannot be started: {error}")),
        })?;
    // A program that does not read its input says why by itself.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output =
        child.wait_with_output().map_err(|error| failed(format!("cannot be waited for: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}: {}", output.status, stderr.trim())))
}

/// Services and `su` often have no `sbin` in theirs.
fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_says_what_to_install() {
        let error = run("iptables-which-nobody-has", &[], "").unwrap_err();
        assert_eq!(error.to_string(), "iptables-which-nobody-has is not installed: apt-get install iptables");
    }

    #[test]
    fn a_programs_own_words_are_kept() {
        let error = run("sh", &["-c", "echo it broke >&2; exit 3"], "").unwrap_err().to_string();
        assert!(error.contains("it broke") && error.contains("exit status: 3"), "{error}");
    }
}
