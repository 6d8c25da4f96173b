//! The admin API, on the unix socket only: the file's mode decides who may.

use crate::admin::{Answer, BanBody, ByHand, Denied, PauseBody};
use crate::http::Routes;
use crate::now::Now;
use crate::orders::Order;
use crate::source;
use ipnet::IpNet;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::time::Duration;
use tokio::sync::oneshot;
use web::{Method, Peer, Request, Response, StatusCode};

/// Bodies of orders are a line or two.
const BODY: usize = 64 << 10;
/// An order waits for the batch that is under way, and `explain` and `ban` for a dump of their own.
const PATIENCE: Duration = Duration::from_secs(30);
/// Beyond it somebody has mistyped, and far beyond it no clock can count.
const LONGEST_PAUSE: Duration = Duration::from_secs(366 * 24 * 3600);

/// Answers a request below `/api/v1/`.
pub(crate) async fn route(routes: &Routes, request: &mut Request) -> Response {
    let path = request.path().to_owned();
    let method = request.method().clone();
    let query = |name: &str| request.query().find(|(key, _)| key == name).map(|(_, value)| value);
    let order = match (method, path.as_str()) {
        (Method::GET, "/api/v1/status") => return ok(&routes.status()),
        (Method::GET, "/api/v1/bans") => {
            let now = Now::read();
            let latest = routes.published.latest();
            let bans: Vec<_> = latest.bans.iter().map(|ban| ban.listed(now)).collect();
            return ok(&json!({ "bans": bans }));
        }
        (Method::GET, "/api/v1/explain") => one_address(query("source")).map(ByHand::Explain),
        (Method::DELETE, "/api/v1/bans") => match query("all").as_deref() {
            Some("true") => Ok(ByHand::Unban(None)),
            _ => network(query("source")).map(|net| ByHand::Unban(Some(net))),
        },
        (Method::POST, "/api/v1/bans") => body::<BanBody>(request).await.and_then(|body| {
            let lasts = Duration::from_secs(body.for_seconds);
            Ok(ByHand::Ban { net: network(Some(body.source))?, lasts, reason: body.reason })
        }),
        (Method::POST, "/api/v1/pause") => body::<PauseBody>(request).await.and_then(|body| pause(&body)),
        (Method::POST, "/api/v1/resume") => Ok(ByHand::Resume),
        (Method::POST, "/api/v1/panic") => Ok(ByHand::Panic),
        _ => return error(StatusCode::NOT_FOUND, "no such order; see admin API in docs/"),
    };
    match order {
        Ok(order) => obey(routes, order, actor(request)).await,
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
    }
}

async fn obey(routes: &Routes, order: ByHand, by: String) -> Response {
    if order.stops() {
        // Before its turn in the queue: what is under way ends here.
        routes.switch.stop();
    }
    let (reply, answer) = oneshot::channel();
    let orders = routes.orders.clone();
    // A queue full of webhooks must not turn a person away.
    let sent = tokio::task::spawn_blocking(move || orders.send(Order::ByHand { order, by, reply }).is_ok());
    let answered =
        tokio::time::timeout(PATIENCE, async { if sent.await.ok()? { answer.await.ok() } else { None } });
    match answered.await {
        Err(_) => error(StatusCode::SERVICE_UNAVAILABLE, "no answer within 30 s; the order is queued"),
        Ok(None) => error(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
        Ok(Some(answer)) => told(answer),
    }
}

fn told(answer: Answer) -> Response {
    match answer {
        Ok(value) => ok(&value),
        Err(Denied::Refused(why)) => error(StatusCode::CONFLICT, &why),
        Err(Denied::NotFound(why)) => error(StatusCode::NOT_FOUND, &why),
        Err(Denied::Failed(why)) => error(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

fn ok(value: &impl Serialize) -> Response {
    Response::json(StatusCode::OK, serde_json::to_string(value).unwrap_or_default() + "\n")
}

fn error(status: StatusCode, why: &str) -> Response {
    Response::json(status, json!({ "error": why }).to_string() + "\n")
}

/// Who gives the order: root as whom he says he is (sudo's user), anybody else as the kernel knows him.
fn actor(request: &Request) -> String {
    let named = request.header("x-conntrack-guard-actor");
    let named = named.map(|name| name.chars().filter(|c| !c.is_control()).take(128).collect());
    match (request.peer(), named) {
        (Peer::Unix { uid: 0, .. }, Some(name)) => name,
        (Peer::Unix { uid: 0, .. }, None) => "root".to_owned(),
        (Peer::Unix { uid, .. }, _) => format!("uid {uid}"),
        (Peer::Tcp(_), _) => "nobody".to_owned(),
    }
}

fn pause(body: &PauseBody) -> Result<ByHand, String> {
    let lasts = body.for_seconds.map(Duration::from_secs);
    if lasts.is_some_and(|lasts| lasts > LONGEST_PAUSE) {
        return Err("a pause lasts a year at most; without a time it lasts until resume".to_owned());
    }
    Ok(ByHand::Pause(lasts))
}

async fn body<T: DeserializeOwned>(request: &mut Request) -> Result<T, String> {
    let bytes = request.body(BODY).await.map_err(|_| "the body could not be read".to_owned())?;
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| format!("the body is not what is expected: {error}"))
}

fn one_address(text: Option<String>) -> Result<std::net::IpAddr, String> {
    let text = text.ok_or("which address? ?source=ADDR is missing")?;
    source::parse(&text).map_err(|error| format!("{text:?}: {error}"))
}

fn network(text: Option<String>) -> Result<IpNet, String> {
    let text = text.ok_or("whom? ?source=ADDR or ?all=true is missing")?;
    if let Ok(net) = text.parse::<IpNet>() {
        return match net {
            // The IPv4 address is what packets come from.
            IpNet::V6(six) if six.addr().to_ipv4_mapped().is_some() => {
                Err(format!("{text:?} is an IPv4 network in IPv6's clothes: write it as IPv4"))
            }
            net => Ok(net.trunc()),
        };
    }
    one_address(Some(text)).map(IpNet::from)
}
