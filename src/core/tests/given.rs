//! What the runs of a cluster begin with, and what they are disturbed by.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::cluster::{Cluster, Due, EPOCH, HOP, TIMEOUT};
use crate::core::action::Action;
use crate::core::config::{Api, Config, Drift, Group, LeaseTiming};
use crate::core::event::{Event, Ticket};
use crate::core::facts::{
    ApiFailure, Home, Key, ProviderFailure, ProviderTime, RouteOutcome, Routed, TaskId,
};
use crate::core::note::Note;
use crate::types::{FailoverIp, GroupName, Mac, NodeName, Server, ServerName, Span, Tick};

/// How the provider answers route calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    TasksFail,
    AnswersLost,
    Refuses,
    Throttles,
}

/// What a run may be disturbed by; node numbers count modulo the number of nodes.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Kill(usize),
    Boot(usize),
    Stop(usize),
    Cordon(usize),
    Uncordon(usize),
    Pause(usize, Span),
    Api(usize, bool),
    Watch(usize, bool),
    Provider(usize, bool),
    LateWrites(bool),
    Mood(Mood),
    Reroute(Option<usize>),
    EmptyHolder,
    DeleteLease,
    DeleteLedger,
    Snapshot,
    Restore,
    Stranger(usize),
}

pub fn node(number: usize) -> NodeName {
    format!("node-{number:02}").parse().unwrap()
}

pub fn server(number: usize) -> Server {
    Server {
        name: format!("v{}", number + 1).parse().unwrap(),
        number: u64::try_from(number).ok(),
        mac: Some(Mac([2, 0, 0, 0, 0, 0])),
    }
}

/// A configuration of so many groups with so many IPs each, of both families in turn.
pub fn config(groups: usize, ips: usize) -> Config {
    let ip = |number: usize| -> (FailoverIp, IpAddr) {
        match number.is_multiple_of(2) {
            true => {
                let text = format!("203.0.113.{}", number + 1);
                (text.parse().unwrap(), text.parse().unwrap())
            }
            false => (
                format!("2001:db8:0:{number:x}::/64").parse().unwrap(),
                format!("2001:db8:0:{number:x}::1").parse().unwrap(),
            ),
        }
    };
    let group = |number: usize| {
        let numbers = number * ips..(number + 1) * ips;
        let ips = numbers.map(ip).map(|(ip, host)| (ip, BTreeSet::from([host]))).collect();
        (format!("g{number}").parse::<GroupName>().unwrap(), Group { ips })
    };
    Config {
        node: node(0),
        account: "100000".parse().ok(),
        api: Api::Rest,
        groups: (0..groups).map(group).collect(),
        eligible: true,
        priority: 100,
        lease: LeaseTiming {
            duration: Span::secs(10),
            renew: Span::secs(2),
            timeout: TIMEOUT,
            margin: Span::secs(1),
        },
        dwell: Span::secs(30),
        dwell_cordon: Span::secs(2),
        api_grace: Span::secs(30),
        drift: Drift::Correct,
        announce: true,
        lifetime: Span::secs(45),
        checks: Vec::new(),
    }
}

impl Cluster {
    /// Disturbs the run.
    pub fn suffer(&mut self, fault: Fault) {
        let count = self.machines.len();
        match fault {
            Fault::Kill(number) => self.kill(number % count),
            Fault::Boot(number) => self.boot(number % count),
            Fault::Stop(number) => self.step(number % count, Event::Stop),
            Fault::Cordon(number) => self.cordon(number % count, true),
            Fault::Uncordon(number) => self.cordon(number % count, false),
            Fault::Pause(number, long) => self.machines[number % count].asleep = self.now + long,
            Fault::Api(number, on) => self.machines[number % count].api = on,
            Fault::Watch(number, on) => self.machines[number % count].watch = on,
            Fault::Provider(number, on) => self.machines[number % count].provider = on,
            Fault::LateWrites(on) => self.late = on,
            Fault::Mood(mood) => self.mood = mood,
            Fault::Reroute(to) => {
                let to = to.map_or(Routed::Nowhere, |to| Routed::To(server(to % (count + 1)).name));
                self.routes.values_mut().for_each(|routed| *routed = to.clone());
            }
            Fault::EmptyHolder => {
                let keys = self.config.groups.keys().map(|name| Key::Group(name.clone()));
                for key in keys.collect::<Vec<_>>() {
                    if let Some(mut stored) = self.objects.get(&key).cloned() {
                        Arc::make_mut(&mut stored.doc).holder = None;
                        self.put(&key, Some(stored));
                    }
                }
            }
            Fault::DeleteLease => {
                for name in self.config.groups.keys().cloned().collect::<Vec<_>>() {
                    self.put(&Key::Group(name), None);
                }
            }
            Fault::DeleteLedger => _ = self.put(&Key::Ledger, None),
            Fault::Snapshot => self.snapshot = self.objects.clone(),
            Fault::Restore => {
                let keys: BTreeSet<Key> =
                    self.objects.keys().chain(self.snapshot.keys()).cloned().collect();
                for key in keys {
                    let old = self.snapshot.get(&key).cloned();
                    self.put(&key, old);
                }
            }
            Fault::Stranger(number) => {
                let hosts = self.hosts();
                let nic = &mut self.machines[number % count].nic;
                for host in hosts {
                    nic.entry(host).or_insert(None);
                }
                self.dump(number % count);
            }
        }
    }

