//! Routes: the webhook, metrics, health, reload. Each webhook is handed to the effects thread and answered when it is done.

use crate::alert::Origin;
use crate::exposure::Exposure;
use crate::http_admin;
use crate::metrics::Metrics;
use crate::orders::{Order, Unread};
use crate::policy::Policy;
use crate::snapshot::{Published, Status};
use crate::switch::Switch;
use crate::webhook::{self, Notification};
use prometheus_client::registry::Registry;
use std::cell::RefCell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;
use tokio::sync::oneshot;
use web::confine::Confined;
use web::{Gate, Method, Peer, Request, Response, StatusCode, exposition};

/// Alertmanager's largest sensible message: 5,000 alerts are about 2.2 MB.
const BODY: usize = 8 << 20;
/// Alertmanager gives up after its flush interval; sooner is kinder.
const PATIENCE: Duration = Duration::from_secs(8);
/// Where Alertmanager sends to.
pub(crate) const WEBHOOK_PATH: &str = "/webhook";
const WEBHOOK: &str = "it takes Alertmanager's webhook message, version 4";

/// What the routes need.
pub struct Routes {
    /// To the effects thread.
    pub orders: SyncSender<Order>,
    /// The counters.
    pub metrics: Metrics,
    /// What `/metrics` shows.
    pub registry: Registry,
    /// Where metrics are.
    pub telemetry_path: String,
    /// Whether `/-/reload` and nothing else of the lifecycle is open to the network.
    pub lifecycle: bool,
    /// The policy's file.
    pub policy_file: PathBuf,
    /// Scrapes at a time.
    pub scrapes: Gate,
    /// Who can send webhooks.
    pub exposure: Exposure,
    /// What `status` and `bans` show.
    pub published: Published,
    /// What was given up at the start.
    pub confined: Confined,
    /// Why the policy's file did not come into force when it was last read.
    pub reload_error: RefCell<Option<String>>,
    /// Stops effects at once.
    pub switch: Arc<Switch>,
}

impl Routes {
    /// What `status` says: what the effects thread shows, and what is known on this side.
    pub(crate) fn status(&self) -> Status {
        let mut status = self.published.latest().status.clone();
        status.policy.file = self.policy_file.display().to_string();
        status.policy.last_reload_error = self.reload_error.borrow().clone();
        status.confined = self.confined.clone();
        status
    }
}

/// Answers one request.
pub async fn route(routes: Rc<Routes>, mut request: Request) -> Response {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let post = *request.method() == Method::POST;
    let path = request.path().to_owned();
    match path.as_str() {
        WEBHOOK_PATH if post => {
            let response = receive(&routes, &mut request).await;
            routes.metrics.answered(response.status().as_u16());
            response
        }
        WEBHOOK_PATH => only("POST", WEBHOOK),
        "/-/reload" if post => reload_route(&routes, &request).await,
        "/-/reload" => only("POST", "it reads the policy again"),
        path if path == routes.telemetry_path => {
            if !get {
                return only("GET, HEAD", "it shows metrics");
            }
            match routes.scrapes.enter() {
                Some(_permit) => {
                    exposition::encode(&routes.registry, exposition::negotiate(request.header("accept")))
                }
                None => routes.scrapes.refusal(),
            }
        }
        "/-/healthy" if get => Response::text(StatusCode::OK, "conntrack-actioner is healthy.\n"),
        "/-/ready" if get => readiness(&routes.published.latest().status),
        path if path.starts_with("/api/v1/") && request.peer().is_unix() => {
            http_admin::route(&routes, &mut request).await
        }
        "/" if get => {
            let links = [
                (routes.telemetry_path.as_str(), "Metrics"),
                ("/-/ready", "Ready"),
                ("/-/healthy", "Healthy"),
            ];
            web::landing("conntrack-actioner", env!("CARGO_PKG_VERSION"), &links)
        }
        "/" | "/-/healthy" | "/-/ready" => only("GET, HEAD", "it only shows"),
        _ => Response::text(StatusCode::NOT_FOUND, "no such page; the webhook is POST /webhook\n"),
    }
}

