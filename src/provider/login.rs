//! `foip login` and `foip logout`: the device flow (RFC 8628) as a machine that a command line drives.
//!
//! ```text
//!   begin ──▶ show page and code ──▶ poll ──▶ Pending: wait, poll again
//!                                      ├────▶ Done: the token file is written
//!                                      └────▶ Denied, Expired: begin again
//! ```

use secrecy::SecretString;

use super::http::{Answer, Client};
use super::oidc::{self, Who};
use super::token_file::{Login, TokenFile};
use super::{OpenError, Options, rest};
use crate::clock;
use crate::core::facts::ProviderFailure;
use crate::types::{Account, Span, Tick};

/// RFC 8628, 3.5: what `slow_down` adds to the time between two polls.
const SLOWER: Span = Span::secs(5);

/// Why logging in or out did not work.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The configuration cannot work.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The login service refused, or did not answer.
    #[error("{}", .0.why())]
    Provider(ProviderFailure),
    /// The token file cannot be written or removed.
    #[error("cannot replace the token file {}: {why}", path.display())]
    File {
        /// Which file.
        path: std::path::PathBuf,
        /// What the kernel said.
        why: std::io::Error,
    },
}

impl From<ProviderFailure> for LoginError {
    fn from(failure: ProviderFailure) -> Self {
        Self::Provider(failure)
    }
}

/// A login under way.
pub struct Device {
    client: Client,
    auth_url: String,
    file: TokenFile,
    code: oidc::Code,
    interval: Span,
    expires: Tick,
}

/// How far a login is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Nobody has answered yet, or the login service could not be reached: poll again after this time.
    Pending {
        /// How long to wait.
        wait: Span,
    },
    /// The token file is written.
    Done {
        /// Who logged in, where the token says so.
        account: Option<Account>,
    },
    /// The user said no.
    Denied,
    /// The code is too old.
    Expired,
}

impl Device {
    /// Asks for a code to show.
    ///
    /// # Errors
    /// Where the login service cannot be reached or refuses.
    pub fn begin(options: &Options) -> Result<Self, LoginError> {
        let client = Client::open(options)?;
        let auth_url = rest::auth_url(options)?;
        let request = oidc::begin(&auth_url);
        let what = request.what();
        let retry = |why| ProviderFailure::Retry { why, after: None };
        let timeout = client.timeouts.total;
        let answer = client.send(request, timeout, None).map_err(retry)?;
        if answer.status != 200 {
            let said = oidc::parse_error(&answer.body).unwrap_or_default();
            return Err(super::http::failure(&what, &answer, &said).into());
        }
        let bad = |why: String| retry(format!("{what}: {why}"));
        let code = oidc::parse_code(answer.whole().map_err(bad)?).map_err(bad)?;
        client.hide(&code.device);
        Ok(Self {
            client,
            auth_url,
            file: TokenFile::new(&options.token_file),
            interval: code.interval,
            expires: clock::now() + code.lifetime,
            code,
        })
    }

    /// The page that the user has to open.
    pub fn page(&self) -> &str {
        &self.code.page
    }

    /// The same page with the code filled in.
    pub fn page_complete(&self) -> Option<&str> {
        self.code.page_complete.as_deref()
    }

    /// The code that the user has to enter there.
    pub fn user_code(&self) -> &str {
        &self.code.user
    }

    /// How long to wait before the first poll.
    pub fn interval(&self) -> Span {
        self.interval
    }

    /// How long the code is good for yet.
    pub fn left(&self) -> Span {
        clock::now().until(self.expires)
    }

    /// Asks once whether the user has answered.
    ///
    /// # Errors
    /// Where the login service refuses for good, or the token file cannot be written.
    pub fn poll(&mut self) -> Result<Poll, LoginError> {
        if self.left() == Span::ZERO {
            return Ok(Poll::Expired);
        }
        let request = oidc::poll(&self.auth_url, &self.code.device);
        let what = request.what();
        let timeout = self.client.timeouts.total;
        let step = match self.client.send(request, timeout, None) {
            Ok(answer) => judge(&what, &answer),
            // RFC 8628, 3.5: less often where nothing comes back.
            Err(_) => Step::Slower,
        };
        match step {
            Step::Same => {}
            Step::Slower => self.interval = (self.interval + SLOWER).min(Span::secs(60)),
            Step::Denied => return Ok(Poll::Denied),
            Step::Expired => return Ok(Poll::Expired),
            Step::Refused(failure) => return Err(failure.into()),
            Step::Granted(grant) => return self.finish(&grant),
        }
        Ok(Poll::Pending { wait: self.interval })
    }

