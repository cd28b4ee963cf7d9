//! netcup: REST and SOAP behind one trait.
//!
//! ```text
//!   driver (worker threads)
//!      │  Provider: home, routes, route, task, past_calls
//!   ┌──┴───┐      ┌──────┐
//!   │ rest │      │ soap │      sorted into ProviderFailure here, at the edge
//!   └──┬───┘      └──┬───┘
//!    token (oidc)    │          refresh token on disk, access token in memory
//!      └──────┬──────┘
//!           http               one client: deadlines, caps, no redirects, no proxy
//!             │
//!          names               where netcup's names lead, also without a resolver
//!             │
//!           wire               TCP, TLS, and the gate that every route call passes (I2)
//! ```
//!
//! Adapters translate; they decide nothing and repeat nothing. The single exception is a read that
//! was answered 401: it is asked once more with a new access token.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use secrecy::SecretString;

use crate::core::config::Api;
use crate::core::facts::{
    Home, Listing, PastCall, ProviderFailure, ProviderTime, RouteOutcome, TaskId, TaskState,
};
use crate::types::{Account, FailoverIp, IfName, Mac, Server, ServerName, Span, Tick};

mod call;
mod date;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod home;
#[cfg(test)]
mod hostile;
mod http;
mod json;
pub mod login;
mod names;
mod oidc;
mod rest;
mod soap;
#[cfg(test)]
mod testing;
mod token;
mod token_file;
mod wire;
mod xml;

pub use token_file::TokenFile;

/// What this host knows of itself, for finding its server at the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The server's name, from the configuration or the Node's annotation.
    pub server: Option<ServerName>,
    /// Every NIC that may carry failover IPs: name, MAC, global addresses.
    pub nics: Vec<(IfName, Mac, Vec<IpAddr>)>,
    /// The NIC that the configuration names.
    pub nic: Option<IfName>,
}

/// An answer with the provider's clock at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated<T> {
    /// The answer.
    pub value: T,
    /// `Date` of the last response, if one came and carried it.
    pub date: Option<ProviderTime>,
}

/// What bounds a route call (I2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// At or after this moment nothing is sent. Compared with [`crate::clock::now`] immediately before
    /// the first byte of the request is handed to TLS.
    pub not_after: Tick,
    /// The whole call, with everything that it needs first, ends within this time, answer or not.
    pub timeout: Span,
}

/// How a route call ended.
///
/// A request that was given up can still reach netcup later. What bounds that: the connection is
/// used for this one request, closed with `SO_LINGER` 0 (unsent bytes are thrown away, not
/// delivered in the background) and has `TCP_USER_TIMEOUT` set to the call's timeout (the kernel
/// gives up unacknowledged bytes by itself, also while this process is stopped). So no byte leaves
/// this host later than `started + timeout` and one retransmission interval; what is already in
/// the network then arrives within a packet's lifetime. Beyond that lies only netcup's own queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// When the first byte was about to be written. `None`: none was, and nothing was spent, whatever `outcome` says.
    pub started: Option<Tick>,
    /// What came of it.
    pub outcome: RouteOutcome,
    /// `Date` of the answer, if one came and carried it.
    pub date: Option<ProviderTime>,
}

/// netcup, in blocking calls: to be called from worker threads. Each call ends within its deadline.
pub trait Provider: Send + Sync {
    /// Finds the own server, or confirms the one that is given.
    ///
    /// # Errors
    /// `Config` where the provider contradicts what is configured or no server has a MAC of this host.
    fn home(&self, host: &HostFacts) -> Result<Home, ProviderFailure>;

    /// Where these IPs are routed. Only the address families among them are asked for.
    ///
    /// An IP is left out of the listing where the provider does not list it. Where its entry cannot be read, or a part
    /// of the answer could not be had, it is in `unread` with the reason.
    fn routes(&self, ips: &BTreeSet<FailoverIp>) -> Dated<Result<Listing, ProviderFailure>>;

    /// Routes `ip` to `to`: at most one request that changes anything, never repeated.
    fn route(&self, ip: FailoverIp, to: &Server, guard: Guard) -> Routing;

    /// How far a route task is.
    ///
    /// # Errors
    /// Where there is no usable answer. A 404 is [`TaskState::NotFound`].
    fn task(&self, task: &TaskId) -> Result<TaskState, ProviderFailure>;

    /// The route calls of the last hour that the provider remembers; `None` where it keeps no such
    /// list (SOAP).
    ///
    /// # Errors
    /// Where there is no usable answer, or one that cannot be placed in time.
    fn past_calls(&self) -> Result<Option<Vec<PastCall>>, ProviderFailure>;

    /// Whose servers these are, where that is known without asking: the account owns the budget.
    fn account(&self) -> Option<Account>;

    /// Uses the refresh token if it has not been used for half a day; netcup forgets it after 30
    /// days without use. To be called now and then. SOAP has nothing to keep alive.
    ///
    /// # Errors
    /// As for every request; `Auth` when the token is dead.
    fn keep_alive(&self) -> Result<(), ProviderFailure>;

    /// How long ago this process last used the refresh token with success. `None` for SOAP, and
    /// before the first time.
    fn token_age(&self) -> Option<Span>;

    /// What this process knows and could not write to disk, in words; `None` when all is saved. Asks nobody, waits
    /// for nothing.
    fn unsaved(&self) -> Option<String>;
}

/// How long requests may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name, TCP and TLS together.
    pub connect: Span,
    /// A whole request. A route call has its own, in [`Guard`].
    pub total: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Span::secs(3), total: Span::secs(10) }
    }
}

/// Which interface, where, and with what credentials.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interface.
    pub api: Api,
    /// Instead of netcup's own address.
    pub url: Option<String>,
    /// Instead of netcup's own login service (REST).
    pub auth_url: Option<String>,
    /// PEM file with the only CAs to be believed, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Where `foip login` put the refresh token (REST).
    pub token_file: PathBuf,
    /// Where the addresses at which netcup answered are kept, for the day on which the resolver does not answer.
    pub addresses: Option<PathBuf>,
    /// Customer number (SOAP).
    pub login_name: Option<Account>,
    /// The webservice password, which is not the SCP's (SOAP). Without it every answer is `Auth`.
    pub password: Option<SecretString>,
    /// Deadlines.
    pub timeouts: Timeouts,
}

/// Why the client cannot be built: all of it configuration.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `url` or `auth_url` is unusable.
    #[error("provider.{knob} {why}")]
    Url {
        /// Which key.
        knob: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The CA file cannot be used.
    #[error("cannot use provider.ca_file {}: {why}", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// SOAP without a customer number.
    #[error("api = \"soap\" needs provider.{0}")]
    Missing(&'static str),
}

/// Builds the adapter. Asks nobody anything: a missing token file shows in the first answer.
///
/// # Errors
/// Where the options cannot work.
pub fn open(options: Options) -> Result<Box<dyn Provider>, OpenError> {
    match options.api {
        Api::Rest => Ok(Box::new(rest::Rest::open(&options)?)),
        Api::Soap => Ok(Box::new(soap::Soap::open(&options)?)),
    }
}
