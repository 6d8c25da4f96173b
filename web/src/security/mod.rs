//! Who may ask: TLS, passwords, tokens and clients' certificates, as exporter-toolkit has them.
//!
//! All of it concerns TCP; on a unix socket the file's mode decides. What is configured is looked at again at each
//! connection and each request; a file that cannot be used leaves what was before in force, and says so.

mod bearer;
mod client;
mod counters;
mod format;
mod names;
mod password;
mod rate;
mod settings;
mod tls;
mod watched;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::burst::Burst;
use crate::neighbourhood::Neighbourhood;
use crate::{Peer, Response, StatusCode, header};
use bearer::Token;
pub use counters::Counters;
pub(crate) use counters::Reason;
use password::{Checker, Claim, Verdict};
use settings::Settings;
use tls::Clients;
pub(crate) use tls::Tls;
use watched::{News, Watched};

/// As whom a client has proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A user of `basic_auth_users`.
    User(String),
    /// Whoever knows the bearer token.
    Bearer,
    /// A verified certificate: its first subject alternative name, else its subject.
    Certificate(String),
}

/// A web configuration, or a token's file, that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// The file of `--web.config.file`, or one that it names.
    #[error("--web.config.file: {0}")]
    Config(String),
    /// The file of the bearer token.
    #[error("{flag} {}: {reason}", .file.display())]
    Token {
        /// The flag that named it.
        flag: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a configuration of which nobody knows who wrote it, without the files that it names: for [`crate::hostile`].
pub(crate) fn read_hostile(text: &str) {
    match format::parse(text) {
        Ok(file) => settings::judge(file, Path::new("/nonexistent")),
        Err(fault) => assert!(!fault.what.is_empty() && fault.what.len() < text.len() + 1000, "{fault:?}"),
    }
}

type Hook = Box<dyn Fn(&str, StatusCode)>;

/// What is asked of clients. See the [module's](self) words.
pub struct Security {
    config: Option<Watched<Settings>>,
    token: Option<Watched<Token>>,
    /// Whether the last look at each of them found something that cannot be used.
    stale: [Cell<bool>; 2],
    checker: Checker,
    counters: Counters,
    told: RefCell<Burst>,
    on_refusal: Option<Hook>,
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = |path: Option<&Path>| path.map(Path::to_owned);
        f.debug_struct("Security")
            .field("config", &path(self.config.as_ref().map(Watched::path)))
            .field("token", &path(self.token.as_ref().map(Watched::path)))
            .finish_non_exhaustive()
    }
}

impl Default for Security {
    fn default() -> Self {
        Self {
            config: None,
            token: None,
            stale: Default::default(),
            checker: Checker::new(),
            counters: Counters::new(),
            told: RefCell::default(),
            on_refusal: None,
        }
    }
}

impl Security {
    /// What a file in exporter-toolkit's format asks for; nothing without one.
    ///
    /// # Errors
    /// What is wrong with it, with line and column, or with a file that it names. No error holds a secret.
    pub fn open(config: Option<&Path>) -> Result<Self, SecurityError> {
        let open = |path: &Path| Watched::open(path, Settings::read).map_err(SecurityError::Config);
        Ok(Self { config: config.map(open).transpose()?, ..Self::default() })
    }

    /// The same, and whoever shows this file's token is let in as well: a client must show a password or the token.
    ///
    /// # Errors
    /// The file, which `flag` named, cannot be read or holds no token.
    pub fn with_bearer_token(mut self, flag: &'static str, file: &Path) -> Result<Self, SecurityError> {
        let wrong = |reason| SecurityError::Token { flag, file: file.to_owned(), reason };
        self.token = Some(Watched::open(file, Token::read).map_err(wrong)?);
        Ok(self)
    }

    /// Calls `hook` with the path and the status of each request that is turned away before a handler sees it.
    #[must_use]
    pub fn on_refusal(mut self, hook: impl Fn(&str, StatusCode) + 'static) -> Self {
        self.on_refusal = Some(Box::new(hook));
        self
    }

    /// What it counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether no request over TCP reaches a handler without a password, the token or a verified certificate. Once true it
    /// stays true: a file that takes it away is refused.
    pub fn authenticates(&self) -> bool {
        let settings = self.settings();
        self.token.is_some()
            || settings
                .is_some_and(|settings| !settings.users.is_empty() || settings.clients() == Clients::Verified)
    }

