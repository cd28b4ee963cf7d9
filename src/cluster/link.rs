//! The link to the cluster: access from the kubeconfig, the endpoint in use, and one call at a time over them.
//!
//! A call is one question with one deadline. It goes to one endpoint, and is repeated only in
//! these cases, each with a bound: nothing of it left this host (any call), 503 (reads), 401 or a TLS failure after
//! which the kubeconfig turned out to have changed (once). Calls share no queue: a server that hangs holds
//! up nobody but those that asked it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::dial;
use super::endpoints::{self, Endpoints, Place};
use super::failure::Error;
use super::kubeconfig::{self, Access, Stamp};
use super::lease::Strangers;
use super::wire::{self, Answer, Ask};
use crate::clock;
use crate::types::{Account, NodeName, Span, Tick};

/// How often the kubeconfig is looked at while calls succeed; one that is refused has it looked at at once.
const LOOK: Span = Span::secs(5);

/// The same while there is none that can be used.
const LOOK_FOR_FIRST: Span = Span::millis(100);

/// No call is sent to more endpoints than this.
const ENDPOINTS_PER_CALL: usize = 3;

/// What all clones of a `Cluster` share.
pub struct Link {
    /// Path of the kubeconfig.
    pub kubeconfig: PathBuf,
    /// Where the Leases are.
    pub namespace: String,
    /// Deadline of every call.
    pub timeout: Span,
    /// Where the other endpoints are remembered.
    pub cache: Option<PathBuf>,
    /// The own node.
    pub node: NodeName,
    state: Mutex<State>,
    /// Held while the kubeconfig is read.
    reading: tokio::sync::Mutex<()>,
    /// Counts changes of the endpoint in use and of the access.
    pub moved: watch::Sender<u64>,
}

/// What changes. The lock is held for moments only, never over an await.
pub struct State {
    /// Endpoints and the one in use.
    pub endpoints: Endpoints,
    /// Names the ledger.
    pub account: Option<Account>,
    /// What others put on our objects.
    pub strangers: Strangers,
    /// Raised with every access that differs from the one before.
    pub generation: u64,
    access: Option<Arc<Access>>,
    clients: BTreeMap<Place, kube::Client>,
    stamp: Option<Stamp>,
    looked: Option<Tick>,
    trouble: String,
    remembered: bool,
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
    pub fn new(options: super::Options) -> Self {
        Self {
            kubeconfig: options.kubeconfig,
            namespace: options.namespace,
            timeout: options.timeout,
            cache: options.cache,
            node: options.node,
            state: Mutex::new(State {
                endpoints: Endpoints::new(options.managed),
                account: options.account,
                strangers: Strangers::default(),
                generation: 0,
                access: None,
                clients: BTreeMap::new(),
                stamp: None,
                looked: None,
                trouble: "was not read yet".into(),
                remembered: false,
            }),
            reading: tokio::sync::Mutex::new(()),
            moved: watch::Sender::new(0),
        }
    }

    /// What changes.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, within the deadline.
    pub async fn call(self: &Arc<Self>, ask: &Ask) -> Result<Answer, Error> {
        let mut asking = Asking::default();
        let call = Box::pin(self.call_without_deadline(ask, &mut asking));
        match tokio::time::timeout(self.timeout.as_std(), call).await {
            Ok(result) => result,
            Err(_) => Err(self.late(&asking)),
        }
    }

    /// Asks one place only and tells nobody how it went: a probe.
    pub async fn probe(self: &Arc<Self>, place: &Place, ask: &Ask) -> Result<Answer, Error> {
        let probe = Box::pin(async {
            let access = self.access().await?;
            let client = self.client(&access, place)?;
            wire::send(&client, place.url(), ask).await
        });
        match tokio::time::timeout(self.timeout.as_std(), probe).await {
            Ok(Err(error)) => {
                self.drop_client(place, &error);
                Err(error)
            }
            Ok(answer) => answer,
            Err(_) => {
                let error = self.timed_out(place);
                self.drop_client(place, &error);
                Err(error)
            }
        }
    }

