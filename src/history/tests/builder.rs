//! Writes small histories by hand: machines whose clocks are exact, one process each, lines in order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::core::action::Action;
use crate::core::config::{Api, Config, Drift, Group, LeaseTiming};
use crate::core::event::{Event, Identity, Start, Ticket};
use crate::core::facts::{Doc, Home, Key, Listing, RouteOutcome, Routed, SeenAddress, Stored};
use crate::core::note::Note;
use crate::core::saved::Saved;
use crate::history::facts::{AddressChange, Loss, Rerouted};
use crate::history::{
    Clock, Disturbance, Entry, History, Invariant, Process, ProviderCall, Real, Said, What, judge,
};
use crate::types::{Epoch, FailoverIp, GroupName, ResourceVersion, Server, ServerName, Span, Tick};

pub(crate) fn group() -> GroupName {
    "default".parse().unwrap()
}

pub(crate) fn ip() -> FailoverIp {
    "203.0.113.63".parse().unwrap()
}

pub(crate) fn host() -> IpAddr {
    "203.0.113.63".parse().unwrap()
}

pub(crate) fn server(n: usize) -> Server {
    Server { name: name(n), number: Some(n as u64), mac: None }
}

pub(crate) fn name(n: usize) -> ServerName {
    format!("v220{n}").parse().unwrap()
}

