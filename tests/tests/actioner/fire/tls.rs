//! Crowds of TLS connections on both programs: handshakes that stop half-way, and connections that say nothing after theirs.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

use tests::{Result, certificates::Authority, http, programs::Program, wait::wait_until};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::{AGAIN, CROWD, LARGE_CROWD, Target, connect_here, is_held, many_descriptors, obeyed, withstand};
use crate::lab::{HIM, Home, POLICY, fill, quiet};

const CONFIG: &str = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n";
/// Of a ClientHello of 512 bytes, what says so.
const HALF_A_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0];

type Encrypted = StreamOwned<ClientConnection, TcpStream>;

/// A connection over which the handshake is done.
fn encrypted(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<Encrypted> {
    let mut stream = connect_here(address)?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(Arc::clone(config), name).expect("a client");
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

fn trusting(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// So many, one after the other; those that the server did not put out at once.
fn crowd(size: usize, address: SocketAddr, config: &Arc<ClientConfig>) -> (Vec<TcpStream>, Vec<Encrypted>) {
    let (mut half, mut idle) = (Vec::new(), Vec::new());
    for number in 0..size {
        // The first of them find room, and hold it.
        if number < size / 2 && number % 2 == 0 {
            idle.extend(encrypted(address, config));
        } else if let Ok(mut stream) = connect_here(address)
            && stream.write_all(HALF_A_HELLO).is_ok()
        {
            half.push(stream);
        }
        if number % 500 == 0 {
            half.retain(is_held);
            idle.retain(|stream| is_held(&stream.sock));
        }
    }
    half.retain(is_held);
    idle.retain(|stream| is_held(&stream.sock));
    (half, idle)
}

#[test]
fn a_crowd_of_half_open_and_idle_tls_keeps_nobody_out_who_is_in() -> Result<()> {
    half_open_and_idle(CROWD)
}

#[test]
#[ignore = "make load: ten thousand connections of TLS at each port"]
fn ten_thousand_connections_of_tls_half_open_and_idle() -> Result<()> {
    half_open_and_idle(LARGE_CROWD)
}

fn half_open_and_idle(size: usize) -> Result<()> {
    many_descriptors();
    let lab = quiet("tls")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let authority = Authority::new("ours");
    let server = authority.server();
    for (name, text) in [("server.pem", &server.certificate), ("server.key", &server.key)] {
        fs::write(home.path(name), text).unwrap();
    }
    fs::write(home.path("web.yml"), CONFIG).unwrap();
    let config = format!("--web.config.file={}", home.path("web.yml").display());
    let mut actioner = home.start_guarded(&lab, &[&config])?;
    let client = trusting(&authority);
    let [ours, theirs] = [Program::Actioner, Program::Exporter].map(Program::default_address);
    let mut command = std::process::Command::new(Program::Exporter.path()?);
    command.arg(config);
    let mut exporter = lab.spawn(command)?;
    wait_until("the exporter to speak TLS", AGAIN, || {
        lab.run(|| encrypted(theirs, &client))
            .map(drop)
            .map_err(|error| format!("{error}\n{}", exporter.log()))
    })?;
    let (alert, socket) = (actioner.about(HIM), actioner.socket.clone());
    let mut targets = Vec::new();
    for (name, address, process) in
        [("actioner", ours, &*actioner.process()), ("exporter", theirs, &exporter)]
    {
        targets.push(Target::new(name, address, lab.run(|| encrypted(address, &client)).unwrap(), process));
    }
    let held = Mutex::new(Vec::new());
    let attack = |address| {
        let kept = lab.run(|| crowd(size, address, &client));
        held.lock().unwrap().push(kept);
    };
    withstand(&mut targets, &[&attack], || obeyed(&socket, &alert));
    for (half, idle) in held.lock().unwrap().iter() {
        println!("held: {} half open, {} idle", half.len(), idle.len());
        assert!(half.len() > 100 && idle.len() > 100);
    }
    drop(held);
    for target in &mut targets {
        let address = target.address;
        wait_until("a newcomer to be answered", AGAIN, || {
            lab.run(|| encrypted(address, &client)).map(drop).map_err(|error| error.to_string())
        })?;
        target.kept.is_answered("/metrics");
        target.is_bounded();
    }
    drop(targets);
    let metrics = http::get(&socket, "/metrics", &[])?.text();
    let counted = metrics.lines().find_map(|line| {
        line.strip_prefix("conntrack_actioner_web_refused_total{reason=\"tls_handshake\"} ")
    });
    assert!(counted.is_some_and(|count| count != "0"), "they are counted: {metrics}");
    assert_eq!(actioner.process().ended()?, None);
    assert_eq!(exporter.ended()?, None);
    Ok(())
}
