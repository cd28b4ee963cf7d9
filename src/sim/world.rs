//! The loop: a queue of things to come, ordered by virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

use super::api::{ApiServer, Request};
use super::fault::{Cut, Fault, Trouble};
use super::kernel::Kernel;
use super::process::Running;
use super::provider::{Arrival, Provider, SECRETS};
use super::rng::Rng;
use super::setup::Setup;
use crate::core::config::Config;
use crate::core::event::{Event, Ticket};
use crate::core::facts::{Key, NodeFacts, Stored};
use crate::core::saved::Saved;
use crate::history::facts::{Ability, Bound, Disturbance, FinalState, Loss};
use crate::history::{Clock, History, Real};
use crate::types::{FailoverIp, GroupName, Mac, Server, ServerName, Span, Tick};

/// One machine: what survives its processes.
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) server: Server,
    pub(crate) mac: Mac,
    pub(crate) host: String,
    pub(crate) boots: u32,
    /// Index of this boot's clock in the history.
    pub(crate) clock: usize,
    pub(crate) ppm: i32,
    pub(crate) wall: i64,
    pub(crate) powered: bool,
    pub(crate) frozen: bool,
    pub(crate) running: Option<Running>,
    /// When the next process is started, where one is due.
    pub(crate) disk: Saved,
    pub(crate) kernel: Kernel,
    pub(crate) facts: NodeFacts,
    /// What the watch has shown, and until when each object's news are on their way.
    pub(crate) watched: BTreeMap<Key, u64>,
    /// What waits for the machine or its process to go on.
    pub(crate) held: VecDeque<Item>,
    /// The process dies when this many more actions are carried out, and is back then.
    pub(crate) dies: Option<(u32, Span)>,
}

/// Things to come.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Start { machine: usize, boot: u32 },
    Wake { machine: usize, process: usize, generation: u64 },
    Tell { machine: usize, process: usize, event: Event },
    Answer { machine: usize, process: usize, ticket: Ticket, event: Event },
    Reaches { request: Rc<Request>, thawed: bool },
    WatchSync { machine: usize, process: usize },
    Watched { machine: usize, process: usize, key: Key, stored: Option<Rc<Stored>> },
    Send { machine: usize, process: usize, call: Rc<Arrival> },
    Arrives { call: Rc<Arrival> },
    TaskEnds { task: usize },
    Home { machine: usize, process: usize },
    Members { machine: usize, process: usize },
    Table { machine: usize, process: usize },
    Expires { machine: usize, host: IpAddr, generation: u64 },
    Kill { machine: usize, process: usize, down: Span },
    Begin { fault: usize },
    End { fault: usize },
}

/// The world.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) ips: Vec<(GroupName, FailoverIp, IpAddr)>,
    /// All addresses of each of them.
    pub(crate) hosts: Vec<BTreeSet<IpAddr>>,
    pub(crate) rng: Rng,
    /// Microseconds.
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Item>,
    sequence: u64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) server: ApiServer,
    pub(crate) provider: Provider,
    pub(crate) script: Vec<(Span, Fault)>,
    pub(crate) active: BTreeMap<usize, Fault>,
    /// For each machine, how much later than others it gets its access to the API back.
    pub(crate) stagger: Vec<u64>,
    pub(crate) history: History,
    losing: BTreeMap<FailoverIp, Option<u64>>,
    /// What each machine cannot do now, and since when.
    pub(crate) lacking: Vec<BTreeMap<(Ability, bool), Real>>,
    /// That is to be looked at again.
    pub(crate) changed: bool,
    pub(crate) quiet: u64,
    started: bool,
}

impl World {
    /// A world of so many nodes, everything else as usual.
    pub(crate) fn new(nodes: usize) -> Self {
        Self::of(Setup::new(nodes))
    }