    /// Opens a watch at the endpoint in use; the deadline is for the answer's head.
    pub async fn open(self: &Arc<Self>, ask: &Ask) -> Result<wire::Stream, Error> {
        let mut asking = Asking::default();
        let open = Box::pin(async {
            let access = self.access().await?;
            let place = self.pick(&[])?;
            asking = Asking { place: Some(place.clone()), generation: self.state().generation };
            let client = self.client(&access, &place)?;
            let opened = wire::open(&client, place.url(), ask).await;
            if let Err(error) = &opened {
                self.blame(&place, error);
            }
            opened
        });
        match tokio::time::timeout(self.timeout.as_std(), open).await {
            Ok(result) => result,
            Err(_) => Err(self.late(&asking)),
        }
    }

    async fn call_without_deadline(
        self: &Arc<Self>,
        ask: &Ask,
        asking: &mut Asking,
    ) -> Result<Answer, Error> {
        let mut tried: Vec<Place> = Vec::new();
        let mut reloaded = false;
        loop {
            let access = self.access().await?;
            let place = self.pick(&tried)?;
            let sent = clock::now();
            *asking = Asking { place: Some(place.clone()), generation: self.state().generation };
            let client = self.client(&access, &place)?;
            let waiting = self.waiting(&place, sent);
            let result = wire::send(&client, place.url(), ask).await;
            drop(waiting);
            let error = match result {
                Ok(answer) if matches!(answer.code, 401 | 503) => answer.status(),
                Ok(answer) => return Ok(answer),
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
            self.blame(&place, &error);
            tried.push(place);
            let elsewhere = error.not_sent() || (ask.is_read() && error.code() == Some(503));
            if !elsewhere || tried.len() >= ENDPOINTS_PER_CALL || self.pick(&tried).is_err() {
                return Err(error);
            }
        }
    }

    /// The access in use. Waits for the disk only while there is none.
    async fn access(self: &Arc<Self>) -> Result<Arc<Access>, Error> {
        let (access, looked) = {
            let state = self.state();
            (state.access.clone(), state.looked)
        };
        let due = |every| looked.is_none_or(|looked| clock::now().since(looked) >= every);
        if let Some(access) = access {
            if due(LOOK) && self.reading.try_lock().is_ok() {
                let link = Arc::clone(self);
                tokio::spawn(async move { link.look(false).await });
            }
            return Ok(access);
        }
        if due(LOOK_FOR_FIRST) {
            self.look(false).await;
        }
        let state = self.state();
        state.access.clone().ok_or_else(|| Error::Kubeconfig {
            path: self.kubeconfig.display().to_string(),
            why: state.trouble.clone(),
        })
    }

    /// Reads the kubeconfig unless that was done after `since`. Says whether the access is
    /// another than that of `generation`.
    async fn reload(self: &Arc<Self>, generation: u64, since: Tick) -> bool {
        let done = {
            let state = self.state();
            state.generation != generation || state.looked.is_some_and(|looked| looked > since)
        };
        if !done {
            self.look(true).await;
        }
        self.state().generation != generation
    }

    /// Looks at the kubeconfig, and reads it if it changed or if `anyway`. One at a time; off this thread.
    async fn look(self: &Arc<Self>, anyway: bool) {
        let asked = clock::now();
        let _reading = self.reading.lock().await;
        let (seen, load_cache) = {
            let state = self.state();
            if state.looked.is_some_and(|looked| looked > asked) {
                return;
            }
            (state.stamp.filter(|_| !anyway), !state.remembered)
        };
        let began = clock::now();
        let (path, timeout) = (self.kubeconfig.clone(), self.timeout);
        let cache = self.cache.clone().filter(|_| load_cache);
        let task = tokio::task::spawn_blocking(move || {
            let others = cache.map(|cache| endpoints::remembered(&cache));
            let stamp = kubeconfig::stamp(&path)?;
            if Some(stamp) == seen {
                return Ok((stamp, None, others));
            }
            let access = kubeconfig::load(&path, timeout);
            Ok((stamp, Some(access), others))
        });
        let result = match task.await {
            Ok(result) => result,
            Err(_) => Err("could not be read: the reading thread ended".to_owned()),
        };
        self.take(began, result);
    }

    #[expect(
        clippy::type_complexity,
        reason = "the one place where the reading thread's answer is taken apart"
    )]
    fn take(
        &self,
        began: Tick,
        result: Result<(Stamp, Option<Result<Access, String>>, Option<Vec<Place>>), String>,
    ) {
        let mut state = self.state();
        state.looked = Some(began);
        let (stamp, loaded, others) = match result {
            Ok(parts) => parts,
            Err(why) => {
                // Missing: k3s makes it anew. What is in use stays in use.
                state.trouble = why;
                state.stamp = None;
                return;
            }
        };
        let changed = match loaded {
            None => false,
            Some(Err(why)) => {
                // Half written, perhaps within one tick of the file system's clock: read it again next time.
                state.trouble = why;
                state.stamp = None;
                false
            }
            Some(Ok(access)) => {
                state.stamp = Some(stamp);
                let same = state.access.as_ref().map(|old| old.fingerprint);
                let changed = same != Some(access.fingerprint);
                if changed {
                    state.generation += 1;
                    state.clients.clear();
                    state.endpoints.set_local(access.local.clone());
                    state.access = Some(Arc::new(access));
                }
                changed
            }
        };
        if let Some(others) = others {
            state.remembered = true;
            state.endpoints.set_others(others);
        }
        drop(state);
        if changed {
            self.moved.send_modify(|count| *count += 1);
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
        if let Some(client) = state.clients.get(place).filter(|_| current) {
            return Ok(client.clone());
        }
        let unusable =
            |why: String| Error::Kubeconfig { path: self.kubeconfig.display().to_string(), why };
        let mut config = access.config.clone();
        config.cluster_url =
            place.url().parse().map_err(|_| unusable(format!("{place} is not a URL")))?;
        let client = dial::client(&config)
            .map_err(|why| unusable(format!("no client for {place} can be made of it: {why}")))?;
        if current {
            state.clients.insert(place.clone(), client.clone());
        }
        Ok(client)
    }

    /// Later requests get other connections than the one that failed, and go to the next place.
    fn blame(&self, place: &Place, error: &Error) {
        self.drop_client(place, error);
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
            | Error::Unfit(_) => false,
        };
        if gone && self.state().endpoints.leave(place) {
            self.moved.send_modify(|count| *count += 1);
        }
    }

    fn drop_client(&self, place: &Place, error: &Error) {
        if matches!(error, Error::Timeout { .. } | Error::Tls { .. } | Error::Cut { .. }) {
            self.state().clients.remove(place);
        }
    }

    /// The kubeconfig's own URL, after reading the file if that was not done yet.
    pub async fn first_local(self: &Arc<Self>) -> Option<Place> {
        let read = Box::pin(self.access());
        let read = tokio::time::timeout(self.timeout.as_std(), read).await;
        read.ok()?.ok()?;
        self.state().endpoints.local()
    }

    /// The local server is known to answer: it is used again.
    pub fn local_answers(&self) {
        if self.state().endpoints.back() {
            self.moved.send_modify(|count| *count += 1);
        }
    }

    fn late(&self, asking: &Asking) -> Error {
        let Some(place) = &asking.place else {
            return Error::Kubeconfig {
                path: self.kubeconfig.display().to_string(),
                why: format!("could not be read within {}", self.timeout),
            };
        };
        let error = self.timed_out(place);
        self.blame(place, &error);
        error
    }

    fn timed_out(&self, place: &Place) -> Error {
        Error::Timeout { at: place.url().to_owned(), after: self.timeout }
    }
}
