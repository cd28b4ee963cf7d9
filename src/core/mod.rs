//! The pure core: every decision is made here, from events and the time passed in.
//!
//! `step` takes in one event, then walks through the rules below in their order. Each rule compares what
//! should be with what is and asks for the difference, so that it does not matter which event came, only
//! what is known; a rule that has to wait leaves the moment at which it wants to look again.
//!
//! | file | rule |
//! | --- | --- |
//! | `slot`, `reads`, `answers` | requests to the Kubernetes API, what its answers tell, and whether it answers at all |
//! | `view`, `lock`, `bid` | what the Lease says, who has authority, who takes it next |
//! | `provider`, `clock` | where the IPs are routed, when that is asked, and what time it is there |
//! | `book`, `loss`, `ledger`, `budget` | the recent route calls, their list when it is lost, and what may still be spent |
//! | `ability` | what this node could serve now, and what it lacks |
//! | `target` | where an IP shall be routed |
//! | `gate` | what must be true before a route call, the lock aside |
//! | `route`, `way` | one IP's way from "elsewhere" to "here" |
//! | `claims` | what this node claims of the lock, for people and for the checker |
//! | `planned`, `witness` | giving the Lease away |
//! | `address` | what is on the NIC, and its announcement |
//! | `own`, `peer`, `health` | what nodes say of themselves |

mod ability;
pub mod action;
mod address;
mod answers;
mod bid;
mod book;
pub mod budget;
pub mod bug;
mod claims;
mod clock;
pub mod config;
pub mod event;
pub mod facts;
mod gate;
pub mod health;
pub mod ledger;
mod lock;
mod loss;
pub mod note;
mod own;
pub mod peer;
mod planned;
mod provider;
mod reads;
pub mod record;
mod route;
pub mod saved;
mod slot;
pub mod status;
mod target;
pub mod view;
mod way;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use action::Action;
use config::Config;
use event::{Event, Identity, Start, Ticket};
use facts::Key;
use note::Note;
use saved::Saved;

use crate::types::{FailoverIp, GroupName, NodeName, Span, Tick};

/// A process that wakes so late was stopped.
const OVERSLEPT: Span = Span::secs(1);

/// The state of one node's foip.
#[derive(Clone, Debug)]
pub struct Core {
    cfg: Config,
    me: Identity,
    started: Tick,
    now: Tick,
    wake: Tick,
    out: Vec<Action>,
    tickets: u64,
    jitter: u64,
    access: slot::Access,
    slots: BTreeMap<Key, slot::Slot>,
    reads: reads::Reads,
    locks: BTreeMap<GroupName, lock::Lock>,
    memberships: BTreeMap<GroupName, record::Membership>,
    /// Each group with its IPs, as this node's record tells them.
    groups: Arc<BTreeMap<GroupName, String>>,
    /// How many are fitter for each free group; `None` until somebody asks in this step.
    ranks: Option<BTreeMap<GroupName, u64>>,
    /// What this node lacks, found out once in each step.
    lacks: ability::Lacks,
    /// The groups that another node has with other IPs; `None` where that has to be looked at anew.
    divided: Option<BTreeSet<GroupName>>,
    provider: provider::Provider,
    book: book::Book,
    routes: BTreeMap<FailoverIp, way::Route>,
    addresses: address::Addresses,
    peers: BTreeMap<NodeName, peer::Peer>,
    /// The names of the cluster's Node objects; `None` until they were told.
    members: Option<BTreeSet<NodeName>>,
    own: own::Own,
    health: health::Health,
    alarms: BTreeMap<&'static str, String>,
    raised: BTreeMap<&'static str, String>,
    saved: Saved,
    saved_out: Saved,
    /// Since when this node could not route anything, had it to.
    unable: Option<Tick>,
    stopping: Option<Tick>,
    exited: bool,
    bug: Option<bug::Bug>,
    #[cfg(test)]
    wall: i64,
    #[cfg(test)]
    walls: BTreeMap<GroupName, i64>,
}

