//! The Kubernetes API: objects with versions, compare-and-swap, a watch, and what happens on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::befall::new_name;
use super::fault::{Cut, Edit, Fault, Part, Refusal};
use super::setup::node_name;
use super::world::{Item, World};
use crate::core::event::{Event, Ticket};
use crate::core::facts::{ApiFailure, Doc, Key, NodeFacts, Stored};
use crate::types::ResourceVersion;

/// The store.
#[derive(Debug, Default)]
pub(crate) struct ApiServer {
    objects: BTreeMap<Key, Rc<Stored>>,
    version: u64,
    /// The objects of the last snapshot, and the version that it was taken at.
    snapshot: (BTreeMap<Key, Rc<Stored>>, u64),
    queued: Vec<Rc<Request>>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Read(Key),
    List,
    Write {
        key: Key,
        version: Option<ResourceVersion>,
        doc: Doc,
    },
    Node,
    /// The list of all Nodes, which no ticket of the core asks for.
    Nodes,
}

impl Part {
    fn has(&self, op: &Op) -> bool {
        match (self, op) {
            (Self::List, Op::List)
            | (Self::Reads, Op::Read(_) | Op::Node)
            | (Self::Writes, Op::Write { .. })
            | (Self::Everything, _) => true,
            (Self::Object(it), Op::Read(key) | Op::Write { key, .. })
            | (Self::Write(it), Op::Write { key, .. }) => it == key,
            _ => false,
        }
    }
}

/// One request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) machine: usize,
    pub(crate) process: usize,
    pub(crate) ticket: Ticket,
    pub(crate) op: Op,
}

impl ApiServer {
    pub(crate) fn doc(&self, key: &Key) -> Option<&Doc> {
        self.objects.get(key).map(|s| &*s.doc)
    }

    pub(crate) fn docs(&self) -> BTreeMap<Key, Doc> {
        self.objects.iter().map(|(key, s)| (key.clone(), (*s.doc).clone())).collect()
    }

    fn put(&mut self, key: &Key, doc: Doc) -> ResourceVersion {
        self.version += 1;
        let version = ResourceVersion(self.version.to_string());
        self.objects
            .insert(key.clone(), Rc::new(Stored { version: version.clone(), doc: doc.into() }));
        version
    }
}

impl Request {
    fn failed(&self, failure: ApiFailure) -> Event {
        let ticket = self.ticket;
        match &self.op {
            Op::Read(key) => Event::Read { ticket, key: key.clone(), result: Err(failure) },
            Op::List => Event::Listed { ticket, result: Err(failure) },
            Op::Write { key, .. } => {
                Event::Written { ticket, key: key.clone(), result: Err(failure) }
            }
            // Invariant: the core asks for no list of Nodes, and nothing answers one.
            Op::Node | Op::Nodes => Event::Node { ticket, result: Err(failure) },
        }
    }
}

impl World {
    /// Sends a request. It is answered within the timeout, one way or the other.
    pub(crate) fn request(&mut self, request: Request) {
        let (machine, process, ticket) = (request.machine, request.process, request.ticket);
        let timeout = self.machines[machine].config.lease.timeout.0 * 1000;
        let event = request.failed(ApiFailure::Unknown("no answer in time".into()));
        self.plan(timeout, Item::Answer { machine, process, ticket, event });
        match self.api_cut(machine) {
            Some(Cut::Refused) => {
                let event = request.failed(ApiFailure::Unknown("connection refused".into()));
                let after = self.rng.within(200, 20_000);
                return self.plan(after, Item::Answer { machine, process, ticket, event });
            }
            Some(Cut::Silent) => return,
            None => {}
        }
        let here = 1 << machine;
        if self.any(|f| matches!(f, Fault::Denied { nodes, .. } if nodes & here != 0)) {
            let event = request.failed(ApiFailure::Denied("forbidden".into()));
            let after = self.rng.within(1000, 20_000);
            return self.plan(after, Item::Answer { machine, process, ticket, event });
        }
        if let Some(how) = self.part_cut(machine, &request.op) {
            return self.refuse(&request, how);
        }
        let late = matches!(request.op, Op::Write { .. })
            && self.any(|f| matches!(f, Fault::LateWrites { nodes, .. } if nodes & here != 0));
        let slow = self.any(|f| matches!(f, Fault::SlowApi { nodes, .. } if nodes & here != 0));
        let after = match () {
            () if late && self.rng.chance(50) => self.rng.within(2_000_000, 20_000_000),
            () if slow => self.rng.within(10_000, timeout),
            () => self.rng.within(300, 8_000),
        };
        self.plan(after, Item::Reaches { request: Rc::new(request), thawed: false });
    }

