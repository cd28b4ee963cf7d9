//! A history in the order in which the rules ask for it: each process's lines become its `Life`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::life::{Answer, Call, Claim, Life, Look, Place, Ready, Sight, Touch, TouchKind, Write};
use super::{Entry, History, Process, Real, Said};
use crate::core::action::Action;
use crate::core::config::Config;
use crate::core::event::{Event, Ticket};
use crate::core::facts::{ApiFailure, Key, RouteOutcome, Routed, Stored, TaskId, TaskState};
use crate::core::note::Note;
use crate::types::{GroupName, ServerName, Tick};

/// The whole history in that order.
#[derive(Debug)]
pub(crate) struct Index<'a> {
    pub(crate) history: &'a History,
    pub(crate) lives: Vec<Life<'a>>,
}

impl<'a> Index<'a> {
    pub(crate) fn new(history: &'a History) -> Self {
        let mut lives: Vec<Builder<'a>> = history.processes.iter().map(Builder::new).collect();
        for (line, entry) in history.entries.iter().enumerate() {
            if let Some(life) = lives.get_mut(entry.process) {
                life.take(line, entry);
            }
        }
        let gone = |n: usize, process: &Process| {
            let later = history.processes.iter().skip(n + 1);
            let next = later.filter(|p| p.machine == process.machine).map(|p| p.began).min();
            process.ended.or(next).unwrap_or(Real::NEVER)
        };
        let died: Vec<Real> =
            history.processes.iter().enumerate().map(|(n, p)| gone(n, p)).collect();
        let lives = lives.into_iter().zip(died);
        let lives = lives.map(|(builder, died)| builder.finish(history, died)).collect();
        Self { history, lives }
    }

    /// The real moment of a process's tick.
    pub(crate) fn real(&self, life: &Life<'_>, tick: Tick) -> Real {
        real(self.history, life.process, tick)
    }

    /// Did the process's clock stand still at any time between the two moments?
    pub(crate) fn stood(&self, life: &Life<'_>, from: Real, to: Real) -> bool {
        let clock = self.history.clocks.get(life.process.clock);
        clock.is_some_and(|clock| clock.stood(from, to))
    }

    /// Lives in order of their start, of one machine.
    pub(crate) fn of_machine(&self, machine: usize) -> impl DoubleEndedIterator<Item = &Life<'a>> {
        self.lives.iter().filter(move |l| l.process.machine == machine)
    }

    /// All machines.
    pub(crate) fn machines(&self) -> BTreeSet<usize> {
        self.lives.iter().map(|l| l.process.machine).collect()
    }

    /// The server of a machine, if any of its processes ever learned it.
    pub(crate) fn server_of(&self, machine: usize) -> Option<&ServerName> {
        self.of_machine(machine).find_map(|l| l.home.first()).map(|(_, server)| &server.name)
    }

    /// The machine with that server.
    pub(crate) fn machine_of(&self, server: &ServerName) -> Option<usize> {
        self.machines().into_iter().find(|m| self.server_of(*m) == Some(server))
    }
}

fn real(history: &History, process: &Process, tick: Tick) -> Real {
    history.clocks.get(process.clock).map_or(Real::NEVER, |clock| clock.real(tick))
}

struct Builder<'a> {
    life: Life<'a>,
    step: usize,
    writes: BTreeMap<Ticket, usize>,
    looks: BTreeMap<Ticket, Place>,
    calls: BTreeMap<Ticket, usize>,
    tasks: BTreeMap<&'a TaskId, usize>,
    task_reads: BTreeMap<Ticket, &'a TaskId>,
    open_claims: BTreeMap<&'a GroupName, usize>,
    open_ready: BTreeMap<&'a GroupName, usize>,
    /// The end of each claim or readiness by note, where one came.
    claim_ends: BTreeMap<usize, Real>,
    ready_ends: BTreeMap<usize, Real>,
    ready_until: Vec<Tick>,
}

impl<'a> Builder<'a> {
    fn new(process: &'a Process) -> Self {
        let before = Place { line: 0, at: process.began, tick: Tick(0), step: 0 };
        let life = Life {
            process,
            node: &process.start.config.node,
            nonce: &process.start.identity.nonce,
            claims: Vec::new(),
            ready: Vec::new(),
            writes: Vec::new(),
            sights: Vec::new(),
            lists: Vec::new(),
            looks: Vec::new(),
            calls: Vec::new(),
            touches: Vec::new(),
            tables: Vec::new(),
            requests: Vec::new(),
            steps: Vec::new(),
            saves: Vec::new(),
            home: process.start.saved.home.iter().map(|home| (before, &home.server)).collect(),
            configs: vec![(before, &process.start.config)],
            groups: Vec::new(),
            stopped: None,
            died: Real::NEVER,
        };
        Self {
            life,
            step: 0,
            writes: BTreeMap::new(),
            looks: BTreeMap::new(),
            calls: BTreeMap::new(),
            tasks: BTreeMap::new(),
            task_reads: BTreeMap::new(),
            open_claims: BTreeMap::new(),
            open_ready: BTreeMap::new(),
            claim_ends: BTreeMap::new(),
            ready_ends: BTreeMap::new(),
            ready_until: Vec::new(),
        }
    }

