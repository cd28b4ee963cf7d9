//! The driver: one task, one loop. It waits for an event or the core's deadline, takes one step, and has the
//! actions carried out by others; whatever comes of them is an event again.
//!
//! ```text
//!             ┌──────────── events ◀── hands (cluster, provider, NIC thread) ◀─┐
//!             ▼                                                                │
//!   wait ─▶ core.step ─▶ trace, log, status, watchdog ─▶ actions ──────────────┘
//!             ▲
//!             └──────────── deadline, signals, watches, checks
//! ```
//!
//! | task or thread | owner | may be dropped at any await |
//! | --- | --- | --- |
//! | the loop | `run` | no: it ends by itself |
//! | one per request to the API | `Hands` | yes: the core takes a lost answer for Unknown |
//! | watch, probes, endpoints | `errands` | yes: they begin anew, as after a reload |
//! | the search for the own server | `home` | yes: the next one begins anew |
//! | one thread per check | `checks` | end by themselves |
//! | one thread per request to the provider | `Hands` | never joined; each has a deadline |
//! | the NIC thread and its monitor | `nic` | end with their channel |
//!
//! Nothing on the loop blocks: log, state file, trace and status are written on threads of their own.

mod alarm;
mod errands;
mod hands;
mod home;
mod nic;
mod queue;
mod reload;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::checks::{Checks, Verdict};
use crate::clock;
use crate::config::Settings;
use crate::core::Core;
use crate::core::action::Action;
use crate::core::event::{Event, Start, Trouble};
use crate::core::facts::{Home, ProviderFailure};
use crate::logging::{Kind, Level, Log, NoteLog};
use crate::state::{self, Opened, StateError, Store};
use crate::status::StatusFile;
use crate::systemd::Manager;
use crate::trace::Trace;
use crate::types::{Account, Mac, NodeName, Span, Tick};
use alarm::Alarm;
use errands::Errands;
use hands::Hands;
use home::Search;
use queue::Wanted;

/// How often the status file is written when nothing happens.
const STATUS_AGE: Span = Span::secs(5);

/// The same when there is news.
const STATUS_NEWS: Span = Span::secs(1);

/// The token is used at least twice a day; the adapter knows when that is due.
const KEEP_ALIVE: Span = Span::secs(3600);

/// So many messages are taken in before the deadline is looked at again.
const MOST_AT_ONCE: usize = 256;

/// How long the way out waits for what is still being written.
const LAST_WORDS: Span = Span::millis(200);

/// What `foip run` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration's file, read again on SIGHUP.
    pub config: PathBuf,
    /// Where the trace goes.
    pub trace: Option<PathBuf>,
    /// Decide everything and do nothing.
    pub dry_run: bool,
}

