//! Our own programs, built once and started in a namespace.

use std::{
    env, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use crate::{
    Failure, Result,
    failure::Tried,
    http::{self, Response, Server},
    netns::Namespace,
    process::Process,
    wait::wait_until,
};

const READY: Duration = Duration::from_secs(60);

/// A program of this workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `conntrack-exporter`.
    Exporter,
    /// `conntrack-actioner`.
    Actioner,
}

impl Program {
    /// Its file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exporter => "conntrack-exporter",
            Self::Actioner => "conntrack-actioner",
        }
    }

    /// Where it listens unless told otherwise, as DESIGN.md says.
    pub fn default_address(self) -> SocketAddr {
        let port = if self == Self::Exporter { 10048 } else { 10049 };
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// The executable, built from the present sources with the profile of the running test; or, where `PROGRAMS` names a directory,
    /// the one that lies there.
    ///
    /// # Errors
    /// When the build fails; cargo's words are in the failure.
    pub fn path(self) -> Result<PathBuf> {
        Ok(built()?.join(self.name()))
    }

    /// Starts it and waits until it says that it is ready.
    ///
    /// `address` is where the arguments make it listen.
    ///
    /// # Errors
    /// When it ends by itself or is not ready within a minute.
    pub fn start(
        self,
        namespace: &Namespace,
        address: impl Into<Server>,
        arguments: &[&str],
    ) -> Result<Running> {
        let mut command = Command::new(self.path()?);
        command.args(arguments);
        Running::start(namespace, command, address.into())
    }
}

/// A server that has said it is ready.
#[derive(Debug)]
pub struct Running {
    /// The program.
    pub process: Process,
    /// Where it serves HTTP.
    pub address: Server,
}

impl Running {
    /// Starts `command` and waits until `/-/ready` answers 200.
    ///
    /// # Errors
    /// When it ends by itself or is not ready within a minute; the failure has its output.
    pub fn start(namespace: &Namespace, command: Command, address: Server) -> Result<Self> {
        Self::start_until(namespace, command, address, "/-/ready")
    }

    /// Starts `command` and waits until `page` answers 200.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_until(namespace: &Namespace, command: Command, address: Server, page: &str) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let process = namespace.spawn(command)?;
        let mut running = Self { process, address };
        let what = format!("{name} to be ready at {:?}", running.address);
        wait_until(&what, READY, || {
            if let Err(ended) = running.process.running() {
                return Ok(Err(ended));
            }
            match running.get(namespace, page) {
                Ok(answer) if answer.status == 200 => Ok(Ok(())),
                Ok(answer) => {
                    Err(format!("status {}: {}\n{}", answer.status, answer.text(), running.process.log()))
                }
                Err(failure) => Err(format!("{failure}\n{}", running.process.log())),
            }
        })??;
        Ok(running)
    }

    /// `GET path`, from inside the namespace.
    ///
    /// # Errors
    /// As [`http::get`].
    pub fn get(&self, namespace: &Namespace, path: &str) -> Result<Response> {
        namespace.run(|| http::get(&self.address, path, &[]))
    }

    /// `POST path`, from inside the namespace.
    ///
    /// # Errors
    /// As [`http::post`].
    pub fn post(&self, namespace: &Namespace, path: &str, headers: &[&str], body: &[u8]) -> Result<Response> {
        namespace.run(|| http::post(&self.address, path, headers, body))
    }
}

/// The repository's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the member lies in the workspace")
}

/// Whether the programs are as they are released: somebody has built them so and named them in `PROGRAMS` (the Makefile does for
/// what takes long), or this is a release build itself. What is promised of speed is promised of these.
pub fn as_released() -> bool {
    env::var_os("PROGRAMS").is_some() || !cfg!(debug_assertions)
}

/// The directory of the programs, which one build a process has brought up to date.
fn built() -> Result<&'static Path> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(|| build().map_err(|failure| failure.to_string())) {
        Ok(directory) => Ok(directory),
        Err(failure) => Err(Failure::answer("building the workspace's programs", failure)),
    }
}

fn build() -> Result<PathBuf> {
    if let Some(directory) = env::var_os("PROGRAMS") {
        return Ok(directory.into());
    }
    let own = env::current_exe().tried(|| "the path of this executable")?;
    // A test lies in TARGET/PROFILE/deps, the demo in TARGET/PROFILE.
    let directory = own
        .ancestors()
        .skip(1)
        .find(|ancestor| ancestor.file_name().is_some_and(|name| name != "deps"))
        .ok_or_else(|| io::Error::other("no target directory above it"))
        .tried(|| own.display().to_string())?;
    let target = directory.parent().expect("a profile's directory lies in the target directory");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).env("CARGO_TARGET_DIR", target).args([
        "build",
        "--quiet",
        "--profile",
        profile,
    ]);
    for program in [Program::Exporter, Program::Actioner] {
        cargo.args(["-p", program.name()]);
    }
    let output = cargo.output().tried(|| format!("starting {cargo:?}"))?;
    if output.status.success() {
        return Ok(directory.to_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::Command { command: format!("{cargo:?}"), status: output.status, stderr })
}
