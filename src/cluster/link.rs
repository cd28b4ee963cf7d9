//! The link to the cluster: access from the kubeconfig, the endpoint in use, and one call at a time over them.
//!
//! A call is one question with one deadline. It goes to one endpoint, and is repeated only in
//! these cases, each with a bound: nothing of it left this host (any call), 503 (reads), 401 or a TLS failure after
//! which the kubeconfig turned out to have changed (once). Calls share no queue: a server that hangs holds
//! up nobody but those that asked it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Options;
use super::dial;
use super::endpoints::{Endpoints, Place};
use super::failure::Error;
use super::kubeconfig::{Access, Stamp};
use super::lease::Strangers;
use super::listing::FIRST_PAGE;
use super::remarks::Remarks;
use super::wire::{self, Answer, Ask, Sink, Whole};
use crate::clock;
use crate::files::{Lasts, Replacer};
use crate::types::{NodeName, Span, Tick};

/// No call is sent to more endpoints than this.
const ENDPOINTS_PER_CALL: usize = 3;

/// What all clones of a `Cluster` share.
pub struct Link {
    state: Mutex<State>,
    /// Held while the kubeconfig is read.
    pub(super) reading: tokio::sync::Mutex<()>,
    /// Counts changes of the endpoint in use, of the access, and of what is asked for.
    pub moved: watch::Sender<u64>,
    /// The names of all Nodes, as last listed whole.
    pub members: watch::Sender<Option<Arc<BTreeSet<NodeName>>>>,
    /// What a person should know though no call failed.
    pub remarks: Remarks,
}

/// What changes. The lock is held for moments only, never over an await.
pub struct State {
    /// The configuration in force.
    pub options: Options,
    /// Endpoints and the one in use.
    pub endpoints: Endpoints,
    /// Objects of the first page of a list.
    pub page: usize,
    /// What others put on our objects.
    pub strangers: Strangers,
    /// Raised with every access that differs from the one before, and when other objects are asked for.
    pub generation: u64,
    pub(super) access: Option<Arc<Access>>,
    /// Each with the time that a connection may take.
    pub(super) clients: BTreeMap<Place, (kube::Client, Span)>,
    pub(super) stamp: Option<Stamp>,
    pub(super) looked: Option<Tick>,
    /// What was wrong with the kubeconfig when it was looked at last, or nothing.
    pub(super) trouble: String,
    pub(super) remembered: bool,
    /// Writes the other servers to disk; started with the first change of them.
    pub(super) writer: Option<Replacer>,
    /// How each place failed last, until it answers again.
    pub(super) causes: BTreeMap<Place, Error>,
}

impl State {
    /// Where a connection failed, the others to that place are as old and are not used again: what swallowed this one's
    /// packets may swallow theirs.
    fn forget_connections(&mut self, place: &Place, error: &Error) {
        if matches!(error, Error::Timeout { .. } | Error::Tls { .. } | Error::Cut { .. }) {
            self.clients.remove(place);
        }
    }

    /// Has the other servers written to disk, where they are to be.
    pub fn save(&mut self, servers: Vec<u8>) {
        if self.writer.is_none() {
            let cache = self.options.cache.clone();
            self.writer = cache.and_then(|file| Replacer::start(file, 0o644, Lasts::Disk).ok());
        }
        if let Some(writer) = &self.writer {
            writer.put(servers);
        }
    }

    /// What is wrong with the kubeconfig as it is now, while the access read before is in use.
    pub fn stale(&self) -> Option<String> {
        let path = self.options.kubeconfig.display();
        let stale = self.access.is_some() && !self.trouble.is_empty();
        stale.then(|| format!("kubeconfig {path}: {}", self.trouble))
    }
}

/// What a call is doing at the moment, for the one that times it.
#[derive(Clone, Default)]
struct Asking {
    place: Option<Place>,
    generation: u64,
}

/// A request that waits for its answer.
struct Waiting<'a> {
    link: &'a Link,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.link.state().endpoints.answered(self.number);
    }
}

