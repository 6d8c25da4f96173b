//! The other end of the admin socket: one request, one answer, and a sentence for each way in which it can fail.

pub mod actor;
mod trouble;

pub use trouble::Trouble;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// 50,000 bans are about 14 MB.
const ANSWER: usize = 256 << 20;
/// The actioner itself gives up after 30 s.
const PATIENCE: Duration = Duration::from_secs(35);

/// The running actioner, as its admin socket shows it.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

impl Client {
    /// The one that listens on this socket.
    pub fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned(), patience: PATIENCE }
    }

    /// The same, waited for so long at most.
    pub fn patient_for(self, patience: Duration) -> Client {
        Client { patience, ..self }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn get(&self, path: &str) -> Result<Value, Trouble> {
        self.ask(Method::GET, path, None)
    }

    /// Orders something.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Trouble> {
        self.ask(Method::POST, path, Some(body))
    }

    /// Ends something.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn delete(&self, path: &str) -> Result<Value, Trouble> {
        self.ask(Method::DELETE, path, None)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Trouble> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Trouble::Failed(format!("cannot start the runtime: {error}")))?;
        let asked = self.exchange(method, path, body);
        let answered = runtime.block_on(async { tokio::time::timeout(self.patience, asked).await });
        let (status, text) = answered
            .map_err(|_| Trouble::Silent { socket: self.socket.clone(), waited: self.patience })??;
        answer(status, &text)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| Trouble::Unreachable { socket: self.socket.clone(), error })?;
        let broken = |error: String| {
            Trouble::Failed(format!("the actioner on {} broke off: {error}", self.socket.display()))
        };
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(error.to_string()))?;
        tokio::spawn(connection);
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("x-conntrack-guard-actor", actor::name())
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| broken(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER).collect().await;
        Ok((status, body.map_err(|error| broken(error.to_string()))?.to_bytes()))
    }
}

fn answer(status: StatusCode, text: &[u8]) -> Result<Value, Trouble> {
    let value: Option<Value> = serde_json::from_slice(text).ok();
    if status.is_success() {
        return value.ok_or_else(|| Trouble::Failed("the actioner's answer is not JSON".to_owned()));
    }
    let sentence = value.as_ref().and_then(|value| value["error"].as_str()).map(str::to_owned);
    let sentence = sentence.unwrap_or_else(|| String::from_utf8_lossy(text).trim().to_owned());
    Err(match status {
        StatusCode::CONFLICT => Trouble::Refused(sentence),
        StatusCode::NOT_FOUND if value.is_some() => Trouble::NotFound(sentence),
        StatusCode::NOT_FOUND => Trouble::Failed(
            "the running actioner does not know this order: it is of another version; restart it".to_owned(),
        ),
        _ => Trouble::Failed(sentence),
    })
}

#[cfg(test)]
mod tests;
