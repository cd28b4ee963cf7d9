//! A tiny cluster in virtual time: cores wired to a register with compare-and-swap, a provider, a NIC each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::depth::Fate;
use super::given::{Mood, failed, kind, node, server};
use crate::core::Core;
use crate::core::action::Action;
use crate::core::bug::Bug;
use crate::core::config::Config;
use crate::core::event::{Event, Identity, Start};
use crate::core::facts::{
    AddressFailure, ApiFailure, Home, Key, Listing, NodeFacts, PastCall, ProviderFailure,
    ProviderTime, Routed, SeenAddress, Stored, TaskId, TaskState,
};
use crate::core::saved::Saved;
use crate::types::{FailoverIp, Mac, ResourceVersion, ServerName, Span, Tick};

/// The provider's clock at tick zero.
pub(super) const EPOCH: u64 = 1_700_000_000_000;

/// The way to the API server or back.
pub(super) const HOP: Span = Span::millis(2);

/// The deadline of a request to the API.
pub(super) const TIMEOUT: Span = Span::secs(2);

/// What a process did or heard.
#[derive(Clone, Debug)]
pub enum What {
    Did(Action),
    Heard(Event),
    Died,
}

/// One line of the record of a run.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Tick,
    pub node: usize,
    pub process: u32,
    pub what: What,
}

#[derive(Clone)]
pub(super) struct Machine {
    pub(super) core: Option<Core>,
    pub(super) process: u32,
    pub(super) saved: Saved,
    /// On the NIC: tagged as ours until the kernel removes it; `None`: somebody else's.
    pub(super) nic: BTreeMap<IpAddr, Option<Tick>>,
    pub(super) facts: NodeFacts,
    pub(super) api: bool,
    pub(super) watch: bool,
    pub(super) provider: bool,
    pub(super) asleep: Tick,
}

/// What is on its way.
#[derive(Clone)]
pub(super) enum Due {
    Event(usize, u32, Event),
    /// A request reaches the API server; its answer takes so long.
    Reaches(usize, u32, Action, Span),
    Boots(usize),
    Lands(TaskId, FailoverIp, ServerName),
}

/// The cluster and its surroundings.
#[derive(Clone)]
pub struct Cluster {
    pub now: Tick,
    pub log: Vec<Entry>,
    /// Switches the record off where only counting matters.
    pub recording: bool,
    /// Actions by kind, since the last `take_counts`, per node.
    counts: Vec<BTreeMap<&'static str, u64>>,
    pub(super) config: Config,
    pub(super) machines: Vec<Machine>,
    queue: BTreeMap<(Tick, u64), Due>,
    queued: u64,
    pub(super) objects: BTreeMap<Key, Stored>,
    pub(super) snapshot: BTreeMap<Key, Stored>,
    version: u64,
    pub routes: BTreeMap<FailoverIp, Routed>,
    /// Calls that reached the provider: when, and whether its task has ended well.
    pub(super) tasks: BTreeMap<TaskId, (Tick, Option<bool>)>,
    pub(super) mood: Mood,
    pub(super) late: bool,
    /// How long each step took, where somebody wants to know.
    pub steps: Option<Vec<Duration>>,
    /// A mistake that every process is born with.
    pub bug: Option<Bug>,
    /// What happens to each request about a group's Lease, by its number.
    pub(super) fates: BTreeMap<u64, Fate>,
    /// How many of them there were.
    pub(super) asked: u64,
}

