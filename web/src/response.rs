//! What a handler answers.

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::StatusCode;

/// An answer, held whole in memory. For HEAD its body is left out when it is sent; its length is not.
#[derive(Debug, Clone)]
pub struct Response {
    /// Boxed, so that it is cheap as the error of a result.
    inner: Box<hyper::Response<Bytes>>,
}

impl Response {
    /// An answer with this body, of this `Content-Type`.
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut inner = Box::new(hyper::Response::new(body.into()));
        *inner.status_mut() = status;
        inner.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { inner }.header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// Plain text; by custom of the field one sentence that ends in a newline.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into())
    }

    /// A JSON document, already written.
    pub fn json(status: StatusCode, json: impl Into<String>) -> Self {
        Self::new(status, "application/json", json.into())
    }

    /// A page, already escaped.
    pub fn html(status: StatusCode, html: impl Into<String>) -> Self {
        Self::new(status, "text/html; charset=utf-8", html.into())
    }

    /// The same answer with this header, which replaces one of the same name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.inner.headers_mut().insert(name, HeaderValue::from_static(value));
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// The body, whole.
    pub fn body(&self) -> &Bytes {
        self.inner.body()
    }

    pub(crate) fn into_hyper(self) -> hyper::Response<Bytes> {
        *self.inner
    }
}
