//! Carrying out what the core asks for: each request on a task or thread of its own, each answer an event.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::nic::NicHandle;
use super::{Message, RunError};
use crate::cluster::{self, Cluster};
use crate::config::{ProviderSettings, Settings};
use crate::core::action::Action;
use crate::core::config::Api;
use crate::core::event::Event;
use crate::core::facts::{ApiFailure, RouteOutcome};
use crate::logging::Level;
use crate::provider::{self, Dated, Guard, OpenError, Provider, Routing, Timeouts};
use crate::types::{FailoverIp, Span};

/// The adapters.
pub struct Hands {
    /// The configuration in force.
    pub settings: Settings,
    /// The Kubernetes API.
    pub cluster: Cluster,
    /// netcup.
    pub provider: Arc<dyn Provider>,
    /// The network interface.
    pub nic: NicHandle,
    messages: UnboundedSender<Message>,
    /// Counts the clusters: an answer of an earlier one is about other objects.
    round: Rc<Cell<u64>>,
    dry_run: bool,
    pretended: BTreeMap<&'static str, String>,
}

impl Hands {
    /// Opens the adapters. Asks nobody anything yet.
    pub fn new(
        settings: &Settings,
        messages: UnboundedSender<Message>,
        dry_run: bool,
    ) -> Result<Self, RunError> {
        let failed = |what| move |source| RunError::Process { what, source };
        let cluster = Cluster::new(reached_by(settings, dry_run));
        let nic = NicHandle::start(settings.hosts().collect(), messages.clone())
            .map_err(failed("start the thread of the network interface"))?;
        Ok(Self {
            provider: open_provider(&settings.provider)?,
            settings: settings.clone(),
            cluster,
            nic,
            messages,
            round: Rc::default(),
            dry_run,
            pretended: BTreeMap::new(),
        })
    }

    /// Takes over what changed; all or nothing.
    pub fn reconfigure(
        &mut self,
        settings: Settings,
        opening: Option<Opening>,
    ) -> Result<(), OpenError> {
        if let Some(Opening(opened)) = opening {
            let opened = opened?;
            if settings.provider != self.settings.provider || reads_files(&settings.provider) {
                self.provider = opened;
            }
        }
        if settings.kubernetes != self.settings.kubernetes {
            self.round.set(self.round.get() + 1);
        }
        self.cluster.reconfigure(reached_by(&settings, self.dry_run));
        self.nic.values(settings.hosts().collect());
        self.settings = settings;
        Ok(())
    }

    /// Does it.
    pub fn carry_out(&mut self, action: Action) {
        let cluster = self.cluster.clone();
        match action {
            Action::Read { ticket, key } => self.task(async move {
                let result = cluster.read(&key).await;
                Event::Read { ticket, key, result }
            }),
            Action::List { ticket } => {
                self.task(async move { Event::Listed { ticket, result: cluster.list().await } })
            }
            Action::Write { ticket, key, version, doc } => self.task(async move {
                let result = cluster.write(&key, version.as_ref(), &doc).await;
                Event::Written { ticket, key, result }
            }),
            Action::ReadNode { ticket } => {
                self.task(async move { Event::Node { ticket, result: cluster.node().await } })
            }
            Action::ReadRoutes { ticket } => {
                let wanted = ips(&self.settings);
                self.thread(move |provider| {
                    let Dated { value, date } = provider.routes(&wanted);
                    Event::Routes { ticket, result: value, date }
                });
            }
            Action::Route { ticket, epoch: _, ip, to, not_after, timeout } => {
                self.thread(move |provider| {
                    let guard = Guard { not_after, timeout };
                    let Routing { started, outcome, date } = provider.route(ip, &to, guard);
                    Event::Route { ticket, started, outcome, date }
                });
            }
            Action::ReadTask { ticket, task } => {
                self.thread(move |provider| Event::Task { ticket, result: provider.task(&task) })
            }
            Action::ReadPastCalls { ticket } => self
                .thread(move |provider| Event::PastCalls { ticket, result: provider.past_calls() }),
            Action::PutAddress { host, lifetime } => self.nic.put(host, lifetime),
            Action::RemoveAddress { host } => self.nic.remove(host),
            Action::Announce { host } => self.nic.announce(host),
            // Invariant: the driver keeps these to itself.
            Action::Save(_) | Action::Note(_) | Action::Exit => {}
        }
    }

    /// A dry run reads everything and says what it would change, once for each change of mind.
    pub fn pretend(&mut self, action: Action) {
        let denied = || ApiFailure::Denied("this is a dry run".to_owned());
        let (what, would, event) = match action {
            Action::Write { ticket, key, doc, version: _ } => {
                let holder = doc.holder.unwrap_or_default();
                let would = format!("write {key:?} with holder {holder:?}");
                ("write", would, Some(Event::Written { ticket, key, result: Err(denied()) }))
            }
            Action::Route { ticket, ip, to, .. } => {
                let outcome = RouteOutcome::NotSent("this is a dry run".to_owned());
                let event = Event::Route { ticket, started: None, outcome, date: None };
                ("route", format!("route {ip} to {}", to.name), Some(event))
            }
            Action::PutAddress { host, .. } => {
                ("put", format!("put {host} on the interface"), None)
            }
            Action::RemoveAddress { host } => {
                ("remove", format!("take {host} off the interface"), None)
            }
            Action::Announce { host } => ("announce", format!("announce {host}"), None),
            action @ (Action::Read { .. }
            | Action::List { .. }
            | Action::ReadNode { .. }
            | Action::ReadRoutes { .. }
            | Action::ReadTask { .. }
            | Action::ReadPastCalls { .. }
            | Action::Save(_)
            | Action::Note(_)
            | Action::Exit) => return self.carry_out(action),
        };
        if self.pretended.get(what) != Some(&would) {
            let _ =
                self.messages.send(Message::Say(Level::Notice, format!("dry run: would {would}")));
            self.pretended.insert(what, would);
        }
        if let Some(event) = event {
            let _ = self.messages.send(Message::Event(event));
        }
    }