impl Cluster {
    /// So many nodes, none started; every IP is routed nowhere.
    pub fn new(nodes: usize, config: Config) -> Self {
        let machine = || Machine {
            core: None,
            process: 0,
            saved: Saved::default(),
            nic: BTreeMap::new(),
            facts: NodeFacts::default(),
            api: true,
            watch: true,
            provider: true,
            asleep: Tick(0),
        };
        let ips = config.groups.values().flat_map(|group| group.ips.keys());
        Self {
            now: Tick(0),
            log: Vec::new(),
            recording: true,
            counts: vec![BTreeMap::new(); nodes],
            routes: ips.map(|ip| (*ip, Routed::Nowhere)).collect(),
            config,
            machines: (0..nodes).map(|_| machine()).collect(),
            queue: BTreeMap::new(),
            queued: 0,
            objects: BTreeMap::new(),
            snapshot: BTreeMap::new(),
            version: 0,
            tasks: BTreeMap::new(),
            mood: Mood::Well,
            late: false,
            steps: None,
            bug: None,
            fates: BTreeMap::new(),
            asked: 0,
        }
    }

    /// The same with all nodes started, after so long.
    pub fn started(nodes: usize, config: Config, settle: Span) -> Self {
        let mut cluster = Self::new(nodes, config);
        (0..nodes).for_each(|node| cluster.boot(node));
        cluster.run(settle);
        cluster
    }

    pub fn boot(&mut self, number: usize) {
        if self.machines[number].core.is_some() {
            return;
        }
        let machine = &mut self.machines[number];
        machine.process += 1;
        machine.asleep = Tick(0);
        let start = Start {
            config: Config { node: node(number), ..self.config.clone() },
            identity: Identity {
                host: format!("host-{number}"),
                boot: "boot".into(),
                nonce: format!("{number}-{}", machine.process),
            },
            saved: machine.saved.clone(),
            seed: u64::try_from(number).unwrap() + 1000 * u64::from(machine.process),
        };
        let (mut core, actions) = Core::start(start, self.now);
        if let Some(bug) = self.bug {
            core.plant(bug);
        }
        machine.core = Some(core);
        self.carry_out(number, actions);
        self.dump(number);
        self.tell(number, HOP, Event::Link { up: true, default_route: true });
        if self.machines[number].provider {
            let home = Home { server: server(number), mac: Mac([2, 0, 0, 0, 0, 0]) };
            self.tell(number, Span::millis(60), Event::Home(Ok(home)));
        }
    }

    /// Ends the process without any parting word.
    pub fn kill(&mut self, number: usize) {
        if self.machines[number].core.take().is_some() {
            self.note(number, What::Died);
        }
    }

    pub fn object(&self, key: &Key) -> Option<&Stored> {
        self.objects.get(key)
    }

    /// Is the address tagged as ours on this node's NIC?
    pub fn has(&self, number: usize, host: IpAddr) -> bool {
        matches!(self.machines[number].nic.get(&host), Some(Some(until)) if self.now < *until)
    }

    /// When calls reached the provider.
    pub fn calls(&self) -> Vec<Tick> {
        let mut calls: Vec<Tick> = self.tasks.values().map(|(at, _)| *at).collect();
        calls.sort_unstable();
        calls
    }

