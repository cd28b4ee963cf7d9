//! A history in the order in which the rules ask for it: per process its claims, writes, looks and calls.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Entry, History, Process, Real, Said};
use crate::core::action::Action;
use crate::core::config::Config;
use crate::core::event::{Event, Ticket};
use crate::core::facts::{
    ApiFailure, Doc, Key, Listing, RouteOutcome, Routed, Stored, TaskId, TaskState,
};
use crate::core::note::Note;
use crate::types::{
    Epoch, FailoverIp, GroupName, NodeName, ResourceVersion, Server, ServerName, Span, Tick,
};

/// A place in a process's life: real time, its own time, and which step of the core it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The line's number in the history.
    pub(crate) line: usize,
    /// Real time.
    pub(crate) at: Real,
    /// The machine's time.
    pub(crate) tick: Tick,
    /// The line of the event that this step answers (its own line for an event).
    pub(crate) step: usize,
}

/// A claim of authority, as long as it stood in these words.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) group: GroupName,
    pub(crate) epoch: Epoch,
    pub(crate) from: Place,
    pub(crate) until: Tick,
    /// Its end in real time: run out, said otherwise, or the process died.
    pub(crate) to: Real,
}

/// A claim to be a ready successor.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) group: GroupName,
    pub(crate) from: Place,
    pub(crate) to: Real,
}

/// How a request to the API ended.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Ok(ResourceVersion),
    Conflict,
    Denied,
    Unknown,
}

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Write<'a> {
    pub(crate) sent: Place,
    pub(crate) key: &'a Key,
    pub(crate) version: Option<&'a ResourceVersion>,
    pub(crate) doc: &'a Doc,
    pub(crate) answer: Option<(Place, Answer)>,
}

impl Write<'_> {
    /// When the good answer came, if one did.
    pub(crate) fn done(&self) -> Option<Place> {
        match &self.answer {
            Some((place, Answer::Ok(_))) => Some(*place),
            Some((_, Answer::Conflict | Answer::Denied | Answer::Unknown)) | None => None,
        }
    }
}

/// One object as this process saw it.
#[derive(Clone, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) seen: Place,
    pub(crate) key: &'a Key,
    pub(crate) stored: Option<&'a Stored>,
    /// By a quorum read (not by the watch).
    pub(crate) quorum: bool,
}

/// One question to the provider where the IPs are.
#[derive(Clone, Debug)]
pub(crate) struct Look<'a> {
    pub(crate) asked: Place,
    pub(crate) answered: Place,
    /// `None`: no usable answer.
    pub(crate) listing: Option<&'a Listing>,
}

/// One route call.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) said: Place,
    pub(crate) epoch: Epoch,
    pub(crate) ip: FailoverIp,
    pub(crate) to: &'a Server,
    pub(crate) not_after: Tick,
    pub(crate) timeout: Span,
    pub(crate) started: Option<Tick>,
    pub(crate) answer: Option<(Place, &'a RouteOutcome)>,
    /// When nothing more is to come of it, as far as this process knows.
    pub(crate) over: Option<Place>,
}

impl Call<'_> {
    /// Can the provider have seen it?
    pub(crate) fn sent(&self) -> bool {
        match self.answer {
            Some((_, RouteOutcome::NotSent(_))) => false,
            Some((
                _,
                RouteOutcome::Accepted(_)
                | RouteOutcome::Done
                | RouteOutcome::Refused(_)
                | RouteOutcome::Unknown(_),
            )) => true,
            None => true,
        }
    }
}

/// Something done to an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touch {
    pub(crate) said: Place,
    pub(crate) host: IpAddr,
    pub(crate) kind: TouchKind,
}

/// What was done to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TouchKind {
    Put(Span),
    Remove,
    Announce,
}