impl Link {
    /// No I/O.
    pub fn new(options: Options) -> Self {
        Self {
            state: Mutex::new(State {
                endpoints: Endpoints::new(options.managed.clone()),
                options,
                page: FIRST_PAGE,
                strangers: Strangers::default(),
                generation: 0,
                access: None,
                clients: BTreeMap::new(),
                stamp: None,
                looked: None,
                trouble: "was not read yet".into(),
                remembered: false,
                writer: None,
                causes: BTreeMap::new(),
            }),
            reading: tokio::sync::Mutex::new(()),
            moved: watch::Sender::new(0),
            members: watch::Sender::new(None),
            remarks: Remarks::default(),
        }
    }

    /// Takes over a new configuration. What was read with the old kubeconfig is used until the new one is read.
    pub fn reconfigure(&self, options: Options) {
        let mut state = self.state();
        let old = std::mem::replace(&mut state.options, options);
        let new = state.options.clone();
        state.endpoints.set_managed(new.managed);
        if old.kubeconfig != new.kubeconfig || old.timeout != new.timeout {
            (state.stamp, state.looked) = (None, None);
        }
        if old.cache != new.cache {
            (state.remembered, state.writer) = (false, None);
        }
        let elsewhere = old.namespace != new.namespace || old.node != new.node;
        if elsewhere {
            state.strangers = Strangers::default();
            state.generation += 1;
        }
        drop(state);
        if elsewhere || old.account != new.account || old.groups != new.groups {
            self.moved.send_modify(|count| *count += 1);
        }
    }

    /// Deadline of every call.
    pub fn timeout(&self) -> Span {
        self.state().options.timeout
    }

    /// What changes.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for one object, within the deadline.
    pub async fn call(self: &Arc<Self>, ask: &Ask) -> Result<Answer<Whole>, Error> {
        self.call_into(ask, Whole::default).await
    }

    /// Asks, within the deadline; each try has a sink of its own.
    pub async fn call_into<S: Sink>(
        self: &Arc<Self>,
        ask: &Ask,
        sink: impl Fn() -> S,
    ) -> Result<Answer<S>, Error> {
        let mut asking = Asking::default();
        let timeout = self.timeout();
        let call = Box::pin(self.call_without_deadline(ask, &sink, &mut asking));
        let result = match tokio::time::timeout(timeout.as_std(), call).await {
            Ok(result) => result,
            Err(_) => Err(self.late(&asking, ask, timeout)),
        };
        result.map_err(|error| self.explained(error))
    }

    /// Asks one place only and tells nobody how it went: a probe.
    pub async fn probe(self: &Arc<Self>, place: &Place, ask: &Ask) -> Result<Answer<Whole>, Error> {
        let timeout = self.timeout();
        let probe = Box::pin(async {
            let access = self.access().await?;
            let client = self.client(&access, place)?;
            wire::send(&client, place.url(), ask, Whole::default()).await
        });
        let error = match tokio::time::timeout(timeout.as_std(), probe).await {
            Ok(Ok(answer)) => {
                if answer.is_success() {
                    self.well(place);
                }
                return Ok(answer);
            }
            Ok(Err(error)) => error,
            Err(_) => timed_out(place, timeout),
        };
        self.note(place, &error);
        Err(error)
    }

