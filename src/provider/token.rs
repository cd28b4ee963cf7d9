//! The refresh token on disk and the access token in memory.
//!
//! ```text
//!   file ──read──▶ refresh ──answer──▶ access token (300 s, renewed at 80 %)
//!     ▲                         │
//!     └──── replaced whole ◀────┘ where the answer carries another refresh token
//! ```

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use secrecy::{ExposeSecret, SecretString};

use super::http::{Answer, Client};
use super::oidc::{self, Who};
use super::token_file::{Login, TokenFile};
use crate::clock;
use crate::core::facts::ProviderFailure;
use crate::types::{Span, Tick};

/// How often the login service is asked again about a token that it has called dead.
const DEAD: Span = Span::secs(60);
/// A refresh token that was not used for this long is used by [`Tokens::keep_alive`].
const IDLE: Span = Span::secs(12 * 3600);

/// An access token and what is known of it.
#[derive(Clone, Debug)]
struct Access {
    token: SecretString,
    asked: Tick,
    lifetime: Span,
}

impl Access {
    fn age(&self) -> Span {
        clock::now().since(self.asked)
    }

    fn fresh(&self) -> bool {
        self.age() < Span(self.lifetime.0 / 5 * 4)
    }

    fn valid(&self) -> bool {
        self.age() < self.lifetime
    }
}

#[derive(Debug, Default)]
struct State {
    /// The refresh token as the file had it when it was last read.
    seen: Option<SecretString>,
    /// Its successor, where the file could not be replaced.
    newer: Option<SecretString>,
    who: Who,
    access: Option<Access>,
    /// Somebody is asking right now; the others wait for what comes back.
    busy: bool,
    /// When the last refresh succeeded.
    used: Option<Tick>,
    /// The refresh token that was called dead, when, and in what words.
    dead: Option<(SecretString, Tick, String)>,
}

/// The life of the tokens: refreshed when needed, by one thread at a time.
pub(super) struct Tokens {
    client: Arc<Client>,
    auth_url: String,
    file: TokenFile,
    state: Mutex<State>,
    turn: Condvar,
}

fn same(a: Option<&SecretString>, b: &SecretString) -> bool {
    a.is_some_and(|a| a.expose_secret() == b.expose_secret())
}