/// Webhooks are heard and decided either way; what is asked here is whether a ban would hold.
fn readiness(status: &Status) -> Response {
    match &status.no_firewall {
        None => Response::text(StatusCode::OK, "conntrack-actioner is ready.\n"),
        Some(why) => {
            let text = format!("the policy enforces, and nothing is enforced: {why}\n");
            Response::text(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

fn only(methods: &'static str, why: &str) -> Response {
    let text = format!("only {methods} here: {why}\n");
    Response::text(StatusCode::METHOD_NOT_ALLOWED, text).header(web::header::ALLOW, methods)
}

async fn receive(routes: &Routes, request: &mut Request) -> Response {
    let origin = match request.peer() {
        Peer::Unix { .. } => Origin::Admin,
        Peer::Tcp(_) => Origin::Webhook,
    };
    let body = match request.body(BODY).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let notification = match webhook::parse(&body, origin) {
        Ok(notification) => Notification { authenticated: proven(request), ..notification },
        Err(error) => {
            let peer = request.peer().to_string();
            tracing::warn!(peer, %error, "a webhook is refused");
            return Response::text(StatusCode::BAD_REQUEST, format!("{error}\n"));
        }
    };
    drop(body);
    if notification.truncated_alerts > 0 {
        let left_out = notification.truncated_alerts;
        routes.metrics.left_out(left_out);
        tracing::warn!(
            left_out,
            receiver = &*notification.receiver,
            "Alertmanager cut alerts off: set max_alerts: 0 in its receiver"
        );
    }
    let (reply, answer) = oneshot::channel();
    match routes.orders.try_send(Order::Decide(notification, reply)) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => return later("more webhooks wait than this host can take"),
        Err(TrySendError::Disconnected(_)) => return later("shutting down"),
    }
    match tokio::time::timeout(PATIENCE, answer).await {
        Err(_) => later("no decision within 8 s; the work goes on"),
        Ok(Err(_)) => later("shutting down"),
        Ok(Ok(Err(Unread(why)))) => later(&why),
        Ok(Ok(Ok(decided))) => {
            Response::json(StatusCode::OK, serde_json::to_string(&decided).unwrap_or_default() + "\n")
        }
    }
}

/// The address of a client that has proved who it is. Behind a proxy it is the proxy's.
fn proven(request: &Request) -> Option<IpAddr> {
    match request.peer() {
        Peer::Tcp(address) => request.authenticated().map(|_| address.ip().to_canonical()),
        Peer::Unix { .. } => None,
    }
}

/// A 503, which Alertmanager retries.
fn later(why: &str) -> Response {
    Response::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).header(web::header::RETRY_AFTER, "5")
}

async fn reload_route(routes: &Routes, request: &Request) -> Response {
    if !routes.lifecycle && !request.peer().is_unix() {
        let text = "reloading over HTTP is off: start with --web.enable-lifecycle, or send SIGHUP\n";
        return Response::text(StatusCode::FORBIDDEN, text);
    }
    match reload(routes).await {
        Ok(()) => Response::text(StatusCode::OK, "the policy was read again and is in force\n"),
        Err(error) => Response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Reads the policy again and puts it in force; on any error the one before stays.
///
/// # Errors
/// Everything that is wrong with the file, or why it could not be put in force.
pub async fn reload(routes: &Routes) -> Result<(), String> {
    let result = try_reload(routes).await;
    let file = routes.policy_file.display();
    match &result {
        Ok(()) => tracing::info!(%file, "the policy was read again and is in force"),
        Err(error) => {
            routes.metrics.reload_failed();
            tracing::error!(%file, error, "the policy was not reloaded; the one before stays in force");
        }
    }
    *routes.reload_error.borrow_mut() = result.as_ref().err().cloned();
    result
}

async fn try_reload(routes: &Routes) -> Result<(), String> {
    let file = routes.policy_file.clone();
    let read = tokio::task::spawn_blocking(move || Policy::load(&file).map_err(|errors| errors.to_string()));
    let policy = read.await.map_err(|error| error.to_string())??;
    routes.exposure.permits(&policy)?;
    let (reply, answer) = oneshot::channel();
    routes
        .orders
        .try_send(Order::Reload(Box::new(policy), reply))
        .map_err(|_| "too much to do at the moment: try again".to_owned())?;
    answer.await.map_err(|_| "shutting down".to_owned())?
}