    /// Opens a watch at the endpoint in use, or where that does not serve it at the next; the deadline is for the answer's
    /// head. `avoid` has the places that failed last, and gets those that fail now.
    ///
    /// Only watches pass those over: a server that serves everything but watches is good enough for all the rest.
    pub async fn open(
        self: &Arc<Self>,
        ask: &Ask,
        avoid: &mut Vec<Place>,
    ) -> Result<wire::Stream, Error> {
        let timeout = self.timeout();
        let mut at = None;
        let open = Box::pin(async {
            let mut tries = 0;
            loop {
                let access = self.access().await?;
                let place = match self.pick(avoid) {
                    Ok(place) => place,
                    Err(_) => {
                        avoid.clear();
                        self.pick(avoid)?
                    }
                };
                at = Some(place.clone());
                let client = self.client(&access, &place)?;
                let error = match wire::open(&client, place.url(), ask).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => error,
                };
                if error.not_sent() {
                    self.note(&place, &error);
                }
                avoid.push(place);
                tries += 1;
                if tries >= ENDPOINTS_PER_CALL || self.pick(avoid).is_err() {
                    return Err(error);
                }
            }
        });
        match tokio::time::timeout(timeout.as_std(), open).await {
            Ok(result) => result,
            Err(_) => match at {
                Some(place) => {
                    let error = timed_out(&place, timeout);
                    avoid.push(place);
                    Err(error)
                }
                None => Err(self.late(&Asking::default(), ask, timeout)),
            },
        }
    }

    async fn call_without_deadline<S: Sink>(
        self: &Arc<Self>,
        ask: &Ask,
        sink: &impl Fn() -> S,
        asking: &mut Asking,
    ) -> Result<Answer<S>, Error> {
        let mut tried: Vec<Place> = Vec::new();
        let mut reloaded = false;
        // A whole answer says more than that the next server is not there.
        let mut answered = None;
        loop {
            let access = self.access().await?;
            let place = self.pick(&tried)?;
            let sent = clock::now();
            *asking = Asking { place: Some(place.clone()), generation: self.state().generation };
            let client = self.client(&access, &place)?;
            let waiting = self.waiting(&place, sent);
            let result = wire::send(&client, place.url(), ask, sink()).await;
            drop(waiting);
            let error = match result {
                Ok(answer) if matches!(answer.code, 401 | 503) => answer.status(),
                Ok(answer) => {
                    self.well(&place);
                    return Ok(answer);
                }
                Err(error) => error,
            };

            // A write that may have reached a server is never sent again. 401 is an answer: it was not carried out.
            let refused = error.code() == Some(401);
            let again = ask.is_read() || error.not_sent() || refused;
            if !reloaded && (refused || error.is_tls()) {
                reloaded = true;
                if self.reload(asking.generation, sent).await && again {
                    tried.clear();
                    continue;
                }
            }
            self.blame(&place, ask, &error);
            tried.push(place);
            let elsewhere = error.not_sent() || (ask.is_read() && error.code() == Some(503));
            let last =
                !elsewhere || tried.len() >= ENDPOINTS_PER_CALL || self.pick(&tried).is_err();
            match (error.code(), answered) {
                (None, Some(answered)) if last => return Err(answered),
                (_, _) if last => return Err(error),
                (Some(_), None) => answered = Some(error),
                (_, before) => answered = before,
            }
        }
    }

    /// Counts a request as waiting until it is dropped, also when the whole call is.
    fn waiting(&self, place: &Place, now: Tick) -> Waiting<'_> {
        let number = self.state().endpoints.asked(place, now);
        Waiting { link: self, number }
    }

    fn pick(&self, tried: &[Place]) -> Result<Place, Error> {
        let state = self.state();
        state.endpoints.pick(tried, clock::now()).ok_or_else(|| {
            let refused = state.endpoints.refused().map(Place::url).unwrap_or_default();
            Error::NoEndpoint(refused.to_owned())
        })
    }

    /// The client of this access and place: one, shared by all calls until a connection of it fails.
    fn client(&self, access: &Arc<Access>, place: &Place) -> Result<kube::Client, Error> {
        let mut state = self.state();
        let current = state.access.as_ref().is_some_and(|now| Arc::ptr_eq(now, access));
        let within = connect_timeout(state.options.timeout, state.endpoints.all().len());
        let made = state.clients.get(place).filter(|(_, of)| current && *of == within);
        if let Some((client, _)) = made {
            return Ok(client.clone());
        }
        let path = state.options.kubeconfig.display().to_string();
        let unusable = |why: String| Error::Kubeconfig { path: path.clone(), why };
        let mut config = access.config.clone();
        config.connect_timeout = Some(within.as_std());
        config.cluster_url =
            place.url().parse().map_err(|_| unusable(format!("{place} is not a URL")))?;
        let client = dial::client(&config)
            .map_err(|why| unusable(format!("no client for {place} can be made of it: {why}")))?;
        if current {
            state.clients.insert(place.clone(), (client.clone(), within));
        }
        Ok(client)
    }

    /// Later requests get other connections than the one that failed, and go to the next place.
    fn blame(&self, place: &Place, ask: &Ask, error: &Error) {
        if ask.aside && !error.not_sent() {
            self.state().forget_connections(place, error);
            return;
        }
        self.note(place, error);
        let gone = match error {
            Error::Timeout { .. }
            | Error::Connect { .. }
            | Error::Tls { .. }
            | Error::Cut { .. }
            | Error::Status { code: 503, .. } => true,
            Error::Kubeconfig { .. }
            | Error::NoEndpoint(_)
            | Error::Status { .. }
            | Error::Garbage { .. }
            | Error::Deleted(_)
            | Error::Unfit(_)
            | Error::NoAccount
            | Error::After { .. } => false,
        };
        if gone && self.state().endpoints.leave(place) {
            self.moved.send_modify(|count| *count += 1);
        }
    }

    /// Remembers how a place failed.
    fn note(&self, place: &Place, error: &Error) {
        let mut state = self.state();
        state.forget_connections(place, error);
        // Silence says less than what was known before.
        let telling = state.causes.get(place).is_some_and(|cause| !cause.is_silence());
        if !(telling && error.is_silence()) {
            state.causes.insert(place.clone(), error.clone());
        }
        let known = state.endpoints.all();
        state.causes.retain(|place, _| known.contains(place));
    }

    /// This place answers. While the kubeconfig's own does, what the others did before is of no interest.
    fn well(&self, place: &Place) {
        let mut state = self.state();
        if state.endpoints.local().as_ref() == Some(place) {
            state.causes.clear();
        } else {
            state.causes.remove(place);
        }
    }

    /// The failure with what tells more of its cause: how the kubeconfig's own server fails, else how another does where
    /// this one was only silent, and what is wrong with a kubeconfig that should help.
    fn explained(&self, error: Error) -> Error {
        let state = self.state();
        let Some(at) = error.at() else { return error };
        let local = state.endpoints.local().filter(|local| local.url() != at);
        let cause = local.and_then(|local| state.causes.get(&local)).map(Error::to_string);
        let refused =
            || Some(Error::NoEndpoint(state.endpoints.refused()?.url().to_owned()).to_string());
        let other = || {
            let telling = |cause: &&Error| !cause.is_silence() && cause.at() != Some(at);
            let other = state.causes.values().find(telling).filter(|_| error.is_silence());
            other.map(Error::to_string)
        };
        let stale = || state.stale().filter(|_| error.is_tls() || error.code() == Some(401));
        match cause.or_else(refused).or_else(stale).or_else(other) {
            Some(cause) => Error::After { cause, error: Box::new(error) },
            None => error,
        }
    }

    /// The kubeconfig's own URL, after reading the file if that was not done yet.
    pub async fn first_local(self: &Arc<Self>) -> Option<Place> {
        let read = Box::pin(self.access());
        let read = tokio::time::timeout(self.timeout().as_std(), read).await;
        read.ok()?.ok()?;
        self.state().endpoints.local()
    }

    /// The local server is known to answer: it is used again.
    pub fn local_answers(&self) {
        if self.state().endpoints.back() {
            self.moved.send_modify(|count| *count += 1);
        }
    }

    fn late(&self, asking: &Asking, ask: &Ask, timeout: Span) -> Error {
        let Some(place) = &asking.place else {
            return Error::Kubeconfig {
                path: self.state().options.kubeconfig.display().to_string(),
                why: format!("could not be read within {timeout}: does its disk answer?"),
            };
        };
        let error = timed_out(place, timeout);
        self.blame(place, ask, &error);
        error
    }
}

/// How long a connection may take to come to be. One that does not leaves time for another server within the same
/// deadline, where there is another; else just enough to tell that there was none. A lost SYN is sent again after a second:
/// at the usual deadline of 2 s that is not given up yet.
fn connect_timeout(deadline: Span, places: usize) -> Span {
    let (part, of) = if places > 1 { (3, 5) } else { (9, 10) };
    Span::millis(deadline.0 * part / of)
}

fn timed_out(place: &Place, after: Span) -> Error {
    Error::Timeout { at: place.url().to_owned(), after }
}

#[cfg(test)]
#[path = "link_tests.rs"]
pub mod tests;