impl Tokens {
    pub(super) fn new(client: Arc<Client>, auth_url: String, file: TokenFile) -> Self {
        Self { client, auth_url, file, state: Mutex::default(), turn: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here is half written when a thread dies.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn auth_url(&self) -> &str {
        &self.auth_url
    }

    /// Whose token it is, as far as that is known without asking.
    pub(super) fn who(&self) -> Who {
        let known = self.lock().who.clone();
        match known.user_id.is_some() && known.account.is_some() {
            true => known,
            false => self.file.load().map_or(known, |login| login.who),
        }
    }

    /// Time since the refresh token was last used with success.
    pub(super) fn age(&self) -> Option<Span> {
        self.lock().used.map(|used| clock::now().since(used))
    }

    /// An access token that is good for a while yet, refreshed if need be before `deadline`.
    pub(super) fn access(&self, deadline: Tick) -> Result<SecretString, ProviderFailure> {
        self.obtain(deadline, |access| access.fresh())
    }

    /// Another access token than this one, which was refused.
    pub(super) fn other_than(
        &self,
        refused: &SecretString,
        deadline: Tick,
    ) -> Result<SecretString, ProviderFailure> {
        let mut state = self.lock();
        if same(state.access.as_ref().map(|access| &access.token), refused) {
            state.access = None;
        }
        drop(state);
        self.access(deadline)
    }

    /// The access token was refused: the next call gets another.
    pub(super) fn forget(&self, refused: &SecretString) {
        let mut state = self.lock();
        if same(state.access.as_ref().map(|access| &access.token), refused) {
            state.access = None;
        }
    }

    /// Uses the refresh token where it was idle for half a day.
    pub(super) fn keep_alive(&self) -> Result<(), ProviderFailure> {
        if self.age().is_some_and(|age| age < IDLE) {
            return Ok(());
        }
        let deadline = clock::now() + self.client.timeouts.total;
        self.obtain(deadline, |_| false).map(drop)
    }

    fn obtain(
        &self,
        deadline: Tick,
        good: impl Fn(&Access) -> bool,
    ) -> Result<SecretString, ProviderFailure> {
        let mut state = self.lock();
        let mut waited = false;
        loop {
            // Whoever waited takes what the other brought, however short its life.
            let usable = |access: &&Access| good(access) || (waited && access.valid());
            if let Some(access) = state.access.as_ref().filter(usable) {
                return Ok(access.token.clone());
            }
            if !state.busy {
                break;
            }
            let left = clock::now().until(deadline);
            if left == Span::ZERO {
                return Err(ProviderFailure::Retry {
                    why: "no access token in time: another request is still waiting for one".into(),
                    after: None,
                });
            }
            waited = true;
            (state, _) = self
                .turn
                .wait_timeout(state, left.as_std())
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.busy = true;
        drop(state);
        let result = self.refresh(deadline);
        let mut state = self.lock();
        state.busy = false;
        self.turn.notify_all();
        match result {
            Ok(token) => Ok(token),
            // The old one is still good while the login service is not.
            Err(ProviderFailure::Retry { why, after }) => match &state.access {
                Some(access) if access.valid() => Ok(access.token.clone()),
                _ => Err(ProviderFailure::Retry { why, after }),
            },
            Err(other) => Err(other),
        }
    }

    fn refresh(&self, deadline: Tick) -> Result<SecretString, ProviderFailure> {
        // Read anew each time: `foip login` may have been run.
        let login = self.file.load()?;
        let refresh = {
            let mut state = self.lock();
            if !same(state.seen.as_ref(), &login.refresh) {
                state.seen = Some(login.refresh.clone());
                state.newer = None;
                state.who = login.who.clone();
            }
            let refresh = state.newer.clone().unwrap_or(login.refresh);
            if let Some((dead, at, why)) = &state.dead
                && same(Some(dead), &refresh)
                && clock::now().since(*at) < DEAD
            {
                return Err(ProviderFailure::Auth(why.clone()));
            }
            refresh
        };
        self.client.hide(&refresh);
        let asked = clock::now();
        let timeout = asked.until(deadline).min(self.client.timeouts.total);
        let request = oidc::refresh(&self.auth_url, &refresh);
        let what = request.what();
        let answer = self
            .client
            .send(request, timeout, None)
            .map_err(|why| ProviderFailure::Retry { why, after: None })?;
        let grant = match judge(&what, &answer) {
            Ok(grant) => grant,
            Err(failure) => {
                if let ProviderFailure::Auth(why) = &failure {
                    self.lock().dead = Some((refresh, asked, why.clone()));
                }
                return Err(failure);
            }
        };
        self.client.hide(&grant.access);
        let claims = oidc::parse_claims(&grant.access);
        let rotated = grant.refresh.filter(|new| !same(Some(&refresh), new));
        let mut state = self.lock();
        state.used = Some(asked);
        state.dead = None;
        state.who.user_id = claims.user_id.or(state.who.user_id);
        state.who.account = claims.account.or(state.who.account.take());
        state.access =
            Some(Access { token: grant.access.clone(), asked, lifetime: grant.lifetime });
        if let Some(new) = rotated {
            self.client.hide(&new);
            let login = Login { who: state.who.clone(), refresh: new.clone() };
            match self.file.store(&login) {
                Ok(()) => {
                    state.seen = Some(new);
                    state.newer = None;
                }
                Err(error) => {
                    tracing::warn!(
                        "cannot replace the token file {} ({error}): the new refresh token is lost at the next restart",
                        self.file.path().display()
                    );
                    state.newer = Some(new);
                }
            }
        }
        Ok(grant.access)
    }
}

/// What the login service's answer to a refresh means.
pub(super) fn judge(what: &str, answer: &Answer) -> Result<oidc::Grant, ProviderFailure> {
    let retry = |why: String| ProviderFailure::Retry {
        why: format!("{what}: {why}"),
        after: answer.retry_after,
    };
    match answer.status {
        200 => {
            let body = answer.whole().map_err(retry)?;
            oidc::parse_grant(body).map_err(retry)
        }
        400 | 401 => match oidc::parse_error(&answer.body) {
            Some(code) if code == "invalid_grant" => Err(ProviderFailure::Auth(
                "netcup no longer accepts the refresh token (invalid_grant): log in again with `foip login`"
                    .into(),
            )),
            Some(code) => Err(ProviderFailure::Auth(format!(
                "{what}: {} ({code}): log in again with `foip login`",
                answer.status_words()
            ))),
            None => Err(retry(answer.status_words())),
        },
        _ => Err(super::http::failure(what, answer, "")),
    }
}