    /// How this part of the machine's access is cut, if it is.
    pub(crate) fn part_cut(&self, machine: usize, op: &Op) -> Option<Refusal> {
        self.active.values().find_map(|fault| match fault {
            Fault::ApiPart { nodes, part, how, .. }
                if nodes & (1 << machine) != 0 && part.has(op) =>
            {
                Some(*how)
            }
            _ => None,
        })
    }

    fn refuse(&mut self, request: &Request, how: Refusal) {
        let (machine, process, ticket) = (request.machine, request.process, request.ticket);
        let failure = match how {
            Refusal::Silent => return,
            Refusal::Denied => ApiFailure::Denied(self.rng.pick(&["401", "403"]).to_owned()),
            Refusal::Refused => {
                let status = self.rng.pick(&["429", "500", "503"]);
                let write = matches!(request.op, Op::Write { .. });
                if write && status == "500" && self.rng.chance(50) {
                    let _done = self.answer(request);
                }
                ApiFailure::Refused(status.to_owned())
            }
        };
        let event = request.failed(failure);
        let after = self.rng.within(1000, 20_000);
        self.plan(after, Item::Answer { machine, process, ticket, event });
    }

    /// The names of all Node objects, told once a minute where the API answers.
    pub(crate) fn tell_members(&mut self, machine: usize, process: usize) {
        if self.process(machine, process).is_none() {
            return;
        }
        let here = 1 << machine;
        let denied = self.any(|f| matches!(f, Fault::Denied { nodes, .. } if nodes & here != 0));
        if self.api_cut(machine).is_none()
            && !denied
            && self.part_cut(machine, &Op::Nodes).is_none()
        {
            let old = (0..self.machines.len()).map(node_name);
            let new = self.active.values().filter_map(|fault| match fault {
                Fault::Renamed { node, .. } => Some(new_name(*node)),
                _ => None,
            });
            let names = old.chain(new).map(|name| name.parse().unwrap()).collect();
            let event = Event::Members(names);
            self.plan(5_000, Item::Tell { machine, process, event });
        }
        self.plan(60_000_000, Item::Members { machine, process });
    }

    /// A request reaches the server.
    pub(crate) fn reaches(&mut self, request: &Rc<Request>, thawed: bool) {
        if !thawed && self.any(|f| matches!(f, Fault::ApiFrozen { .. })) {
            self.server.queued.push(Rc::clone(request));
            return;
        }
        let event = self.answer(request);
        let here = 1 << request.machine;
        let lossy =
            self.any(|f| matches!(f, Fault::LostAnswers { nodes, .. } if nodes & here != 0));
        if (lossy && self.rng.chance(50)) || self.api_cut(request.machine).is_some() {
            return;
        }
        let after = self.rng.within(300, 8_000);
        let (machine, process, ticket) = (request.machine, request.process, request.ticket);
        self.plan(after, Item::Answer { machine, process, ticket, event });
    }

    fn answer(&mut self, request: &Request) -> Event {
        let ticket = request.ticket;
        match &request.op {
            Op::Read(key) => {
                let result = Ok(self.server.objects.get(key).map(|s| (**s).clone()));
                Event::Read { ticket, key: key.clone(), result }
            }
            Op::List => {
                let all = self.server.objects.iter();
                let all = all.map(|(key, s)| (key.clone(), (**s).clone())).collect();
                Event::Listed { ticket, result: Ok(all) }
            }
            Op::Write { key, version, doc } => {
                let stored = self.server.objects.get(key).map(|s| &s.version);
                // An update that names no version overwrites whatever is there.
                let blind = version.as_ref().is_some_and(|v| v.0.is_empty());
                let result = if stored == version.as_ref() || blind {
                    Ok(self.change(key, doc.clone()))
                } else {
                    Err(ApiFailure::Conflict)
                };
                Event::Written { ticket, key: key.clone(), result }
            }
            Op::Node | Op::Nodes => {
                Event::Node { ticket, result: Ok(Some(self.node_facts(request.machine))) }
            }
        }
    }

    pub(crate) fn node_facts(&self, machine: usize) -> NodeFacts {
        self.machines[machine].facts.clone()
    }

    pub(crate) fn change(&mut self, key: &Key, doc: Doc) -> ResourceVersion {
        let version = self.server.put(key, doc);
        self.publish(key);
        version
    }

