//! Start, serve, stop.

use crate::audit::{Audit, Reopen, Rotation, rfc3339};
use crate::cli::{DEFAULT_ADDRESS, Run};
use crate::confined::confined;
use crate::effects::Effects;
use crate::exposure::Exposure;
use crate::firewall::{self, Firewall};
use crate::http::{self, Routes};
use crate::metrics::Metrics;
use crate::now::Now;
use crate::orders::Order;
use crate::policy::{Backend, Policy};
use crate::pressure::Gauge;
use crate::pulse::Pulse;
use crate::reach::Reach;
use crate::snapshot::Published;
use crate::spared::Files;
use crate::state::State;
use crate::status_line::StatusLine;
use crate::store::{self, Loaded, Store};
use crate::surroundings::Surroundings;
use crate::survey;
use crate::wall::{NoWall, Wall};
use crate::watch::Told;
use conntrack::Table;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use tokio::signal::unix::{Signal, SignalKind, signal};
use web::security::SecurityError;
use web::systemd::{self, Inherited, Socket};
use web::{Gate, Limits, Listen, Security, Server};

/// Webhooks that wait for the effects thread. Alertmanager retries what finds no room.
const QUEUE: usize = 2048;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Why it could not start: a sentence, or all that is wrong with the policy.
pub fn run(flags: &Run) -> Result<(), String> {
    abort_on_panic();
    let policy = Policy::load(&flags.policy_file).map_err(|errors| match flags.policy_file.try_exists() {
        Ok(false) => {
            format!("{errors} (--policy.file names another; packaging/policy.yaml is one to begin with)")
        }
        _ => errors.to_string(),
    })?;
    let listen = flags.web.listen(DEFAULT_ADDRESS).map_err(|error| error.to_string())?;
    let handed = Inherited::take().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(serve(flags, policy, listen, handed))
}

async fn serve(flags: &Run, policy: Policy, listen: Vec<Listen>, handed: Inherited) -> Result<(), String> {
    // Caught from here on: what comes while sets and rule are put up waits until they are.
    let signals = Signals::catch()?;
    flags.web.tell_unheard(&handed.tcp);
    let open = if handed.tcp.is_empty() { listen } else { Vec::new() };
    let admin =
        handed.unix.is_empty().then(|| Listen::Unix { path: flags.admin_socket.clone(), mode: 0o600 });
    let made = if admin.is_some() { make_directory_of(&flags.admin_socket)? } else { Made(None) };
    let open: Vec<Listen> = open.into_iter().chain(admin).collect();
    let handed: Vec<Socket> = handed.tcp.into_iter().chain(handed.unix).collect();
    let mut listen = open.clone();
    for socket in &handed {
        listen.push(socket.listen().map_err(|error| unusable(&error))?);
    }
    let metrics = Metrics::new(policy.rules.iter().map(|rule| rule.name.clone()));
    let security = Rc::new(security(flags, metrics.clone())?);
    let exposure = Exposure::new(&listen, Rc::clone(&security), flags.allow_unauthenticated_webhooks);
    exposure.permits(&policy)?;
    let server = Server::bind(&open, Limits::default()).map_err(|error| error.to_string())?;
    let server = server.inheriting(handed).map_err(|error| unusable(&error))?.secured(Rc::clone(&security));
    let mut surroundings = Surroundings::open(Files::default())?;
    let host = surroundings.host(Now::read())?;
    store::make(&flags.storage).map_err(|error| {
        format!("audit log and state have no place: {error} (choose another directory with --storage.path)")
    })?;
    let confined = confined(flags, &policy, &security, made.0.as_deref());
    confined.tell();
    let effects = effects(flags, policy, metrics.clone(), surroundings, host.table_id.clone())?;
    let reopen = effects.audit.reopener();
    let (orders, queue) = mpsc::sync_channel(QUEUE);
    let mut registry = metrics.registry(&host.table_id, env!("CARGO_PKG_VERSION"));
    security.counters().register(&mut registry, "conntrack_actioner");
    confined.register(&mut registry, "conntrack_actioner");
    let routes = Rc::new(Routes {
        orders: orders.clone(),
        registry,
        metrics,
        telemetry_path: flags.web.telemetry_path.clone(),
        lifecycle: flags.lifecycle,
        policy_file: flags.policy_file.clone(),
        scrapes: Gate::new(flags.web.max_requests),
        exposure,
        published: effects.published.clone(),
        confined,
        reload_error: RefCell::default(),
        switch: Arc::clone(&effects.switch),
    });
    let pulse = Arc::new(Pulse::default());
    let working = thread::Builder::new()
        .name("effects".to_owned())
        .spawn({
            let pulse = Arc::clone(&pulse);
            move || effects.run(&queue, &pulse)
        })
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    for address in server.addresses() {
        let (tls, authenticates) = (security.encrypts(), security.authenticates());
        tracing::info!(%address, tls, authenticates, socket = %flags.admin_socket.display(), "listening");
    }
    let status_line = StatusLine::of(Rc::clone(&routes));
    status_line.ready();
    let shutdown = signals.until_stopped(Rc::clone(&routes), &status_line, reopen);
    let working = async {
        server.serve(move |request| http::route(Rc::clone(&routes), request), shutdown).await;
        // The effects thread ends what is queued, bans included, before the process does.
        let _ = orders.send(Order::Stop);
        let _ = tokio::task::spawn_blocking(move || working.join()).await;
    };
    tokio::select! {
        () = working => {}
        () = systemd::keep_alive(|| pulse.beats()) => {}
        () = status_line.keep() => {}
    }
    tracing::info!(
        "stopped; bans in force stay until they expire, over a reboot too once this program runs again (conntrack-actioner teardown removes them)"
    );
    Ok(())
}