    /// Counts of actions per node since the last time.
    pub fn take_counts(&mut self) -> Vec<BTreeMap<&'static str, u64>> {
        let none = vec![BTreeMap::new(); self.machines.len()];
        std::mem::replace(&mut self.counts, none)
    }

    /// Lets so much time pass.
    pub fn run(&mut self, long: Span) {
        let end = self.now + long;
        while self.advance(end) {}
    }

    /// Goes on to the next thing that happens before `end`; `false` where nothing does.
    pub fn advance(&mut self, end: Tick) -> bool {
        let wakes = self.machines.iter().enumerate().filter_map(|(number, machine)| {
            let at = machine.core.as_ref()?.deadline().max(machine.asleep);
            Some((at.max(self.now + Span::millis(1)), number))
        });
        let wake = wakes.min().unwrap_or((Tick::NEVER, 0));
        let next = self.queue.keys().next().map_or(Tick::NEVER, |(at, _)| *at);
        if wake.0.min(next) > end {
            self.now = end;
            return false;
        }
        self.now = self.now.max(wake.0.min(next));
        self.expire_addresses();
        if next > wake.0 {
            self.step(wake.1, Event::Wake);
        } else if let Some((_, due)) = self.queue.pop_first() {
            self.happen(due);
        }
        true
    }

    pub(super) fn hosts(&self) -> Vec<IpAddr> {
        let groups = self.config.groups.values();
        groups.flat_map(|group| group.ips.values().flatten().copied()).collect()
    }

    /// What the kernel does by itself.
    fn expire_addresses(&mut self) {
        for number in 0..self.machines.len() {
            let (now, before) = (self.now, self.machines[number].nic.len());
            self.machines[number].nic.retain(|_, until| until.is_none_or(|until| now < until));
            if self.machines[number].nic.len() < before {
                self.dump(number);
            }
        }
    }

    pub(super) fn dump(&mut self, number: usize) {
        let nic = self.machines[number].nic.iter();
        let seen = nic.map(|(host, until)| SeenAddress { host: *host, ours: until.is_some() });
        let seen = seen.collect();
        self.tell(number, Span::millis(1), Event::Addresses(seen));
    }

    pub(super) fn plan(&mut self, after: Span, due: Due) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), due);
    }

    pub(super) fn tell(&mut self, number: usize, after: Span, event: Event) {
        let process = self.machines[number].process;
        self.plan(after, Due::Event(number, process, event));
    }

    fn note(&mut self, node: usize, what: What) {
        if self.recording {
            let process = self.machines[node].process;
            self.log.push(Entry { at: self.now, node, process, what });
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Event(number, process, event) => {
                let machine = &self.machines[number];
                if machine.process != process {
                    return;
                }
                if self.now < machine.asleep {
                    let left = self.now.until(machine.asleep);
                    return self.plan(left, Due::Event(number, process, event));
                }
                self.step(number, event);
            }
            Due::Reaches(number, process, action, back) => {
                self.reaches(number, process, action, back);
            }
            Due::Boots(number) => self.boot(number),
            Due::Lands(task, ip, to) => {
                let well = self.mood != Mood::TasksFail;
                if let Some((_, end)) = self.tasks.get_mut(&task) {
                    *end = Some(well);
                }
                if well {
                    self.routes.insert(ip, Routed::To(to));
                }
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a measurement of this machine, not a decision")]
    pub(super) fn step(&mut self, number: usize, event: Event) {
        let now = self.now;
        if self.recording {
            self.note(number, What::Heard(event.clone()));
        }
        let Some(core) = self.machines[number].core.as_mut() else { return };
        let begun = std::time::Instant::now();
        let actions = core.step(now, event);
        if let Some(steps) = &mut self.steps {
            steps.push(begun.elapsed());
        }
        self.carry_out(number, actions);
    }

    fn carry_out(&mut self, number: usize, actions: Vec<Action>) {
        let exits = actions.contains(&Action::Exit);
        for action in actions {
            if self.machines[number].core.is_none() {
                return;
            }
            *self.counts[number].entry(kind(&action)).or_default() += 1;
            if self.recording {
                self.note(number, What::Did(action.clone()));
            }
            self.act(number, action);
        }
        // What came with it is still carried out.
        if exits {
            self.kill(number);
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        let process = self.machines[number].process;
        match action {
            Action::Read { .. } | Action::List { .. } | Action::ReadNode { .. } => {
                self.request(number, process, action, HOP);
            }
            Action::Write { .. } => {
                let way = if self.late { Span::secs(1 + self.queued % 5) } else { HOP };
                self.request(number, process, action, way);
            }
            Action::ReadRoutes { ticket } => {
                let date = Some(self.provider_time());
                let result = match self.machines[number].provider {
                    true => Ok(Listing { routes: self.routes.clone(), ..Listing::default() }),
                    false => Err(ProviderFailure::Retry { why: "no answer".into(), after: None }),
                };
                self.tell(number, Span::millis(50), Event::Routes { ticket, result, date });
            }
            Action::Route { ticket, ip, to, not_after, .. } => {
                self.route(number, ticket, ip, to.name, not_after);
            }
            Action::ReadTask { ticket, task } => {
                let state = match self.tasks.get(&task) {
                    Some((_, None)) => TaskState::Running,
                    Some((_, Some(true))) => TaskState::Done,
                    Some((_, Some(false))) => TaskState::Failed("failed".into()),
                    None => TaskState::NotFound,
                };
                self.tell(number, Span::millis(30), Event::Task { ticket, result: Ok(state) });
            }
            Action::ReadPastCalls { ticket } => {
                let past = self.tasks.iter();
                let past = past.map(|(task, (at, _))| PastCall {
                    task: task.clone(),
                    at: ProviderTime(EPOCH + at.0),
                });
                let result = Ok(Some(past.collect()));
                self.tell(number, Span::millis(30), Event::PastCalls { ticket, result });
            }
            Action::PutAddress { host, lifetime } => {
                let nic = &mut self.machines[number].nic;
                let result = match nic.get(&host) {
                    Some(None) => Err(AddressFailure::Stranger),
                    Some(Some(_)) | None => {
                        nic.insert(host, Some(self.now + lifetime));
                        Ok(())
                    }
                };
                self.tell(number, Span::millis(1), Event::AddressPut { host, result });
            }
            Action::RemoveAddress { host } => {
                let nic = &mut self.machines[number].nic;
                nic.retain(|known, until| *known != host || until.is_none());
                self.dump(number);
            }
            Action::Save(saved) => self.machines[number].saved = saved,
            Action::Exit | Action::Announce { .. } | Action::Note(_) => {}
        }
    }

    fn request(&mut self, number: usize, process: u32, action: Action, way: Span) {
        if let Some(fate) = self.fate(&action) {
            return self.strike(fate, number, action);
        }
        if !self.machines[number].api || way > TIMEOUT {
            let after = if way > TIMEOUT { TIMEOUT } else { Span::millis(5) };
            self.tell(number, after, failed(&action));
        }
        if self.machines[number].api {
            self.plan(way, Due::Reaches(number, process, action, HOP));
        }
    }

    fn reaches(&mut self, number: usize, process: u32, action: Action, back: Span) {
        let event = match action {
            Action::Read { ticket, key } => {
                let result = Ok(self.objects.get(&key).cloned());
                Event::Read { ticket, key, result }
            }
            Action::List { ticket } => {
                let all = self.objects.iter();
                let all = all.map(|(key, stored)| (key.clone(), stored.clone())).collect();
                Event::Listed { ticket, result: Ok(all) }
            }
            Action::ReadNode { ticket } => {
                let facts = self.machines[number].facts.clone();
                Event::Node { ticket, result: Ok(Some(facts)) }
            }
            Action::Write { ticket, key, version, doc } => {
                let known = self.objects.get(&key).map(|stored| &stored.version);
                let blind = version.as_ref().is_some_and(|version| version.0.is_empty());
                let result = match blind || known == version.as_ref() {
                    true => {
                        let version = ResourceVersion(String::new());
                        Ok(self.put(&key, Some(Stored { version, doc: doc.into() })))
                    }
                    false => Err(ApiFailure::Conflict),
                };
                Event::Written { ticket, key, result }
            }
            other => unreachable!("{other:?} is no request to the API"),
        };
        self.plan(back, Due::Event(number, process, event));
    }

    /// Changes an object and tells every watch.
    pub(super) fn put(&mut self, key: &Key, stored: Option<Stored>) -> ResourceVersion {
        self.version += 1;
        let version = ResourceVersion(self.version.to_string());
        let stored = stored.map(|stored| Stored { version: version.clone(), ..stored });
        match stored.clone() {
            Some(stored) => self.objects.insert(key.clone(), stored),
            None => self.objects.remove(key),
        };
        for number in 0..self.machines.len() {
            let machine = &self.machines[number];
            if machine.api && machine.watch {
                let event = Event::Watched { key: key.clone(), stored: stored.clone() };
                self.tell(number, Span::millis(6), event);
            }
        }
        version
    }
}
