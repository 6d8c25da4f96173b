//! Start, serve, stop.

use crate::audit::Audit;
use crate::cli::Run;
use crate::effects::{Effects, Order, adopt};
use crate::firewall::{self, Firewall};
use crate::host::Host;
use crate::http::{self, Routes};
use crate::metrics::Metrics;
use crate::now::Now;
use crate::policy::{Backend, Policy};
use crate::state::State;
use crate::watch::Gauge;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use tokio::signal::unix::{SignalKind, signal};
use web::{Gate, Limits, Listen, Server};

/// Webhooks that wait for the effects thread. Alertmanager retries what finds no room.
const QUEUE: usize = 2048;
const DEFAULT_ADDRESS: &str = "127.0.0.1:10049";

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Why it could not start: a sentence, or all that is wrong with the policy.
pub fn run(flags: &Run) -> Result<(), String> {
    abort_on_panic();
    let policy = Policy::load(&flags.policy_file).map_err(|errors| errors.to_string())?;
    let listen = flags.web.listen(DEFAULT_ADDRESS).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(serve(flags, policy, listen))
}

async fn serve(flags: &Run, policy: Policy, mut listen: Vec<Listen>) -> Result<(), String> {
    make_directory_of(&flags.admin_socket)?;
    listen.push(Listen::Unix { path: flags.admin_socket.clone(), mode: 0o600 });
    let server = Server::bind(&listen, Limits::default()).map_err(|error| error.to_string())?;
    let host = Host::read()?;
    let metrics = Metrics::new(policy.rules.iter().map(|rule| rule.name.clone()));
    let effects = effects(flags, policy, metrics.clone())?;
    let (orders, queue) = mpsc::sync_channel(QUEUE);
    let routes = Rc::new(Routes {
        orders: orders.clone(),
        registry: metrics.registry(&host.table_id, env!("CARGO_PKG_VERSION")),
        metrics,
        telemetry_path: flags.web.telemetry_path.clone(),
        lifecycle: flags.lifecycle,
        policy_file: flags.policy_file.clone(),
        scrapes: Gate::new(flags.web.max_requests),
    });
    let working = thread::Builder::new()
        .name("effects".to_owned())
        .spawn(move || effects.run(&queue))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    for address in server.addresses() {
        tracing::info!(%address, socket = %flags.admin_socket.display(), "listening");
    }
    let shutdown = until_stopped(Rc::clone(&routes))?;
    server.serve(move |request| http::route(Rc::clone(&routes), request), shutdown).await;
    // The effects thread ends what is queued, bans included, before the process does.
    let _ = orders.send(Order::Stop);
    let _ = tokio::task::spawn_blocking(move || working.join()).await;
    tracing::info!(
        "stopped; bans in force stay in the kernel until they expire (conntrack-actioner teardown removes them)"
    );
    Ok(())
}

/// SIGTERM and SIGINT end it; SIGHUP reads the policy again.
fn until_stopped(routes: Rc<Routes>) -> Result<impl Future<Output = ()>, String> {
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|error| format!("cannot listen for SIGHUP: {error}"))?;
    let stop = web::shutdown::signal();
    Ok(async move {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                Some(()) = hangup.recv() => drop(http::reload(&routes).await),
            }
        }
    })
}

fn effects(flags: &Run, policy: Policy, metrics: Metrics) -> Result<Effects, String> {
    let now = Now::read();
    let audit = Audit::open(&flags.storage, now).map_err(|error| {
        format!("cannot open the audit log: {error} (choose another directory with --storage.path)")
    })?;
    let mut state = State::new();
    let mut firewall = None;
    for warning in &policy.warnings {
        tracing::warn!("{warning}");
    }
    if policy.enforces_anything() {
        let mut opened = open_firewall(&policy)?;
        let found = adopt(opened.as_mut(), &mut state)?;
        tracing::info!(set = policy.firewall.set, found, "enforcing; bans found in the kernel stay in force");
        tracing::warn!(
            "bans live in the kernel alone: a reboot, or somebody's `ipset flush`, ends them (a store comes with another version)"
        );
        firewall = Some(opened);
    } else {
        tracing::info!(
            "dry run: decisions are made and written down, and nothing is changed (`enforce: true` in the policy acts)"
        );
    }
    metrics.policy_in_force(policy.enforces_anything(), now.wall);
    let gauge = Gauge::open().map_err(|error| {
        tracing::error!(%error, "the watch is off: this kernel shows no connection tracking table (modprobe nf_conntrack, then restart)");
    });
    Ok(Effects {
        policy: Arc::new(policy),
        state,
        firewall,
        open_firewall,
        audit,
        metrics,
        gauge: gauge.ok(),
        last_dump: None,
        watched: HashMap::new(),
    })
}

/// The firewall that a policy asks for, its sets and rule in place.
///
/// # Errors
/// Why there is none.
pub fn open_firewall(policy: &Policy) -> Result<Box<dyn Firewall>, String> {
    let mut firewall = configured_firewall(policy).map_err(|error| error.to_string())?;
    let ensured = firewall.ensure().map_err(|error| error.to_string())?;
    if let Err(error) = &ensured.ipv6 {
        tracing::error!(%error, "IPv6 sources cannot be banned; IPv4 is in force");
    }
    let missing = |family: &firewall::EnsuredFamily| family.rule == firewall::Rule::Missing;
    if missing(&ensured.ipv4) || ensured.ipv6.as_ref().is_ok_and(missing) {
        tracing::error!(
            "manage_rule is false and no rule refers to our set: NOTHING DROPS. Add to raw PREROUTING: -m set --match-set {}-4 src -j DROP",
            policy.firewall.set
        );
    }
    Ok(firewall)
}

/// The firewall that a policy asks for, not yet touched.
///
/// # Errors
/// Its name is none, or the kernel's netlink cannot be opened.
pub fn configured_firewall(policy: &Policy) -> Result<Box<dyn Firewall>, firewall::FirewallError> {
    let config = firewall::Config {
        set: policy.firewall.set.clone(),
        max_elements: policy.limits.active_bans.max(firewall::Config::default().max_elements),
        manage_rule: policy.firewall.manage_rule,
    };
    match policy.firewall.backend {
        Backend::Ipset => Ok(Box::new(firewall::Ipset::open(config)?)),
        #[cfg(feature = "libipset")]
        Backend::Libipset => Ok(Box::new(firewall::LibIpset::open(config)?)),
        #[cfg(not(feature = "libipset"))]
        Backend::Libipset => {
            unreachable!("the policy reader refuses backend: libipset in a build without it")
        }
    }
}

fn make_directory_of(socket: &Path) -> Result<(), String> {
    let Some(directory) = socket.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    fs::DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(|error| {
        format!("cannot make {}: {error} (choose another place with --admin.socket)", directory.display())
    })
}

/// A panic anywhere ends the process: HTTP must never outlive the effects thread.
fn abort_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        std::process::abort();
    }));
}
