//! fail2ban's `banip` through its ipset action, its server a child of ours in the namespace, with files of its own.

use std::{
    fs,
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use tests::{netns::Namespace, programs::workspace, wait::wait_until};

/// Where packaging/neighbours.sh unpacks Debian's packages.
const PACKAGES: &str = "target/servers/neighbours";

/// From `banip` to the address in the set, over so many at once: a time an address.
///
/// # Errors
/// Why it cannot be measured here.
pub(crate) fn an_address(namespace: &Namespace, addresses: &[Ipv4Addr]) -> Result<Duration, String> {
    let packages = workspace().join(PACKAGES);
    let library = packages.join("usr/lib/python3/dist-packages");
    if !library.join("fail2ban").exists() {
        return Err(format!("{} has no fail2ban", packages.display()));
    }
    let home = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = |name: &str| home.path().join(name).display().to_string();
    let copied = Command::new("cp").arg("-r").arg(packages.join("etc/fail2ban")).arg(path("etc")).status();
    copied.map_err(|error| error.to_string())?;
    let jail = format!(
        "[bench]\nenabled = true\nfilter = bench\nlogpath = {}\nbackend = polling\nbantime = 3600\nbanaction = iptables-ipset-proto6-allports\naction = iptables-ipset-proto6-allports[name=bench]\n",
        path("log")
    );
    let files = [
        ("log", ""),
        ("etc/fail2ban.local", "[Definition]\ndbfile = None\n"),
        ("etc/jail.local", jail.as_str()),
        ("etc/jail.d/defaults-debian.conf", ""),
        ("etc/filter.d/bench.conf", "[Definition]\nfailregex = ^never <HOST>$\n"),
    ];
    for (name, text) in files {
        fs::write(path(name), text).map_err(|error| format!("{name}: {error}"))?;
    }
    let words = |program: &str| {
        let mut command = Command::new("/usr/bin/python3");
        command.env("PYTHONPATH", &library).arg(packages.join("usr/bin").join(program));
        command.args(["-c", &path("etc"), "-s", &path("socket"), "-p", &path("pid")]);
        command
    };
    let mut server = words("fail2ban-server");
    server.args(["-f", "--logtarget", &path("server.log"), "start"]);
    let server = namespace.spawn(server).map_err(|error| error.to_string())?;
    let client = |arguments: &[&str]| namespace.run(|| words("fail2ban-client").args(arguments).output());
    wait_until("fail2ban", Duration::from_secs(20), || match client(&["status", "bench"]) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
            + &server.log()),
        Err(error) => Err(error.to_string()),
    })
    .map_err(|error| error.to_string())?;
    let texts: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
    let started = Instant::now();
    let arguments: Vec<&str> =
        ["set", "bench", "banip"].into_iter().chain(texts.iter().map(String::as_str)).collect();
    client(&arguments).map_err(|error| error.to_string())?;
    wait_until("fail2ban's set", Duration::from_secs(60), || {
        let saved = namespace.output(&["ipset", "save"]).unwrap_or_default();
        let there = saved.lines().filter(|line| line.starts_with("add ")).count();
        if there >= addresses.len() {
            Ok(())
        } else {
            Err(format!(
                "{there} of {}: {}",
                addresses.len(),
                fs::read_to_string(path("server.log")).unwrap_or_default()
            ))
        }
    })
    .map_err(|error| error.to_string())?;
    Ok(started.elapsed() / addresses.len() as u32)
}