    fn take(&mut self, line: usize, entry: &'a Entry) {
        if matches!(entry.said, Said::Event(_)) {
            self.step = line;
        }
        let place = Place { line, at: entry.at, tick: entry.tick, step: self.step };
        match &entry.said {
            Said::Event(event) => {
                self.life.steps.push(place);
                self.event(place, event);
            }
            Said::Action(action) => self.action(place, action),
        }
    }

    fn sight(&mut self, seen: Place, key: &'a Key, stored: Option<&'a Stored>, quorum: bool) {
        self.life.sights.push(Sight { seen, key, stored, quorum });
    }

    fn event(&mut self, place: Place, event: &'a Event) {
        match event {
            Event::Read { key, result: Ok(stored), .. } => {
                self.sight(place, key, stored.as_ref(), true);
            }
            Event::Listed { result: Ok(all), .. } => {
                self.life.lists.push((place, all.iter().map(|(key, _)| key).collect()));
                for (key, stored) in all {
                    self.sight(place, key, Some(stored), true);
                }
            }
            Event::Watched { key, stored } => self.sight(place, key, stored.as_ref(), false),
            Event::Written { ticket, result, .. } => {
                let answer = match result {
                    Ok(version) => Answer::Ok(version.clone()),
                    Err(ApiFailure::Conflict) => Answer::Conflict,
                    Err(ApiFailure::Denied(_)) => Answer::Denied,
                    Err(ApiFailure::Refused(_) | ApiFailure::Unknown(_)) => Answer::Unknown,
                };
                let write = self.writes.remove(ticket).and_then(|n| self.life.writes.get_mut(n));
                if let Some(write) = write {
                    write.answer = Some((place, answer));
                }
            }
            Event::Home(Ok(home)) => self.life.home.push((place, &home.server)),
            Event::Routes { ticket, result, .. } => {
                if let Some(asked) = self.looks.remove(ticket) {
                    let listing = result.as_ref().ok();
                    let shows = |call: &&mut Call<'_>| {
                        let after = call.answer.is_some_and(|(a, _)| a.line < asked.line);
                        let routed = listing.and_then(|l| l.routes.get(&call.ip));
                        after && routed == Some(&Routed::To(call.to.name.clone()))
                    };
                    for call in self.life.calls.iter_mut().filter(shows) {
                        call.over = call.over.or(Some(place));
                    }
                    self.life.looks.push(Look { asked, answered: place, listing });
                }
            }
            Event::Route { ticket, started, outcome, .. } => {
                let Some(n) = self.calls.remove(ticket) else {
                    return;
                };
                if let RouteOutcome::Accepted(task) = outcome {
                    self.tasks.insert(task, n);
                }
                if let Some(call) = self.life.calls.get_mut(n) {
                    call.started = *started;
                    call.answer = Some((place, outcome));
                    if !matches!(outcome, RouteOutcome::Accepted(_) | RouteOutcome::Unknown(_)) {
                        call.over = Some(place);
                    }
                }
            }
            Event::Task { ticket, result } => {
                let task = self.task_reads.remove(ticket);
                let call = task.and_then(|t| self.tasks.get(t)).copied();
                let over = matches!(result, Ok(TaskState::Done | TaskState::Failed(_)));
                if let Some(call) = call.and_then(|n| self.life.calls.get_mut(n))
                    && over
                {
                    call.over = call.over.or(Some(place));
                    call.failed |= matches!(result, Ok(TaskState::Failed(_)));
                }
            }
            Event::Addresses(table) => self.life.tables.push((place, table)),
            Event::Stop => self.life.stopped = self.life.stopped.or(Some(place)),
            Event::Reload(config) => {
                self.life.configs.push((place, config));
                self.forget(place, config);
            }
            Event::Read { .. }
            | Event::Listed { .. }
            | Event::Home(Err(_))
            | Event::Wake
            | Event::Node { .. }
            | Event::LocalApi(_)
            | Event::PastCalls { .. }
            | Event::AddressPut { .. }
            | Event::Link { .. }
            | Event::Check { .. }
            | Event::Carry(_)
            | Event::Members(_)
            | Event::Renamed(_)
            | Event::Trouble(..)
            | Event::NodeWatched(_) => {}
        }
    }

    /// A group that goes out of the configuration takes its claims along: its process knows nothing of it any more.
    fn forget(&mut self, place: Place, config: &'a Config) {
        let gone = |group: &&GroupName| !config.groups.contains_key(group);
        for group in self.open_claims.keys().copied().filter(gone).collect::<Vec<_>>() {
            if let Some(open) = self.open_claims.remove(group) {
                self.claim_ends.insert(open, place.at);
                let epoch = self.life.claims.get(open).map(|c| c.epoch).unwrap_or_default();
                let (group, until, to) = (group.clone(), Tick(0), place.at);
                self.life.claims.push(Claim { group, epoch, from: place, until, to });
            }
        }
        for group in self.open_ready.keys().copied().filter(gone).collect::<Vec<_>>() {
            if let Some(open) = self.open_ready.remove(group) {
                self.ready_ends.insert(open, place.at);
            }
        }
    }

    fn touch(&mut self, said: Place, host: IpAddr, kind: TouchKind) {
        self.life.touches.push(Touch { said, host, kind });
    }

    fn action(&mut self, place: Place, action: &'a Action) {
        match action {
            Action::Read { .. } | Action::List { .. } | Action::ReadNode { .. } => {
                self.life.requests.push((place, true));
            }
            Action::Write { ticket, key, version, doc } => {
                self.life.requests.push((place, true));
                self.writes.insert(*ticket, self.life.writes.len());
                let version = version.as_ref();
                self.life.writes.push(Write { sent: place, key, version, doc, answer: None });
            }
            Action::ReadRoutes { ticket } => {
                self.life.requests.push((place, false));
                self.looks.insert(*ticket, place);
            }
            Action::Route { ticket, epoch, ip, to, not_after, timeout } => {
                self.life.requests.push((place, false));
                self.calls.insert(*ticket, self.life.calls.len());
                self.life.calls.push(Call {
                    said: place,
                    epoch: *epoch,
                    ip: *ip,
                    to,
                    not_after: *not_after,
                    timeout: *timeout,
                    started: None,
                    answer: None,
                    over: None,
                    failed: false,
                });
            }
            Action::ReadTask { ticket, task } => {
                self.life.requests.push((place, false));
                self.task_reads.insert(*ticket, task);
            }
            Action::ReadPastCalls { .. } => self.life.requests.push((place, false)),
            Action::PutAddress { host, lifetime } => {
                self.touch(place, *host, TouchKind::Put(*lifetime));
            }
            Action::RemoveAddress { host } => self.touch(place, *host, TouchKind::Remove),
            Action::Announce { host } => self.touch(place, *host, TouchKind::Announce),
            Action::Save(saved) => self.life.saves.push((place, saved)),
            Action::Note(note) => self.note(place, note),
            Action::Exit => {}
        }
    }

    fn note(&mut self, place: Place, note: &'a Note) {
        match note {
            Note::Authority { group, epoch, until } => {
                if let Some(open) = self.open_claims.remove(group) {
                    self.claim_ends.insert(open, place.at);
                }
                // A note that ends authority is a claim that ends where it begins.
                if until.is_some() {
                    self.open_claims.insert(group, self.life.claims.len());
                }
                self.life.claims.push(Claim {
                    group: group.clone(),
                    epoch: *epoch,
                    from: place,
                    until: until.unwrap_or(Tick(0)),
                    to: place.at,
                });
            }
            Note::Ready { group, until } => {
                if let Some(open) = self.open_ready.remove(group) {
                    self.ready_ends.insert(open, place.at);
                }
                if let Some(until) = until {
                    self.open_ready.insert(group, self.life.ready.len());
                    self.ready_until.push(*until);
                    let group = group.clone();
                    self.life.ready.push(Ready { group, from: place, to: place.at });
                }
            }
            Note::Observed { .. }
            | Note::Changed { .. }
            | Note::Alarm { .. }
            | Note::AlarmOver { .. } => {}
        }
    }

    fn finish(self, history: &History, died: Real) -> Life<'a> {
        let mut life = self.life;
        life.died = died;
        life.groups = life.configs.iter().flat_map(|(_, config)| config.groups.keys()).collect();
        life.groups.sort();
        life.groups.dedup();
        for (n, claim) in life.claims.iter_mut().enumerate() {
            let ends = self.claim_ends.get(&n).copied().unwrap_or(Real::NEVER);
            let runs_out = real(history, life.process, claim.until);
            claim.to = runs_out.min(ends).min(died).max(claim.from.at);
        }
        for (n, ready) in life.ready.iter_mut().enumerate() {
            let ends = self.ready_ends.get(&n).copied().unwrap_or(Real::NEVER);
            let until = self.ready_until.get(n).copied().unwrap_or_default();
            let runs_out = real(history, life.process, until);
            ready.to = runs_out.min(ends).min(died).max(ready.from.at);
        }
        life
    }
}