    pub(crate) fn of(setup: Setup) -> Self {
        let mut rng = Rng::new(setup.seed);
        let mut history = History::default();
        let mut machines = Vec::new();
        for node in 0..setup.nodes {
            let ppm = rng.within(0, 20_000) as i32 - 10_000;
            history.clocks.push(Clock::new(Real(0), Tick(rng.within(1000, 900_000_000)), ppm));
            let mac = Mac([2, 0, 0, 0, 0, node as u8]);
            machines.push(Machine {
                config: setup.config(node),
                server: Server {
                    name: format!("v220{}", node + 1).parse().unwrap(),
                    number: Some(node as u64 + 1),
                    mac: Some(mac),
                },
                mac,
                host: format!("host-{node}"),
                boots: 1,
                clock: node,
                ppm,
                wall: 1_790_000_000_000 + rng.within(0, 1_800_000) as i64 - 900_000,
                powered: true,
                frozen: false,
                running: None,
                disk: Saved::default(),
                kernel: Kernel::default(),
                facts: NodeFacts::default(),
                watched: BTreeMap::new(),
                held: VecDeque::new(),
                dies: None,
            });
        }
        if let Some((from, to)) = setup.clone {
            machines[to].host = machines[from].host.clone();
        }
        let provider = Provider::new(&setup, &mut rng);
        let stagger = (0..setup.nodes).map(|_| rng.within(0, 2_500_000)).collect();
        let mut world = Self {
            ips: setup.ips(),
            hosts: setup.hosts(),
            rng,
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            machines,
            server: ApiServer::default(),
            provider,
            script: Vec::new(),
            active: BTreeMap::new(),
            stagger,
            history,
            losing: BTreeMap::new(),
            lacking: vec![BTreeMap::new(); setup.nodes],
            changed: true,
            quiet: 0,
            started: false,
            setup,
        };
        let at = world.setup.at.map(|n| world.machines[n].server.name.clone());
        for (_, ip, _) in world.ips.clone() {
            world.reroute(ip, at.clone());
        }
        world.history.facts.losses = Some(Vec::new());
        world.history.facts.lacks = Some(Vec::new());
        world.history.facts.bound = Some(Bound { moves: 1, loss: Span::secs(90) });
        world.history.facts.secrets = SECRETS.map(str::to_owned).to_vec();
        world.history.facts.provider_time = Span(world.setup.task.1 + 600);
        world
    }

    /// Adds to the script: this happens so many seconds after the beginning.
    pub(crate) fn at(mut self, secs: u64, fault: Fault) -> Self {
        self.script.push((Span::secs(secs), fault));
        self
    }