impl Core {
    /// Begins: the first actions are what has to be known first.
    pub fn start(start: Start, now: Tick) -> (Self, Vec<Action>) {
        let Start { config, identity, saved, seed } = start;
        let mut core = Self {
            started: now,
            now,
            wake: Tick::NEVER,
            out: Vec::new(),
            tickets: 0,
            jitter: seed,
            access: slot::Access::default(),
            slots: BTreeMap::new(),
            reads: reads::Reads::default(),
            locks: BTreeMap::new(),
            memberships: BTreeMap::new(),
            groups: Arc::default(),
            ranks: None,
            lacks: ability::Lacks::default(),
            divided: None,
            provider: provider::Provider::new(saved.home.clone()),
            book: book::Book::new(saved.calls.clone()),
            routes: BTreeMap::new(),
            addresses: address::Addresses::default(),
            peers: BTreeMap::new(),
            members: None,
            own: own::Own::default(),
            health: health::Health::default(),
            alarms: BTreeMap::new(),
            raised: BTreeMap::new(),
            saved: saved.clone(),
            saved_out: saved,
            unable: None,
            stopping: None,
            exited: false,
            bug: None,
            #[cfg(test)]
            wall: 0,
            #[cfg(test)]
            walls: BTreeMap::new(),
            cfg: config,
            me: identity,
        };
        core.fit_to_config(now);
        core.plan();
        let actions = std::mem::take(&mut core.out);
        (core, actions)
    }

    /// Takes in one event and says what to do about it.
    pub fn step(&mut self, now: Tick, event: Event) -> Vec<Action> {
        let late = now.since(self.wake);
        self.now = self.now.max(now);
        if late >= OVERSLEPT && !self.planted(bug::Bug::SleepsUnnoticed) {
            self.forget_what_was_read();
        }
        self.take_in(event);
        self.plan();
        std::mem::take(&mut self.out)
    }

    /// When the core wants `Event::Wake` if nothing happens before.
    pub fn deadline(&self) -> Tick {
        self.wake
    }

    /// Plants a mistake.
    #[cfg(test)]
    pub fn plant(&mut self, bug: bug::Bug) {
        self.bug = Some(bug);
    }

    /// Sets the wall clock (milliseconds since 1970 at tick zero) that some planted mistakes go by.
    #[cfg(test)]
    pub fn set_wall(&mut self, offset: i64) {
        self.wall = offset;
    }