/// A process's life in order.
#[derive(Debug)]
pub(crate) struct Life<'a> {
    pub(crate) process: &'a Process,
    pub(crate) node: &'a NodeName,
    pub(crate) nonce: &'a str,
    pub(crate) claims: Vec<Claim>,
    pub(crate) ready: Vec<Ready>,
    pub(crate) writes: Vec<Write<'a>>,
    pub(crate) sights: Vec<Sight<'a>>,
    /// What each list held: all else was missing.
    pub(crate) lists: Vec<(Place, Vec<&'a Key>)>,
    pub(crate) looks: Vec<Look<'a>>,
    pub(crate) calls: Vec<Call<'a>>,
    pub(crate) touches: Vec<Touch>,
    /// What the kernel showed: by line.
    pub(crate) tables: Vec<(Place, &'a [crate::core::facts::SeenAddress])>,
    /// Requests, by kind: to the API (true) or to the provider (false).
    pub(crate) requests: Vec<(Place, bool)>,
    /// All notes, state files and documents, for what must not be in them.
    pub(crate) steps: Vec<Place>,
    /// Every state file written.
    pub(crate) saves: Vec<(Place, &'a crate::core::saved::Saved)>,
    /// The own server, once known.
    pub(crate) home: Vec<(Place, &'a Server)>,
    /// The configurations it had, in order: that of its start, and one for each reload.
    pub(crate) configs: Vec<(Place, &'a Config)>,
    /// Every group that it ever had.
    pub(crate) groups: Vec<&'a GroupName>,
    /// When it was told to stop.
    pub(crate) stopped: Option<Place>,
    /// When it was gone; `Real::NEVER` if it was there to the end.
    pub(crate) died: Real,
}

impl<'a> Life<'a> {
    /// The configuration as of that line.
    pub(crate) fn config(&self, line: usize) -> &'a Config {
        let mut known = self.configs.iter().rev();
        let known = known.find(|(place, _)| place.line <= line);
        known.map_or(&self.process.start.config, |(_, config)| config)
    }

    /// The configuration as of that moment.
    pub(crate) fn config_at(&self, at: Real) -> &'a Config {
        let mut known = self.configs.iter().rev();
        let known = known.find(|(place, _)| place.at <= at);
        known.map_or(&self.process.start.config, |(_, config)| config)
    }

    /// All configurations that it had between the two moments.
    pub(crate) fn configs_between(&self, from: Real, to: Real) -> Vec<&'a Config> {
        let later = self.configs.iter().filter(|(place, _)| place.at > from && place.at <= to);
        [self.config_at(from)].into_iter().chain(later.map(|(_, config)| *config)).collect()
    }

    /// What this process was shown of an object, in order: was it there, and by a quorum read?
    pub(crate) fn shown(&self, key: &Key) -> Vec<(Place, bool, bool)> {
        let sights = self.sights.iter().filter(|s| s.key == key);
        let sights = sights.map(|s| (s.seen, s.stored.is_some(), s.quorum));
        let lists = self.lists.iter().filter(|(_, keys)| !keys.contains(&key));
        let mut all: Vec<_> = sights.chain(lists.map(|(place, _)| (*place, false, true))).collect();
        all.sort();
        all
    }

    /// The claim over `group` that stands when the given step is over.
    pub(crate) fn claim_after(&self, group: &GroupName, step: usize) -> Option<&Claim> {
        let past = self.claims.partition_point(|c| c.from.step <= step);
        self.claims.iter().take(past).rev().find(|c| c.group == *group)
    }

    /// Does this process claim authority over `group` at that moment?
    pub(crate) fn claims_at(&self, group: &GroupName, at: Real) -> Option<&Claim> {
        let past = self.claims.partition_point(|c| c.from.at <= at);
        let last = self.claims.iter().take(past).rev().find(|c| c.group == *group);
        last.filter(|c| at < c.to)
    }

    /// The group of an IP as of that line.
    pub(crate) fn group_of(&self, ip: FailoverIp, line: usize) -> Option<&'a GroupName> {
        let groups = &self.config(line).groups;
        groups.iter().find(|(_, g)| g.ips.contains_key(&ip)).map(|(name, _)| name)
    }

    /// The group and IP that an address belongs to in that configuration.
    pub(crate) fn owner_of(
        config: &'a Config,
        host: IpAddr,
    ) -> Option<(&'a GroupName, FailoverIp)> {
        config.groups.iter().find_map(|(name, g)| {
            let ip = g.ips.iter().find(|(_, hosts)| hosts.contains(&host));
            ip.map(|(ip, _)| (name, *ip))
        })
    }

    /// Was the address ever in its configuration before that line?
    pub(crate) fn ever_had(&self, host: IpAddr, line: usize) -> bool {
        let before = self.configs.iter().filter(|(place, _)| place.line <= line);
        before.map(|(_, config)| *config).any(|config| Self::owner_of(config, host).is_some())
    }

    /// The own server's name as known at that line.
    pub(crate) fn home_at(&self, line: usize) -> Option<&ServerName> {
        let mut known = self.home.iter().rev();
        known.find(|(place, _)| place.line <= line).map(|(_, server)| &server.name)
    }

    /// The last usable answer about `ip` before that line.
    pub(crate) fn good_look(&self, ip: FailoverIp, line: usize) -> Option<(&Look<'_>, &Routed)> {
        let good = self.looks.iter().filter(|l| l.answered.line <= line).filter_map(|l| {
            let routed = l.listing.and_then(|listing| listing.routes.get(&ip));
            routed.map(|routed| (l, routed))
        });
        good.max_by_key(|(l, _)| (l.asked.line, l.answered.line))
    }

    /// The last answered look before that line.
    pub(crate) fn look_before(&self, line: usize) -> Option<&Look<'_>> {
        let before = self.looks.iter().filter(|l| l.answered.line < line);
        before.max_by_key(|l| (l.asked.line, l.answered.line))
    }
}

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

    /// Lives in order of their start, of one machine.
    pub(crate) fn of_machine(&self, machine: usize) -> impl DoubleEndedIterator<Item = &Life<'a>> {
        self.lives.iter().filter(move |l| l.process.machine == machine)
    }

    /// All machines.
    pub(crate) fn machines(&self) -> std::collections::BTreeSet<usize> {
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
                    Err(ApiFailure::Unknown(_)) => Answer::Unknown,
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