    /// The same with another setup; the script stays.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = self.setup.clone();
        change(&mut setup);
        let script = std::mem::take(&mut self.script);
        Self { script, ..Self::of(setup) }
    }

    pub(crate) fn plan(&mut self, after: u64, item: Item) {
        self.plan_at(self.now + after, item);
    }

    pub(crate) fn plan_at(&mut self, at: u64, item: Item) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), item);
    }

    pub(crate) fn real(&self) -> Real {
        Real(self.now)
    }

    pub(crate) fn tick(&self, machine: usize) -> Tick {
        self.history.clocks[self.machines[machine].clock].tick(self.real())
    }

    fn begin(&mut self) {
        self.started = true;
        for machine in 0..self.machines.len() {
            let at = self.rng.within(0, 3_000_000);
            self.plan_at(at, Item::Start { machine, boot: 1 });
        }
        let ends = self.script.iter().map(|(at, fault)| (*at + fault.long()).0 * 1000);
        self.quiet = self.quiet.max(ends.max().unwrap_or(0));
        for (n, (at, fault)) in self.script.clone().into_iter().enumerate() {
            self.plan_at(at.0 * 1000, Item::Begin { fault: n });
            self.note_disturbance(Real(at.0 * 1000), &fault);
        }
    }

    fn note_disturbance(&mut self, from: Real, fault: &Fault) {
        let (moves, loss) = fault.cost();
        if let Some(bound) = &mut self.history.facts.bound {
            bound.moves += moves;
            bound.loss = bound.loss + fault.long() + loss;
        }
        if let Some(what) = fault.what(self.all()) {
            let mut to = from.plus(fault.long()).plus(super::truth::after(fault));
            if what == crate::history::What::Api {
                to = to.plus(Span::millis(2500));
            }
            self.history.facts.disturbances.push(Disturbance { from, to, what });
        }
    }

    /// This happens now, outside the script.
    pub(crate) fn inject(&mut self, fault: Fault) {
        self.note_disturbance(self.real(), &fault);
        self.script.push((Span(self.now / 1000), fault));
        self.begin_fault(self.script.len() - 1);
        self.note_lacks();
    }

    /// Bits of all nodes.
    pub(crate) fn all(&self) -> u8 {
        ((1_u16 << self.machines.len()) - 1) as u8
    }

    /// Lets time pass until so many seconds after the beginning.
    pub(crate) fn run(&mut self, until: u64) -> &mut Self {
        self.run_to(until * 1_000_000)
    }

    /// Lets time pass until so many microseconds after the beginning.
    pub(crate) fn run_to(&mut self, until: u64) -> &mut Self {
        if !self.started {
            self.begin();
        }
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), item) = entry.remove_entry();
            self.now = at;
            self.happen(item);
            if std::mem::take(&mut self.changed) {
                self.note_lacks();
            }
        }
        self.now = until;
        self
    }

    /// The history up to now, with the state of things as its end.
    pub(crate) fn finish(&mut self) -> History {
        self.end_lacks();
        let mut history = std::mem::take(&mut self.history);
        history.end = Real(self.now);
        for (ip, since) in &self.losing {
            if let Some(since) = since {
                let loss = Loss { ip: *ip, from: Real(*since), to: Real(self.now) };
                history.facts.losses.get_or_insert_default().push(loss);
            }
        }
        let up = (0..self.machines.len()).filter(|m| {
            let machine = &self.machines[*m];
            machine.powered && machine.running.as_ref().is_some_and(|r| !r.paused)
        });
        history.facts.last = Some(FinalState {
            docs: self.server.docs(),
            routes: self.provider.routes.clone(),
            up: up.collect(),
            quiet_since: Real(self.quiet),
            person_needed: false,
        });
        history
    }

    fn happen(&mut self, item: Item) {
        match item {
            Item::Start { machine, boot } => {
                let m = &mut self.machines[machine];
                if m.frozen {
                    m.held.push_back(Item::Start { machine, boot });
                    return;
                }
                if m.powered && m.boots == boot && m.running.is_none() {
                    self.start(machine);
                }
            }
            Item::Wake { machine, process, generation } => {
                let current = self.process(machine, process).map(|r| r.generation);
                if current != Some(generation) {
                    return;
                }
                let item = Item::Wake { machine, process, generation };
                if let Some(Item::Wake { .. }) = self.pass(machine, item) {
                    self.tell(machine, Event::Wake);
                }
            }
            Item::Tell { machine, process, event } => {
                if self.process(machine, process).is_none() {
                    return;
                }
                let item = Item::Tell { machine, process, event };
                if let Some(Item::Tell { event, .. }) = self.pass(machine, item) {
                    self.tell(machine, event);
                }
            }
            Item::Answer { machine, process, ticket, event } => {
                let running = self.process(machine, process);
                if running.is_some_and(|r| r.pending.remove(&ticket)) {
                    let item = Item::Tell { machine, process, event };
                    self.happen(item);
                }
            }
            Item::Reaches { request, thawed } => self.reaches(&request, thawed),
            Item::WatchSync { machine, process } => self.watch_sync(machine, process),
            Item::Watched { machine, process, key, stored } => {
                let stored = stored.map(|s| (*s).clone());
                let event = Event::Watched { key, stored };
                self.happen(Item::Tell { machine, process, event });
            }
            Item::Send { machine, process, call } => {
                if self.process(machine, process).is_none() {
                    return;
                }
                let item = Item::Send { machine, process, call };
                if let Some(Item::Send { call, .. }) = self.pass(machine, item) {
                    self.send(machine, &call);
                }
            }
            Item::Arrives { call } => self.arrives(&call),
            Item::TaskEnds { task } => self.task_ends(task),
            Item::Table { machine, process } => {
                let event = self.table(machine);
                self.happen(Item::Tell { machine, process, event });
            }
            Item::Home { machine, process } => self.find_home(machine, process),
            Item::Members { machine, process } => self.tell_members(machine, process),
            Item::Expires { machine, host, generation } => self.expires(machine, host, generation),
            Item::Kill { machine, process, down } => {
                if self.process(machine, process).is_some() {
                    self.kill(machine, down);
                }
            }
            Item::Begin { fault } => self.begin_fault(fault),
            Item::End { fault } => self.end_fault(fault),
        }
    }

    /// Lets an item through, or keeps it until the process or the machine goes on.
    fn pass(&mut self, machine: usize, item: Item) -> Option<Item> {
        let m = &mut self.machines[machine];
        let stopped = m.frozen || m.running.as_ref().is_some_and(|r| r.paused);
        if stopped {
            m.held.push_back(item);
            return None;
        }
        Some(item)
    }

    pub(crate) fn process(&mut self, machine: usize, process: usize) -> Option<&mut Running> {
        self.machines[machine].running.as_mut().filter(|r| r.process == process)
    }

    /// Notes for each IP whether a client's packet would arrive now.
    pub(crate) fn look_at_clients(&mut self) {
        for (n, (_, ip, _)) in self.ips.clone().into_iter().enumerate() {
            let hosts = &self.hosts[n];
            let to = self.provider.routes.get(&ip).cloned().flatten();
            let machine = self.machines.iter().position(|m| Some(&m.server.name) == to.as_ref());
            let arrives = machine.is_some_and(|n| {
                let m = &self.machines[n];
                let link = !self.any(|f| matches!(f, Fault::Link { node, .. } if *node == n));
                let way =
                    !self.any(|f| matches!(f, Fault::NoDefaultRoute { node, .. } if *node == n));
                m.powered
                    && link
                    && way
                    && !m.frozen
                    && hosts.iter().all(|host| m.kernel.has(*host))
            });
            let now = self.now;
            let since = self.losing.entry(ip).or_insert(Some(0));
            match (*since, arrives) {
                (Some(from), true) => {
                    let loss = Loss { ip, from: Real(from), to: Real(now) };
                    *since = None;
                    self.history.facts.losses.get_or_insert_default().push(loss);
                }
                (None, false) => *since = Some(now),
                (Some(_), false) | (None, true) => {}
            }
        }
    }

    pub(crate) fn any(&self, what: impl Fn(&Fault) -> bool) -> bool {
        self.active.values().any(what)
    }

    /// How this machine's access to the API is cut, if it is.
    pub(crate) fn api_cut(&self, machine: usize) -> Option<Cut> {
        self.active.values().find_map(|fault| match fault {
            Fault::Api { nodes, how, .. } if nodes & (1 << machine) != 0 => Some(*how),
            _ => None,
        })
    }

    /// What troubles this machine's requests to the provider.
    pub(crate) fn trouble(&self, machine: usize) -> Option<Trouble> {
        self.active.values().find_map(|fault| match fault {
            Fault::Provider { nodes, how, .. } if nodes & (1 << machine) != 0 => Some(*how),
            _ => None,
        })
    }

    // What scenarios ask.

    /// The node in the group's Lease.
    pub(crate) fn holder(&self, group: &str) -> Option<String> {
        self.server.doc(&Key::Group(group.parse().unwrap())).and_then(|d| d.holder.clone())
    }

    /// How many route calls arrived from the nodes so far.
    pub(crate) fn routes_called(&self) -> usize {
        self.history.facts.calls.iter().filter(|c| c.by.is_some()).count()
    }

    /// Is any of this in what a node's status shows now?
    pub(crate) fn shows(&self, texts: &[&str]) -> bool {
        self.machines.iter().enumerate().any(|(n, machine)| {
            let picture = machine.running.as_ref().map(|r| r.core.picture(self.tick(n)));
            let text = picture.map(|picture| format!("{picture:?}")).unwrap_or_default();
            texts.iter().any(|it| text.contains(it))
        })
    }

    /// Where the first IP is routed: a machine's number.
    pub(crate) fn routed(&self) -> Option<usize> {
        let to: Option<ServerName> = self.provider.routes.get(&self.ips[0].1).cloned().flatten();
        self.machines.iter().position(|m| Some(&m.server.name) == to.as_ref())
    }

    /// Has the machine's NIC the first IP's addresses?
    pub(crate) fn has_address(&self, node: usize) -> bool {
        self.hosts[0].iter().all(|host| self.machines[node].kernel.has(*host))
    }

    /// How long packets to the first IP were lost since so many seconds after the beginning.
    pub(crate) fn lost(&self, since: u64) -> Span {
        let since = Real::secs(since);
        let ip = self.ips[0].1;
        let over = self.history.facts.losses.iter().flatten().filter(|l| l.ip == ip);
        let over = over.map(|l| (l.from, l.to));
        let open = self.losing.get(&ip).copied().flatten().map(|from| (Real(from), Real(self.now)));
        let all = over.chain(open).filter(|(_, to)| *to > since);
        Span(all.map(|(from, to)| to.since(from.max(since)).0).sum())
    }
}