    /// Uses the provider's token where it was not used for long; a dead one is an alarm at the next question.
    pub fn keep_alive(&self) {
        let provider = Arc::clone(&self.provider);
        tokio::task::spawn_blocking(move || _ = provider.keep_alive());
    }

    /// What netcup's client cannot save, in words.
    pub fn unsaved(&self) -> Option<String> {
        self.provider.unsaved()
    }

    fn task(&self, work: impl Future<Output = Event> + 'static) {
        let messages = self.messages.clone();
        let (round, mine) = (Rc::clone(&self.round), self.round.get());
        tokio::task::spawn_local(async move {
            let event = work.await;
            let event = if round.get() == mine { event } else { forgotten(event) };
            let _ = messages.send(Message::Event(event));
        });
    }

    fn thread(&self, work: impl FnOnce(&dyn Provider) -> Event + Send + 'static) {
        let (provider, messages) = (Arc::clone(&self.provider), self.messages.clone());
        let known = self.settings.core.account.clone();
        tokio::task::spawn_blocking(move || {
            let event = work(&*provider);
            // Before the answer, and asked for after it was there: what the core does with that shall be for the right
            // account, which netcup may only now have told, and which is another after `foip login` as somebody else.
            if let Some(account) = provider.account().filter(|told| known.as_ref() != Some(told)) {
                let _ = messages.send(Message::Account(account));
            }
            let _ = messages.send(Message::Event(event));
        });
    }
}

/// How these settings reach the Kubernetes API.
fn reached_by(settings: &Settings, dry_run: bool) -> cluster::Options {
    cluster::Options {
        kubeconfig: settings.kubernetes.kubeconfig.clone(),
        namespace: settings.kubernetes.namespace.clone(),
        timeout: settings.core.lease.timeout,
        cache: (!dry_run).then(|| settings.places.state.join("endpoints.json")),
        managed: ips(settings),
        account: settings.core.account.clone(),
        node: settings.core.node.clone(),
        groups: settings.core.groups.keys().cloned().collect(),
    }
}

/// An answer of the cluster that was in use before: its objects are others, and a write may have been carried out.
fn forgotten(event: Event) -> Event {
    fn gone<T>() -> Result<T, ApiFailure> {
        Err(ApiFailure::Unknown(
            "it was asked before the configuration named another cluster".to_owned(),
        ))
    }
    match event {
        Event::Read { ticket, key, .. } => Event::Read { ticket, key, result: gone() },
        Event::Listed { ticket, .. } => Event::Listed { ticket, result: gone() },
        Event::Written { ticket, key, .. } => Event::Written { ticket, key, result: gone() },
        Event::Node { ticket, .. } => Event::Node { ticket, result: gone() },
        event @ (Event::Wake
        | Event::Watched { .. }
        | Event::NodeWatched(_)
        | Event::LocalApi(_)
        | Event::Home(_)
        | Event::Routes { .. }
        | Event::Route { .. }
        | Event::Task { .. }
        | Event::PastCalls { .. }
        | Event::Addresses(_)
        | Event::AddressPut { .. }
        | Event::Link { .. }
        | Event::Carry(_)
        | Event::Members(_)
        | Event::Renamed(_)
        | Event::Trouble(..)
        | Event::Check { .. }
        | Event::Stop
        | Event::Reload(_)) => event,
    }
}

/// Does the client hold what was in files when it was opened? They may have changed under the same names.
fn reads_files(settings: &ProviderSettings) -> bool {
    settings.api == Api::Soap || settings.ca_file.is_some()
}

fn ips(settings: &Settings) -> BTreeSet<FailoverIp> {
    settings.core.groups.values().flat_map(|group| group.ips.keys().copied()).collect()
}

/// What came of opening the provider's client for new settings.
pub struct Opening(Result<Arc<dyn Provider>, OpenError>);

impl Opening {
    /// Blocks on the disk, where the certificates and the password are.
    pub fn of(settings: &ProviderSettings) -> Self {
        Self(open_provider(settings))
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Opening").field(&self.0.as_ref().map(drop)).finish()
    }
}

/// Builds the client that the settings ask for.
fn open_provider(settings: &ProviderSettings) -> Result<Arc<dyn Provider>, OpenError> {
    let timeouts = Timeouts { connect: Span::secs(3), total: Span::secs(5) };
    provider::open(provider::Options { timeouts, ..settings.options() }).map(Arc::from)
}
