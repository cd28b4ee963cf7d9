//! The refresh token on disk and the access token in memory.
//!
//! ```text
//!   file ──read──▶ refresh ──answer──▶ access token (300 s, renewed at 80 %)
//!     ▲                         │
//!     └──── replaced whole ◀────┘ where the answer carries another refresh token
//! ```

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use secrecy::{ExposeSecret, SecretString};

use super::http::{Answer, Client};
use super::oidc::{self, Who};
use super::token_file::{Login, TokenFile};
use crate::clock;
use crate::core::facts::ProviderFailure;
use crate::types::{Span, Tick};

/// How often the login service is asked again about a token that it has called dead.
const DEAD: Span = Span::secs(60);
/// How often storing a token is tried again.
const STORING: Span = Span::secs(10);
/// How long a new token is waited for to be on disk.
const DISK: Span = Span::secs(1);
/// Longest time for which the login service can ask to be left alone.
const LEFT_ALONE: Span = Span::secs(300);
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
    /// Until when the login service wants to be left alone, and what it said.
    wait: Option<(Tick, String)>,
    /// Why `newer` is not in the file, and when that was tried last.
    unsaved: Option<(String, Tick)>,
    /// A thread is at it.
    storing: bool,
}

/// The life of the tokens: refreshed when needed, by one thread at a time.
pub(super) struct Tokens {
    client: Arc<Client>,
    auth_url: String,
    file: TokenFile,
    state: Arc<Mutex<State>>,
    turn: Condvar,
}

fn same(a: Option<&SecretString>, b: &SecretString) -> bool {
    a.is_some_and(|a| a.expose_secret() == b.expose_secret())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing in here is half written when a thread dies.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tokens {
    pub(super) fn new(client: Arc<Client>, auth_url: String, file: TokenFile) -> Self {
        Self { client, auth_url, file, state: Arc::default(), turn: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
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

    /// Whose token it is that is in use, by what came with it or was asked.
    pub(super) fn in_use(&self) -> Option<Who> {
        let state = self.lock();
        state.used.map(|_| state.who.clone())
    }

    /// Whose token it is, by an answer to that very question.
    pub(super) fn learned(&self, who: Who) {
        let mut state = self.lock();
        state.who.user_id = who.user_id.or(state.who.user_id);
        state.who.account = who.account.or(state.who.account.take());
    }

    /// netcup does not know the user that the token names.
    pub(super) fn forget_user(&self) {
        self.lock().who.user_id = None;
    }

    /// Where the token is.
    pub(super) fn file(&self) -> &TokenFile {
        &self.file
    }

    /// Why the newest refresh token is not in the file: it would be lost with the process.
    pub(super) fn unsaved(&self) -> Option<String> {
        self.lock().unsaved.as_ref().map(|(why, _)| why.clone())
    }

    /// Time since the refresh token was last used with success.
    pub(super) fn age(&self) -> Option<Span> {
        self.lock().used.map(|used| clock::now().since(used))
    }

    /// An access token that is good for a while yet, refreshed if need be before `deadline`.
    pub(super) fn access(&self, deadline: Tick) -> Result<SecretString, ProviderFailure> {
        self.store_again();
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
                (state.newer, state.unsaved, state.wait) = (None, None, None);
                state.who = login.who.clone();
            }
            let refresh = state.newer.clone().unwrap_or(login.refresh);
            if let Some((dead, at, why)) = &state.dead
                && same(Some(dead), &refresh)
                && clock::now().since(*at) < DEAD
            {
                return Err(ProviderFailure::Auth(why.clone()));
            }
            if let Some((until, why)) = &state.wait {
                match clock::now().until(*until) {
                    Span::ZERO => state.wait = None,
                    left => {
                        return Err(ProviderFailure::Retry { why: why.clone(), after: Some(left) });
                    }
                }
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
                let mut state = self.lock();
                match &failure {
                    ProviderFailure::Auth(why) => {
                        state.dead = Some((refresh, asked, why.clone()));
                    }
                    ProviderFailure::Retry { why, after: Some(after) } => {
                        let until = clock::now() + (*after).min(LEFT_ALONE);
                        state.wait = Some((until, why.clone()));
                    }
                    ProviderFailure::Retry { after: None, .. }
                    | ProviderFailure::Budget { .. }
                    | ProviderFailure::Config(_) => {}
                }
                return Err(failure);
            }
        };
        self.client.hide(&grant.access);
        let claims = oidc::parse_claims(&grant.access);
        let rotated = grant.refresh.filter(|new| !same(Some(&refresh), new));
        {
            let mut state = self.lock();
            state.used = Some(asked);
            (state.dead, state.wait) = (None, None);
            state.who.user_id = claims.user_id.or(state.who.user_id);
            state.who.account = claims.account.or(state.who.account.take());
            state.access =
                Some(Access { token: grant.access.clone(), asked, lifetime: grant.lifetime });
            if let Some(new) = rotated {
                self.client.hide(&new);
                state.newer = Some(new);
            }
        }
        self.store();
        Ok(grant.access)
    }

    /// Tries again to store what could not be stored, now and then.
    fn store_again(&self) {
        {
            let mut state = self.lock();
            match &mut state.unsaved {
                Some((_, at)) if clock::now().since(*at) >= STORING => *at = clock::now(),
                Some(_) | None => return,
            }
        }
        self.store();
    }

    /// Puts the newest refresh token into the file, on a thread of its own: a disk may hang, and a route call must not.
    fn store(&self) {
        {
            let mut state = self.lock();
            if state.newer.is_none() || state.storing {
                return;
            }
            state.storing = true;
        }
        let (state, file) = (Arc::clone(&self.state), self.file.clone());
        let (done, is_done) = mpsc::channel::<()>();
        let started = std::thread::Builder::new().name("foip-token".into()).spawn(move || {
            store(&state, &file);
            lock(&state).storing = false;
            drop(done);
        });
        match started {
            // Ends with an error in any case: nothing is ever sent.
            Ok(_) => _ = is_done.recv_timeout(DISK.as_std()),
            Err(_) => self.lock().storing = false,
        }
    }
}

fn store(shared: &Mutex<State>, file: &TokenFile) {
    let (login, seen) = {
        let state = lock(shared);
        let Some(newer) = state.newer.clone() else {
            return;
        };
        (Login { who: state.who.clone(), refresh: newer }, state.seen.clone())
    };
    // Somebody has logged in meanwhile: what is in the file is newer still.
    let there = file.load().ok().map(|login| login.refresh);
    if there.is_some_and(|there| !same(seen.as_ref(), &there)) {
        return;
    }
    let stored = file.store(&login);
    let mut state = lock(shared);
    if !same(state.newer.as_ref(), &login.refresh) {
        return;
    }
    match stored {
        Ok(()) => {
            state.seen = Some(login.refresh);
            (state.newer, state.unsaved) = (None, None);
        }
        Err(error) => {
            let why = format!(
                "cannot replace the token file {}: {error}: the login is lost when foip ends; make room or make the folder writable",
                file.path().display()
            );
            if state.unsaved.is_none() {
                tracing::warn!("{why}");
            }
            state.unsaved = Some((why, clock::now()));
        }
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
                "netcup no longer accepts the refresh token (invalid_grant): it was revoked, or the SCP's password was changed with the box \"Sign out from other devices\", or it was not used for 30 days: log in again with `foip login`"
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

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