    /// Is this mistake planted? Never outside test builds, whose simulation alone can plant one.
    fn planted(&self, bug: bug::Bug) -> bool {
        cfg!(test) && self.bug == Some(bug)
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Wake => {}
            Event::Read { ticket, key, result } => self.take_read(ticket, &key, result),
            Event::Listed { ticket, result } => self.take_list(ticket, result),
            Event::Watched { key, stored } => self.learn(&key, stored, None),
            Event::Written { ticket, key, result } => self.take_written(ticket, &key, result),
            Event::Node { ticket, result } => self.take_node(ticket, result),
            Event::NodeWatched(facts) => {
                self.reads.node_watched = Some(self.now);
                self.take_facts(facts);
            }
            Event::LocalApi(alive) => match alive {
                true => self.health.api_dead = None,
                false => _ = self.health.api_dead.get_or_insert(self.now),
            },
            Event::Home(result) => self.take_home(result),
            Event::Routes { ticket, result, date } => self.take_routes(ticket, result, date),
            Event::Route { ticket, started, outcome, date } => {
                self.take_route(ticket, started, outcome, date);
            }
            Event::Task { ticket, result } => self.take_task(ticket, result),
            Event::PastCalls { ticket, result } => self.take_past_calls(ticket, result),
            Event::Addresses(seen) => self.take_addresses(seen),
            Event::AddressPut { host, result } => self.take_address_put(host, result),
            Event::Link { up, default_route } => self.take_link(up, default_route),
            Event::Carry(carry) => self.addresses.take_carry(carry),
            Event::Members(names) => (self.members, self.divided) = (Some(names), None),
            Event::Renamed(name) => self.health.renamed = name,
            Event::Trouble(about, Some(why)) => _ = self.health.troubles.insert(about, why),
            Event::Trouble(about, None) => _ = self.health.troubles.remove(&about),
            Event::Check { name, passing: true, said: _ } => {
                self.health.failing.remove(&name);
            }
            Event::Check { name, passing: false, said } => {
                self.health.failing.insert(name, said);
            }
            Event::Stop => _ = self.stopping.get_or_insert(self.now),
            Event::Reload(config) => {
                if self.cfg.account != config.account {
                    self.change_account();
                }
                self.cfg = *config;
                self.provider.forgive();
                let Self { health, cfg, .. } = self;
                health.failing.retain(|name, _| cfg.checks.contains(name));
                for route in self.routes.values_mut() {
                    route.forgive();
                }
                self.take_groups();
            }
        }
    }

    /// The configuration's IPs in their groups are in force from now on.
    fn take_groups(&mut self) {
        let was: Vec<(FailoverIp, GroupName)> =
            self.routes.iter().map(|(ip, route)| (*ip, route.group.clone())).collect();
        self.fit_to_config(self.now + Span::millis(1));
        for (ip, route) in &mut self.routes {
            match was.iter().find(|(known, _)| known == ip).map(|(_, group)| group) {
                // What was asked before says nothing about an IP that was added.
                None => self.provider.added = self.now + Span::millis(1),
                Some(group) if *group != route.group => {
                    // The other group's holder routed it, which is no drift.
                    route.forget_here();
                    self.saved.reported.remove(ip);
                }
                Some(_) => {}
            }
        }
    }

    /// Walks through the rules. Wishes come first, then the writes that carry them out.
    fn plan(&mut self) {
        self.wake = Tick::NEVER;
        self.alarms.clear();
        self.ranks = None;
        self.watch_access();
        self.lacks = self.find_lacks();
        self.divided = Some(self.divided.take().unwrap_or_else(|| self.find_divided()));
        self.unable = match self.can_route() {
            true => None,
            false => self.unable.or(Some(self.now)),
        };
        if self.planted(bug::Bug::NeverUnable) {
            self.unable = None;
        }
        self.plan_health();
        self.plan_roles();
        self.plan_ills();
        self.plan_giving();
        self.plan_addresses();
        self.plan_routes();
        self.plan_witness();
        self.plan_own();
        self.plan_ledger();
        self.plan_leases();
        self.plan_provider_reads();
        self.plan_reads();
        self.plan_announcements();
        self.plan_exit();
        self.plan_alarms();
        self.plan_claims();
        self.plan_save();
    }

    /// Makes the state fit the configuration: at start, and when it was reloaded. New IPs are known from `since` on.
    fn fit_to_config(&mut self, since: Tick) {
        let groups = self.cfg.groups.clone();
        let account = self.cfg.account.as_ref().map(ToString::to_string).unwrap_or_default();
        let memberships = groups.iter().map(|(name, group)| {
            let ips: Vec<String> = group.ips.keys().map(ToString::to_string).collect();
            let (account, ips) = (account.clone(), ips.join(" "));
            (name.clone(), record::Membership { account, ips, protocol: config::PROTOCOL })
        });
        (self.memberships, self.divided) = (memberships.collect(), None);
        let told = self.memberships.iter().map(|(name, mine)| (name.clone(), mine.ips.clone()));
        self.groups = Arc::new(told.collect());
        self.addresses.configure(&groups);
        self.locks.retain(|name, _| groups.contains_key(name));
        for name in groups.keys() {
            let saved = self.saved.epochs.get(name).copied().unwrap_or_default();
            let started = self.started;
            self.locks.entry(name.clone()).or_insert_with(|| lock::Lock::new(saved, started));
            self.slots.entry(Key::Group(name.clone())).or_default();
        }
        // Without an account there is no ledger to ask for.
        if self.cfg.account.is_some() {
            self.slots.entry(Key::Ledger).or_default();
        }
        self.slots.entry(Key::Node(self.cfg.node.clone())).or_default();
        let configured = |ip: &FailoverIp| groups.values().any(|group| group.ips.contains_key(ip));
        let gone: Vec<FailoverIp> =
            self.routes.keys().copied().filter(|ip| !configured(ip)).collect();
        for ip in gone {
            if !self.planted(bug::Bug::RemembersTheRemoved) {
                self.provider.forget(ip);
            }
            if let Some(intent) = self.routes.remove(&ip).and_then(way::Route::intent) {
                self.withdraw(&intent);
            }
        }
        for (name, ip) in
            groups.iter().flat_map(|(name, group)| group.ips.keys().map(move |ip| (name, ip)))
        {
            let route = self.routes.entry(*ip).or_insert_with(|| way::Route::new(name, since));
            if route.group != *name {
                // What this node was for the IP's old group it was until now.
                (route.group, route.ended) = (name.clone(), route.ended.max(since));
            }
        }
        self.reads.list_wanted = true;
    }

    /// The nodes that have a record and a Node object: what somebody else wrote is no node's word.
    fn company(&self) -> impl Iterator<Item = (&NodeName, &peer::Peer)> {
        // Both are in order: they are walked through side by side.
        let mut members = self.known_members().map(|names| names.iter().peekable());
        self.peers.iter().filter(move |(name, _)| {
            members.as_mut().is_none_or(|members| {
                while members.next_if(|member| member < name).is_some() {}
                members.next_if(|member| member == name).is_some()
            })
        })
    }

    /// One of them.
    fn companion(&self, name: &NodeName) -> Option<&peer::Peer> {
        let member = self.known_members().is_none_or(|names| names.contains(name));
        self.peers.get(name).filter(|_| member)
    }

    /// A list without this very node is not the cluster's, or this node is not the cluster's.
    fn known_members(&self) -> Option<&BTreeSet<NodeName>> {
        self.members.as_ref().filter(|names| names.contains(&self.cfg.node))
    }

    fn at(&mut self, when: Tick) {
        // A moment that has come is either acted upon in this step or not waited for.
        if when > self.now {
            self.wake = self.wake.min(when);
        }
    }

    fn emit(&mut self, action: Action) {
        self.out.push(action);
    }

    fn note(&mut self, note: Note) {
        self.out.push(Action::Note(note));
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Up to `most`, different each time, the same in each replay (SplitMix64).
    fn jitter(&mut self, most: Span) -> Span {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.jitter;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Span((z ^ (z >> 31)) % (most.0 + 1))
    }

    fn group_of(&self, ip: FailoverIp) -> Option<&GroupName> {
        self.routes.get(&ip).map(|route| &route.group)
    }

    fn group_names(&self) -> Vec<GroupName> {
        self.locks.keys().cloned().collect()
    }

    fn alarm(&mut self, code: &'static str, text: String) {
        self.alarms.entry(code).or_insert(text);
    }

    fn plan_alarms(&mut self) {
        if self.planted(bug::Bug::RaisesNoAlarm) {
            self.alarms.clear();
        }
        if self.planted(bug::Bug::AlarmsForEver) {
            self.alarms.extend(self.raised.clone());
        }
        let over: Vec<&'static str> =
            self.raised.keys().copied().filter(|code| !self.alarms.contains_key(code)).collect();
        for code in over {
            self.raised.remove(code);
            self.note(Note::AlarmOver { code: code.to_owned() });
        }
        for (code, text) in std::mem::take(&mut self.alarms) {
            if !self.raised.contains_key(code) {
                self.note(Note::Alarm { code: code.to_owned(), text: text.clone() });
            }
            self.raised.insert(code, text);
        }
    }

    fn plan_save(&mut self) {
        for (name, lock) in &self.locks {
            self.saved.epochs.insert(name.clone(), lock.sight.highest);
        }
        if self.saved.calls != *self.book.ledger() {
            self.saved.calls = self.book.ledger().clone();
        }
        if self.saved != self.saved_out {
            self.saved_out = self.saved.clone();
            self.emit(Action::Save(self.saved.clone()));
        }
    }

    fn plan_exit(&mut self) {
        /// SIGTERM ends within 2 s whatever hangs; the driver needs some of it.
        const LINGER: Span = Span::millis(1500);
        let Some(since) = self.stopping else { return };
        let done = self.own.is_parted() && self.locks.values().all(lock::Lock::is_parted);
        if !self.exited && (done || self.now.since(since) >= LINGER) {
            self.exited = true;
            self.emit(Action::Exit);
        }
        self.at(since + LINGER);
    }
}

#[cfg(test)]
mod tests;
