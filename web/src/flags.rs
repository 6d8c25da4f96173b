//! The `--web.*` flags, named and spelled as node_exporter's.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::security::SecurityError;
use crate::systemd::Socket;
use crate::{Listen, Security};

/// The `--web.*` flags; a program flattens them into its own.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)] // clap names the group after the struct: log::Flags has the same name
pub struct Flags {
    /// Address to listen on: :PORT (all addresses) or ADDRESS:PORT, IPv6 in brackets; may be given several times
    #[arg(long = "web.listen-address", value_name = "ADDRESS")]
    pub listen_address: Vec<String>,

    /// Path under which metrics are served
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics")]
    pub telemetry_path: String,

    /// File that turns on TLS and authentication, in the format of Prometheus' exporter-toolkit; read again when it changes
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Scrapes answered at the same time, above which they get 503; 0 means no limit
    #[arg(long = "web.max-requests", value_name = "COUNT", default_value_t = 40)]
    pub max_requests: usize,
}

/// A `--web.*` flag that cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// An address that is neither `:PORT` nor `ADDRESS:PORT`, or a name that does not resolve.
    #[error(
        "--web.listen-address {address:?}: {reason}; write :PORT for all addresses, 127.0.0.1:PORT or [::1]:PORT"
    )]
    Address {
        /// The value as it was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A telemetry path that no request could name.
    #[error("--web.telemetry-path {0:?} must start with a slash and hold no '?' or '#', as /metrics does")]
    TelemetryPath(String),
}

impl Flags {
    /// Where to listen: the addresses given, else `default`, written in the same way.
    ///
    /// Names are resolved here, once. `:PORT` becomes `[::]:PORT`, which [`Server::bind`](crate::Server::bind)
    /// opens for IPv4 and IPv6.
    ///
    /// # Errors
    /// Any of these flags that cannot be obeyed: call this before anything else is started.
    pub fn listen(&self, default: &str) -> Result<Vec<Listen>, FlagError> {
        if !self.telemetry_path.starts_with('/') || self.telemetry_path.contains(['?', '#']) {
            return Err(FlagError::TelemetryPath(self.telemetry_path.clone()));
        }
        if self.listen_address.is_empty() {
            return Ok(vec![Listen::Tcp(resolve(default)?)]);
        }
        self.listen_address.iter().map(|given| resolve(given).map(Listen::Tcp)).collect()
    }

    /// Tells the log of addresses that are not looked at, for the sockets that systemd hands over stand in for them.
    pub fn tell_unheard(&self, handed: &[Socket]) {
        let handed: Vec<_> = handed.iter().filter_map(|socket| socket.listen().ok()).collect();
        if !handed.is_empty() && !self.listen_address.is_empty() {
            let listening = handed.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let given = self.listen_address.join(" ");
            tracing::warn!(
                given,
                listening,
                "--web.listen-address is not looked at, for systemd hands over its own sockets: the address stands in the .socket unit \
                 (systemctl edit conntrack-….socket, an empty ListenStream= and then yours)"
            );
        }
    }

    /// What `--web.config.file` asks of clients; nothing without it.
    ///
    /// # Errors
    /// What is wrong with the file, with line and column, or with one that it names.
    pub fn security(&self) -> Result<Security, SecurityError> {
        Security::open(self.config_file.as_deref())
    }
}

/// The same command, whose help shows where it listens unless told otherwise.
pub fn with_default_address(command: clap::Command, default: &'static str) -> clap::Command {
    command.mut_arg("listen_address", |flag| flag.default_value(default))
}

fn resolve(given: &str) -> Result<SocketAddr, FlagError> {
    let wrong = |reason: String| FlagError::Address { address: given.to_owned(), reason };
    let (host, port) = given.rsplit_once(':').ok_or_else(|| wrong("the port is missing".to_owned()))?;
    let port: u16 = port.parse().map_err(|_| wrong(format!("{port:?} is not a port (0 to 65535)")))?;
    if host.is_empty() {
        return Ok((Ipv6Addr::UNSPECIFIED, port).into());
    }
    if let Ok(address) = given.parse() {
        return Ok(address);
    }
    if host.contains(':') {
        return Err(wrong(format!("{host:?} is not an IPv6 address in brackets")));
    }
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| wrong(format!("{host:?} does not resolve: {error}")))?
        .collect();
    // As Go's net.Listen does for a name with addresses of both families.
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| wrong(format!("{host:?} has no address")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        web: Flags,
        #[command(flatten)]
        log: crate::log::Flags,
    }

    #[test]
    fn a_program_can_flatten_all_our_flags() {
        let args = Args::try_parse_from([
            "program",
            "--log.level=warn",
            "--log.format=json",
            "--web.max-requests=0",
        ])
        .unwrap();
        assert_eq!((args.log.level, args.log.format), (crate::log::Level::Warn, crate::log::Format::Json));
        assert_eq!((args.web.max_requests, args.web.telemetry_path.as_str()), (0, "/metrics"));
    }

    fn listen(args: &[&str]) -> Result<Vec<String>, String> {
        let args = Args::try_parse_from([&["program"], args].concat()).unwrap();
        let listen = args.web.listen(":10048").map_err(|error| error.to_string())?;
        Ok(listen.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_default_is_used_only_when_no_address_is_given() {
        assert_eq!(listen(&[]).unwrap(), ["[::]:10048"]);
        let two = ["--web.listen-address=127.0.0.1:10049", "--web.listen-address=[::1]:1"];
        assert_eq!(listen(&two).unwrap(), ["127.0.0.1:10049", "[::1]:1"]);
        assert_eq!(listen(&["--web.listen-address", ":9"]).unwrap(), ["[::]:9"]);
    }

    #[test]
    fn an_address_that_cannot_be_obeyed_is_named_with_its_fault() {
        for (given, fault) in [
            ("10048", "the port is missing"),
            (":http", "\"http\" is not a port"),
            (":65536", "\"65536\" is not a port"),
            ("::1:10048", "\"::1\" is not an IPv6 address in brackets"),
        ] {
            let error = listen(&["--web.listen-address", given]).unwrap_err();
            assert!(error.contains(&format!("--web.listen-address {given:?}")), "{error}");
            assert!(error.contains(fault), "{error}");
        }
    }

    #[test]
    fn the_help_names_the_address_that_is_the_default() {
        use clap::CommandFactory;
        let help = with_default_address(Args::command(), "127.0.0.1:10049").render_long_help().to_string();
        assert!(help.contains("[default: 127.0.0.1:10049]"), "{help}");
    }

    #[test]
    fn a_telemetry_path_must_be_a_path() {
        let error = listen(&["--web.telemetry-path=metrics"]).unwrap_err();
        assert!(error.contains("\"metrics\" must start with a slash"), "{error}");
    }
}