pub(crate) fn config(node: &str) -> Config {
    let hosts = BTreeSet::from([host()]);
    Config {
        node: node.parse().unwrap(),
        account: Some("100000".parse().unwrap()),
        api: Api::Rest,
        groups: BTreeMap::from([(group(), Group { ips: BTreeMap::from([(ip(), hosts)]) })]),
        eligible: true,
        priority: 100,
        lease: LeaseTiming {
            duration: Span::secs(10),
            renew: Span::secs(2),
            timeout: Span::secs(2),
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

/// A history being written. Times are milliseconds, the same on every clock.
pub(crate) struct Book {
    pub(crate) history: History,
    ticket: u64,
}

impl Book {
    /// `n` machines, each with one process from time zero on, nonces `n0`, `n1` and so on.
    pub(crate) fn new(n: usize) -> Self {
        let mut book = Self { history: History::default(), ticket: 0 };
        book.history.clocks.push(Clock::exact());
        for machine in 0..n {
            book.process(machine, 0);
        }
        book
    }

    /// One more process on a machine: its number.
    pub(crate) fn process(&mut self, machine: usize, began: u64) -> usize {
        let process = self.history.processes.len();
        let identity = Identity {
            host: format!("h{machine}"),
            boot: "b".into(),
            nonce: format!("n{process}"),
        };
        let config = config(&format!("node-{machine}"));
        let start = Start { config, identity, saved: Saved::default(), seed: 0 };
        let began = at(began);
        self.history.processes.push(Process { machine, clock: 0, start, began, ended: None });
        self.event(
            began.0 / 1000,
            process,
            Event::Home(Ok(Home {
                server: server(machine),
                mac: "02:00:00:00:00:01".parse().unwrap(),
            })),
        );
        process
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.ticket += 1;
        Ticket(self.ticket)
    }

    fn push(&mut self, ms: u64, process: usize, said: Said) {
        self.history.entries.push(Entry { at: at(ms), tick: Tick(ms), process, said });
        self.history.end = self.history.end.max(at(ms + 1));
    }

    pub(crate) fn event(&mut self, ms: u64, process: usize, event: Event) {
        self.push(ms, process, Said::Event(event));
    }

    pub(crate) fn action(&mut self, ms: u64, process: usize, action: Action) {
        self.push(ms, process, Said::Action(action));
    }

    pub(crate) fn wake(&mut self, ms: u64, process: usize) {
        self.event(ms, process, Event::Wake);
    }

    pub(crate) fn doc(&self, process: usize, holder: usize, epoch: i64) -> Doc {
        let notes = [
            ("nonce", format!("n{process}")),
            ("host", format!("h{holder}")),
            ("boot", "b".into()),
            ("renewal", self.ticket.to_string()),
        ];
        Doc {
            holder: Some(format!("node-{holder}")),
            duration: Some(10),
            transitions: Some(epoch),
            notes: notes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        }
    }

    /// A write over what the process saw or wrote last, answered well.
    pub(crate) fn write(&mut self, sent: u64, answered: u64, process: usize, key: Key, doc: Doc) {
        let version = self.last_version(process, &key);
        let ticket = self.ticket();
        let action = Action::Write { ticket, key: key.clone(), version, doc };
        self.wake(sent, process);
        self.action(sent, process, action);
        let result = Ok(ResourceVersion(format!("v{}", ticket.0)));
        self.event(answered, process, Event::Written { ticket, key, result });
    }

    fn last_version(&self, process: usize, key: &Key) -> Option<ResourceVersion> {
        self.history.entries.iter().rev().filter(|e| e.process == process).find_map(|e| {
            match &e.said {
                Said::Event(Event::Written { key: k, result: Ok(version), .. }) if k == key => {
                    Some(version.clone())
                }
                Said::Event(Event::Watched { key: k, stored: Some(s) }) if k == key => {
                    Some(s.version.clone())
                }
                Said::Event(_) | Said::Action(_) => None,
            }
        })
    }

    /// The process sees a record through the watch.
    pub(crate) fn sees(&mut self, ms: u64, process: usize, doc: Doc) {
        let version = ResourceVersion(format!("w{}", self.ticket().0));
        let stored = Some(Stored { version, doc: doc.into() });
        self.event(ms, process, Event::Watched { key: Key::Group(group()), stored });
    }

    /// A claim until then.
    pub(crate) fn claims(&mut self, ms: u64, process: usize, epoch: u64, until: Option<u64>) {
        let (group, until) = (group(), until.map(Tick));
        let note = Note::Authority { group, epoch: Epoch(epoch), until };
        self.action(ms, process, Action::Note(note));
    }

    /// Takes the Lease where it is missing and claims it: the write is sent at `ms`, answered 10 ms later.
    pub(crate) fn holds(&mut self, ms: u64, process: usize, epoch: i64) {
        let machine = self.history.processes[process].machine;
        let doc = self.doc(process, machine, epoch);
        self.holds_with(ms, process, epoch, doc);
    }

    pub(crate) fn holds_with(&mut self, ms: u64, process: usize, epoch: i64, doc: Doc) {
        if self.last_version(process, &Key::Group(group())).is_none() {
            let began = self.history.processes[process].began.0 / 1000;
            let ticket = self.ticket();
            let read = Event::Read { ticket, key: Key::Group(group()), result: Ok(None) };
            self.event(began, process, read);
        }
        self.write(ms, ms + 10, process, Key::Group(group()), doc);
        self.claims(ms + 10, process, epoch as u64, Some(ms + 9000));
    }

    /// Asks the provider and hears that the IP is at this machine's server (`None`: nowhere).
    pub(crate) fn looks(&mut self, asked: u64, answered: u64, process: usize, at: Option<usize>) {
        let routed = at.map_or(Routed::Nowhere, |n| Routed::To(name(n)));
        let listing = Listing { routes: BTreeMap::from([(ip(), routed)]), ..Listing::default() };
        let ticket = self.ticket();
        self.wake(asked, process);
        self.action(asked, process, Action::ReadRoutes { ticket });
        self.event(answered, process, Event::Routes { ticket, result: Ok(listing), date: None });
    }

    /// The intent of a call in the ledger, written and answered.
    pub(crate) fn intent(&mut self, sent: u64, answered: u64, process: usize, epoch: u64) {
        let machine = self.history.processes[process].machine;
        let text = format!(
            r#"[{{"id":"node-{machine}/n{process}/1","epoch":{epoch},"group":"default","ip":"{}",
            "node":"node-{machine}","to":"{}","at":1,"arrives":2,"end":null}}]"#,
            ip(),
            name(machine)
        );
        let notes = BTreeMap::from([("calls".to_owned(), text)]);
        self.write(sent, answered, process, Key::Ledger, Doc { notes, ..Doc::default() });
    }

    /// The call itself, answered 50 ms later.
    pub(crate) fn calls(&mut self, ms: u64, process: usize, epoch: u64, outcome: RouteOutcome) {
        let machine = self.history.processes[process].machine;
        let ticket = self.ticket();
        self.action(
            ms,
            process,
            Action::Route {
                ticket,
                epoch: Epoch(epoch),
                ip: ip(),
                to: server(machine),
                not_after: Tick(ms + 1000),
                timeout: Span::secs(5),
            },
        );
        let started = Some(Tick(ms));
        self.event(ms + 50, process, Event::Route { ticket, started, outcome, date: None });
    }

    /// The kernel's table at this process's machine: is the address there?
    pub(crate) fn table(&mut self, ms: u64, process: usize, present: bool) {
        let table = present.then(|| SeenAddress { host: host(), ours: true });
        self.event(ms, process, Event::Addresses(table.into_iter().collect()));
        let machine = self.history.processes[process].machine;
        let change = AddressChange { at: at(ms), machine, host: host(), present, ours: true };
        self.history.facts.addresses.push(change);
    }

    pub(crate) fn puts(&mut self, ms: u64, process: usize) {
        let lifetime = Span::secs(45);
        self.action(ms, process, Action::PutAddress { host: host(), lifetime });
    }

    pub(crate) fn routed(&mut self, ms: u64, to: usize) {
        let to = Some(name(to));
        self.history.facts.routes.push(Rerouted { at: at(ms), ip: ip(), to });
    }

    pub(crate) fn arrived(&mut self, ms: u64, by: usize) {
        let call =
            ProviderCall { arrived: at(ms), by: Some(by), ip: ip(), to: None, accepted: true };
        self.history.facts.calls.push(call);
    }

    pub(crate) fn trouble(&mut self, from: u64, to: u64, what: What) {
        self.history.facts.disturbances.push(Disturbance { from: at(from), to: at(to), what });
    }

    pub(crate) fn loss(&mut self, from: u64, to: u64) {
        let loss = Loss { ip: ip(), from: at(from), to: at(to) };
        self.history.facts.losses.get_or_insert_default().push(loss);
    }

    pub(crate) fn until(&mut self, ms: u64) {
        self.history.end = at(ms);
    }

    /// Which rules are broken.
    pub(crate) fn broken(&self) -> Vec<Invariant> {
        let mut broken: Vec<_> = judge(&self.history).iter().map(|v| v.invariant).collect();
        broken.dedup();
        broken
    }

    pub(crate) fn broken_text(&self) -> String {
        judge(&self.history).iter().map(|v| format!("{v}\n")).collect()
    }
}

pub(crate) fn at(ms: u64) -> Real {
    Real(ms * 1000)
}