    /// Everything works again and every node runs.
    pub fn heal(&mut self) {
        (self.late, self.mood) = (false, Mood::Well);
        for number in 0..self.machines.len() {
            let machine = &mut self.machines[number];
            (machine.api, machine.watch, machine.provider) = (true, true, true);
            machine.asleep = Tick(0);
            machine.nic.retain(|_, until| until.is_some());
            self.cordon(number, false);
            self.dump(number);
            self.boot(number);
            let home = Home { server: server(number), mac: Mac([2, 0, 0, 0, 0, 0]) };
            self.tell(number, Span::millis(60), Event::Home(Ok(home)));
        }
    }

    /// Lease holder, target of every route and owner of every address are the same, and nobody else has one.
    pub fn converged(&self) -> bool {
        let mut holders = self.objects.iter().filter_map(|(key, stored)| match key {
            Key::Group(_) => stored.doc.holder.clone(),
            Key::Ledger | Key::Node(_) => None,
        });
        let has = |number: &usize| self.hosts().iter().any(|host| self.has(*number, *host));
        let owners: Vec<usize> = (0..self.machines.len()).filter(has).collect();
        let [owner] = owners[..] else { return false };
        holders.next() == Some(node(owner).to_string())
            && self.routes.values().all(|to| *to == Routed::To(server(owner).name))
    }

    fn cordon(&mut self, number: usize, on: bool) {
        self.machines[number].facts.cordoned = on;
        let facts = self.machines[number].facts.clone();
        self.tell(number, HOP, Event::NodeWatched(facts));
    }
}

impl Cluster {
    pub(super) fn provider_time(&self) -> ProviderTime {
        ProviderTime(EPOCH + self.now.0 / 1000 * 1000)
    }

    pub(super) fn route(
        &mut self,
        number: usize,
        ticket: Ticket,
        ip: FailoverIp,
        to: ServerName,
        until: Tick,
    ) {
        assert!(self.now < until, "a call that was given out too late");
        let started = Some(self.now);
        let date = Some(self.provider_time());
        let mut after = Span::millis(40);
        let outcome = if self.machines[number].provider {
            let task = TaskId(self.tasks.len().to_string());
            let end = match self.mood {
                Mood::Refuses | Mood::Throttles => Some(false),
                Mood::Well | Mood::TasksFail | Mood::AnswersLost => None,
            };
            self.tasks.insert(task.clone(), (self.now, end));
            if end.is_none() {
                self.plan(Span::millis(450), Due::Lands(task.clone(), ip, to));
            }
            match self.mood {
                Mood::Well | Mood::TasksFail => RouteOutcome::Accepted(task),
                Mood::AnswersLost => {
                    after = Span::secs(10);
                    RouteOutcome::Unknown("no answer".into())
                }
                Mood::Refuses => {
                    RouteOutcome::Refused(ProviderFailure::Retry { why: "503".into(), after: None })
                }
                Mood::Throttles => RouteOutcome::Refused(ProviderFailure::Budget {
                    why: "429".into(),
                    after: None,
                }),
            }
        } else {
            RouteOutcome::Unknown("no answer".into())
        };
        self.tell(number, after, Event::Route { ticket, started, outcome, date });
    }
}

/// How a request to the API ends that nobody answers.
pub fn failed(request: &Action) -> Event {
    let failure = ApiFailure::Unknown("no answer".into());
    match request {
        Action::Read { ticket, key } => {
            Event::Read { ticket: *ticket, key: key.clone(), result: Err(failure) }
        }
        Action::List { ticket } => Event::Listed { ticket: *ticket, result: Err(failure) },
        Action::ReadNode { ticket } => Event::Node { ticket: *ticket, result: Err(failure) },
        Action::Write { ticket, key, .. } => {
            Event::Written { ticket: *ticket, key: key.clone(), result: Err(failure) }
        }
        other => unreachable!("{other:?} is no request to the API"),
    }
}

/// A short word for an action.
pub fn kind(action: &Action) -> &'static str {
    match action {
        Action::Read { .. } => "read",
        Action::List { .. } => "list",
        Action::Write { .. } => "write",
        Action::ReadNode { .. } => "read node",
        Action::ReadRoutes { .. } => "read routes",
        Action::Route { .. } => "route",
        Action::ReadTask { .. } => "read task",
        Action::ReadPastCalls { .. } => "read past calls",
        Action::PutAddress { .. } => "put",
        Action::RemoveAddress { .. } => "remove",
        Action::Announce { .. } => "announce",
        Action::Save(_) => "save",
        Action::Note(Note::Alarm { .. }) => "alarm",
        Action::Note(_) => "note",
        Action::Exit => "exit",
    }
}
