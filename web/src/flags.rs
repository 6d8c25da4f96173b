//! The `--web.*` flags, named and spelled as node_exporter's.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::Listen;

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

    /// File that turns on TLS or authentication
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
    /// Serving in clear when TLS or passwords were asked for would be worse than not serving.
    #[error(
        "--web.config.file {}: this version has neither TLS nor authentication, and will not serve without \
         what that file asks for; remove the flag and listen on 127.0.0.1 or behind a proxy", .0.display()
    )]
    ConfigFile(PathBuf),
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
        if let Some(file) = &self.config_file {
            return Err(FlagError::ConfigFile(file.clone()));
        }
        if !self.telemetry_path.starts_with('/') || self.telemetry_path.contains(['?', '#']) {
            return Err(FlagError::TelemetryPath(self.telemetry_path.clone()));
        }
        if self.listen_address.is_empty() {
            return Ok(vec![Listen::Tcp(resolve(default)?)]);
        }
        self.listen_address.iter().map(|given| resolve(given).map(Listen::Tcp)).collect()
    }
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
    fn a_config_file_is_refused_rather_than_ignored() {
        let error = listen(&["--web.config.file=/etc/web.yml"]).unwrap_err();
        assert!(
            error.contains("/etc/web.yml") && error.contains("neither TLS nor authentication"),
            "{error}"
        );
    }

    #[test]
    fn a_telemetry_path_must_be_a_path() {
        let error = listen(&["--web.telemetry-path=metrics"]).unwrap_err();
        assert!(error.contains("\"metrics\" must start with a slash"), "{error}");
    }
}