/// Why foip cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The provider's settings.
    #[error(transparent)]
    Provider(#[from] crate::provider::OpenError),
    /// Something of the process itself.
    #[error("cannot {what}: {source}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// What reaches the loop from tasks and threads.
#[derive(Debug)]
enum Message {
    /// For the core.
    Event(Event),
    /// SIGHUP was answered: the new configuration and its client, or why the old one stays.
    Reloaded {
        /// Which reading of the configuration this was.
        number: u64,
        /// What came of it.
        fresh: reload::Fresh,
    },
    /// The provider's client knows whose account it is.
    Account(Account),
    /// Where this host is at the provider, by one of the searches for it.
    Home {
        /// Which search.
        search: u64,
        /// What came back.
        result: Result<Home, ProviderFailure>,
    },
    /// The NIC is no longer what the provider described.
    Misfit,
    /// A check has another verdict.
    Verdict(Verdict),
    /// The node's name in the kubelet's certificate.
    Certified(NodeName),
    /// A line for people.
    Say(Level, String),
}

/// Runs until SIGTERM.
///
/// # Errors
/// What is needed to begin is not there. After the start nothing ends it but a signal.
pub fn run(settings: Settings, options: Options) -> Result<(), RunError> {
    let failed = |what| move |source| RunError::Process { what, source };
    let log = Log::of_process().map_err(failed("start the log"))?;
    log.collect_tracing();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(32)
        // Longer than from one question to the provider to the next: a thread costs more to make than to keep.
        .thread_keep_alive(Duration::from_secs(60))
        .build()
        .map_err(failed("start the runtime"))?;
    let tasks = tokio::task::LocalSet::new();
    let result = tasks.block_on(&runtime, drive(settings, options, log.clone()));
    // Requests that hang must not keep the process: their threads end with it.
    runtime.shutdown_background();
    log.flush(LAST_WORDS);
    result
}

/// Everything that the loop holds.
struct Driver {
    core: Core,
    hands: Hands,
    errands: Errands,
    checks: Checks,
    /// What each run of a check said last.
    verdicts: BTreeMap<u64, Verdict>,
    search: Option<Search>,
    searched: Tick,
    /// By which MAC the provider knows this host.
    mac: Option<Mac>,
    reloads: reload::Reloads,
    config: PathBuf,
    messages: UnboundedSender<Message>,
    log: Log,
    notes: NoteLog,
    trace: Option<Trace>,
    store: Store,
    manager: Manager,
    /// A dry run leaves the status file to the foip that it runs beside.
    status: Option<StatusFile>,
    summary: summary::Summary,
    /// What was last told of what cannot be saved.
    unsaved: Option<String>,
    written: Option<Tick>,
    kept: Tick,
    ready: Ready,
    leaving: bool,
    dry_run: bool,
}

/// What has to be seen once before the service says that it is up.
#[derive(Debug, Default)]
struct Ready {
    cluster: bool,
    provider: bool,
    told: bool,
}

async fn drive(settings: Settings, options: Options, log: Log) -> Result<(), RunError> {
    let failed = |what| move |source| RunError::Process { what, source };
    let mut terminated = signal(SignalKind::terminate()).map_err(failed("listen for SIGTERM"))?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(failed("listen for SIGINT"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed("listen for SIGHUP"))?;
    let (messages, mut inbox) = unbounded_channel();
    let mut driver = Driver::start(settings, &options, log, &messages)?;
    let mut alarm = Alarm::new().map_err(failed("make a timer"))?;
    while !driver.leaving {
        let next = driver.next();
        tokio::select! {
            biased;
            _ = terminated.recv() => driver.stop(),
            _ = interrupted.recv() => driver.stop(),
            _ = hangup.recv() => driver.reload(),
            message = inbox.recv() => {
                if let Some(message) = message {
                    driver.hear(message);
                }
                // What has come meanwhile is older than any deadline that it moves.
                for _ in 0..MOST_AT_ONCE {
                    let Ok(message) = inbox.try_recv() else { break };
                    driver.hear(message);
                    driver.manager.alive();
                }
            }
            Some((key, stored)) = driver.errands.leases.recv() => {
                driver.step(Event::Watched { key, stored });
            }
            Some(facts) = driver.errands.node.recv() => driver.step(Event::NodeWatched(facts)),
            rung = alarm.at(next) => rung.map_err(failed("wait for a timer"))?,
        }
        if driver.core.deadline() <= clock::now() {
            driver.step(Event::Wake);
        }
        driver.tell();
    }
    driver.part(&mut inbox);
    Ok(())
}

impl Driver {
    /// Opens all that it holds and begins. Needs a `LocalSet`.
    fn start(
        settings: Settings,
        options: &Options,
        log: Log,
        messages: &UnboundedSender<Message>,
    ) -> Result<Self, RunError> {
        let failed = |what| move |source| RunError::Process { what, source };
        let places = settings.places.clone();
        let Opened { store, identity, saved, warnings } = match options.dry_run {
            true => Store::look(&places.state)?,
            false => Store::open(&places.state, &places.runtime)?,
        };
        for warning in warnings.into_iter().chain(settings.warnings.clone()) {
            log.say(Level::Warning, Kind::Other, warning);
        }
        let node = settings.core.node.clone();
        let text = format!("foip {} starts on node {node}", env!("CARGO_PKG_VERSION"));
        log.say(Level::Notice, Kind::Started, text);
        let start = Start {
            config: settings.core.clone(),
            identity,
            saved,
            seed: state::seed().unwrap_or(1),
        };
        let hands = Hands::new(&settings, messages.clone(), options.dry_run)?;
        let mac = start.saved.home.as_ref().map(|home| home.mac);
        errands::start(&settings, options.dry_run, messages);
        let out = messages.clone();
        let checks = Checks::new(move |verdict| _ = out.send(Message::Verdict(verdict)));

        let now = clock::now();
        let trace =
            options.trace.as_deref().map(|path| Trace::create(path, &start, now)).transpose();
        let trace = trace.map_err(failed("create the trace"))?;
        let (core, actions) = Core::start(start, now);
        let status = match options.dry_run {
            true => None,
            false => StatusFile::start(&places.runtime)
                .inspect_err(|error| {
                    let text = format!(
                        "foip status shows nothing: cannot write into {}: {error} (RUNTIME_DIRECTORY)",
                        places.runtime.display()
                    );
                    log.say(Level::Error, Kind::Other, text);
                })
                .ok(),
        };
        let mut driver = Self {
            core,
            errands: Errands::start(&hands.cluster, messages),
            hands,
            checks,
            verdicts: BTreeMap::new(),
            search: None,
            searched: now,
            mac,
            reloads: reload::Reloads::default(),
            config: options.config.clone(),
            messages: messages.clone(),
            notes: NoteLog::new(log.clone(), node),
            log,
            trace,
            store,
            manager: Manager::of_process(),
            status,
            unsaved: None,
            summary: summary::Summary::default(),
            written: None,
            kept: now,
            ready: Ready::default(),
            leaving: false,
            dry_run: options.dry_run,
        };
        driver.carry_out(now, actions);
        driver.check();
        driver.search();
        Ok(driver)
    }

    /// When the loop has to turn again, whatever happens.
    fn next(&self) -> Tick {
        let feeding = self.manager.next_feeding().unwrap_or(Tick::NEVER);
        self.core.deadline().min(feeding).min(self.next_status())
    }

    fn next_status(&self) -> Tick {
        let age = if self.summary.has_news() { STATUS_NEWS } else { STATUS_AGE };
        self.written.map_or(Tick(0), |at| at + age)
    }

    fn stop(&mut self) {
        self.manager.stopping();
        self.log.say(
            Level::Notice,
            Kind::Stopping,
            "stopping; the address stays for the next process",
        );
        self.step(Event::Stop);
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.step(event),
            Message::Reloaded { number, fresh } => self.reloaded(number, fresh),
            Message::Account(account) => self.learn_account(account),
            Message::Home { search, result } => self.found(search, result),
            Message::Misfit => self.misfit(),
            Message::Verdict(verdict) => self.judge(verdict),
            Message::Certified(name) => {
                let other = name != self.hands.settings.core.node;
                self.step(Event::Renamed(other.then_some(name)));
            }
            Message::Say(level, text) => self.log.say(level, Kind::Other, text),
        }
    }

    /// A search has had an answer: the MAC in it tells which NIC is meant, and whether the configured one is.
    fn found(&mut self, search: u64, result: Result<Home, ProviderFailure>) {
        if self.search.as_ref().map(Search::number) != Some(search) {
            return;
        }
        if let Ok(home) = &result {
            self.mac = Some(home.mac);
            self.choose();
        }
        self.step(Event::Home(result));
    }

    /// The NIC is the one with the provider's MAC, which the configured one has to have, too, where there is one.
    fn choose(&self) {
        let name = self.hands.settings.node.interface.clone();
        self.hands.nic.choose(Wanted { name, mac: self.mac });
    }

    fn step(&mut self, event: Event) {
        let now = clock::now();
        self.ready.see(&event);
        if let Some(trace) = &self.trace {
            trace.event(now, &event);
        }
        let actions = self.core.step(now, event);
        self.carry_out(now, actions);
    }

    fn carry_out(&mut self, now: Tick, actions: Vec<Action>) {
        if let Some(trace) = &self.trace {
            trace.actions(now, &actions);
        }
        for action in actions {
            match action {
                Action::Note(note) => {
                    self.summary.note(&note);
                    self.notes.note(&note);
                }
                Action::Save(saved) => self.store.save(&saved),
                Action::Exit => self.leaving = true,
                action @ (Action::Read { .. }
                | Action::List { .. }
                | Action::Write { .. }
                | Action::ReadNode { .. }
                | Action::ReadRoutes { .. }
                | Action::Route { .. }
                | Action::ReadTask { .. }
                | Action::ReadPastCalls { .. }
                | Action::PutAddress { .. }
                | Action::RemoveAddress { .. }
                | Action::Announce { .. }) => match self.dry_run {
                    true => self.hands.pretend(action),
                    false => self.hands.carry_out(action),
                },
            }
        }
    }

    /// Tells the service manager and whoever reads the status file.
    fn tell(&mut self) {
        self.manager.alive();
        if !self.ready.told && self.ready.complete() {
            self.ready.told = true;
            self.manager.ready();
        }
        let now = clock::now();
        self.keep_alive(now);
        let all = [self.store.failure(), self.hands.cluster.unsaved(), self.hands.unsaved()];
        let all: Vec<_> = all.into_iter().flatten().collect();
        let unsaved = (!all.is_empty()).then(|| all.join("; "));
        if unsaved != self.unsaved {
            self.unsaved.clone_from(&unsaved);
            self.step(Event::Trouble(Trouble::Unsaved, unsaved));
        }
        if now >= self.next_status() {
            self.written = Some(now);
            let status = self.summary.status(&self.core, now);
            self.manager.status(&status.sentence);
            if let Some(file) = &self.status {
                file.show(&status);
            }
        }
    }

    fn keep_alive(&mut self, now: Tick) {
        if now.since(self.kept) >= KEEP_ALIVE {
            self.kept = now;
            self.hands.keep_alive();
        }
    }

    /// The last things before exit.
    fn part(self, inbox: &mut UnboundedReceiver<Message>) {
        inbox.close();
        if let Some(status) = self.status {
            status.remove(LAST_WORDS);
        }
        self.store.settle(LAST_WORDS);
        if let Some(trace) = &self.trace {
            trace.flush(LAST_WORDS);
        }
    }
}

impl Ready {
    fn see(&mut self, event: &Event) {
        match event {
            Event::Listed { .. } => self.cluster = true,
            Event::Routes { .. } | Event::Home(_) => self.provider = true,
            Event::Wake
            | Event::Read { .. }
            | Event::Watched { .. }
            | Event::Written { .. }
            | Event::Node { .. }
            | Event::NodeWatched(_)
            | Event::LocalApi(_)
            | Event::Route { .. }
            | Event::Task { .. }
            | Event::PastCalls { .. }
            | Event::Addresses(_)
            | Event::AddressPut { .. }
            | Event::Link { .. }
            | Event::Check { .. }
            | Event::Carry(_)
            | Event::Members(_)
            | Event::Renamed(_)
            | Event::Trouble(..)
            | Event::Stop
            | Event::Reload(_) => {}
        }
    }

    fn complete(&self) -> bool {
        self.cluster && self.provider
    }
}
