//! One core at a desk: what it asks for is answered by hand, or left lying.

use std::net::IpAddr;

use super::given::{config, node, server};
use crate::core::Core;
use crate::core::action::Action;
use crate::core::event::{Event, Identity, Start, Ticket};
use crate::core::facts::{
    ApiFailure, Doc, Home, Key, Listing, NodeFacts, PastCall, ProviderFailure, ProviderTime,
    RouteOutcome, Routed, Stored, TaskState,
};
use crate::core::ledger::{Call, End, Ledger};
use crate::core::note::Note;
use crate::core::peer::PeerRecord;
use crate::core::record::{Membership, Record};
use crate::core::saved::Saved;
use crate::types::{Epoch, FailoverIp, GroupName, Mac, ResourceVersion, Span, Tick};

/// What follows from an event is watched for this long: the pause between two writes of one object, and a bit.
const ECHO: Span = Span::millis(260);

/// The core, its clock, and what it waits for.
pub struct Desk {
    pub core: Core,
    pub now: Tick,
    /// The Lease and the ledger as the register has them.
    pub lease: Option<Stored>,
    pub ledger: Option<Stored>,
    /// The reads and lists that are refused.
    pub refuses: fn(&Action) -> bool,
    open: Vec<Action>,
    done: Vec<Action>,
    version: u64,
}

pub fn group() -> GroupName {
    "g0".parse().unwrap()
}

pub fn key() -> Key {
    Key::Group(group())
}

pub fn ip() -> FailoverIp {
    "203.0.113.1".parse().unwrap()
}

/// A sound record that another node wrote.
pub fn of_another(epoch: u64, renewal: u64) -> Record {
    Record {
        holder: Some(node(1)),
        duration: Span::secs(10),
        epoch: Epoch(epoch),
        renewal,
        by: Identity { host: "host-1".into(), boot: "boot".into(), nonce: "1-1".into() },
        handed: false,
        successor: None,
        ask: None,
        membership: Membership { account: "100000".into(), ips: ip().to_string(), protocol: 1 },
        intact: true,
    }
}

impl Desk {
    /// A process that has just started: host and provider's account are known, nothing was answered.
    pub fn new() -> Self {
        let start = Start {
            config: config(1, 1),
            identity: Identity { host: "host-0".into(), boot: "boot".into(), nonce: "0-1".into() },
            saved: Saved::default(),
            seed: 1,
        };
        let now = Tick(1000);
        let (core, actions) = Core::start(start, now);
        let (lease, ledger) = (None, None);
        let (open, done, refuses) = (vec![], vec![], (|_| false) as fn(&Action) -> bool);
        let mut desk = Self { core, now, lease, ledger, refuses, open, done, version: 1 };
        desk.file(actions);
        desk.ledger = Some(desk.stored(Ledger::default().doc()));
        desk.hear(Event::Addresses(vec![]));
        desk.hear(Event::Link { up: true, default_route: true });
        let home = Home { server: server(0), mac: Mac([2, 0, 0, 0, 0, 0]) };
        desk.hear(Event::Home(Ok(home)));
        desk
    }

    /// The same, after all objects were read.
    pub fn with(lease: Option<Doc>) -> Self {
        let mut desk = Self::new();
        desk.lease = lease.map(|doc| desk.stored(doc));
        desk.routine();
        desk.pass(Span::millis(300));
        desk
    }

    /// The holder, in authority, nothing of the Lease in flight, asking where the IP is routed since its term began.
    pub fn holding() -> Self {
        let given = Record { holder: Some(node(0)), handed: true, ..of_another(4, 7) };
        let mut desk = Self::with(Some(given.doc()));
        desk.listed(Ok(Routed::To(server(1).name)));
        assert!(desk.written(&key(), Ok(())));
        desk.pass_until(|action| matches!(action, Action::ReadRoutes { .. }));
        desk.routine();
        desk
    }

    pub fn stored(&mut self, doc: Doc) -> Stored {
        self.version += 1;
        Stored { version: ResourceVersion(self.version.to_string()), doc: doc.into() }
    }

    pub fn hear(&mut self, event: Event) {
        let actions = self.core.step(self.now, event);
        self.file(actions);
    }

