//! From an accepted stream to one that speaks HTTP: TLS where it is configured, and an answer that people understand
//! where somebody speaks HTTP to it.

use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{CertificateError, Error};

use crate::bind::Stream;
use crate::connection::Io;
use crate::security::{Reason, Security, Tls};
use crate::{Identity, Limits, Peer};

/// A stream that speaks HTTP.
pub(crate) struct Opened {
    pub(crate) io: Box<dyn Io>,
    /// By ALPN; in clear it is always HTTP/1.1.
    pub(crate) http2: bool,
    /// The TLS that was agreed on.
    pub(crate) tls: Option<Rc<Tls>>,
    /// Who the client's certificate says it is.
    pub(crate) identity: Option<Identity>,
}

/// As Go's net/http answers.
const SPEAK_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\r\n\
    Client sent an HTTP request to an HTTPS server.\n";

/// How long what such a client still sends is read, so that the answer is not taken back by a reset.
const LINGER: Duration = Duration::from_millis(500);

/// Does what must be done before the first request; `None` where the client was turned away, which is counted.
pub(crate) async fn open(stream: Stream, peer: Peer, security: &Security, limits: &Limits) -> Option<Opened> {
    let tcp = match stream {
        Stream::Unix(_) => return Some(clear(stream)),
        Stream::Tcp(tcp) => tcp,
    };
    let Some(tls) = security.tls() else { return Some(clear(Stream::Tcp(tcp))) };
    let late = (Reason::TlsTimeout, Reason::TlsTimeout.words().to_owned());
    let agreed = timeout(limits.header_timeout, async {
        match first_byte(&tcp).await {
            None => Ok(None),
            // A handshake begins with the byte 22, a request with its method.
            Some(byte) if byte.is_ascii_uppercase() => {
                security.refuse(Reason::PlainHttp, peer, Reason::PlainHttp.words());
                say_speak_tls(tcp).await;
                Ok(None)
            }
            Some(_) => agree(tcp, &tls).await.map(Some),
        }
    });
    match agreed.await.unwrap_or(Err(late)) {
        Ok(opened) => opened,
        Err((reason, why)) => {
            security.refuse(reason, peer, &why);
            None
        }
    }
}

/// `None`: the client came and went without a byte, as health checks do.
async fn first_byte(tcp: &TcpStream) -> Option<u8> {
    let mut first = [0];
    let peeked = tcp.peek(&mut first).await.ok()?;
    (peeked > 0).then_some(first[0])
}

fn clear(stream: Stream) -> Opened {
    Opened { io: stream.plain(), http2: false, tls: None, identity: None }
}

async fn agree(tcp: TcpStream, tls: &Rc<Tls>) -> Result<Opened, (Reason, String)> {
    let stream = TlsAcceptor::from(tls.config()).accept(tcp).await.map_err(|error| reason(&error))?;
    let (_, connection) = stream.get_ref();
    let http2 = connection.alpn_protocol() == Some(b"h2");
    let identity = tls.certified(connection);
    Ok(Opened { http2, identity, tls: Some(Rc::clone(tls)), io: Box::new(stream) })
}

fn reason(error: &io::Error) -> (Reason, String) {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let client = |why: String| (Reason::ClientCertificate, format!("the client's certificate: {why}"));
    match tls {
        Some(Error::NoCertificatesPresented) => client("it shows none".to_owned()),
        Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            client("it has none of client_allowed_sans".to_owned())
        }
        Some(Error::InvalidCertificate(why)) => client(why.to_string()),
        Some(other) => (Reason::TlsHandshake, format!("the TLS handshake failed: {other}")),
        None => (Reason::TlsHandshake, format!("the TLS handshake failed: {error}")),
    }
}

async fn say_speak_tls(mut tcp: TcpStream) {
    let mut trash = [0; 4096];
    let told = async {
        tcp.write_all(SPEAK_TLS).await?;
        tcp.shutdown().await?;
        while tcp.read(&mut trash).await? > 0 {}
        io::Result::Ok(())
    };
    timeout(LINGER, told).await.ok();
}