    /// Whether TLS is spoken. It never changes.
    pub fn encrypts(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.value().tls.is_some())
    }

    fn settings(&self) -> Option<Rc<Settings>> {
        let config = self.config.as_ref()?;
        self.tell(0, config.path(), &config.look(Settings::may_become), "the web configuration");
        Some(config.value())
    }

    fn token(&self) -> Option<Rc<Token>> {
        let token = self.token.as_ref()?;
        self.tell(1, token.path(), &token.look(|_, _| Ok(())), "the bearer token");
        Some(token.value())
    }

    fn tell(&self, which: usize, path: &Path, news: &News, what: &str) {
        let file = path.display();
        match news {
            News::Same => return,
            News::New => tracing::info!(%file, "{what} was read again and is in force"),
            News::Refused(error) => {
                tracing::error!(%file, error, "{what} was not read again: the one before stays in force");
            }
        }
        self.stale[which].set(matches!(news, News::Refused(_)));
        self.counters.reloaded(!self.stale.iter().any(Cell::get));
    }

    /// The files that decide who is let in, as they are named: a confined program must still be able to read them.
    pub fn files(&self) -> Vec<PathBuf> {
        let config = self.config.iter().flat_map(Watched::files);
        config.chain(self.token.iter().flat_map(Watched::files)).collect()
    }

    /// The TLS to be spoken with a new client.
    pub(crate) fn tls(&self) -> Option<Rc<Tls>> {
        self.settings()?.tls.clone()
    }

    /// Whether connections that agreed on this should be made anew.
    pub(crate) fn is_of_before(&self, tls: &Rc<Tls>) -> bool {
        let now = self.config.as_ref().and_then(|config| config.value().tls.clone());
        !now.is_some_and(|now| Rc::ptr_eq(&now, tls))
    }

    /// Counts a client that was turned away, and says so once a minute.
    pub(crate) fn refuse(&self, reason: Reason, peer: Peer, why: &str) {
        self.counters.refuse(reason);
        tracing::debug!(%peer, why, "a client is turned away");
        if let Some(count) = self.told.borrow_mut().note() {
            tracing::warn!(%peer, why, count, "clients are turned away");
        }
    }

    /// Lets a request in, and tells as whom, or gives the answer that turns it away. Its body is not read before.
    pub(crate) async fn admit(
        &self,
        peer: Peer,
        path: &str,
        headers: &HeaderMap,
        certified: Option<Identity>,
    ) -> Result<Option<Identity>, Response> {
        let admitted = self.judge(peer, headers, certified).await;
        admitted.map_err(|(reason, response)| {
            self.refuse(reason, peer, reason.words());
            if let Some(hook) = &self.on_refusal {
                hook(path, response.status());
            }
            response
        })
    }

    async fn judge(
        &self,
        peer: Peer,
        headers: &HeaderMap,
        certified: Option<Identity>,
    ) -> Result<Option<Identity>, (Reason, Response)> {
        let (settings, token) = (self.settings(), self.token());
        if let Some(rate) = settings.as_ref().and_then(|settings| settings.rate.as_ref())
            && !rate.take(Instant::now())
        {
            let answer =
                Response::text(StatusCode::TOO_MANY_REQUESTS, "More requests than rate_limit allows.\n");
            return Err((Reason::RateLimited, answer));
        }
        let users = settings.as_ref().map(|settings| &settings.users).filter(|users| !users.is_empty());
        if users.is_none() && token.is_none() {
            return Ok(certified);
        }
        let unauthorized = |reason: Reason| {
            let schemes = match (users.is_some(), token.is_some()) {
                (true, true) => "Basic realm=\"conntrack-guard\", Bearer",
                (true, false) => "Basic realm=\"conntrack-guard\"",
                (false, _) => "Bearer",
            };
            let answer = Response::text(StatusCode::UNAUTHORIZED, "Unauthorized\n");
            (reason, answer.header(header::WWW_AUTHENTICATE, schemes))
        };
        let Some(shown) = headers.get(AUTHORIZATION) else {
            return Err(unauthorized(Reason::NoCredentials));
        };
        let wrong = || unauthorized(Reason::WrongCredentials);
        let (scheme, shown) =
            shown.to_str().ok().and_then(|shown| shown.split_once(' ')).ok_or_else(wrong)?;
        let shown = shown.trim();
        if let Some(token) = &token
            && scheme.eq_ignore_ascii_case("Bearer")
        {
            return if token.is(shown) { Ok(Some(Identity::Bearer)) } else { Err(wrong()) };
        }
        let (Some(users), true) = (users, scheme.eq_ignore_ascii_case("Basic")) else { return Err(wrong()) };
        let claim = Claim::read(shown).ok_or_else(wrong)?;
        let user = claim.user.clone();
        match self.checker.check(users, claim, Neighbourhood::of(peer)).await {
            Verdict::Right => Ok(Some(Identity::User(user))),
            Verdict::Wrong => Err(wrong()),
            Verdict::Busy => {
                let sentence = "Too many passwords wait to be checked; try again.\n";
                let answer = Response::text(StatusCode::SERVICE_UNAVAILABLE, sentence);
                Err((Reason::Busy, answer.header(header::RETRY_AFTER, "1")))
            }
        }
    }

    /// The headers that answers over TCP get.
    pub(crate) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        self.config.as_ref().map(|config| config.value().headers.clone()).unwrap_or_default()
    }
}