    fn file(&mut self, actions: Vec<Action>) {
        self.open.extend(actions.iter().cloned());
        self.done.extend(actions);
    }

    /// Takes the newest request of this kind.
    fn take(&mut self, is: impl Fn(&Action) -> bool) -> Option<Action> {
        let at = self.open.iter().rposition(is)?;
        Some(self.open.remove(at))
    }

    /// Answers what every situation needs: reads, the own record, the address.
    pub fn routine(&mut self) {
        while let Some(action) = self.take(|action| routine_answer(action).is_some()) {
            if let Some(answer) = routine_answer(&action) {
                let event = answer(self, action);
                self.hear(event);
            }
        }
    }

    /// Lets time pass, with routine.
    pub fn pass(&mut self, long: Span) {
        let end = self.now + long;
        while self.core.deadline() <= end {
            self.now = self.core.deadline().max(self.now + Span::millis(1));
            self.hear(Event::Wake);
            self.routine();
        }
        self.now = end;
    }

    /// Lets time pass until a write of this object, or a request of this kind, lies open.
    pub fn pass_until(&mut self, is: fn(&Action) -> bool) {
        let end = self.now + Span::secs(90);
        while !self.open.iter().any(is) {
            assert!(self.now < end, "it never asked; open: {:?}", self.open);
            self.pass(Span::millis(1));
        }
    }

    /// Does a request of this kind wait for its answer?
    pub fn lies_open(&self, is: impl Fn(&Action) -> bool) -> bool {
        self.open.iter().any(is)
    }

    /// How often it has asked for such a thing.
    pub fn how_often(&self, is: impl Fn(&Action) -> bool) -> usize {
        self.done.iter().filter(|action| is(action)).count()
    }

    /// What it last told people of its role.
    pub fn last_change(&self) -> &str {
        let told = self.done.iter().rev().find_map(|action| match action {
            Action::Note(Note::Changed { text, .. }) => Some(text.as_str()),
            _ => None,
        });
        told.unwrap_or_default()
    }

    /// Somebody deletes the ledger, and it is seen at once.
    pub fn lose_ledger(&mut self) {
        self.ledger = None;
        self.reads(Key::Ledger, Ok(None));
    }

    /// The provider answers the question for past calls that lies open, if there is one.
    pub fn remembers(&mut self, result: Result<Option<Vec<PastCall>>, ProviderFailure>) {
        let asked = self.take(|action| matches!(action, Action::ReadPastCalls { .. }));
        let ticket = match asked {
            Some(Action::ReadPastCalls { ticket }) => ticket,
            Some(_) | None => Ticket(0),
        };
        self.hear(Event::PastCalls { ticket, result });
    }

    /// How often it has written its own record.
    pub fn words_of_its_own(&self) -> usize {
        let own = |action: &&Action| matches!(action, Action::Write { key: Key::Node(_), .. });
        self.done.iter().filter(own).count()
    }

    /// What it last wrote of itself.
    pub fn last_word(&self) -> PeerRecord {
        let own = |action: &Action| match action {
            Action::Write { key: Key::Node(_), doc, .. } => PeerRecord::parse(doc),
            _ => None,
        };
        self.done.iter().rev().find_map(own).unwrap()
    }

    /// To the first deadline at which more is done than the background's requests.
    pub fn wake_to_act(&mut self) {
        let before = self.done.len();
        while self.done[before..].iter().all(|action| word(action).is_none()) {
            self.now = self.core.deadline();
            self.hear(Event::Wake);
        }
    }

    /// Like `pass_until`, with every write of the Lease done.
    pub fn hold_until(&mut self, is: fn(&Action) -> bool) {
        while !self.open.iter().any(is) {
            self.pass(Span::millis(1));
            if self.open.iter().any(|open| matches!(open, Action::Write { key: Key::Group(_), .. }))
            {
                self.written(&key(), Ok(()));
            }
        }
    }

