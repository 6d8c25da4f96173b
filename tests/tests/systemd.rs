//! What a service manager sees of our programs: a notification socket and sockets handed over, as systemd does both.

use std::{
    fs::{self, File},
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    Result,
    http::{Server, get},
    netns::Namespace,
    programs::{Program, workspace},
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(20);
/// An address that is given where systemd hands sockets over.
const UNHEARD: &str = "127.0.0.1:9";

struct Service {
    child: Child,
    told: UnixDatagram,
    heard: Vec<String>,
    log: PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    /// Started with the sockets as descriptors 3 and 4, and their number in LISTEN_FDS.
    fn start(
        lab: &Namespace,
        program: Program,
        directory: &Path,
        web: TcpListener,
        admin: UnixListener,
        arguments: &[&str],
    ) -> Result<Service> {
        let socket = directory.join("notify");
        let told = UnixDatagram::bind(&socket).unwrap();
        told.set_nonblocking(true).unwrap();
        let script = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:admin exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(program.path()?).args(arguments);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "300000");
        command.stdin(Stdio::from(OwnedFd::from(web))).stdout(Stdio::from(OwnedFd::from(admin)));
        let log = directory.join("log");
        command.stderr(File::create(&log).unwrap());
        let child = lab.run(move || command.spawn()).unwrap();
        Ok(Service { child, told, heard: Vec::new(), log })
    }

    /// Waits for a message that holds `word`, after those heard before.
    fn hears(&mut self, word: &str) -> Result<String> {
        wait_until(&format!("{word} on the notification socket"), SOON, || {
            let mut buffer = [0; 4096];
            while let Ok(length) = self.told.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
                self.heard.push(message.clone());
                if message.lines().any(|line| line.starts_with(word)) {
                    return Ok(message);
                }
            }
            Err(format!("{:?}, ended: {:?}\n{}", self.heard, self.child.try_wait(), self.log()))
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// An address that was given beside systemd's sockets, and that nobody listens on.
    fn warned_of_the_address(&self, given: &str) {
        let warning = self.log().lines().any(|line| {
            ["level=warn", "--web.listen-address is not looked at", given]
                .iter()
                .all(|word| line.contains(word))
        });
        assert!(warning, "{}", self.log());
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Pings go on, and after SIGTERM it says so and ends well.
    fn lives_and_stops(mut self) -> Result<()> {
        self.hears("WATCHDOG=1")?;
        self.hears("WATCHDOG=1")?;
        self.signal(Signal::SIGTERM);
        self.hears("STOPPING=1")?;
        let ended = wait_until("its end", SOON, || self.child.try_wait().unwrap().ok_or("it runs"))?;
        assert!(ended.success(), "{ended}");
        Ok(())
    }
}

/// A web socket and an admin socket, as a .socket unit opens them.
fn sockets(lab: &Namespace, admin: &Path) -> (TcpListener, u16, UnixListener) {
    let web = lab.run(|| TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = web.local_addr().unwrap().port();
    (web, port, UnixListener::bind(admin).unwrap())
}

fn answers(lab: &Namespace, port: u16, admin: &Path) -> Result<()> {
    let tcp = Server::Tcp(([127, 0, 0, 1], port).into());
    assert_eq!(lab.run(|| get(&tcp, "/-/ready", &[]))?.status, 200);
    assert_eq!(get(&Server::Unix(admin.to_owned()), "/-/ready", &[])?.status, 200);
    Ok(())
}

#[test]
fn the_actioner_takes_sockets_and_says_ready_reloading_alive_and_stopping() -> Result<()> {
    let lab = Namespace::new("notified")?;
    lab.track_connections()?;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (web, port, admin) = sockets(&lab, &path("handed.sock"));
    let policy = workspace().join("packaging/policy.yaml").display().to_string();
    let (storage, unused) =
        (path("storage").display().to_string(), path("unused.sock").display().to_string());
    let arguments = [
        "--policy.file",
        &policy,
        "--storage.path",
        &storage,
        "--admin.socket",
        &unused,
        "--web.listen-address",
        UNHEARD,
    ];
    let mut service = Service::start(&lab, Program::Actioner, directory.path(), web, admin, &arguments)?;
    let ready = service.hears("READY=1")?;
    assert!(ready.contains("STATUS=dry run: nothing is changed; 0 bans; "), "a line for people: {ready}");
    service.warned_of_the_address(UNHEARD);
    answers(&lab, port, &path("handed.sock"))?;
    assert!(!path("unused.sock").exists(), "the socket that was handed over stands in for it");

    service.signal(Signal::SIGHUP);
    assert!(service.hears("RELOADING=1")?.contains("MONOTONIC_USEC="), "Type=notify-reload needs it");
    assert!(service.hears("READY=1")?.contains("STATUS=dry run"), "and the line with the reload's end");

    let paused = Program::Actioner.path()?;
    let admin = path("handed.sock");
    let paused = Command::new(paused).args(["pause", "--admin.socket"]).arg(admin).output().unwrap();
    assert!(paused.status.success(), "{paused:?}\n{}", service.log());
    let status = service.hears("STATUS=PAUSED by")?;
    assert!(status.contains("no rule acts until `conntrack-actioner resume`"), "{status}");
    service.lives_and_stops()?;
    assert!(path("handed.sock").exists(), "systemd's socket is not ours to remove");
    Ok(())
}

#[test]
fn the_exporter_takes_sockets_and_says_ready_alive_and_stopping() -> Result<()> {
    let lab = Namespace::new("notified2")?;
    lab.track_connections()?;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("handed.sock");
    let (web, port, admin) = sockets(&lab, &socket);
    let arguments = ["--web.listen-address", UNHEARD];
    let mut service = Service::start(&lab, Program::Exporter, directory.path(), web, admin, &arguments)?;
    service.hears("READY=1")?;
    service.warned_of_the_address(UNHEARD);
    answers(&lab, port, &socket)?;
    service.lives_and_stops()
}