    /// Tells every watch of a change.
    fn publish(&mut self, key: &Key) {
        let stored = self.server.objects.get(key).cloned();
        for machine in 0..self.machines.len() {
            self.watch(machine, key, stored.clone());
        }
    }

    fn watch_works(&self, machine: usize) -> bool {
        let here = 1 << machine;
        let silent = self.any(|f| {
            matches!(f, Fault::WatchSilent { nodes, .. } if nodes & here != 0)
                || matches!(f, Fault::ApiFrozen { .. })
        });
        !silent && self.api_cut(machine).is_none()
    }

    fn watch(&mut self, machine: usize, key: &Key, stored: Option<Rc<Stored>>) {
        let Some(process) = self.machines[machine].running.as_ref().map(|r| r.process) else {
            return;
        };
        if !self.watch_works(machine) {
            return;
        }
        let lag = self.active.values().find_map(|fault| match fault {
            Fault::WatchLag { nodes, lag, .. } if nodes & (1 << machine) != 0 => Some(lag.0 * 1000),
            _ => None,
        });
        let lag = self.rng.within(500, 40_000) + lag.unwrap_or(0);
        // Lag, but no reordering within one object.
        let last = self.machines[machine].watched.entry(key.clone()).or_default();
        let at = (self.now + lag).max(*last + 1);
        *last = at;
        let item = Item::Watched { machine, process, key: key.clone(), stored };
        if self.rng.chance(1) {
            self.plan_at(at + 1, item.clone());
        }
        self.plan_at(at, item);
    }

    /// The watch is opened anew: it begins with everything there is.
    pub(crate) fn watch_sync(&mut self, machine: usize, process: usize) {
        if self.process(machine, process).is_none() || !self.watch_works(machine) {
            return;
        }
        let gone: Vec<Key> = self.machines[machine].watched.keys().cloned().collect();
        for key in
            gone.into_iter().filter(|k| !self.server.objects.contains_key(k)).collect::<Vec<_>>()
        {
            self.watch(machine, &key, None);
        }
        for (key, stored) in self.server.objects.clone() {
            self.watch(machine, &key, Some(stored));
        }
    }

    /// The access of these machines is back: their watches follow soon.
    pub(crate) fn reopen_watches(&mut self, nodes: u8) {
        for machine in 0..self.machines.len() {
            let process = self.machines[machine].running.as_ref().map(|r| r.process);
            let Some(process) = process.filter(|_| nodes & (1 << machine) != 0) else { continue };
            let after = self.rng.within(50_000, 1_500_000);
            self.plan(after, Item::WatchSync { machine, process });
        }
    }

    /// The server goes on: what waited is carried out in any order, behind newer requests too.
    pub(crate) fn thaw_api(&mut self) {
        for request in std::mem::take(&mut self.server.queued) {
            let after = self.rng.within(0, 4_000_000);
            self.plan(after, Item::Reaches { request, thawed: true });
        }
        let all = self.all();
        self.reopen_watches(all);
    }

    pub(crate) fn edit(&mut self, key: &Key, how: Edit) {
        let Some(mut doc) = self.server.doc(key).cloned() else { return };
        match how {
            Edit::EmptyHolder => doc.holder = Some(String::new()),
            Edit::NoHolder => doc.holder = None,
            Edit::Holder(node) => doc.holder = Some(super::setup::node_name(node)),
            Edit::Stranger => doc.holder = Some("Somebody Else!".into()),
            Edit::Duration(seconds) => doc.duration = Some(seconds),
            Edit::Transitions(by) => doc.transitions = Some(doc.transitions.unwrap_or(0) + by),
            Edit::NoNotes => doc.notes.clear(),
            Edit::Nonsense => {
                for value in doc.notes.values_mut() {
                    *value = "{[\u{1F980}".into();
                }
            }
        }
        self.change(key, doc);
    }

    pub(crate) fn delete(&mut self, key: &Key) {
        if self.server.objects.remove(key).is_some() {
            self.publish(key);
        }
    }

    pub(crate) fn snapshot(&mut self) {
        self.server.snapshot = (self.server.objects.clone(), self.server.version);
    }

    /// The datastore goes back, its versions with it: they are given again, to other contents.
    pub(crate) fn restore(&mut self) {
        let (objects, version) = self.server.snapshot.clone();
        let gone = std::mem::replace(&mut self.server.objects, objects);
        self.server.version = version;
        let keys = gone.keys().chain(self.server.objects.keys());
        for key in keys.cloned().collect::<BTreeSet<_>>() {
            self.publish(&key);
        }
    }
}