    /// Answers the write of an object that lies open; `false`: there is none.
    pub fn written(&mut self, wanted: &Key, result: Result<(), ApiFailure>) -> bool {
        let is = |action: &Action| matches!(action, Action::Write { key, .. } if key == wanted);
        let Some(Action::Write { ticket, key, doc, .. }) = self.take(is) else {
            let result = result.map(|()| ResourceVersion("0".into()));
            self.hear(Event::Written { ticket: Ticket(0), key: wanted.clone(), result });
            return false;
        };
        let result = result.map(|()| {
            let stored = self.stored(doc);
            let version = stored.version.clone();
            match key {
                Key::Group(_) => self.lease = Some(stored),
                Key::Ledger => self.ledger = Some(stored),
                Key::Node(_) => {}
            }
            version
        });
        self.hear(Event::Written { ticket, key, result });
        true
    }

    /// A quorum read of the Lease, sent and answered now.
    pub fn read(&mut self, lease: Option<Stored>) {
        self.reads(key(), Ok(lease));
    }

    /// A quorum read of this object, sent and answered now.
    pub fn reads(&mut self, key: Key, result: Result<Option<Stored>, ApiFailure>) {
        // Any ticket will do: what counts is that the core has it on its list of questions.
        let ticket = Ticket(u64::MAX);
        self.core.access.ask(ticket, self.now);
        self.hear(Event::Read { ticket, key, result });
    }

    /// The provider answers the question that lies open, if there is one.
    pub fn listed(&mut self, routed: Result<Routed, ProviderFailure>) {
        self.answered(
            routed.map(|to| Listing { routes: [(ip(), to)].into(), ..Listing::default() }),
        );
    }

    /// The same with a whole answer.
    pub fn answered(&mut self, result: Result<Listing, ProviderFailure>) {
        let asked = self.take(|action| matches!(action, Action::ReadRoutes { .. }));
        let ticket = match asked {
            Some(Action::ReadRoutes { ticket }) => ticket,
            Some(_) | None => Ticket(0),
        };
        let date = Some(ProviderTime(1_700_000_000_000 + self.now.0));
        self.hear(Event::Routes { ticket, result, date });
    }

    /// The provider answers the route call that lies open, if there is one.
    pub fn called(&mut self, outcome: RouteOutcome) {
        let asked = self.take(|action| matches!(action, Action::Route { .. }));
        let ticket = match asked {
            Some(Action::Route { ticket, .. }) => ticket,
            Some(_) | None => Ticket(0),
        };
        let sent = !matches!(outcome, RouteOutcome::NotSent(_));
        let started = sent.then_some(self.now);
        self.hear(Event::Route { ticket, started, outcome, date: None });
    }

    /// The provider answers the question for the task that lies open, if there is one.
    pub fn task(&mut self, result: Result<TaskState, ProviderFailure>) {
        let asked = self.take(|action| matches!(action, Action::ReadTask { .. }));
        let ticket = match asked {
            Some(Action::ReadTask { ticket, .. }) => ticket,
            Some(_) | None => Ticket(0),
        };
        self.hear(Event::Task { ticket, result });
    }

    /// What the core does about `event` at once and shortly after, with nothing answered, in short words.
    pub fn reaction(mut self, event: impl FnOnce(&mut Self)) -> String {
        self.done.clear();
        event(&mut self);
        let end = self.now + ECHO;
        while self.core.deadline() <= end {
            self.now = self.core.deadline().max(self.now + Span::millis(1));
            self.hear(Event::Wake);
        }
        let mut words: Vec<String> = Vec::new();
        for word in self.done.iter().filter_map(word) {
            if !words.contains(&word) {
                words.push(word);
            }
        }
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    }
}

type Answer = fn(&mut Desk, Action) -> Event;

