//! The routes.

use std::rc::Rc;

use web::{Gate, Method, Request, Response, StatusCode, exposition, header};

use crate::exporter::Exporter;
use crate::scrape::Scrape;

/// Prometheus sends its scrape timeout in it.
const TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";

/// What answers requests.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) exporter: Exporter,
    /// `--web.max-requests`.
    pub(crate) gate: Gate,
    /// `--web.telemetry-path`.
    pub(crate) telemetry_path: String,
    /// Who was turned away.
    pub(crate) refused: web::security::Counters,
    /// What the program gave up.
    pub(crate) confined: web::confine::Confined,
}

impl Routes {
    /// Answers one request.
    pub(crate) async fn answer(self: Rc<Self>, request: Request) -> Response {
        let path = request.path();
        let metrics = path == self.telemetry_path;
        if !metrics && !["/", "/-/healthy", "/-/ready"].contains(&path) {
            let sentence =
                format!("There is nothing at this path; the metrics are at {}.\n", self.telemetry_path);
            return Response::text(StatusCode::NOT_FOUND, sentence);
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let sentence = "This path can only be read: GET or HEAD.\n";
            return Response::text(StatusCode::METHOD_NOT_ALLOWED, sentence)
                .header(header::ALLOW, "GET, HEAD");
        }
        match path {
            _ if metrics => self.metrics(&request).await,
            "/-/healthy" => Response::text(StatusCode::OK, "Healthy\n"),
            // Nothing has to be loaded or reached first: who listens can answer a scrape.
            "/-/ready" => Response::text(StatusCode::OK, "Ready\n"),
            _ => self.landing(),
        }
    }

    async fn metrics(&self, request: &Request) -> Response {
        let Some(_permit) = self.gate.enter() else { return self.gate.refusal() };
        match Scrape::read(request.query(), request.header(TIMEOUT), self.exporter.enabled) {
            Ok(scrape) => {
                let mut registry = self.exporter.gather(scrape).await.into_registry();
                self.refused.register(&mut registry, "conntrack_exporter");
                self.confined.register(&mut registry, "conntrack_exporter");
                exposition::encode(&registry, exposition::negotiate(request.header("accept")))
            }
            Err(refusal) => Response::text(StatusCode::BAD_REQUEST, format!("{refusal}\n")),
        }
    }

    fn landing(&self) -> Response {
        let links =
            [(self.telemetry_path.as_str(), "Metrics"), ("/-/healthy", "Health"), ("/-/ready", "Readiness")];
        web::landing("conntrack-exporter", env!("CARGO_PKG_VERSION"), &links)
    }
}