fn unusable(error: &std::io::Error) -> String {
    format!("a socket that systemd hands over cannot be used: {error}")
}

/// What is asked of clients over TCP. A webhook that is turned away is a webhook that was answered.
fn security(flags: &Run, metrics: Metrics) -> Result<Security, String> {
    let open = || {
        let security = flags.web.security()?;
        match &flags.bearer_token_file {
            Some(file) => security.with_bearer_token("--web.bearer-token-file", file),
            None => Ok(security),
        }
    };
    let security = open().map_err(|error: SecurityError| error.to_string())?;
    Ok(security.on_refusal(move |path, status| {
        if path == http::WEBHOOK_PATH {
            metrics.answered(status.as_u16());
        }
    }))
}

/// SIGTERM and SIGINT end it; SIGHUP reads the policy again and opens the audit log again.
struct Signals<S> {
    hangup: Signal,
    stop: S,
}

impl Signals<()> {
    fn catch() -> Result<Signals<impl Future<Output = ()>>, String> {
        let hangup = signal(SignalKind::hangup());
        let hangup = hangup.map_err(|error| format!("cannot listen for SIGHUP: {error}"))?;
        Ok(Signals { hangup, stop: web::shutdown::signal() })
    }
}

impl<S: Future<Output = ()>> Signals<S> {
    async fn until_stopped(mut self, routes: Rc<Routes>, line: &StatusLine, audit: Reopen) {
        let mut stop = std::pin::pin!(self.stop);
        loop {
            tokio::select! {
                () = &mut stop => return systemd::stopping(),
                Some(()) = self.hangup.recv() => audit.reopen(),
            }
            systemd::reloading();
            // A reload waits for the dump that is under way; a stop does not wait for the reload.
            tokio::select! {
                () = &mut stop => return systemd::stopping(),
                // The line says whether it succeeded.
                _ = http::reload(&routes) => line.ready(),
            }
        }
    }
}