/// How a request that belongs to every situation's background is answered.
fn routine_answer(action: &Action) -> Option<Answer> {
    match action {
        Action::List { .. } => Some(|desk, action| {
            let objects = [(key(), &desk.lease), (Key::Ledger, &desk.ledger)].into_iter();
            let objects = objects.filter_map(|(key, stored)| Some((key, stored.clone()?)));
            let result =
                if (desk.refuses)(&action) { Err(refusal()) } else { Ok(objects.collect()) };
            Event::Listed { ticket: ticket(&action), result }
        }),
        Action::Read { .. } => Some(|desk, action| {
            let refused = (desk.refuses)(&action);
            let Action::Read { ticket, key } = action else { unreachable!("{action:?}") };
            let stored = match &key {
                Key::Group(it) if *it == group() => desk.lease.clone(),
                Key::Group(_) => None,
                Key::Ledger => desk.ledger.clone(),
                Key::Node(_) => None,
            };
            let result = if refused { Err(refusal()) } else { Ok(stored) };
            Event::Read { ticket, key, result }
        }),
        Action::ReadNode { .. } => Some(|_, action| {
            let facts = Some(NodeFacts::default());
            Event::Node { ticket: ticket(&action), result: Ok(facts) }
        }),
        Action::Write { key: Key::Node(_), .. } => Some(|desk, action| {
            let Action::Write { ticket, key, doc, .. } = action else { unreachable!("{action:?}") };
            let version = desk.stored(doc).version;
            Event::Written { ticket, key, result: Ok(version) }
        }),
        Action::PutAddress { .. } => Some(|_, action| {
            let Action::PutAddress { host, .. } = action else { unreachable!("{action:?}") };
            let host: IpAddr = host;
            Event::AddressPut { host, result: Ok(()) }
        }),
        Action::Write { key: Key::Group(_) | Key::Ledger, .. }
        | Action::ReadRoutes { .. }
        | Action::Route { .. }
        | Action::ReadTask { .. }
        | Action::ReadPastCalls { .. }
        | Action::RemoveAddress { .. }
        | Action::Announce { .. }
        | Action::Save(_)
        | Action::Note(_)
        | Action::Exit => None,
    }
}

fn refusal() -> ApiFailure {
    ApiFailure::Refused("500 etcdserver: no space".into())
}

fn ticket(action: &Action) -> Ticket {
    match action {
        Action::List { ticket } | Action::ReadNode { ticket } => *ticket,
        other => unreachable!("{other:?} is not asked here"),
    }
}

/// An action in short words; `None`: routine that every situation has.
fn word(action: &Action) -> Option<String> {
    Some(match action {
        Action::Write { key: Key::Group(_), doc, .. } => {
            let record = Record::parse(doc);
            match &record.holder {
                Some(to) if record.handed => format!("hand to {to}"),
                _ if record.duration == Span::secs(33) => "linger".to_owned(),
                _ if record.renewal == 0 => format!("take {}", record.epoch),
                _ => format!("renew {}", record.epoch),
            }
        }
        Action::Write { key: Key::Ledger, doc, .. } => {
            let ledger = Ledger::parse(doc).unwrap_or_default();
            let last = ledger.calls().last().cloned();
            match last {
                Some(Call { end: None, .. }) => "intend".to_owned(),
                Some(Call { end: Some(End { result, .. }), .. }) => format!("write {result:?}"),
                None => "begin ledger".to_owned(),
            }
        }
        Action::Read { key: Key::Group(_), .. } => "read".to_owned(),
        Action::Read { key: Key::Ledger, .. } => "read ledger".to_owned(),
        Action::ReadRoutes { .. } => "look".to_owned(),
        Action::Route { .. } => "call".to_owned(),
        Action::ReadTask { .. } => "ask task".to_owned(),
        Action::ReadPastCalls { .. } => "ask past".to_owned(),
        Action::RemoveAddress { .. } => "remove".to_owned(),
        Action::Announce { .. } => "announce".to_owned(),
        Action::Exit => "exit".to_owned(),
        Action::Note(Note::Authority { until: Some(_), .. }) => "hold".to_owned(),
        Action::Note(Note::Authority { until: None, .. }) => "cease".to_owned(),
        Action::Note(Note::Alarm { code, .. }) => format!("alarm {code}"),
        Action::PutAddress { .. } => "put".to_owned(),
        Action::Read { key: Key::Node(_), .. }
        | Action::Write { key: Key::Node(_), .. }
        | Action::List { .. }
        | Action::ReadNode { .. }
        | Action::Save(_)
        | Action::Note(
            Note::Ready { .. }
            | Note::Observed { .. }
            | Note::Changed { .. }
            | Note::AlarmOver { .. },
        ) => return None,
    })
}