    fn finish(&self, grant: &oidc::Grant) -> Result<Poll, LoginError> {
        let Some(refresh) = grant.refresh.clone() else {
            return Err(ProviderFailure::Auth(
                "the login service gave no refresh token: is offline access forbidden for this account?".into(),
            )
            .into());
        };
        self.client.hide(&grant.access);
        self.client.hide(&refresh);
        let mut who = oidc::parse_claims(&grant.access);
        if who.user_id.is_none() || who.account.is_none() {
            let asked = self.ask_who(&grant.access).unwrap_or_default();
            who.user_id = who.user_id.or(asked.user_id);
            who.account = who.account.or(asked.account);
        }
        let account = who.account.clone();
        let stored = self.file.store(&Login { who, refresh });
        stored.map_err(|why| LoginError::File { path: self.file.path().to_owned(), why })?;
        Ok(Poll::Done { account })
    }

    fn ask_who(&self, access: &SecretString) -> Option<Who> {
        let request = oidc::userinfo(&self.auth_url, access);
        let timeout = self.client.timeouts.total;
        let answer = self.client.send(request, timeout, None).ok()?;
        let body = answer.whole().ok().filter(|_| answer.status == 200)?;
        oidc::parse_userinfo(body).ok()
    }
}

enum Step {
    Same,
    Slower,
    Denied,
    Expired,
    Granted(Box<oidc::Grant>),
    Refused(ProviderFailure),
}

fn judge(what: &str, answer: &Answer) -> Step {
    if answer.status == 200 {
        return match answer.whole().and_then(oidc::parse_grant) {
            Ok(grant) => Step::Granted(Box::new(grant)),
            // The code is used up with the answer; asking on would end in `invalid_grant`.
            Err(why) => {
                Step::Refused(ProviderFailure::Retry { why: format!("{what}: {why}"), after: None })
            }
        };
    }
    match oidc::parse_error(&answer.body).as_deref() {
        Some("authorization_pending") => Step::Same,
        Some("slow_down") => Step::Slower,
        Some("access_denied") => Step::Denied,
        Some("expired_token" | "invalid_grant") => Step::Expired,
        Some(code) if matches!(answer.status, 400 | 401) => Step::Refused(ProviderFailure::Auth(
            format!("{what}: {} ({code})", answer.status_words()),
        )),
        _ if answer.status == 429 || answer.status >= 500 => Step::Slower,
        _ => Step::Refused(super::http::failure(what, answer, "")),
    }
}

/// How logging out ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logout {
    /// There was no token file.
    Nothing,
    /// The file is removed; the token in it stays good at netcup.
    Removed,
    /// netcup took the token back, then the file was removed.
    Revoked,
}

/// Removes the token file; takes the token back at the login service before that where `revoke` says so.
///
/// Taking back is not the default: one token taken back can end the logins of every other node, in older versions
/// of Keycloak always, and in newer ones where the logins were approved in one session of a browser.
///
/// The file stays where the token could not be taken back: it would remain valid with nobody knowing it.
///
/// # Errors
/// Where the login service does not answer, or the file cannot be removed.
pub fn logout(options: &Options, revoke: bool) -> Result<Logout, LoginError> {
    let file = TokenFile::new(&options.token_file);
    if !file.path().exists() {
        return Ok(Logout::Nothing);
    }
    if revoke {
        take_back(options, &file)?;
    }
    file.remove().map_err(|why| LoginError::File { path: file.path().to_owned(), why })?;
    Ok(if revoke { Logout::Revoked } else { Logout::Removed })
}

fn take_back(options: &Options, file: &TokenFile) -> Result<(), LoginError> {
    let client = Client::open(options)?;
    let auth_url = rest::auth_url(options)?;
    let login = file.load()?;
    client.hide(&login.refresh);
    let request = oidc::revoke(&auth_url, &login.refresh);
    let what = request.what();
    let retry = |why| ProviderFailure::Retry { why, after: None };
    let timeout = client.timeouts.total;
    let answer = client.send(request, timeout, None).map_err(retry)?;
    // RFC 7009, 2.2: an unknown token is answered 200 as well. Keycloak says invalid_token with 400.
    let gone = matches!(
        oidc::parse_error(&answer.body).as_deref(),
        Some("invalid_token" | "invalid_grant")
    );
    if (200..300).contains(&answer.status) || gone {
        return Ok(());
    }
    Err(super::http::failure(&what, &answer, "").into())
}