fn effects(
    flags: &Run,
    policy: Policy,
    metrics: Metrics,
    mut surroundings: Surroundings,
    table_id: String,
) -> Result<Effects, String> {
    let now = Now::read();
    let rotation = Rotation { max_size: flags.audit_max_size.as_u64(), keep: flags.audit_keep };
    let audit = Audit::open(&flags.storage, now, rotation, metrics.clone()).map_err(|error| {
        format!("cannot open the audit log: {error} (choose another directory with --storage.path)")
    })?;
    may_read_table()?;
    let (store, loaded) = Store::open(&flags.storage, now)?;
    let (state, adopts) = match loaded {
        Loaded::State { state, same_boot } => {
            surroundings.restore(state.remembered(), now);
            // After a reboot there is nothing of ours in the kernel that it did not get from somebody else.
            (*state, same_boot)
        }
        Loaded::Nothing => (State::new(), true),
        Loaded::SetAside(why) => {
            tracing::error!(
                why,
                "what earlier runs decided is not known; bans that the kernel holds are kept for the time they have left"
            );
            (State::new(), true)
        }
    };
    for warning in &policy.warnings {
        tracing::warn!("{warning}");
    }
    if !policy.enforces_anything() {
        tracing::info!(
            "dry run: decisions are made and written down, and nothing is changed (`enforce: true` in the policy acts)"
        );
        say_what_still_stands(&policy);
    }
    metrics.policy_in_force(policy.enforces_anything(), now.wall);
    let gauge = Gauge::open().map_err(|error| {
        tracing::error!(%error, "the watch sees nothing until this kernel shows its connection tracking table (modprobe nf_conntrack)");
    });
    let mut effects = Effects {
        policy: Arc::new(policy),
        state,
        wall: None,
        no_wall: None,
        put_up_wall,
        store,
        storage: flags.storage.clone(),
        adopts,
        host_before: None,
        in_kernel: HashSet::new(),
        kernel_answers: true,
        failing: HashSet::new(),
        withheld: HashSet::new(),
        switch: Arc::default(),
        was_paused: false,
        published: Published::default(),
        table_id,
        policy_loaded: rfc3339(now.wall),
        audit,
        metrics,
        gauge: gauge.ok(),
        last_dump: None,
        entries_read: None,
        kernel_read: None,
        told: Told::default(),
        surroundings,
        reach: Reach::default(),
        flooded: None,
    };
    effects.begin()?;
    Ok(effects)
}

/// Without the right to read the table nothing can ever be decided; a kernel that has none yet may get one.
fn may_read_table() -> Result<(), String> {
    match Table::open().and_then(|mut table| survey::fill(&mut table)) {
        Ok(_) => Ok(()),
        Err(error @ conntrack::Error::NotPermitted { .. }) => {
            Err(format!("{error}; dry run needs it too, for decisions are made on the live table"))
        }
        Err(error) => {
            tracing::error!(%error, "the connection tracking table cannot be read: every alert is answered 503 until it can (modprobe nf_conntrack_netlink)");
            Ok(())
        }
    }
}

/// Bans of an earlier run outlive it, and dry run does not end them.
fn say_what_still_stands(policy: &Policy) {
    let found = configured_firewall(policy).and_then(|mut firewall| firewall.list());
    let (set, found) = (&policy.firewall.set, found.map_or(0, |elements| elements.len()));
    if found > 0 {
        tracing::warn!(
            set,
            found,
            "bans of an earlier run are still in force and dry run does not end them: they expire, or `conntrack-actioner teardown` removes them"
        );
    }
}

/// The firewall that a policy asks for, its sets and rule in place.
///
/// # Errors
/// Why there is none.
pub fn put_up_wall(policy: &Policy) -> Result<Wall, NoWall> {
    Wall::put_up(configured_firewall(policy)?, &policy.firewall.set)
}

/// The firewall that a policy asks for, not yet touched.
///
/// # Errors
/// Its name is none, or the kernel's netlink cannot be opened.
pub fn configured_firewall(policy: &Policy) -> Result<Box<dyn Firewall>, firewall::FirewallError> {
    let config = policy.firewall_config();
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

/// A directory that was not there before us; it goes when we go, also where the start fails.
struct Made(Option<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(directory) = &self.0 {
            // Not empty: somebody else's things are in it by now.
            let _ = fs::remove_dir(directory);
        }
    }
}

fn make_directory_of(socket: &Path) -> Result<Made, String> {
    let Some(directory) = socket.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(Made(None));
    };
    let made = Made((!directory.exists()).then(|| directory.to_owned()));
    fs::DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(|error| {
        format!("cannot make {}: {error} (choose another place with --admin.socket)", directory.display())
    })?;
    Ok(made)
}

/// A panic anywhere ends the process: HTTP must never outlive the effects thread.
fn abort_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        std::process::abort();
    }));
}
